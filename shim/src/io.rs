//! The streams of one process: what the container writes goes to where the client asked, what the client writes goes in.
//!
//! ```text
//! container --pipe--> copier --> fifo (the daemon reads) | file | null          a client's stdin fifo --> copier --pipe--> container
//! container --pipe------------> binary logger (fds 3, 4; 5 says that it is ready)
//! container <--pty--> copier <--> fifos, file, logger (stdout only: a terminal has one output)
//! ```
//!
//! One [`Io`] belongs to one process. It does not know containers, exits or requests; its owner tells it when the
//! process has gone.

use std::os::fd::OwnedFd;

use crate::error::{Error, Kind, Result};

/// Where a client wants a process's streams, as in its requests; an empty string is no stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A fifo.
    pub stdin: String,
    /// A path or a URI: `fifo://`, `file://`, `binary://` or `binary-v2://`.
    pub stdout: String,
    /// As `stdout`. Not used with a terminal.
    pub stderr: String,
    /// The process gets a pty instead of three streams.
    pub terminal: bool,
}

/// What a binary logger is told about the process it logs for.
#[derive(Debug, Clone, Default)]
pub struct LoggerNames {
    /// Its CONTAINER_ID: the container's id, or the exec's.
    pub id: String,
    /// Its CONTAINER_NAMESPACE.
    pub namespace: String,
}

/// What the runtime gets as its 0, 1 and 2: None is /dev/null. All None with a terminal.
///
/// The pipes' end-of-file depends on these being dropped as soon as the runtime has them.
#[derive(Debug, Default)]
pub struct ChildStdio {
    /// The read end of a pipe.
    pub stdin: Option<OwnedFd>,
    /// The write end of a pipe.
    pub stdout: Option<OwnedFd>,
    /// The write end of a pipe.
    pub stderr: Option<OwnedFd>,
}

/// The shim's side of one process's streams. Dropping it stops the copies and closes everything (a logger is killed).
#[derive(Debug)]
pub struct Io {}

impl Io {
    /// Opens the client's side of each stream (and starts a binary logger, and waits until that is ready), and makes the
    /// process's pipes, which `owner` (uid, gid) then owns. Nothing here waits for a reader or a writer of a fifo.
    ///
    /// Errors: `InvalidArgument` for a URI that cannot be served, `NotFound` for a fifo that is not there. The future may be
    /// dropped: a logger that never becomes ready is then killed.
    pub async fn open(_stdio: &Stdio, _logger: &LoggerNames, _owner: Option<(u32, u32)>) -> Result<(Self, ChildStdio)> {
        Err(Error::new(Kind::Unimplemented, "Streams are not served yet."))
    }

    /// Begins to copy, when the runtime has taken the [`ChildStdio`] and it was dropped here. Needs a `LocalSet` around it.
    pub fn start(&mut self) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "Streams are not served yet."))
    }

    /// Begins to copy between the pty and the client: instead of [`Io::start`] when there is a terminal.
    pub fn start_console(&mut self, _master: OwnedFd) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "Terminals are not served yet."))
    }

    /// CloseIO: when the clients that have stdin open are gone too, the process reads end-of-file; with a terminal, the
    /// terminal hangs up. Does nothing the second time, or when there is no stdin.
    pub fn close_stdin(&mut self) {}

    /// Sets the size of the terminal in characters; without a terminal it does nothing.
    pub fn resize(&self, _width: u32, _height: u32) -> Result<()> {
        Ok(())
    }

    /// The process has exited; to be called at once, and before waiting for [`Io::drained`]. A terminal's output ends here,
    /// when what is in the pty has been copied: until here nobody may have the pty open for a while and open it again (an
    /// init that opens /dev/console for each message), and after it a forgotten child may keep it open for ever. Pipes end
    /// only when all who hold them are gone.
    pub fn exited(&self) {}

    /// Resolves when all output has been copied; several may wait. Without copies (null, binary loggers) at once. It does
    /// not borrow the Io; when that is closed or dropped it resolves too. Before `start` it waits.
    pub fn drained(&self) -> impl Future<Output = ()> + use<> {
        std::future::ready(())
    }

    /// The pid of the binary logger while it has not been reaped: the Io reaps it itself, a reaper of unknown children
    /// leaves it alone.
    pub fn logger_pid(&self) -> Option<i32> {
        None
    }

    /// Stops copying and closes everything; when it returns, all fds are closed. A binary logger reads end-of-file, then
    /// gets SIGTERM, and SIGKILL after 12 seconds. Never fails: what goes wrong is logged.
    pub async fn close(self) {}
}
