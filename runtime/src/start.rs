//! `start`: lets the init of a created container execute its program, and tells how that went.
//!
//! ```text
//!   start                                 init (holds exec.fifo open for reading and writing)
//!   opens exec.fifo for writing
//!   writes one byte ────────────────────► reads it; runs the startContainer hooks
//!   polls: no reader is left ◄─────────── execve closes the fifo; a failure is written into it before init exits
//!   reads what is in the fifo: nothing is success, else the error
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::{Global, IdArgs};
use crate::error::{Context, Error, Kind, Result};
use crate::hooks;
use crate::notify::Forwarder;
use crate::plan::hooks::Stage;
use crate::state::{self, ContainerDir, State, Status};

/// The byte that start writes.
const GO: u8 = b's';
/// The longest error that init leaves: what a pipe takes without a reader (pipe(7)).
const MAX_ERROR: u64 = 64 * 1024;

/// Runs the command.
pub fn run(global: &Global, args: &IdArgs) -> Result<()> {
    let root = global.root();
    let dir = ContainerDir::open(&root, &args.id)?;
    let state = dir.load()?.ok_or_else(|| state::does_not_exist(&args.id))?;
    match state.status(&root)? {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::new(Kind::State, format!("cannot start container {:?}: it has stopped", args.id)));
        }
        status => {
            return Err(Error::new(
                Kind::State,
                format!("cannot start container {:?}: it is {}, not created", args.id, status.word()),
            ));
        }
    }
    let notify = Forwarder::bind(dir.path())?;
    let failure = release(&dir.path().join("exec.fifo"))?;
    // Hooks may call the runtime for this very container.
    drop(dir);
    begun(&state, failure.map_or(Ok(()), Err))?;
    if let (Some(notify), Some(init)) = (notify, state.init)
        && let Some(pidfd) = init.open()?
    {
        notify.run(pidfd.as_fd(), init.pid)?;
    }
    Ok(())
}

/// Ends a start after init was let go, with the failure of either side.
///
/// The poststart hooks run even if init could not execute the program, or a startContainer hook failed: runc and crun do
/// so, and who has set something up in one hook counts on the others.
pub fn begun(state: &State, executed: Result<()>) -> Result<()> {
    let hooked = poststart(state);
    executed.and(hooked)
}

/// Runs the poststart hooks; where one fails the container is stopped (runtime-spec, lifecycle).
fn poststart(state: &State) -> Result<()> {
    let hooks = state.hooks.of(Stage::Poststart);
    if hooks.is_empty() {
        return Ok(());
    }
    let json = state.to_oci_json(Status::Running, state.init.map(|init| init.pid));
    hooks::run(Stage::Poststart, hooks, &json, &state.bundle).inspect_err(|_| {
        let _ = crate::kill::signal_init(state, libc::SIGKILL);
    })
}

/// Lets init go on, and waits until it has executed the program; or why it could not.
fn release(fifo: &Path) -> Result<Option<Error>> {
    let mut writer = match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(fifo) {
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            return Err(Error::new(Kind::State, "container not running: init ended before it was started"));
        }
        opened => opened.on("open", fifo.display())?,
    };
    writer.write_all(&[GO]).on("write to", fifo.display())?;
    wait_for_no_reader(&writer)?;
    let failure = left_behind(fifo)?;
    fs::remove_file(fifo).on("remove", fifo.display())?;
    Ok(failure)
}

/// A writer's poll reports POLLERR once nobody has the fifo open for reading.
fn wait_for_no_reader(writer: &File) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(writer.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("wait for", "init to execute the program"),
            Ok(_) => return Ok(()),
        }
    }
}

/// The error that init wrote, if it did. The caller holds the fifo open, so that what is in it stays.
fn left_behind(fifo: &Path) -> Result<Option<Error>> {
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(fifo).on("open", fifo.display())?;
    let mut bytes = Vec::new();
    match reader.take(MAX_ERROR).read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error).on("read", fifo.display()),
        _ => {}
    }
    if bytes == [GO] {
        return Err(Error::new(Kind::System, "init was killed before it could execute the program"));
    }
    if bytes.is_empty() { Ok(None) } else { crate::channel::decode(&bytes).map(Some) }
}

/// init's side: waits for the byte.
pub fn wait_in_init(fifo: &mut File) -> Result<()> {
    let mut byte = [0];
    loop {
        match fifo.read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.map(drop).on("read", "exec.fifo"),
        }
    }
}

/// init's side: leaves the reason why the program was not executed.
pub fn leave_error(fifo: &mut File, error: &Error) {
    if let Ok(bytes) = serde_json::to_vec(error) {
        // Whoever waits sees that init is gone in any case.
        let _ = fifo.write_all(&bytes);
    }
}
