//! Sending: blobs in one piece or several, gone on with after a cut; manifests last.
//!
//! ```text
//! POST  /uploads/?mount=…&from=…   -> 201: it is there          -> 202, Location: it must be sent
//! POST  /uploads/                  -> 202, Location
//! PATCH Location   the bytes       -> 202, Location, Range: 0-<last byte that is there>
//!   cut off:  GET Location         -> 204, Location, Range      and PATCH from there
//! PUT   Location?digest=…          -> 201
//! ```

use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{Method, StatusCode, Uri};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::registry::body::{Outgoing, SendError};
use crate::registry::client::{Call, Remote};
use crate::registry::exchange::{Answer, Ask, Host, To};
use crate::registry::fetch::{CONTENT_DIGEST, verified};
use crate::registry::reference::{Repository, is_tag};
use crate::registry::{answer, limit, retry};

/// How much is read at once, in bytes, and how many of those wait to be sent.
const BLOCK: usize = 256 << 10;
const AHEAD: usize = 4;
/// The size of pieces for a registry that refuses a blob as one.
const SMALLER: u64 = 16 << 20;

/// Opens a blob that is to be sent, from this offset on: called again for each try. It may block.
pub type Open = Arc<dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Send + Sync>;

/// What was sent under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Of what was sent.
    pub digest: Digest,
    /// The registry lists what refers to this one's subject by itself.
    pub lists_referrers: bool,
}

