//! The stream of a call that takes long: what changed, a few times a second, and at the end its result.

use bytes::Bytes;
use tare_proto::store::{Item, Problem, Progress, Result as Ended, item};
use tare_proto::{EnumOrUnknown, MessageField};
use tokio::sync::{mpsc, watch};
use ttrpc::asynchronous::{SSSender, ServerStreamSender};

use super::session::unsent;
use crate::error::Result;
use crate::progress::{Batch, Phase, Updates};

/// Bytes of an archive in one message.
const PIECE: usize = 1 << 20;

/// Where it goes.
pub(super) enum Out {
    /// The client has sent its one request.
    Plain(ServerStreamSender<Progress>),
    /// The client sends too.
    Both(SSSender<Progress>),
}

impl Out {
    /// Returns when the connection has taken it: a slow client slows the call, and nothing piles up.
    async fn send(&self, message: &Progress) -> Result<()> {
        let sent = match self {
            Self::Plain(out) => out.send(message).await,
            Self::Both(out) => out.send(message).await,
        };
        sent.map_err(|error| unsent(&error))
    }
}

/// What a call tells besides its items.
pub(super) enum Also {
    /// Nothing.
    Nothing,
    /// Of an import: bytes taken. Told at once, since the client waits for it.
    Received(watch::Receiver<u64>),
    /// Of an export: the archive.
    Data(mpsc::Receiver<Bytes>),
    /// Of a check.
    Problems(mpsc::UnboundedReceiver<Problem>),
}

impl Also {
    /// The next message; never, if there is none any more.
    async fn next(&mut self) -> Progress {
        let mut message = Progress::new();
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Received(bytes) => match bytes.changed().await {
                Ok(()) => message.received = *bytes.borrow_and_update(),
                Err(_) => std::future::pending().await,
            },
            Self::Data(pieces) => match pieces.recv().await {
                Some(piece) => message.data = piece.into(),
                None => std::future::pending().await,
            },
            Self::Problems(problems) => match problems.recv().await {
                Some(problem) => message.problems.push(problem),
                None => std::future::pending().await,
            },
        }
        message
    }

    /// What is left when the call is done.
    fn rest(&mut self) -> Option<Progress> {
        let mut message = Progress::new();
        match self {
            Self::Data(pieces) => message.data = pieces.try_recv().ok()?.into(),
            Self::Problems(problems) => message.problems.push(problems.try_recv().ok()?),
            Self::Nothing | Self::Received(_) => return None,
        }
        Some(message)
    }
}

/// Runs a call, and tells of it until it has ended; if it ended well, also how.
pub(super) async fn tell<T>(
    out: &Out,
    mut updates: Updates,
    mut also: Also,
    work: impl Future<Output = Result<T>>,
    ended: impl FnOnce(T) -> Ended,
) -> Result<()> {
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            biased;
            message = also.next() => send(out, message).await?,
            result = &mut work => break result,
            batch = updates.next() => out.send(&changes(batch)).await?,
        }
    };
    while let Some(message) = also.rest() {
        send(out, message).await?;
    }
    let mut last = changes(updates.rest());
    match result {
        Ok(value) => {
            last.result = MessageField::some(ended(value));
            out.send(&last).await
        }
        Err(error) => {
            // The last words, such as which layer failed; if they can't be said, the error still is.
            let _ = out.send(&last).await;
            Err(error)
        }
    }
}

/// Sends a message whose data may be more than fits.
async fn send(out: &Out, mut message: Progress) -> Result<()> {
    while message.data.len() > PIECE {
        let mut part = Progress::new();
        let rest = message.data.split_off(PIECE);
        part.data = std::mem::replace(&mut message.data, rest);
        out.send(&part).await?;
    }
    out.send(&message).await
}

fn changes(batch: Batch) -> Progress {
    let mut message = Progress::new();
    message.items = batch
        .items
        .into_iter()
        .map(|it| {
            let mut item = Item::new();
            item.id = it.id;
            item.kind = it.kind.to_owned();
            item.phase = phase(it.phase);
            (item.offset, item.total, item.extracted) = (it.offset, it.total, it.extracted);
            item
        })
        .collect();
    message.notices = batch.notices;
    message
}

fn phase(phase: Phase) -> EnumOrUnknown<item::Phase> {
    match phase {
        Phase::Waiting => item::Phase::WAITING,
        Phase::Fetching => item::Phase::FETCHING,
        Phase::Verifying => item::Phase::VERIFYING,
        Phase::Extracting => item::Phase::EXTRACTING,
        Phase::Syncing => item::Phase::SYNCING,
        Phase::Done => item::Phase::DONE,
        Phase::Exists => item::Phase::EXISTS,
        Phase::Sending => item::Phase::SENDING,
        Phase::Mounted => item::Phase::MOUNTED,
        Phase::Skipped => item::Phase::SKIPPED,
        Phase::Failed => item::Phase::FAILED,
    }
    .into()
}
