//! A blob that comes over a stream, as containerd's clients send one.
//!
//! ```text
//! client                                                       store
//! {STAT, ref, total?, expected?}                        ──>   opens the ingest; nobody else can now
//!                                                       <──   {STAT, offset, total}: go on from here
//! {WRITE, offset, data} …                               ──>
//!                                                       <──   {WRITE, offset} for each
//! {COMMIT, offset, data?, total?, expected?, labels}    ──>   compares, syncs, publishes
//!                                                       <──   {COMMIT, digest, offset}, and the stream's end
//! ```
//!
//! If the stream breaks, what came stays for the next one with the same reference.

use tare_proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use tare_proto::stream::Stream;

use super::session::{Call, unsent};
use super::wire;
use crate::content::Ingest;
use crate::content::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::metadata::Labels;

/// Serves one stream to its end.
pub(super) async fn write(call: Call, mut stream: Stream<WriteContentResponse, WriteContentRequest>) -> Result<()> {
    let Some(first) = next(&mut stream).await? else { return Ok(()) };
    let mut writer = call.blocking(move |call| Writer::open(call, &first).map(|it| (it, first))).await?;
    loop {
        let (write, request) = writer;
        let (write, response) = call.blocking(move |call| write.take(call, request)).await?;
        stream.send(&response).await.map_err(|error| unsent(&error))?;
        let Some(write) = write else { return Ok(()) };
        let Some(request) = next(&mut stream).await? else { return Ok(()) };
        writer = (write, request);
    }
}

async fn next(stream: &mut Stream<WriteContentResponse, WriteContentRequest>) -> Result<Option<WriteContentRequest>> {
    stream.recv().await.map_err(|error| Error::invalid(format!("read the stream of a write: {error}")))
}

/// The ingest, and what it is to become as far as the client has said so.
struct Writer {
    ingest: Ingest,
    total: Option<u64>,
    expected: Option<Digest>,
}

impl Writer {
    fn open(call: &Call, first: &WriteContentRequest) -> Result<Self> {
        if first.ref_.is_empty() {
            return Err(Error::invalid("the first message of a write names no ingest (ref)"));
        }
        let (total, expected) = (total(first)?, expected(first)?);
        if let Some(digest) = &expected {
            refuse_existing(call, digest)?;
        }
        let ingest = call.content().ingest(&call.ns, &first.ref_, total, expected.as_ref())?;
        Ok(Self { ingest, total, expected })
    }

    /// Does what one message asks. After a commit there is no writer any more.
    fn take(mut self, call: &Call, request: WriteContentRequest) -> Result<(Option<Self>, WriteContentResponse)> {
        self.learn(call, &request)?;
        let action =
            request.action.enum_value().map_err(|it| Error::invalid(format!("{it} is no action of a write")))?;
        if action == WriteAction::STAT {
            let response = self.response(action);
            return Ok((Some(self), response));
        }
        self.append(&request)?;
        if action == WriteAction::WRITE {
            let response = self.response(action);
            return Ok((Some(self), response));
        }
        let mut response = self.response(action);
        let labels: Labels = wire::labels(request.labels);
        let committed = self.ingest.commit(self.total, self.expected.as_ref(), &labels, call.lease()).map_err(unfit)?;
        if committed.existed {
            return Err(Error::exists(format!("blob {} is already here", committed.digest)));
        }
        response.digest = committed.digest.to_string();
        response.offset = wire::signed(committed.size);
        response.total = response.offset;
        Ok((None, response))
    }

    /// What the message says of the whole must not contradict what was said.
    fn learn(&mut self, call: &Call, request: &WriteContentRequest) -> Result<()> {
        match (self.total, total(request)?) {
            (Some(before), Some(now)) if before != now => {
                return Err(Error::precondition(format!(
                    "ingest {:?} was to have {before} bytes, and now {now}",
                    self.ingest.status().reference
                )));
            }
            (before, now) => self.total = before.or(now),
        }
        match (&self.expected, expected(request)?) {
            (Some(before), Some(now)) if *before != now => Err(Error::precondition(format!(
                "ingest {:?} was to become {before}, and now {now}",
                self.ingest.status().reference
            ))),
            (None, Some(now)) => {
                refuse_existing(call, &now)?;
                self.expected = Some(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, request: &WriteContentRequest) -> Result<()> {
        let (offset, here) = (wire::unsigned(request.offset, "the offset of a write")?, self.ingest.offset());
        if offset > here {
            return Err(Error::out_of_range(format!(
                "write ingest {:?} at byte {offset}: only {here} bytes came before",
                self.ingest.status().reference
            )));
        }
        // A commit that brings no bytes need not say where they would go.
        let is_commit = request.action == WriteAction::COMMIT.into();
        if offset < here && !(is_commit && request.data.is_empty()) {
            self.ingest.truncate(offset)?;
        }
        if request.data.is_empty() { Ok(()) } else { self.ingest.write(&request.data) }
    }

    fn response(&self, action: WriteAction) -> WriteContentResponse {
        let status = self.ingest.status();
        let mut response = WriteContentResponse::new();
        response.action = action.into();
        response.started_at = wire::timestamp(status.started);
        response.updated_at = wire::timestamp(status.updated);
        response.offset = wire::signed(self.ingest.offset());
        response.total = wire::signed(self.total.unwrap_or(0));
        response
    }
}

/// Containerd's clients take a wrong size or digest by this code.
fn unfit(error: Error) -> Error {
    match error.kind {
        Kind::DataLoss => Error { kind: Kind::FailedPrecondition, ..error },
        _ => error,
    }
}

/// A client that wants a blob which is here hears so before it sends it.
fn refuse_existing(call: &Call, digest: &Digest) -> Result<()> {
    match call.content().hold(&call.ns, digest, call.lease())? {
        Some(_) => Err(Error::exists(format!("blob {digest} is already here"))),
        None => Ok(()),
    }
}

fn total(request: &WriteContentRequest) -> Result<Option<u64>> {
    let total = wire::unsigned(request.total.max(0), "the size of a blob")?;
    Ok(Some(total).filter(|it| *it > 0))
}

fn expected(request: &WriteContentRequest) -> Result<Option<Digest>> {
    if request.expected.is_empty() { Ok(None) } else { request.expected.parse().map(Some) }
}
