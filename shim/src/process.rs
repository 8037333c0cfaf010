//! One process that a client knows: the first of a container, or an exec.
//!
//! ```text
//!            start              started            ended
//!  Created ---------> Starting ---------> Running -------> Stopped
//!     ^  |               |                                    ^
//!     |  +--- killed or deleted before its start -------------+
//!     +------------------+  the start failed (of an exec: Stopped, it has no second)
//! ```
//!
//! Clients see it as stopped only when its exit is also published: whoever waits is answered then and not before.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;

use tokio::sync::{Mutex, Notify, watch};

use crate::error::{Context, Error, Kind, Result};
use crate::exits::{Children, Exit};
use crate::io::{Io, Stdio};
use crate::streaming::Named;
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Added, not started.
    Created,
    /// A call of the runtime is about to start it.
    Starting,
    /// Started.
    Running,
    /// Ended, and its exit published.
    Stopped,
}

/// A process's streams, in use.
#[derive(Debug)]
pub struct Connected {
    /// The copies.
    pub io: Io,
    /// Those of them that are opened over ttrpc.
    pub _named: Named,
}

/// A process, by the thread that owns the table.
#[derive(Debug)]
pub struct Process {
    /// The exec's id; the container's for its first process.
    pub id: String,
    /// The streams as they were asked for.
    pub stdio: Stdio,
    /// The JSON of an exec's OCI process.
    pub spec: Vec<u8>,
    /// One change at a time: starts and deletes wait for each other here.
    pub turn: Mutex<()>,
    /// The shim's side of the streams, from the start (a container's: from create) until the delete.
    pub streams: RefCell<Option<Connected>>,
    /// By which its end is waited for, until somebody does.
    pub unwatched: RefCell<Option<OwnedFd>>,
    phase: Cell<Phase>,
    pid: Cell<u32>,
    pidfd: RefCell<Option<OwnedFd>>,
    settled: Notify,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    /// A process that is not started.
    pub fn new(id: String, stdio: Stdio, spec: Vec<u8>) -> Self {
        Self {
            id,
            stdio,
            spec,
            turn: Mutex::new(()),
            streams: RefCell::new(None),
            unwatched: RefCell::new(None),
            phase: Cell::new(Phase::Created),
            pid: Cell::new(0),
            pidfd: RefCell::new(None),
            settled: Notify::new(),
            exit: watch::Sender::new(None),
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Its number on the host; 0 before it has one.
    pub fn pid(&self) -> u32 {
        self.pid.get()
    }

    /// How it ended, once that is known to clients.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Notes the number that the runtime wrote, and returns a descriptor to wait by. The process is ours and not reaped
    /// before that, so the number is still its own.
    pub fn began(&self, pid: u32) -> Result<OwnedFd> {
        let pidfd = pidfd_open(pid).context(|| format!("watch the process {pid} that the runtime started"))?;
        let to_wait = pidfd.try_clone().context(|| "copy a descriptor".to_owned())?;
        self.pid.set(pid);
        *self.pidfd.borrow_mut() = Some(pidfd);
        Ok(to_wait)
    }

    /// A start is under way.
    pub fn starting(&self) {
        self.phase.set(Phase::Starting);
    }

    /// The start has ended like this. An end that was told while it was under way stays.
    pub fn settle(&self, phase: Phase) {
        if self.phase.get() != Phase::Stopped {
            self.phase.set(phase);
        }
        self.settled.notify_waiters();
    }

    /// Waits until no start is under way.
    pub async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.phase.get() != Phase::Starting {
                return;
            }
            settled.await;
        }
    }

    /// The kernel says that it has ended: what is still in its terminal is the last of it.
    pub fn hang_up(&self) {
        if let Some(streams) = self.streams.borrow().as_ref() {
            streams.io.exited();
        }
    }

    /// Stops the copies and closes everything.
    pub async fn close_streams(&self, children: &Children) {
        let streams = self.streams.borrow_mut().take();
        if let Some(Connected { io, _named: named }) = streams {
            let logger = io.logger_pid();
            io.close().await;
            if let Some(pid) = logger {
                children.forget(pid);
            }
            drop(named);
        }
    }

    /// It has ended; whoever waits is answered.
    pub fn stop(&self, exit: Exit) {
        self.pidfd.borrow_mut().take();
        self.settle(Phase::Stopped);
        self.exit.send_replace(Some(exit));
    }

    /// The answers to come, for [`exited`].
    pub fn exits(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.subscribe()
    }

    /// Sends a signal to this process, never to another of the same number.
    pub fn signal(&self, signal: u32) -> Result<()> {
        let finished = || Error::new(Kind::NotFound, "process already finished");
        if self.phase.get() == Phase::Stopped {
            return Err(finished());
        }
        let pidfd = self.pidfd.borrow();
        let Some(pidfd) = pidfd.as_ref() else {
            return Err(Error::precondition(format!("process {} is not started", self.id)));
        };
        pidfd_send_signal(pidfd, signal.cast_signed()).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => finished(),
            Some(libc::EINVAL) => Error::invalid(format!("{signal} is no signal")),
            _ => Error::internal(format!("send signal {signal} to process {}: {error}", self.id)),
        })
    }
}

/// Waits for the end of a process.
pub async fn exited(mut exits: watch::Receiver<Option<Exit>>) -> Result<Exit> {
    let exit = exits.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
    exit.ok_or_else(|| Error::not_found("the process was deleted before it ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_stays_when_the_start_returns_after_it() {
        let process = Process::new("late".into(), Stdio::default(), Vec::new());
        process.starting();
        process.stop(Exit { status: 5, at: std::time::SystemTime::now() });
        process.settle(Phase::Running);
        assert_eq!(process.phase(), Phase::Stopped);
    }
}
