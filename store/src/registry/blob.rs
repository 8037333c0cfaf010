//! A part of a blob, as it comes. It goes on by itself after a cut (RFC 9110, 14: Range), and at the next host when one fails for
//! good.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_RANGE, RANGE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::registry::body;
use crate::registry::client::Remote;
use crate::registry::exchange::{Ask, Host};
use crate::registry::fetch::nobody;
use crate::registry::ranges::BlobStream;
use crate::registry::retry::Tries;

/// After so many bytes without a cut, a host has all its tries again.
const PROGRESS: u64 = 1 << 20;

/// A part of a blob, by one connection at a time.
pub(super) struct Part {
    remote: Remote,
    blob: Descriptor,
    offset: u64,
    /// One past the last byte that is wanted: the blob's size, or a range's end.
    end: u64,
    /// Which host, as a place in the call's list.
    at: usize,
    body: Option<Response<Incoming>>,
    /// What still comes before the offset: a host that does not know ranges sends all.
    skip: u64,
    tries: u32,
    /// Since the last cut.
    came: u64,
    /// The host does not know ranges: it sends all, whatever it is asked for.
    sends_all: bool,
}

impl Remote {
    /// A blob from this offset on. Where it can be had otherwise (`urls`) is never asked: those are hosts that the image names, and
    /// not the user (CVE-2020-15157).
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        BlobStream::open(self, descriptor, offset).await
    }

    /// A part of a blob.
    pub(super) async fn part(&self, descriptor: &Descriptor, offset: u64, end: u64) -> Result<Part> {
        if offset > end || end > descriptor.size {
            return Err(Error::invalid(format!("the blob {} has no bytes {offset} to {end}", descriptor.digest)));
        }
        let mut part = Part {
            remote: self.clone(),
            blob: descriptor.clone(),
            offset,
            end,
            at: 0,
            body: None,
            skip: 0,
            tries: 1,
            came: 0,
            sends_all: false,
        };
        // What is refused is refused before anything is made ready for it.
        if offset < end {
            part.open().await?;
        }
        Ok(part)
    }
}

impl Part {
    /// The next bytes, or nothing at the part's end: then exactly as many came as were asked for.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let patience = self.remote.0.shared.http.patience.stall;
        loop {
            if self.offset == self.end {
                self.body = None;
                return Ok(None);
            }
            let Some(response) = &mut self.body else {
                self.open().await?;
                continue;
            };
            let why = match body::piece(response.body_mut(), patience).await {
                Ok(Some(mut bytes)) => {
                    let skipped = self.skip.min(bytes.len() as u64);
                    self.skip -= skipped;
                    bytes.advance(usize::try_from(skipped).unwrap_or_default());
                    // A host that sends all although a part is wanted.
                    let wanted = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
                    bytes.truncate(wanted);
                    if bytes.is_empty() {
                        continue;
                    }
                    self.offset += bytes.len() as u64;
                    self.came += bytes.len() as u64;
                    if self.came >= PROGRESS {
                        self.tries = 1;
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) => "it ends too early".to_owned(),
                Err(why) => why,
            };
            self.body = None;
            let error = Error::unavailable(format!(
                "registry {}: {}: {why}, after {} of {} bytes",
                self.host(),
                self.what(),
                self.offset,
                self.blob.size
            ));
            self.again(error).await?;
        }
    }

    /// Goes on to the blob's end, if all is sent anyway.
    pub(super) fn take_all(&mut self) -> bool {
        if self.sends_all {
            self.end = self.blob.size;
        }
        self.sends_all
    }

    /// Who sends it.
    pub(super) fn host(&self) -> &str {
        self.remote.0.hosts.get(self.at).map_or("", |it| &it.endpoint.authority)
    }

    fn what(&self) -> String {
        format!("fetch the blob {} of {}", self.blob.digest, self.remote.0.repository.path())
    }

    /// After a cut: waits, or goes to the next host, or gives up.
    async fn again(&mut self, error: Error) -> Result<()> {
        let tries = self.tries_here();
        self.came = 0;
        match tries.pause(self.tries, None) {
            Some(pause) => {
                self.tries += 1;
                self.wait(&error, pause).await;
                Ok(())
            }
            None => self.next_host(error),
        }
    }

