//! `delete`: removes everything that a container holds. It works after a create that was cut short at any instant, and
//! again where an earlier delete was.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::Cgroup;
use crate::cli::{DeleteArgs, Global};
use crate::error::{Context, Error, Kind, Result};
use crate::hooks;
use crate::init::rootfs;
use crate::kill::signal_init;
use crate::parent::rdt;
use crate::plan::hooks::Stage;
use crate::state::{self, ContainerDir, State, Status};

/// How long a killed init may take to end: uninterruptible sleep in a system call is the only reason.
const PATIENCE_MS: u16 = 10_000;

/// Runs the command.
pub fn run(global: &Global, args: &DeleteArgs) -> Result<()> {
    let root = global.root();
    if args.force {
        // A create that still runs holds the lock until its init is gone.
        if let Ok(state) = state::load(&root, &args.id) {
            let _ = signal_init(&state, libc::SIGKILL);
        }
    }
    let dir = match ContainerDir::open(&root, &args.id) {
        Err(error) if args.force && error.kind() == Kind::NotFound => return Ok(()),
        dir => dir?,
    };
    let Some(state) = dir.load()? else { return dir.remove() };
    // Without an init its creation was cut short: nobody else can be at it, for the lock is ours.
    let status = if state.init.is_none() { Status::Stopped } else { state.status(&root)? };
    match status {
        Status::Stopped => {}
        // It never ran: there is nothing that ending it could lose.
        Status::Created => end(&state)?,
        _ if args.force => end(&state)?,
        status => {
            return Err(Error::new(
                Kind::State,
                format!("cannot delete container {:?} that is not stopped: it is {}", args.id, status.word()),
            ));
        }
    }
    destroy(dir, &state)
}

/// Kills init and waits for its end.
pub fn end(state: &State) -> Result<()> {
    let Some(pidfd) = state.init.as_ref().map(state::Init::open).transpose()?.flatten() else { return Ok(()) };
    match signal_init(state, libc::SIGKILL) {
        Err(error) if error.kind() != Kind::State => return Err(error),
        _ => {}
    }
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("wait for the end of", format!("container {:?}", state.id)),
            Ok(0) => {
                return Err(Error::new(
                    Kind::System,
                    format!("container {:?} did not end within {} s of SIGKILL", state.id, PATIENCE_MS / 1000),
                ));
            }
            Ok(_) => return Ok(()),
        }
    }
}

/// Removes what a stopped container holds, then runs its poststop hooks.
pub fn destroy(dir: ContainerDir, state: &State) -> Result<()> {
    release(dir, state)?;
    poststop(state);
    Ok(())
}

/// Removes processes that outlived init, cgroups, the RDT group and the directory. Each step is tried even if one before it
/// failed, the first failure is told, and the directory goes last, so that what was cut short or failed can be done again.
pub fn release(dir: ContainerDir, state: &State) -> Result<()> {
    let cgroup = Cgroup::open(&state.cgroup).and_then(|cgroup| {
        if !state.own_pid_namespace {
            cgroup.kill_all()?;
        }
        cgroup.destroy()
    });
    let rdt = match &state.rdt {
        Some(class) if state.complete => rdt::remove(class),
        Some(class) => rdt::take_back(class),
        None => Ok(()),
    };
    let mounts = if state.mounted_on_host { rootfs::release(&state.rootfs) } else { Ok(()) };
    cgroup.and(rdt).and(mounts)?;
    dir.remove()
}

/// A failing poststop hook is only a warning (runtime-spec, lifecycle).
pub fn poststop(state: &State) {
    let hooks = state.hooks.of(Stage::Poststop);
    if hooks.is_empty() {
        return;
    }
    let json = state.to_oci_json(Status::Stopped, None);
    for error in hooks::run_all(Stage::Poststop, hooks, &json, &state.bundle) {
        crate::log::warn(format_args!("{error}"));
    }
}
