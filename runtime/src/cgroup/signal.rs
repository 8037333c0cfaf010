//! Signals to every process of a container, so that none escapes by forking meanwhile.

use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::libc;

use super::{Cgroup, files};
use crate::error::{Context, Result};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// After so many rounds with new processes in each, the container is frozen before the next.
const ROUNDS: usize = 3;
/// Where it cannot be frozen, there is an end to this too: what is left then is told by the removal.
const MOST_ROUNDS: usize = 1000;

impl Cgroup {
    /// Kills every process. Returns when all have been sent the signal, not when all are gone. A frozen container is let
    /// go, for on version 1 a frozen process does not die.
    pub fn kill_all(&self) -> Result<()> {
        let Some(members) = self.members().filter(|_| self.saved.made) else { return Ok(()) };
        if self.is_unified() {
            match files::write(members, "cgroup.kill", "1") {
                Ok(()) | Err(Errno::ENODEV) => return Ok(()),
                // Before 5.14, or removed already: the rest finds out.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).on("kill the cgroup", members.display()),
            }
        }
        let mut known = BTreeSet::new();
        for round in 0..MOST_ROUNDS {
            // Only when they fork as fast as they are killed: freezing costs more than killing.
            let frozen = round == ROUNDS && self.freeze().is_ok();
            let new: Vec<i32> = self.pids()?.into_iter().filter(|pid| known.insert(*pid) || frozen).collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                send(pid, libc::SIGKILL)?;
            }
            if frozen {
                break;
            }
        }
        match self.is_frozen()? {
            true => self.thaw(),
            false => Ok(()),
        }
    }

    /// Sends a signal to every process there is.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill_all();
        }
        // Frozen, so that no process starts another one behind our back. One that was paused stays so.
        let froze = !self.is_frozen()? && self.freeze().is_ok();
        let sent = self.pids().and_then(|pids| pids.into_iter().try_for_each(|pid| send(pid, signal)));
        if froze {
            self.thaw()?;
        }
        sent
    }
}

fn send(pid: i32, signal: i32) -> Result<()> {
    match pidfd_open(pid).and_then(|process| pidfd_send_signal(&process, signal)) {
        // It has ended meanwhile.
        Err(Errno::ESRCH) => Ok(()),
        sent => sent.on(&format!("send signal {signal} to"), format!("process {pid}")),
    }
}
