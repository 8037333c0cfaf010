//! Copies between a pty's master and the client.
//!
//! While nobody in the container has the pty open, reading fails with EIO and epoll reports a hang-up; either passes when it
//! is opened again. So EIO is the end only after the process has exited.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::Sender;
use tracing::warn;

use super::copy::{Turn, Writer};
use super::sink::Sink;
use super::target::Stream;
use crate::error::{Context, Result};
use crate::sys::tty;
use crate::sys::watch::watch;

/// How far a terminal's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The process may write.
    Used,
    /// The process has exited: what is in the pty now is the last of it.
    Exited,
    /// The client has hung up.
    HungUp,
}

/// The shim's end of a terminal, which its two copies share.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    master: Rc<RefCell<Option<Rc<OwnedFd>>>>,
    phase: Sender<Phase>,
}

impl Terminal {
    /// Of a master that does not block.
    pub(super) fn new(master: OwnedFd) -> Self {
        Self { master: Rc::new(RefCell::new(Some(Rc::new(master)))), phase: Sender::new(Phase::Used) }
    }

    /// In characters.
    pub(super) fn resize(&self, width: u16, height: u16) -> Result<()> {
        match &*self.master.borrow() {
            Some(master) => tty::resize(master.as_fd(), width, height)
                .context(|| format!("set the size of the terminal to {width}x{height}")),
            None => Ok(()),
        }
    }

    /// The process has exited.
    pub(super) fn exited(&self) {
        self.phase.send_if_modified(|phase| {
            let used = *phase == Phase::Used;
            if used {
                *phase = Phase::Exited;
            }
            used
        });
    }

    /// Closes the master; who still has the pty gets SIGHUP.
    fn hang_up(&self) {
        self.phase.send_replace(Phase::HungUp);
        drop(self.master.borrow_mut().take());
    }

    fn master(&self) -> Option<Rc<OwnedFd>> {
        self.master.borrow().clone()
    }
}

/// Copies what the process writes until it has exited, or the client has hung up.
pub(super) async fn output(terminal: Terminal, sink: &Sink) {
    let mut phase = terminal.phase.subscribe();
    let copied = tokio::select! {
        copied = copy_output(&terminal, sink) => copied,
        _ = phase.wait_for(|phase| *phase == Phase::HungUp) => Ok(()),
    };
    if let Err(error) = copied {
        warn!("copy the output of a terminal: {error}; the rest of it is dropped");
    }
}

async fn copy_output(terminal: &Terminal, sink: &Sink) -> io::Result<()> {
    let Some(master) = terminal.master() else { return Ok(()) };
    let mut phase = terminal.phase.subscribe();
    let edge = Edge::new(master.as_fd(), EpollFlags::EPOLLIN)?;
    let mut turn = Turn::default();
    let mut writer = Writer::new(Stream::Stdout);
    loop {
        // Looked at before reading: what was written before the exit is then still read.
        let last = *phase.borrow_and_update() != Phase::Used;
        match writer.take(master.as_fd(), sink.as_fd()) {
            Ok(0) | Err(Errno::EAGAIN | Errno::EIO) if last => return Ok(()),
            Ok(0) | Err(Errno::EAGAIN | Errno::EIO) => {
                tokio::select! {
                    ready = edge.wait() => ready?,
                    _ = phase.changed() => {}
                }
            }
            Ok(_) => {
                writer.flush(sink).await?;
                turn.chunk().await;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies what clients type, until they are gone and CloseIO came; then the terminal hangs up.
pub(super) async fn input(from: AsyncFd<OwnedFd>, terminal: Terminal) {
    if let Err(error) = copy_input(&from, &terminal).await {
        warn!("copy the input of a terminal: {error}; it is hung up");
    }
    terminal.hang_up();
}

async fn copy_input(from: &AsyncFd<OwnedFd>, terminal: &Terminal) -> io::Result<()> {
    let Some(master) = terminal.master() else { return Ok(()) };
    let mut turn = Turn::default();
    let mut writer = Writer::new(Stream::Stdin);
    loop {
        let mut ready = from.readable().await?;
        match writer.take(from.get_ref().as_fd(), master.as_fd()) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if writer.keeps() {
            // Made when it is needed, which is when nobody in the container reads.
            let edge = Edge::new(master.as_fd(), EpollFlags::EPOLLOUT)?;
            while writer.keeps() {
                edge.wait().await?;
                writer.retry(master.as_fd());
            }
        }
        turn.chunk().await;
    }
}

/// Waits for changes at a pty.
///
/// Tokio takes a hang-up for final and would report the pty ready for ever, so it watches an epoll instance that watches
/// the pty.
struct Edge(AsyncFd<OwnedFd>, Epoll);

impl Edge {
    fn new(pty: BorrowedFd<'_>, events: EpollFlags) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(pty, EpollEvent::new(events | EpollFlags::EPOLLET, 0))?;
        Ok(Self(watch(epoll.0.try_clone()?, Interest::READABLE)?, epoll))
    }

    /// Returns when something has changed since the last time.
    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let changed = self.1.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
            ready.clear_ready();
            if changed > 0 {
                return Ok(());
            }
        }
    }
}
