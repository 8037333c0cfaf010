//! User namespaces: those that exist only for their maps, and those that own others.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

/// A user namespace with these maps, in the form of `/proc/PID/uid_map` (user_namespaces(7)).
///
/// A namespace has its maps from a process in it, so one is made that only waits until we have opened its namespace.
pub fn with_maps(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let (gate, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (pid, pidfd) = clone_waiting(&gate, &ours)?;
    drop(gate);
    // Not waited for yet, so the id is still its.
    let process = format!("/proc/{pid}");
    let namespace = std::fs::write(format!("{process}/uid_map"), uid_map)
        .and_then(|()| std::fs::write(format!("{process}/gid_map"), gid_map))
        .and_then(|()| File::open(format!("{process}/ns/user")))
        .map(OwnedFd::from);
    drop(ours);
    loop {
        // It sends no signal at its end, and is seen by nobody who does not ask for such.
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL) {
            Err(Errno::EINTR) => {}
            _ => return namespace,
        }
    }
}

/// The user namespace that owns this namespace (ioctl_nsfs(2)); None if it is the shim's own.
pub fn owner_of(namespace: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    /// `NS_GET_USERNS` of <linux/nsfs.h>: `_IO(0xb7, 0x1)`.
    const GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the call takes no third argument.
    let fd = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USERNS) })?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let place = |it: &std::fs::Metadata| (it.st_dev(), it.st_ino());
    let is_own = place(&owner.metadata()?) == place(&std::fs::metadata("/proc/self/ns/user")?);
    Ok((!is_own).then(|| owner.into()))
}

/// Clones a process in a user namespace of its own, which ends when the last write end of the pipe is closed; should we die,
/// that is then, too.
fn clone_waiting(gate: &OwnedFd, ours: &OwnedFd) -> Result<(i32, OwnedFd), Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64;
    args.pidfd = &raw mut pidfd as u64;
    let (gate, ours) = (gate.as_raw_fd(), ours.as_raw_fd());
    // SAFETY: without CLONE_VM the child runs on a copy of this memory and stack, as after fork(2); args and pidfd live until
    // the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match Errno::result(pid)? {
        0 => {
            let mut byte = 0_u8;
            // SAFETY: these calls are async-signal-safe, so they are allowed in the child of a process of any number of
            // threads; the pipe's ends are open, `byte` is a valid place for one byte, and nothing runs after `_exit`.
            unsafe {
                libc::close(ours);
                libc::read(gate, (&raw mut byte).cast(), 1);
                libc::_exit(0)
            }
        }
        // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a new descriptor that nobody else owns.
        pid => Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}
