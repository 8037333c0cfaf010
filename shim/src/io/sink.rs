//! Where output ends up, opened; and the client's end of stdin.
//!
//! A fifo is opened for reading and writing: then opening waits for nobody, a reader that goes away is no error, and what was
//! not read stays for the next reader.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::target::Stream;
use crate::error::{Context, Error, Result};
use crate::sys::watch::watch;

/// Where output goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// A pipe or a fifo: it takes what has room, and says when there is room again.
    Pipe(AsyncFd<OwnedFd>),
    /// A file at its end, perhaps of two streams.
    File(Rc<File>),
}

impl Sink {
    /// For a pipe or a fifo that does not block.
    pub(super) fn pipe(fd: OwnedFd, stream: Stream) -> Result<Self> {
        watch(fd, Interest::WRITABLE)
            .map(Self::Pipe)
            .context(|| format!("watch the pipe for the {stream} of a process"))
    }

    /// Closes it when all was written: its readers then read end-of-file.
    ///
    /// A fifo that nobody has open any more forgets what it holds. So when there is something in it and its reader is away
    /// (a daemon that restarts), it is kept for the next one.
    pub(super) async fn leave(self) {
        let Self::Pipe(fifo) = self else { return };
        let fifo = fifo.into_inner();
        if !now(&fifo, PollFlags::POLLIN).is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            return;
        }
        let Ok(writer) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(by_descriptor(&fifo))
        else {
            return;
        };
        // We were a reader ourselves.
        drop(fifo);
        while now(&writer, PollFlags::empty()).is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            // That a reader opens it is no event for its writers.
            sleep(LOOK).await;
        }
    }
}

/// How often to look whether somebody reads.
const LOOK: Duration = Duration::from_millis(500);

fn now(fd: &impl AsFd, events: PollFlags) -> Option<PollFlags> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    poll(&mut fds, PollTimeout::ZERO).ok()?;
    fds[0].revents()
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(pipe) => pipe.get_ref().as_fd(),
            Self::File(file) => file.as_fd(),
        }
    }
}

/// Opens what is at this path: a fifo, or a file or device to append to.
pub(super) fn open_path(path: &Path, stream: Stream) -> Result<Sink> {
    let found = find(path, stream)?;
    let kind = found.metadata().context(|| format!("look at {} for {stream}", path.display()))?.file_type();
    if kind.is_fifo() {
        return open_found_fifo(&found, path, stream);
    }
    if kind.is_dir() {
        return Err(Error::invalid(format!("{} is a directory, it cannot be {stream}", path.display())));
    }
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(by_descriptor(&found))
        .map(|file| Sink::File(Rc::new(file)))
        .context(|| format!("open {} for {stream}", path.display()))
}

/// Opens this fifo.
pub(super) fn open_fifo(path: &Path, stream: Stream) -> Result<Sink> {
    let found = find(path, stream)?;
    require_fifo(&found, path, stream)?;
    open_found_fifo(&found, path, stream)
}

/// Opens this file to append to; makes it, and directories above it, where they lack.
pub(super) fn open_file(path: &Path, stream: Stream) -> Result<Sink> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .context(|| format!("make the directory {} for {stream}", parent.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map(|file| Sink::File(Rc::new(file)))
        .context(|| format!("open {} for {stream}", path.display()))
}

/// Where output goes that nobody wants.
pub(super) fn open_null() -> Result<Sink> {
    open_path(Path::new("/dev/null"), Stream::Stdout)
}

/// The client's end of stdin: the end to read from, and a writer.
#[derive(Debug)]
pub(super) struct StdinFifo {
    pub(super) reader: OwnedFd,
    /// While this is open a client that goes away is not the end of the input.
    pub(super) writer: OwnedFd,
}

/// Opens the fifo that clients write stdin to.
pub(super) fn open_stdin(path: &Path) -> Result<StdinFifo> {
    let found = find(path, Stream::Stdin)?;
    require_fifo(&found, path, Stream::Stdin)?;
    let open = |options: &mut OpenOptions| -> Result<OwnedFd> {
        options
            .custom_flags(libc::O_NONBLOCK)
            .open(by_descriptor(&found))
            .map(OwnedFd::from)
            .context(|| format!("open {} for stdin", path.display()))
    };
    // In this order: a writer that does not wait is only let in where there is a reader.
    let reader = open(OpenOptions::new().read(true))?;
    let writer = open(OpenOptions::new().write(true))?;
    Ok(StdinFifo { reader, writer })
}

/// What is at this path now, to be looked at before it is opened: opening has effects on what is not expected there.
fn find(path: &Path, stream: Stream) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .context(|| format!("open {} for {stream}", path.display()))
}

fn require_fifo(found: &File, path: &Path, stream: Stream) -> Result<()> {
    let kind = found.metadata().context(|| format!("look at {} for {stream}", path.display()))?.file_type();
    if kind.is_fifo() {
        return Ok(());
    }
    Err(Error::invalid(format!("{} is not a fifo, it cannot be {stream}", path.display())))
}

fn open_found_fifo(found: &File, path: &Path, stream: Stream) -> Result<Sink> {
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(by_descriptor(found))
        .context(|| format!("open the fifo {} for {stream}", path.display()))?;
    Sink::pipe(fifo.into(), stream)
}

fn by_descriptor(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
