//! sd_notify(3) handed through: a service manager that started the runtime with NOTIFY_SOCKET hears when the container's
//! program is ready.
//!
//! ```text
//!   service manager ◄── READY=1, MAINPID ── runtime ◄── READY=… ── <root>/<id>/notify/notify.sock
//!                   ◄── BARRIER=1, a pipe ──                       = /run/notify/notify.sock in the container
//!                   ─── closes the pipe ──►
//! ```
//!
//! Only the line `READY=` is passed on: what else a container says is not the word of the service. The socket's directory is
//! mounted read-only, so that the container can write to the socket and cannot replace it.
//!
//! The barrier (sd_notify_barrier(3)): a manager that reads a message finds the service by the process that sent it, so the
//! runtime must not be gone by then.
//!
//! A restored container gets the directory, which its image wants, but nobody listens in it, as with runc: whether its program
//! has said that it is ready lies before the restore.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;
use oci_spec::runtime::{MountBuilder, Spec};

use crate::error::{Context, Error, Kind, Result};
use crate::log;

/// Where the container finds the socket.
const INSIDE: &str = "/run/notify";
/// The socket's name, on both sides.
const NAME: &str = "notify.sock";
/// The longest message that is read; systemd's own limit is the pipe buffer.
const MAX_MESSAGE: usize = 4096;
/// How long a manager may take to read, in milliseconds: as with runc. One that does not know barriers closes what comes
/// with an unknown message.
const BARRIER_TIME: u16 = 30_000;

/// The service manager's socket, if the runtime was started with one.
pub fn requested() -> Option<PathBuf> {
    env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The directory of the container's socket, in its state directory.
fn directory(state: &Path) -> PathBuf {
    state.join("notify")
}

/// Adds the mount and the variable that hand the socket to the container.
pub fn extend(spec: &mut Spec, state: &Path) -> Result<()> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec();
    let mount =
        MountBuilder::default().destination(INSIDE).typ("bind").source(directory(state)).options(options).build();
    let mount = mount.map_err(|error| Error::caused(Kind::System, "plan the mount of the notify socket", error))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        process.env_mut().get_or_insert_default().push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    }
    Ok(())
}

/// The same for a container that is there, if it was created so.
pub fn extend_if_made(spec: &mut Spec, state: &Path) -> Result<()> {
    match fs::symlink_metadata(directory(state)) {
        Ok(_) => extend(spec, state),
        Err(_) => Ok(()),
    }
}

/// Makes the directory, which is mounted before there is a socket in it.
pub fn make_directory(state: &Path) -> Result<()> {
    let path = directory(state);
    DirBuilder::new().mode(0o755).create(&path).on("make", path.display())
}

/// The container's socket, and where its word goes.
#[derive(Debug)]
pub struct Forwarder {
    container: UnixDatagram,
    manager: UnixDatagram,
}

impl Forwarder {
    /// Binds the container's socket; `None` if this container was created without one, or no manager listens now.
    pub fn bind(state: &Path) -> Result<Option<Self>> {
        let (Some(manager), directory) = (requested(), directory(state)) else { return Ok(None) };
        if fs::symlink_metadata(&directory).is_err() {
            return Ok(None);
        }
        let path = directory.join(NAME);
        let container = UnixDatagram::bind(&path).on("bind", path.display())?;
        // Root of another user namespace is nobody here, and must be able to write.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).on("set the mode of", path.display())?;
        let socket = UnixDatagram::unbound().on("make", "a socket")?;
        let name = manager.as_os_str().as_bytes();
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&manager),
        };
        let connected = address.and_then(|address| socket.connect_addr(&address));
        connected.on("connect to NOTIFY_SOCKET", manager.display())?;
        Ok(Some(Self { container, manager: socket }))
    }

    /// Waits until the container says that it is ready, or is gone (`init` is its pidfd), and tells the manager, with the
    /// pid that is from now on the service's.
    pub fn run(&self, init: BorrowedFd<'_>, main_pid: i32) -> Result<()> {
        let mut message = [0; MAX_MESSAGE];
        loop {
            let mut fds =
                [PollFd::new(self.container.as_fd(), PollFlags::POLLIN), PollFd::new(init, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled.on("wait for", "the container to be ready")?,
            };
            if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                let length = self.container.recv(&mut message).on("read from", "the container's notify socket")?;
                if let Some(ready) = ready_line(&message[..length]) {
                    let text = [ready, b"\nMAINPID=", main_pid.to_string().as_bytes()].concat();
                    self.manager.send(&text).on("write to", "NOTIFY_SOCKET")?;
                    return self.wait_for_manager();
                }
            } else {
                // Only the end of the container is left.
                return Ok(());
            }
        }
    }
}

impl Forwarder {
    /// Waits until the manager has read what was sent.
    fn wait_for_manager(&self) -> Result<()> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).on("make", "a pipe")?;
        let (text, fds) = ([IoSlice::new(b"BARRIER=1")], [theirs.as_raw_fd()]);
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.manager.as_raw_fd(), &text, &control, MsgFlags::MSG_NOSIGNAL, None)
            .on("write to", "NOTIFY_SOCKET")?;
        drop(theirs);
        loop {
            let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, BARRIER_TIME) {
                Err(Errno::EINTR) => {}
                Ok(0) => {
                    log::warn(format_args!(
                        "the service manager has not read for 30 seconds that the container is ready"
                    ));
                    return Ok(());
                }
                polled => return polled.map(drop).on("wait for", "the service manager"),
            }
        }
    }
}

/// The first line that begins with `READY=`.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ready_line_is_passed_on() {
        assert_eq!(ready_line(b"STATUS=up\nREADY=1\nMAINPID=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"STATUS=READY=1"), None);
        assert_eq!(ready_line(b""), None);
    }

    #[test]
    fn the_container_gets_a_mount_and_a_variable() {
        let mut spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.3.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["x"]}}))
        .unwrap();
        extend(&mut spec, "/run/tare/c".as_ref()).unwrap();
        let mount = spec.mounts().iter().flatten().next_back().unwrap();
        assert_eq!(mount.destination(), Path::new("/run/notify"));
        assert_eq!(mount.source().as_deref(), Some(Path::new("/run/tare/c/notify")));
        assert_eq!(
            spec.process().as_ref().unwrap().env().as_deref(),
            Some(&["NOTIFY_SOCKET=/run/notify/notify.sock".into()][..])
        );
    }
}