impl Remote {
    /// Takes a blob over from another repository of the same registry, without sending it. False: it must be sent.
    pub async fn mount(&self, descriptor: &Descriptor, from: &Repository) -> Result<bool> {
        let call = &self.0;
        if from.registry() != call.repository.registry() {
            return Ok(false);
        }
        let host = call.takes_pushes()?;
        let path =
            format!("/{}/blobs/uploads/?mount={}&from={}", call.repository.path(), descriptor.digest, from.path());
        let scope = format!("{} repository:{}:pull", call.scope(true), from.path());
        let what = format!("take the blob {} over from {}", descriptor.digest, from.path());
        let mut ask = Ask::new(Method::POST, path, scope, what);
        // Who may not read there, or cannot mount, has to send it: that is no failure.
        ask.accepted = &[StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        let answer = match call.ask(host, &ask, call.tries(true)).await {
            Ok(answer) => answer,
            Err(error) if matches!(error.kind, Kind::Unauthenticated | Kind::FailedPrecondition) => return Ok(false),
            Err(error) => return Err(error),
        };
        if answer.status() == StatusCode::ACCEPTED {
            // The upload that was begun instead is not gone on with: another repository's scope hangs on it.
            if let Some(location) = answer.location() {
                call.abandon(host, location, &ask.scope).await;
            }
        }
        Ok(answer.status() == StatusCode::CREATED)
    }

    /// Sends a blob; `progress` gets the bytes that the registry has, which may go back.
    pub async fn upload(&self, descriptor: &Descriptor, open: Open, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let call = &self.0;
        let host = call.takes_pushes()?;
        let mut upload = Upload {
            call,
            host,
            descriptor,
            open,
            progress,
            scope: call.scope(true),
            chunk: call.shared.config.chunk,
            tries: 1,
        };
        upload.run().await
    }

    /// Sends a manifest or an index: under its digest, or under a tag as well.
    pub async fn put_manifest(&self, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Result<Put> {
        let call = &self.0;
        if bytes.len() as u64 > limit::DOCUMENT {
            return Err(Error::exhausted(format!(
                "the manifest for {} has {} bytes; registries take {} at most",
                call.repository,
                bytes.len(),
                limit::DOCUMENT
            )));
        }
        let digest = Digest::of(bytes);
        let name = match tag {
            Some(tag) if is_tag(tag) => tag.to_owned(),
            Some(tag) => return Err(Error::invalid(format!("{tag:?} is not a tag"))),
            None => digest.to_string(),
        };
        let host = call.takes_pushes()?;
        let path = format!("/{}/manifests/{name}", call.repository.path());
        let what = format!("send the manifest {name} to {}", call.repository.path());
        let mut ask = Ask::new(Method::PUT, path, call.scope(true), what).header(CONTENT_TYPE, media_type)?;
        ask.body = Some(Bytes::copy_from_slice(bytes));
        ask.wait = Some(call.shared.http.patience.commit);
        let answer = call.ask(host, &ask, call.tries(true)).await?;
        if let Some(said) = answer.header(CONTENT_DIGEST).and_then(|it| it.parse::<Digest>().ok()) {
            verified(&said, bytes).map_err(|why| {
                Error::data_loss(format!(
                    "registry {}: {}: it has kept something else: {why}",
                    host.endpoint.authority, ask.what
                ))
            })?;
        }
        Ok(Put { digest, lists_referrers: answer.header("oci-subject").is_some() })
    }
}

impl Call {
    /// Tells the registry that an upload is not gone on with. It finds out by itself if that fails.
    async fn abandon(&self, host: &Host, location: Uri, scope: &str) {
        let ask =
            Ask { to: To::At(location), ..Ask::new(Method::DELETE, String::new(), scope.to_owned(), String::new()) };
        let patience = self.shared.http.patience.answer;
        let _ = self.once(host, &ask, Outgoing::empty(), self.tries(true), patience).await;
    }
}

/// A blob that is being sent.
struct Upload<'a> {
    call: &'a Call,
    host: &'a Host,
    descriptor: &'a Descriptor,
    open: Open,
    progress: &'a (dyn Fn(u64) + Sync),
    scope: String,
    chunk: Option<u64>,
    tries: u32,
}

/// How a piece ended.
enum Sent {
    /// The registry has everything up to here.
    UpTo(u64, Uri),
    /// Cut off: it must be asked how far it came.
    Cut(Error),
    /// The registry does not know the upload any more: from the beginning.
    Lost(Error),
    /// Too much at once.
    TooLarge(Error),
}

impl Upload<'_> {
    async fn run(&mut self) -> Result<()> {
        let size = self.descriptor.size;
        let (mut offset, mut location) = (0, self.begin().await?);
        loop {
            (self.progress)(offset);
            if offset == size {
                match self.finish(&location).await? {
                    None => return Ok(()),
                    Some(error) => {
                        self.pause(error).await?;
                        (offset, location) = (0, self.begin().await?);
                        continue;
                    }
                }
            }
            let end = self.chunk.map_or(size, |chunk| size.min(offset + chunk.max(1)));
            match self.send(&location, offset, end).await? {
                Sent::UpTo(reached, next) => {
                    if reached > offset {
                        self.tries = 1;
                    } else {
                        self.pause(self.error("the registry took nothing".into())).await?;
                    }
                    (offset, location) = (reached, next);
                }
                Sent::Cut(error) => {
                    self.pause(error).await?;
                    (offset, location) = match self.reached(&location).await? {
                        Some(found) => found,
                        None => (0, self.begin().await?),
                    };
                }
                Sent::Lost(error) => {
                    self.pause(error).await?;
                    (offset, location) = (0, self.begin().await?);
                }
                Sent::TooLarge(error) => {
                    if self.chunk.is_some_and(|chunk| chunk <= SMALLER) || size <= SMALLER {
                        return Err(error);
                    }
                    self.chunk = Some(SMALLER);
                    (offset, location) = (0, self.begin().await?);
                }
            }
        }
    }

    fn what(&self) -> String {
        format!("send the blob {} to {}", self.descriptor.digest, self.call.repository.path())
    }

    fn error(&self, why: String) -> Error {
        Error::unavailable(format!("registry {}: {}: {why}", self.host.endpoint.authority, self.what()))
    }

    fn at(&self, method: Method, location: &Uri) -> Ask {
        Ask { to: To::At(location.clone()), ..Ask::new(method, String::new(), self.scope.clone(), self.what()) }
    }

