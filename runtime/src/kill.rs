//! `kill`: a signal to init, or to every process of the container.

use nix::errno::Errno;
use nix::libc;

use crate::cgroup::Cgroup;
use crate::cli::{Global, KillArgs};
use crate::error::{Context, Error, Kind, Result};
use crate::state::{self, State};
use crate::sys::process::pidfd_send_signal;

/// Runs the command.
pub fn run(global: &Global, args: &KillArgs) -> Result<()> {
    let state = state::load(&global.root(), &args.id)?;
    if args.all {
        // Some processes may have outlived init, so whether it runs does not matter here.
        return Cgroup::open(&state.cgroup)?.signal_all(args.signal);
    }
    signal_init(&state, args.signal)
}

/// Sends `signal` to init.
pub fn signal_init(state: &State, signal: i32) -> Result<()> {
    let pidfd = match &state.init {
        Some(init) => init.open()?,
        None => None,
    };
    let Some(pidfd) = pidfd else {
        if signal == libc::SIGKILL && !state.own_pid_namespace {
            // Without a pid namespace the end of init is not the end of the others.
            let cgroup = Cgroup::open(&state.cgroup)?;
            if !cgroup.pids()?.is_empty() {
                return cgroup.kill_all();
            }
        }
        return Err(not_running(&state.id));
    };
    // Before the others: it may be gone, and the whole container with it, when the first of them has been killed.
    match pidfd_send_signal(&pidfd, signal) {
        Err(Errno::ESRCH) => return Err(not_running(&state.id)),
        sent => sent.on(&format!("send signal {signal} to"), format!("container {:?}", state.id))?,
    }
    if signal != libc::SIGKILL {
        return Ok(());
    }
    let cgroup = Cgroup::open(&state.cgroup)?;
    if !state.own_pid_namespace {
        cgroup.kill_all()?;
    }
    // A frozen process does not die of it on version 1.
    if cgroup.is_frozen()? { cgroup.thaw() } else { Ok(()) }
}

/// The error for a container whose init is gone; callers match its words.
fn not_running(id: &str) -> Error {
    Error::new(Kind::State, format!("container not running: {id:?} is stopped"))
}
