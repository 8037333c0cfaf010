//! Making processes and watching them end: clone3(2), pidfds, prctl(2), close_range(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// clone3(2): the child starts in the cgroup that clone_args names. libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What [`clone`] returned, and where.
#[derive(Debug)]
pub enum Forked {
    /// This is the new process.
    Child,
    /// This is the caller, with the new process's pid (in the caller's pid namespace) and a pidfd of it.
    Parent(Child),
}

/// A process that we made.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// A pidfd of it: stays true when the pid is used again.
    pub pidfd: OwnedFd,
}

/// clone3(2) used as fork(2): the child gets a copy of the memory and goes on from here.
///
/// `namespaces` are `CLONE_NEW*` flags, beside which `CLONE_PARENT` is allowed; `cgroup` is a cgroup v2 directory in which
/// the child starts (CLONE_INTO_CGROUP). The runtime has one thread, so the child's copy is whole and its locks are free.
pub fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the kernel takes the parent's own exit signal and wants none here.
    args.exit_signal = if namespaces & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child runs on a copy of this memory and stack, as after fork(2); args and pidfd live
    // until the call returns; the runtime is single-threaded (an invariant), so no lock is held by a thread that is not copied.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(Errno::last()),
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a new fd here that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent(Child { pid: pid as i32, pidfd }))
        }
    }
}

/// pidfd_open(2).
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)? as libc::c_int;
    // SAFETY: the kernel returned a new fd that nobody else owns; it is close-on-exec by itself.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2): `signal` 0 only asks whether the process is there.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the fd is borrowed for the call and a null siginfo is allowed.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, 0) };
    Errno::result(done).map(drop)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit(2) with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The status as a shell and every runtime report it: the code, or 128 and the signal's number.
    pub fn status(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for a child of ours to end and reaps it.
pub fn wait(pidfd: impl AsFd) -> Result<Exit, Errno> {
    loop {
        // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let fd = pidfd.as_fd().as_raw_fd() as libc::id_t;
        // SAFETY: info is a valid place for the answer and lives until the call returns.
        let done = unsafe { libc::waitid(libc::P_PIDFD, fd, &raw mut info, libc::WEXITED) };
        match Errno::result(done) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {
                // SAFETY: waitid succeeded with WEXITED, so the kernel filled in the fields of a SIGCHLD.
                let status = unsafe { info.si_status() };
                return Ok(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) });
            }
        }
    }
}

/// setns(2) with a namespace's fd (`kind` its CLONE_NEW* flag) or a pidfd (`kind` any set of them).
pub fn setns(fd: impl AsFd, kind: i32) -> Result<(), Errno> {
    // SAFETY: the fd is borrowed for the call; the rest are integers.
    Errno::result(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kind) }).map(drop)
}

/// unshare(2).
pub fn unshare(kinds: i32) -> Result<(), Errno> {
    // SAFETY: takes an integer; CLONE_FILES and other flags that affect memory safety are not used by the callers.
    Errno::result(unsafe { libc::unshare(kinds) }).map(drop)
}

/// prctl(2) PR_SET_DUMPABLE 0: nobody but root of the host's user namespace may look into this process or its children
/// before they execute something else.
pub fn set_undumpable() -> Result<(), Errno> {
    // SAFETY: PR_SET_DUMPABLE takes an integer.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// pidfd_getfd(2): a copy of what is number `fd` in the process. It takes the right to trace that one.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes integers only.
    let copy = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the call succeeded, so it returned a new fd that nobody else owns; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as libc::c_int) })
}

/// prctl(2) PR_SET_CHILD_SUBREAPER 1: descendants whose parent ends become our children.
pub fn set_child_subreaper() -> Result<(), Errno> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes an integer.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Ends this process at once: no destructor and no exit handler runs. The way out of a cloned child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// Sets this process's name (comm), cut to 15 bytes by the kernel.
pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// setdomainname(2).
pub fn setdomainname(name: &str) -> Result<(), Errno> {
    // SAFETY: the kernel reads name.len() bytes from a string of that length.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}
