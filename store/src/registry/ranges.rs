//! A blob, as one stream: from one connection, or from several ranges at once, put in order again.
//!
//! ```text
//! taken ->  | head: piece by piece |  ahead: fetched whole, waiting for its turn |  … |
//! ```
//!
//! What waits is bounded for all blobs together: a range ahead of its turn needs a permit, the head never does.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::registry::blob::Part;
use crate::registry::client::Remote;

/// The size of a range, in bytes.
const RANGE: u64 = 4 << 20;
/// So many ranges may wait, of all blobs together: 16 MiB.
pub(super) const AHEAD: usize = 4;

/// A blob that is coming. Its bytes are not verified: who stores them does that.
pub struct BlobStream {
    remote: Remote,
    blob: Descriptor,
    offset: u64,
    head: Head,
    ahead: VecDeque<Ahead>,
    /// From where on nothing is asked for yet.
    unasked: u64,
    host: String,
}

/// What is taken now.
enum Head {
    Part(Box<Part>),
    Fetched(Ahead),
}

/// A range that is fetched before its turn.
struct Ahead {
    pieces: mpsc::UnboundedReceiver<Result<Bytes>>,
    task: JoinHandle<()>,
    /// Given back when its turn comes, so that another one may begin.
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BlobStream {
    pub(super) async fn open(remote: &Remote, blob: &Descriptor, offset: u64) -> Result<Self> {
        let size = blob.size;
        let several = remote.0.shared.config.ranges > 1 && size.saturating_sub(offset) >= 2 * RANGE;
        let end = if several { offset + RANGE } else { size };
        let mut first = remote.part(blob, offset, end).await?;
        // Whoever sends all is listened to; asking for each range would be sending it as often.
        let unasked = if several && !first.take_all() { end } else { size };
        let host = first.host().to_owned();
        let head = Head::Part(Box::new(first));
        let mut stream =
            Self { remote: remote.clone(), blob: blob.clone(), offset, head, ahead: VecDeque::new(), unasked, host };
        stream.look_ahead();
        Ok(stream)
    }

    /// The next bytes, or nothing at the blob's end: then exactly as many came as its descriptor says.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let piece = match &mut self.head {
                Head::Part(part) => {
                    let piece = part.next().await?;
                    if part.host() != self.host {
                        part.host().clone_into(&mut self.host);
                    }
                    piece
                }
                Head::Fetched(ahead) => ahead.pieces.recv().await.transpose()?,
            };
            if let Some(piece) = piece {
                self.offset += piece.len() as u64;
                return Ok(Some(piece));
            }
            match self.ahead.pop_front() {
                Some(mut ahead) => {
                    ahead.permit = None;
                    self.head = Head::Fetched(ahead);
                }
                None if self.unasked < self.blob.size => {
                    let (start, end) = self.next_range();
                    self.head = Head::Part(Box::new(self.remote.part(&self.blob, start, end).await?));
                }
                None if self.offset == self.blob.size => return Ok(None),
                None => {
                    return Err(Error::internal(format!(
                        "the ranges of the blob {} end at {} of {} bytes",
                        self.blob.digest, self.offset, self.blob.size
                    )));
                }
            }
            self.look_ahead();
        }
    }

    /// Where the next bytes belong.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Who sends it, for messages and for [`Remote::avoid`].
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    fn next_range(&mut self) -> (u64, u64) {
        let start = self.unasked;
        self.unasked = self.blob.size.min(start + RANGE);
        (start, self.unasked)
    }

    /// Begins further ranges, as far as there is room for them.
    fn look_ahead(&mut self) {
        let shared = Arc::clone(&self.remote.0.shared);
        while self.unasked < self.blob.size && self.ahead.len() + 1 < shared.config.ranges {
            let Ok(permit) = Arc::clone(&shared.ahead).try_acquire_owned() else { return };
            let (remote, blob) = (self.remote.clone(), self.blob.clone());
            let (start, end) = self.next_range();
            let (sender, pieces) = mpsc::unbounded_channel();
            let task = tokio::spawn(async move {
                // Nobody listens any more: the stream is gone, and so is this task soon.
                let failed = fetch(&remote, &blob, start, end, &sender).await.err();
                if let Some(error) = failed {
                    let _ = sender.send(Err(error));
                }
            });
            self.ahead.push_back(Ahead { pieces, task, permit: Some(permit) });
        }
    }
}

async fn fetch(
    remote: &Remote,
    blob: &Descriptor,
    start: u64,
    end: u64,
    sender: &mpsc::UnboundedSender<Result<Bytes>>,
) -> Result<()> {
    let mut part = remote.part(blob, start, end).await?;
    while let Some(piece) = part.next().await? {
        if sender.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
