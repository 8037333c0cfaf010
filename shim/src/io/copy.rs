//! Copies between pipes, fifos and files without ever blocking the thread.
//!
//! From pipe to pipe the kernel moves pages (splice). To a file that is opened to append it refuses to (EINVAL, splice(2)); there,
//! and with a terminal, bytes pass through a buffer on the stack. What the other side does not take at once is kept
//! aside, and no more is read until it is gone: so one stream holds at most one chunk, and an idle one nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tracing::{debug, warn};

use super::journal::Journal;
use super::sink::Sink;
use super::target::Stream;

/// As much as a pipe can have: one call empties it.
const SPLICE: usize = 1 << 20;
/// Less than this is a line or two.
const LITTLE: usize = 4096;
/// A pipe holds this much at first (pipe(7)).
const USUAL_PIPE: usize = 64 << 10;
/// A pipe of a busy stream.
const WIDE_PIPE: i32 = 256 << 10;
/// So many full pipes one after the other make a stream busy.
const BUSY: u32 = 16;
/// What passes through memory at once.
const CHUNK: usize = 16 << 10;
/// A stream that always has more lets the others have their turn after so many chunks.
const TURN: u32 = 8;

/// Counts the chunks of a stream's turn.
#[derive(Default)]
pub(super) struct Turn(u32);

impl Turn {
    /// After each chunk.
    pub(super) async fn chunk(&mut self) {
        self.0 += 1;
        if self.0 >= TURN {
            self.0 = 0;
            yield_now().await;
        }
    }
}

/// Copies the process's output to where it goes, until nobody has the pipe open for writing any more.
pub(super) async fn output(from: AsyncFd<OwnedFd>, sink: &Sink, stream: Stream) {
    let copied = match sink {
        Sink::Pipe(to) => pipe_to_pipe(&from, to).await,
        Sink::File(_) => pipe_to_sink(&from, sink, stream).await,
    };
    if let Err(error) = copied {
        drop_rest(&from, stream, &error).await;
    }
}

/// As [`output`], into a log.
pub(super) async fn logged(from: &AsyncFd<OwnedFd>, journal: &Journal, stream: Stream) {
    if let Err(error) = journal.copy(from, stream).await {
        drop_rest(from, stream, &error).await;
    }
}

/// The process lives on: without a reader of its pipe it would stand still, or be killed by SIGPIPE.
async fn drop_rest(from: &AsyncFd<OwnedFd>, stream: Stream, why: &io::Error) {
    warn!("copy {stream}: {why}; the rest of it is dropped");
    if let Err(error) = discard(from).await {
        warn!("read {stream}: {error}");
    }
}

/// Copies what clients write to the process's stdin, until they are gone and CloseIO came, or the process has closed it.
pub(super) async fn input(from: AsyncFd<OwnedFd>, to: AsyncFd<OwnedFd>) {
    match pipe_to_pipe(&from, &to).await {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
        Err(error) => warn!("copy stdin: {error}; it has ended for the process"),
    }
}

async fn pipe_to_pipe(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    let mut turn = Turn::default();
    let mut full = 0;
    loop {
        let mut readable = from.readable().await?;
        match splice(from.get_ref(), None, to.get_ref(), None, SPLICE, flags) {
            Ok(0) => return Ok(()),
            Ok(length) if length >= LITTLE => {
                full = if length >= USUAL_PIPE { full + 1 } else { 0 };
                if full == BUSY {
                    widen(from.get_ref().as_fd());
                    widen(to.get_ref().as_fd());
                }
                turn.chunk().await;
                continue;
            }
            // Most likely that was all: looking costs less than another splice and looking.
            Ok(_) => turn.chunk().await,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Events come once, when a side becomes ready: a side's readiness is forgotten either while it surely is not
        // ready, or before the next try. Forgetting it of a side that is ready, and then waiting, would be for ever.
        match not_ready(from.get_ref().as_fd(), to.get_ref().as_fd())? {
            Some(Side::From) => readable.clear_ready(),
            Some(Side::To) => to.writable().await?.clear_ready(),
            None => {}
        }
    }
}

/// Makes a pipe hold more, so that its sides take fewer turns: with busy processors that is a multiple of the throughput.
/// Only for a stream that has shown that it needs this, since a user's pipes together are limited, and the kernel's memory
/// too. It may refuse (pipe(7)): then all stays as it is.
fn widen(pipe: BorrowedFd<'_>) {
    let narrow = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).is_ok_and(|size| size < WIDE_PIPE);
    if narrow && let Err(error) = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(WIDE_PIPE)) {
        debug!("a busy pipe stays as narrow as it is: {error}");
    }
}

