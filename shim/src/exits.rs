//! The ends of processes: each is waited for by its pidfd, so that a number used again can never be mistaken.
//!
//! The shim is a child subreaper: a container's first process becomes its child when the runtime that made it returns, and
//! so does whatever a container or a hook leaves behind. Those we know are reaped by whoever waits for them here; all
//! others are reaped when they have ended, but only while no call of the runtime is under way: between the runtime's return
//! and our opening of a pidfd a process is ours but not yet known, and reaped too early its status would be lost.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Result};
use crate::sys::watch::watch;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status, or 128 and the number of the signal that killed it.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

impl Exit {
    /// Of one that nobody could wait for: it was no child of ours.
    fn unknown() -> Self {
        Self { status: UNKNOWN_STATUS, at: SystemTime::now() }
    }
}

/// What is reported for a process that ended unseen.
const UNKNOWN_STATUS: u32 = 255;

/// The children of this process that somebody waits for, and the calls that may bring new ones.
#[derive(Debug, Default)]
pub struct Children {
    known: RefCell<HashSet<u32>>,
    calls: Cell<u32>,
}

impl Children {
    /// From now on this child is waited for by its pidfd.
    pub fn expect(&self, pid: u32) {
        self.known.borrow_mut().insert(pid);
    }

    /// Nobody waits for this child after all.
    pub fn forget(&self, pid: u32) {
        self.known.borrow_mut().remove(&pid);
    }

    /// A call that may bring new children begins; it ends when the result is dropped.
    pub fn call(self: &Rc<Self>) -> Call {
        self.calls.set(self.calls.get() + 1);
        Call(self.clone())
    }

    /// Waits for the end of an expected child and reaps it.
    pub async fn wait(&self, pid: u32, pidfd: OwnedFd) -> Result<Exit> {
        let pidfd = watch(pidfd, Interest::READABLE).context(|| format!("watch process {pid}"))?;
        let exit = loop {
            let mut ready = pidfd.readable().await.context(|| format!("watch process {pid}"))?;
            if let Some(exit) = reap(&pidfd).context(|| format!("wait for process {pid}"))? {
                break exit;
            }
            ready.clear_ready();
        };
        self.known.borrow_mut().remove(&pid);
        // It may have stood before others in the kernel's list.
        self.reap_unknown();
        Ok(exit)
    }

    /// Reaps at each SIGCHLD what nobody waits for.
    pub async fn reap_at_signals(&self) {
        let signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child());
        let Ok(mut signals) = signals.inspect_err(|error| tracing::error!("watch for ended children: {error}")) else {
            return;
        };
        while signals.recv().await.is_some() {
            self.reap_unknown();
        }
    }

    /// Reaps what ended and nobody waits for. Called at each SIGCHLD and whenever what held it up is over.
    pub fn reap_unknown(&self) {
        // The kernel shows one ended child at a time. A known one is left to its waiter, which calls this again.
        while self.calls.get() == 0 {
            let shown = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
            let Some(pid) = shown.ok().and_then(|status| status.pid()) else { return };
            if self.known.borrow().contains(&pid.as_raw().cast_unsigned()) {
                return;
            }
            tracing::debug!("reaped process {pid}, which was left to the shim");
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        }
    }
}

/// While one exists, children that nobody knows are left alone.
#[derive(Debug)]
pub struct Call(Rc<Children>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
        self.0.reap_unknown();
    }
}

fn reap(pidfd: &AsyncFd<OwnedFd>) -> nix::Result<Option<Exit>> {
    match waitid(Id::PIDFd(pidfd.get_ref().as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, status)) => Ok(Some(at_once(status.cast_unsigned()))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(at_once(128 + (signal as i32).cast_unsigned()))),
        Ok(_) => Ok(None),
        // Ended, but the child of another: of a subreaper in between, or reaped by a runtime of another kind.
        Err(Errno::ECHILD) => Ok(Some(Exit::unknown())),
        Err(Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn at_once(status: u32) -> Exit {
    Exit { status, at: SystemTime::now() }
}

/// Whether a process of this number exists, ended or not.
pub fn exists(pid: u32) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), None) != Err(Errno::ESRCH)
}
