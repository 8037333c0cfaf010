//! `run`: create and start in one process, then, unless detached, wait in the foreground and delete.

use crate::cli::{Global, RunArgs};
use crate::create::{Begin, Created, create};
use crate::error::{Context, Kind, Result};
use crate::notify::Forwarder;
use crate::parent::Spawned;
use crate::signals::Signals;
use crate::state::{ContainerDir, State};
use crate::sys::process::{Forked, clone, exit_now, set_child_subreaper};
use crate::{delete, log, selfexe, start, terminal};

/// Runs the command: the status of the container's process, or 0 once it is detached.
pub fn run(global: &Global, args: &RunArgs, own: &selfexe::Mount) -> Result<i32> {
    if !args.detach && !args.no_subreaper {
        // What the container's process leaves behind without a pid namespace is ours to reap.
        set_child_subreaper().on("become", "the subreaper")?;
    }
    // Before there is a child whose end, or a signal for it, could be missed.
    let signals = if args.detach { None } else { Some(Signals::hold()?) };
    let begin = if args.detach { Begin::Detached } else { Begin::Foreground };
    let Created { dir, state, mut spawned, console, notify, .. } = create(global, &args.create, begin, own)?;
    // Hooks, and whoever is quick, may call the runtime for this very container.
    drop(dir);
    let executed = spawned.until_executed();
    if let Err(error) = start::begun(&state, executed) {
        spawned.kill();
        if let Err(error) = remove(global, &state) {
            log::warn(format_args!("clean up after a failed run: {error}"));
        }
        return Err(error);
    }
    if let Some(notify) = notify {
        if signals.is_none() {
            notify.run(spawned.pidfd(), spawned.pid())?;
        } else {
            notify_beside(&notify, &spawned)?;
        }
    }
    let Some(signals) = signals else { return Ok(0) };
    let status = terminal::relay(spawned.into_child(), console, &signals);
    if args.keep {
        return status;
    }
    let removed = remove(global, &state);
    let status = status?;
    removed.map(|()| status)
}

/// Deletes the container, unless somebody else has.
pub fn remove(global: &Global, state: &State) -> Result<()> {
    match ContainerDir::open(&global.root(), &state.id) {
        Ok(dir) => delete::destroy(dir, state),
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// In the foreground this process relays the container's terminal and is the service's main process; a child of it waits
/// for the container's word, and ends with the container at the latest.
fn notify_beside(notify: &Forwarder, spawned: &Spawned) -> Result<()> {
    let main_pid = std::process::id() as i32;
    match clone(0, None).on("clone", "the process that waits for the container to be ready")? {
        Forked::Parent(_) => Ok(()),
        Forked::Child => exit_now(i32::from(notify.run(spawned.pidfd(), main_pid).is_err())),
    }
}