    async fn pause(&mut self, error: Error) -> Result<()> {
        let tries = self.call.tries(true);
        let Some(pause) = tries.pause(self.tries, None) else { return Err(error) };
        self.tries += 1;
        self.call.access.notice(format!("{}; it goes on in {:.1} s", error.message, pause.as_secs_f64()));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn begin(&self) -> Result<Uri> {
        let path = format!("/{}/blobs/uploads/", self.call.repository.path());
        let ask = Ask::new(Method::POST, path, self.scope.clone(), self.what()).header(CONTENT_LENGTH, "0")?;
        let answer = self.call.ask(self.host, &ask, self.call.tries(true)).await?;
        self.next(&answer).ok_or_else(|| self.error("it does not say where to".into()))
    }

    /// Where an upload goes on. Without TLS only if it began so.
    fn next(&self, answer: &Answer) -> Option<Uri> {
        answer.location().filter(|it| it.scheme_str() == Some("https") || answer.from.scheme_str() == Some("http"))
    }

    /// One PATCH with the bytes from `offset` to `end`.
    async fn send(&self, location: &Uri, offset: u64, end: u64) -> Result<Sent> {
        let size = self.descriptor.size;
        let mut ask = self.at(Method::PATCH, location).header(CONTENT_TYPE, "application/octet-stream")?;
        if offset > 0 || end < size {
            ask = ask.header(CONTENT_RANGE, &format!("{offset}-{}", end - 1))?;
        }
        let (pieces, from) = mpsc::channel(AHEAD);
        let body = Outgoing::Pieces { from, left: end - offset };
        let patience = self.call.shared.http.patience;
        let mut sending = pin!(self.call.once(self.host, &ask, body, self.call.tries(true), patience.commit));
        let mut reading = read(Arc::clone(&self.open), offset, end - offset, pieces, patience.stall);
        let mut is_read = false;
        let sent = loop {
            tokio::select! {
                // What failed here is the reason, whatever the connection makes of it.
                biased;
                ended = &mut reading, if !is_read => match ended {
                    Ok((Ended::Read, _)) => is_read = true,
                    Ok((Ended::Stalled, _)) => {
                        return Ok(Sent::Cut(self.error(format!("nothing was taken for {:?}", patience.stall))));
                    }
                    Ok((Ended::Failed(error), _)) => return Err(error.within(self.what())),
                    Err(error) => return Err(Error::internal(error.to_string())),
                },
                sent = &mut sending => break sent?,
            }
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(failure) if failure.is_passing() => {
                return Ok(Sent::Cut(answer::unreachable(&self.host.endpoint, &self.what(), &failure)));
            }
            Err(failure) => return Err(answer::unreachable(&self.host.endpoint, &self.what(), &failure)),
        };
        self.judge(answer, location, end).await
    }

    async fn judge(&self, answer: Answer, location: &Uri, end: u64) -> Result<Sent> {
        let status = answer.status();
        if status.is_success() {
            let next = self.next(&answer).unwrap_or_else(|| location.clone());
            // Who does not say how far it came has all.
            let reached = answer.header("range").and_then(last_byte).map_or(end, |last| (last + 1).min(end));
            return Ok(Sent::UpTo(reached, next));
        }
        let asked = retry::asked(answer.response.headers(), std::time::SystemTime::now());
        let said = answer::said(answer.response, self.call.shared.http.patience.stall).await;
        let error = answer::refused(&self.host.endpoint, &self.what(), status, &said, asked);
        Ok(match status {
            StatusCode::PAYLOAD_TOO_LARGE => Sent::TooLarge(error),
            StatusCode::NOT_FOUND | StatusCode::GONE => Sent::Lost(error),
            StatusCode::RANGE_NOT_SATISFIABLE => Sent::Cut(error),
            StatusCode::UNAUTHORIZED => {
                self.call.forget(self.host, &self.scope).await;
                Sent::Cut(error)
            }
            status if retry::is_passing(status) => Sent::Cut(error),
            _ => return Err(error),
        })
    }

    /// How far an upload came; nothing if the registry does not know it any more.
    async fn reached(&self, location: &Uri) -> Result<Option<(u64, Uri)>> {
        let mut ask = self.at(Method::GET, location);
        ask.accepted = &[
            StatusCode::NOT_FOUND,
            StatusCode::GONE,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::BAD_REQUEST,
            StatusCode::FORBIDDEN,
        ];
        let answer = self.call.ask(self.host, &ask, self.call.tries(true)).await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let next = self.next(&answer).unwrap_or_else(|| location.clone());
        // "0-0" is what registries say of nothing as well as of one byte: it costs nothing to begin anew.
        let reached = answer.header("range").and_then(last_byte).filter(|last| *last > 0).map_or(0, |last| last + 1);
        if reached == 0 || reached > self.descriptor.size {
            return Ok(None);
        }
        Ok(Some((reached, next)))
    }

    /// Says that it is all. An error to be tried again, or none.
    async fn finish(&self, location: &Uri) -> Result<Option<Error>> {
        let separator = if location.query().is_some() { '&' } else { '?' };
        let target = format!("{location}{separator}digest={}", self.descriptor.digest);
        let target: Uri = target.parse().map_err(|_| self.error("its location is no address".into()))?;
        let mut ask = self.at(Method::PUT, &target).header(CONTENT_LENGTH, "0")?;
        ask.wait = Some(self.call.shared.http.patience.commit);
        // Tried again as it is. Who has done it the first time, and only could not say so, does not know the upload any more.
        ask.accepted = &[StatusCode::NOT_FOUND];
        let answer = self.call.ask(self.host, &ask, self.call.tries(true)).await?;
        let said = answer.header(CONTENT_DIGEST).and_then(|it| it.parse::<Digest>().ok());
        match said {
            _ if answer.status() == StatusCode::NOT_FOUND => {
                self.unless_there(self.error("it does not know the upload any more".into())).await
            }
            Some(said) if said != self.descriptor.digest && said.algorithm() == self.descriptor.digest.algorithm() => {
                let mut error = self.error(format!("it has kept it as {said}"));
                error.kind = Kind::DataLoss;
                Err(error)
            }
            _ => Ok(None),
        }
    }

    async fn unless_there(&self, error: Error) -> Result<Option<Error>> {
        let path = format!("/{}/blobs/{}", self.call.repository.path(), self.descriptor.digest);
        let mut ask = Ask::new(Method::HEAD, path, self.scope.clone(), self.what());
        ask.accepted = &[StatusCode::NOT_FOUND];
        let answer = self.call.ask(self.host, &ask, self.call.tries(true)).await?;
        Ok((answer.status() == StatusCode::NOT_FOUND).then_some(error))
    }
}

type Pieces = mpsc::Sender<std::result::Result<Bytes, SendError>>;

/// How reading ended.
enum Ended {
    /// All was read, or nobody wants more.
    Read,
    /// Nobody took the next piece.
    Stalled,
    /// The blob cannot be read.
    Failed(Error),
}

/// Reads the blob on a blocking thread, as fast as it is sent. The sender comes back, so that the body does not end before its
/// reason is known.
fn read(open: Open, offset: u64, size: u64, pieces: Pieces, patience: Duration) -> JoinHandle<(Ended, Pieces)> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut left = size;
        let mut source = match open(offset) {
            Ok(source) => source,
            Err(error) => return (Ended::Failed(error), pieces),
        };
        while left > 0 {
            let mut block = vec![0; usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)];
            match source.read(&mut block) {
                Ok(0) => return (Ended::Failed(Error::data_loss("the blob here ends before its size")), pieces),
                Ok(read) => {
                    block.truncate(read);
                    left -= read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return (Ended::Failed(Error::internal(format!("read the blob: {error}"))), pieces),
            }
            let sent = tokio::time::timeout(patience, pieces.send(Ok(Bytes::from(block))));
            match runtime.block_on(sent) {
                Ok(Ok(())) => {}
                // The connection is gone, which is told there.
                Ok(Err(_)) => return (Ended::Read, pieces),
                Err(_) => return (Ended::Stalled, pieces),
            }
        }
        (Ended::Read, pieces)
    })
}

/// `0-<last>`, or `bytes=0-<last>`.
fn last_byte(text: &str) -> Option<u64> {
    let (first, last) = text.trim().trim_start_matches("bytes=").split_once('-')?;
    (first == "0").then(|| last.parse().ok()).flatten()
}