    async fn wait(&self, error: &Error, pause: Duration) {
        let seconds = pause.as_secs_f64();
        self.remote.0.access.notice(format!("{}; it goes on there in {seconds:.1} s", error.message));
        tokio::time::sleep(pause).await;
    }

    fn next_host(&mut self, error: Error) -> Result<()> {
        let hosts = &self.remote.0.hosts;
        match (self.at + 1..hosts.len()).find(|at| usable(&hosts[*at])) {
            Some(next) => {
                self.remote.0.passed_over(&error);
                self.at = next;
                self.tries = 1;
                Ok(())
            }
            None => Err(error),
        }
    }

    fn tries_here(&self) -> Tries {
        let hosts = &self.remote.0.hosts;
        self.remote.0.tries(!(self.at + 1..hosts.len()).any(|at| usable(&hosts[at])))
    }

    /// Asks for what is still missing, at this host or the next ones.
    async fn open(&mut self) -> Result<()> {
        let remote = self.remote.clone();
        let call = &remote.0;
        loop {
            let next = (self.at..call.hosts.len()).find(|at| usable(&call.hosts[*at])).ok_or_else(nobody)?;
            if next != self.at {
                (self.at, self.tries) = (next, 1);
            }
            match self.open_at(&call.hosts[next]).await {
                Ok(()) => return Ok(()),
                Err(error) => self.next_host(error)?,
            }
        }
    }

    async fn open_at(&mut self, host: &Host) -> Result<()> {
        let call = &self.remote.0;
        let path = format!("/{}/blobs/{}", call.repository.path(), self.blob.digest);
        let mut ask = Ask::new(Method::GET, path, call.scope(false), self.what());
        let is_part = self.offset > 0 || self.end < self.blob.size;
        if is_part {
            let range = if self.end < self.blob.size {
                format!("bytes={}-{}", self.offset, self.end - 1)
            } else {
                format!("bytes={}-", self.offset)
            };
            ask = ask.header(RANGE, &range)?;
        }
        let answer = call.ask(host, &ask, self.tries_here()).await?;
        let wrong =
            |why: String| Error::data_loss(format!("registry {}: {}: {why}", host.endpoint.authority, self.what()));
        let length = answer.header("content-length").and_then(|it| it.parse::<u64>().ok());
        let skip = match answer.status() {
            StatusCode::PARTIAL_CONTENT if is_part => {
                let range = answer.header(CONTENT_RANGE.as_str()).and_then(content_range);
                match range {
                    Some((start, total)) if start == self.offset && total.is_none_or(|it| it == self.blob.size) => 0,
                    Some((_, Some(total))) if total != self.blob.size => {
                        return Err(wrong(format!("it has {total} bytes there, and not {}", self.blob.size)));
                    }
                    _ => return Err(wrong("other bytes came than were asked for".into())),
                }
            }
            StatusCode::OK => {
                if let Some(length) = length.filter(|it| *it != self.blob.size) {
                    return Err(wrong(format!("it has {length} bytes there, and not {}", self.blob.size)));
                }
                self.offset
            }
            status => return Err(wrong(format!("the answer {status} is no blob"))),
        };
        self.skip = skip;
        self.sends_all = is_part && answer.status() == StatusCode::OK;
        self.body = Some(answer.response);
        Ok(())
    }
}

fn usable(host: &Host) -> bool {
    host.endpoint.can.pull && !host.is_avoided()
}

/// `bytes first-last/total`: the first, and the total if it is known.
pub fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse::<u64>().ok()?);
    let total = if total == "*" { None } else { Some(total.parse::<u64>().ok()?) };
    (first <= last && total.is_none_or(|it| last < it)).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_they_say() {
        for (text, read) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 5-4/10", None),
            ("bytes 5-10/10", None),
            ("bytes */10", None),
            ("lines 1-2/3", None),
            ("bytes -1-2/3", None),
            ("", None),
        ] {
            assert_eq!(content_range(text), read, "{text}");
        }
    }
}
