//! `pause` and `resume`: all processes of a container stopped, and going on.

use crate::cgroup::Cgroup;
use crate::cli::{Global, IdArgs};
use crate::error::{Error, Kind, Result};
use crate::state::{self, ContainerDir, State, Status};

/// Runs `pause`.
pub fn pause(global: &Global, args: &IdArgs) -> Result<()> {
    let (_dir, state, status) = load(global, args)?;
    match status {
        Status::Running | Status::Created => Cgroup::open(&state.cgroup)?.freeze(),
        status => Err(Error::new(Kind::State, format!("container not running: {:?} is {}", args.id, status.word()))),
    }
}

/// Runs `resume`.
pub fn resume(global: &Global, args: &IdArgs) -> Result<()> {
    let (_dir, state, status) = load(global, args)?;
    match status {
        Status::Paused => Cgroup::open(&state.cgroup)?.thaw(),
        status => Err(Error::new(Kind::State, format!("container not paused: {:?} is {}", args.id, status.word()))),
    }
}

fn load(global: &Global, args: &IdArgs) -> Result<(ContainerDir, State, Status)> {
    let root = global.root();
    let dir = ContainerDir::open(&root, &args.id)?;
    let state = dir.load()?.ok_or_else(|| state::does_not_exist(&args.id))?;
    let status = state.status(&root)?;
    Ok((dir, state, status))
}
