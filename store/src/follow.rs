//! Reading a file while it is written: how a layer is extracted while it is fetched.
//!
//! The fetch writes into the ingest as fast as the registry sends, and the extraction reads the same file behind it, out of the
//! page cache. So an extraction that has to wait (for the layers below it, or for a processor) never stops a fetch, a resumed
//! ingest is nothing special (its bytes are there already), and memory is bounded by no buffer but the reader's own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// How far a fetch has come.
#[derive(Debug, Clone, Default)]
pub(crate) enum State {
    /// It has not begun.
    #[default]
    Waiting,
    /// So many bytes of the file are there.
    Growing(Arc<File>, u64),
    /// All of it is there, and it has the right digest; after so many tries.
    Complete(Arc<File>, u32),
    /// It was in the content store before anybody fetched.
    Stored,
    /// It failed.
    Failed(Error),
}

/// Where the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// In a file that is being written: [`Follow::reader`].
    Growing,
    /// In the content store.
    Stored,
}

/// The writer's end. Dropped before [`State::Complete`] or [`State::Failed`], it fails every reader.
pub(crate) type Writer = watch::Sender<State>;

/// What extractions wait with and read from.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    state: watch::Receiver<State>,
}

/// A writer and what follows it.
pub(crate) fn pair() -> (Writer, Follow) {
    let (writer, state) = watch::channel(State::Waiting);
    (writer, Follow { state })
}

impl Follow {
    /// Waits until there is something to read, and says where: here, behind the writer, or in the blob that was there already.
    pub(crate) async fn begun(&mut self) -> Result<Begun> {
        match self.state.wait_for(|it| !matches!(it, State::Waiting)).await {
            Ok(state) => match &*state {
                State::Failed(error) => Err(error.clone()),
                State::Stored => Ok(Begun::Stored),
                State::Waiting | State::Growing(..) | State::Complete(..) => Ok(Begun::Growing),
            },
            Err(_) => Err(gone()),
        }
    }

    /// Waits until it is complete and verified. `true`: what was read while it grew may be of an earlier try.
    pub(crate) async fn complete(&mut self) -> Result<bool> {
        let ended = |it: &State| matches!(it, State::Complete(..) | State::Stored | State::Failed(_));
        match self.state.wait_for(ended).await {
            Ok(state) => match &*state {
                State::Failed(error) => Err(error.clone()),
                State::Complete(_, tries) => Ok(*tries > 1),
                State::Waiting | State::Growing(..) | State::Stored => Ok(false),
            },
            Err(_) => Err(gone()),
        }
    }

    /// A reader for a blocking thread. Call this on the runtime, whose handle it takes.
    pub(crate) fn reader(self) -> Reader {
        Reader { state: self.state, position: 0, handle: Handle::current() }
    }
}

/// Reads what is there, and waits for more.
pub(crate) struct Reader {
    state: watch::Receiver<State>,
    position: u64,
    handle: Handle,
}

impl Reader {
    /// Whether a read returns at once. It need not: then who reads can put down meanwhile what others could use.
    pub(crate) fn is_ready(&self) -> bool {
        readable(&self.state.borrow(), self.position) || self.state.has_changed().is_err()
    }

    /// Blocks until a read returns at once.
    pub(crate) fn wait(&mut self) {
        let position = self.position;
        // That the writer has gone, the read says.
        let _ = self.handle.block_on(self.state.wait_for(|it| readable(it, position)));
    }

    /// The file, and how much of it can be read now; `None` once all was.
    fn available(&mut self) -> io::Result<Option<(Arc<File>, u64)>> {
        let position = self.position;
        let state = match self.handle.block_on(self.state.wait_for(|it| readable(it, position))) {
            Ok(state) => state.clone(),
            Err(_) => return Err(io::Error::other(gone())),
        };
        match state {
            State::Growing(file, written) => Ok(Some((file, written - position))),
            State::Complete(file, _) => Ok(Some((file, u64::MAX))),
            State::Failed(error) => Err(io::Error::other(error)),
            State::Waiting | State::Stored => Ok(None),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((file, readable)) = self.available()? else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(readable).unwrap_or(usize::MAX));
        let read = file.read_at(&mut buffer[..most], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// Whether there is something to read behind this position, or nothing to wait for.
fn readable(state: &State, position: u64) -> bool {
    match state {
        State::Waiting => false,
        State::Growing(_, written) => *written > position,
        State::Complete(..) | State::Stored | State::Failed(_) => true,
    }
}

fn gone() -> Error {
    Error::cancelled("the call that fetched this was cancelled")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn grown(file: &File, bytes: u64) -> State {
        State::Growing(Arc::new(file.try_clone().unwrap()), bytes)
    }

    #[tokio::test]
    async fn a_reader_gets_what_is_written_and_ends_with_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"resumed").unwrap();
        let (writer, mut follow) = pair();
        writer.send_replace(grown(&file, 7));
        assert_eq!(follow.begun().await.unwrap(), Begun::Growing);
        let reader = follow.clone().reader();
        let reading = tokio::task::spawn_blocking(move || io::read_to_string(reader));
        for (n, piece) in ["-one", "-two"].iter().enumerate() {
            file.write_all(piece.as_bytes()).unwrap();
            writer.send_replace(grown(&file, 7 + 4 * (n as u64 + 1)));
            tokio::task::yield_now().await;
        }
        // Bytes that are in the file and were not told of aren't read: they may be an older try's.
        writer.send_replace(State::Complete(Arc::new(file), 1));
        assert_eq!(reading.await.unwrap().unwrap(), "resumed-one-two");
        assert!(!follow.complete().await.unwrap());
    }

    #[tokio::test]
    async fn a_reader_fails_with_its_writer() {
        let (writer, mut follow) = pair();
        let reader = follow.clone().reader();
        let reading = tokio::task::spawn_blocking(move || io::read_to_string(reader));
        writer.send_replace(State::Failed(Error::data_loss("the digest does not match")));
        assert_eq!(reading.await.unwrap().unwrap_err().to_string(), "the digest does not match");
        assert_eq!(follow.complete().await.unwrap_err().kind, crate::error::Kind::DataLoss);

        let (writer, mut follow) = pair();
        let reader = follow.clone().reader();
        let reading = tokio::task::spawn_blocking(move || io::read_to_string(reader));
        drop(writer);
        assert!(reading.await.unwrap().unwrap_err().to_string().contains("was cancelled"));
        assert!(follow.begun().await.is_err());
    }
}