enum Side {
    From,
    To,
}

/// The side for which splice(2) has to wait now; it does not say that itself.
fn not_ready(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<Option<Side>> {
    let mut sides = [PollFd::new(from, PollFlags::POLLIN), PollFd::new(to, PollFlags::POLLOUT)];
    poll(&mut sides, PollTimeout::ZERO)?;
    Ok(match sides.map(|side| side.any().unwrap_or(true)) {
        [false, _] => Some(Side::From),
        [true, false] => Some(Side::To),
        [true, true] => None,
    })
}

async fn pipe_to_sink(from: &AsyncFd<OwnedFd>, sink: &Sink, stream: Stream) -> io::Result<()> {
    let mut turn = Turn::default();
    let mut writer = Writer::new(stream);
    loop {
        let mut ready = from.readable().await?;
        match writer.take(from.get_ref().as_fd(), sink.as_fd()) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                // It was empty then; what came since comes as an event.
                if length < CHUNK {
                    ready.clear_ready();
                }
                writer.flush(sink).await?;
            }
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        turn.chunk().await;
    }
}

async fn discard(from: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut turn = Turn::default();
    loop {
        let mut ready = from.readable().await?;
        match read_away(from.get_ref().as_fd()) {
            Ok(0) => return Ok(()),
            Ok(_) => turn.chunk().await,
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// In a function of its own, as is [`Writer::take`]: a buffer in an async function is part of every idle task.
fn read_away(from: BorrowedFd<'_>) -> nix::Result<usize> {
    read(from, &mut [0; CHUNK])
}

/// Writes a stream's chunks; keeps what was not taken.
pub(super) struct Writer {
    stream: Stream,
    kept: Vec<u8>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, kept: Vec::new(), failing: false }
    }

    /// Reads one chunk and writes what can be written of it. How much was read: nothing is end-of-file. Only after
    /// [`Writer::flush`] the next.
    pub(super) fn take(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<usize> {
        let mut buffer = [0; CHUNK];
        let length = read(from, &mut buffer)?;
        let rest = self.write(to, &buffer[..length]);
        self.kept.extend_from_slice(rest);
        Ok(length)
    }

    /// Waits until all that was read has been written.
    pub(super) async fn flush(&mut self, sink: &Sink) -> io::Result<()> {
        while !self.kept.is_empty() {
            match sink {
                Sink::Pipe(pipe) => pipe.writable().await?.clear_ready(),
                // Of files only devices refuse: nothing says when they no longer do, and nothing may wait for them.
                Sink::File(_) => {
                    self.failed(Errno::EAGAIN);
                    self.kept = Vec::new();
                    break;
                }
            }
            self.retry(sink.as_fd());
        }
        Ok(())
    }

    /// Writes again what was kept.
    pub(super) fn retry(&mut self, to: BorrowedFd<'_>) {
        let kept = std::mem::take(&mut self.kept);
        let rest = self.write(to, &kept).len();
        if rest > 0 {
            self.kept = kept;
            self.kept.drain(..self.kept.len() - rest);
        }
    }

    /// Whether there is something that was read and could not be written yet.
    pub(super) fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Gives back what there is no room for now. What can't be written for another reason (a full disk, a dead logger) is
    /// dropped: the process must go on.
    fn write<'a>(&mut self, to: BorrowedFd<'_>, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match write(to, bytes) {
                Ok(length) => {
                    bytes = &bytes[length..];
                    self.failing = false;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return bytes,
                Err(error) => {
                    self.failed(error);
                    return &[];
                }
            }
        }
        bytes
    }

    /// Said once for each time that it begins.
    fn failed(&mut self, error: Errno) {
        if !self.failing {
            warn!("write {}: {error}; output is dropped until it works again", self.stream);
            self.failing = true;
        }
    }
}
