//! `run`: create and start in one process, then, unless detached, wait in the foreground and delete.

use crate::cli::{Global, RunArgs};
use crate::create::{Begin, Created, create};
use crate::error::{Context, Kind, Result};
use crate::state::{ContainerDir, State};
use crate::sys::process::set_child_subreaper;
use crate::{delete, log, start, terminal};

/// Runs the command: the status of the container's process, or 0 once it is detached.
pub fn run(global: &Global, args: &RunArgs) -> Result<i32> {
    if !args.detach && !args.no_subreaper {
        // What the container's process leaves behind without a pid namespace is ours to reap.
        set_child_subreaper().on("become", "the subreaper")?;
    }
    let Created { dir, state, mut spawned, console, .. } = create(global, &args.create, Begin::AtOnce)?;
    // Hooks, and whoever is quick, may call the runtime for this very container.
    drop(dir);
    if let Err(error) = spawned.until_executed().and_then(|()| start::poststart(&state)) {
        spawned.kill();
        if let Err(error) = remove(global, &state) {
            log::warn(format_args!("clean up after a failed run: {error}"));
        }
        return Err(error);
    }
    if args.detach {
        return Ok(0);
    }
    let status = terminal::relay(spawned.into_child(), console);
    if args.keep {
        return status;
    }
    let removed = remove(global, &state);
    let status = status?;
    removed.map(|()| status)
}

/// Deletes the container, unless somebody else has.
fn remove(global: &Global, state: &State) -> Result<()> {
    match ContainerDir::open(&global.root(), &state.id) {
        Ok(dir) => delete::destroy(dir, state),
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
