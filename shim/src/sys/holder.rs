//! A process that only keeps namespaces open: a pod's, instead of a pause container.
//!
//! It is a copy of the shim that never returns, so it costs no program, no root and no memory of its own but its stack.
//! Between the clone and its sleep it makes system calls only: the copy has the shim's memory in whatever state it was.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::process::{Spawned, pidfd_open};

/// What the holder is to hold.
#[derive(Debug, Default)]
pub struct Holding<'a> {
    /// The new namespaces: `CLONE_NEW…`.
    pub new: libc::c_int,
    /// A user namespace to be in: it owns the new ones, and its root is who the holder is.
    pub user: Option<BorrowedFd<'a>>,
    /// A network namespace to join.
    pub network: Option<BorrowedFd<'a>>,
    /// The host name in a new UTS namespace; empty to leave it.
    pub hostname: &'a str,
    /// Files below /proc/sys and what is written into them, once the namespaces are there.
    pub sysctls: Vec<(PathBuf, String)>,
}

/// Clones the holder, and returns when it holds all of it.
pub fn hold(holding: &Holding<'_>) -> io::Result<Spawned> {
    let (mut reader, writer) = io::pipe()?;
    // All memory is taken before the clone.
    let sysctls: Vec<(CString, &[u8])> = holding
        .sysctls
        .iter()
        .map(|(path, value)| Ok((CString::new(path.as_os_str().as_encoded_bytes())?, value.as_bytes())))
        .collect::<io::Result<_>>()?;
    let spawned = match holding.user {
        None => {
            let mut pidfd: libc::c_int = -1;
            match clone(holding.new | libc::CLONE_PIDFD, libc::SIGCHLD, &mut pidfd)? {
                0 => be_holder(holding, &sysctls, writer.as_raw_fd()),
                // SAFETY: the kernel has put a new descriptor of ours there.
                pid => Spawned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } },
            }
        }
        Some(user) => hold_within(user, holding, &sysctls, writer.as_raw_fd())?,
    };
    drop(writer);
    let mut errno = [0; 4];
    reader.read_exact(&mut errno)?;
    // And until it has closed its end, the last that was open in it.
    let _ = reader.read(&mut [0])?;
    match i32::from_ne_bytes(errno) {
        0 => Ok(spawned),
        errno => {
            reap(spawned.pid);
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// Clones the holder from a process that has entered the user namespace: namespaces belong to that in which they are made, and
/// a pid namespace begins with the next clone. That process is gone when this returns; the holder is our child all the same.
fn hold_within(
    user: BorrowedFd<'_>,
    holding: &Holding<'_>,
    sysctls: &[(CString, &[u8])],
    report: i32,
) -> io::Result<Spawned> {
    let (mut reader, writer) = io::pipe()?;
    let entrant = match clone(0, libc::SIGCHLD, &mut -1)? {
        0 => {
            // From outside both can be entered, from inside perhaps not the network's.
            let enter = || {
                if let Some(network) = holding.network {
                    join(network, libc::CLONE_NEWNET)?;
                }
                join(user, libc::CLONE_NEWUSER)?;
                // It has the signal at its end from its sibling.
                clone(holding.new | libc::CLONE_PARENT, 0, &mut -1)
            };
            let pid = match enter() {
                Ok(0) => be_holder(holding, sysctls, report),
                Ok(pid) => pid.cast_signed(),
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            };
            let bytes = pid.to_ne_bytes();
            // SAFETY: system calls on memory of this frame; `_exit` runs no handlers of the shim.
            unsafe {
                libc::write(writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
                libc::_exit(0)
            }
        }
        pid => pid,
    };
    drop(writer);
    let mut pid = [0; 4];
    let read = reader.read_exact(&mut pid);
    reap(entrant);
    read?;
    match i32::from_ne_bytes(pid) {
        errno @ ..0 => Err(io::Error::from_raw_os_error(-errno)),
        // Nobody but us waits for it, so the id is still its.
        pid => Ok(Spawned { pid: pid.cast_unsigned(), pidfd: pidfd_open(pid.cast_unsigned())? }),
    }
}

/// clone3(2) like fork(2): 0 in the child.
fn clone(flags: libc::c_int, exit_signal: libc::c_int, pidfd: &mut libc::c_int) -> io::Result<u32> {
    let mut arguments = libc::clone_args {
        flags: flags.cast_unsigned().into(),
        pidfd: (&raw mut *pidfd).addr() as u64,
        exit_signal: exit_signal as u64,
        // SAFETY: the structure is plain integers, for all of which 0 is "none".
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: the structure is valid and says its size; without CLONE_VM the child has a copy of everything, like fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid as u32) }
}

/// Waits for the end of a child that is about to end.
fn reap(pid: u32) {
    let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid.cast_signed()));
    let _ = nix::sys::wait::waitid(id, nix::sys::wait::WaitPidFlag::WEXITED);
}

fn join(namespace: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call on an open descriptor and an integer.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) })
}

/// In the holder.
fn be_holder(holding: &Holding<'_>, sysctls: &[(CString, &[u8])], report: i32) -> ! {
    let error = prepare(holding, sysctls, report).err();
    report_and_sleep(report, error)
}

/// In the holder: everything that can fail.
fn prepare(holding: &Holding<'_>, sysctls: &[(CString, &[u8])], keep: i32) -> io::Result<()> {
    // SAFETY: system calls on integers and on memory that was made before the clone; nothing allocates.
    unsafe {
        if holding.user.is_some() {
            // Before what follows, which a change of ids takes back. By the system calls: what libc has tells all threads.
            check(libc::syscall(libc::SYS_setresgid, 0, 0, 0) as i32)?;
            check(libc::syscall(libc::SYS_setresuid, 0, 0, 0) as i32)?;
        }
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // A pod may share its pid namespace: then our root and our program are below /proc/1 there, and must stay shut.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0))?;
        check(libc::prctl(libc::PR_SET_NAME, c"tare-pod".as_ptr()))?;
        // As the first process of a pid namespace it inherits what is orphaned there: nobody is to become a zombie.
        let mut reap: libc::sigaction = std::mem::zeroed();
        reap.sa_sigaction = libc::SIG_DFL;
        reap.sa_flags = libc::SA_NOCLDWAIT;
        check(libc::sigaction(libc::SIGCHLD, &raw const reap, std::ptr::null_mut()))?;
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
            libc::signal(signal, libc::SIG_DFL);
        }
        if let Some(network) = holding.network
            && holding.user.is_none()
        {
            join(network, libc::CLONE_NEWNET)?;
        }
        if !holding.hostname.is_empty() {
            check(libc::sethostname(holding.hostname.as_ptr().cast(), holding.hostname.len()))?;
        }
        for (path, value) in sysctls {
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            check(fd)?;
            let written = libc::write(fd, value.as_ptr().cast(), value.len());
            libc::close(fd);
            check(if written < 0 { -1 } else { 0 })?;
        }
        // The shim's sockets and pipes would never end while a copy of them is open here.
        let keep = keep.cast_unsigned();
        if keep > 0 {
            check(libc::syscall(libc::SYS_close_range, 0, keep - 1, 0) as i32)?;
        }
        check(libc::syscall(libc::SYS_close_range, keep + 1, u32::MAX, 0) as i32)?;
        check(libc::chdir(c"/".as_ptr()))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    // `last_os_error` reads errno, and allocates nothing.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// In the holder: says how it went, and sleeps until it is killed.
fn report_and_sleep(writer: i32, error: Option<io::Error>) -> ! {
    let errno = error.and_then(|it| it.raw_os_error()).unwrap_or(0).to_ne_bytes();
    // SAFETY: system calls on memory of this frame; `_exit` runs no handlers of the shim.
    unsafe {
        let told = libc::write(writer, errno.as_ptr().cast(), errno.len());
        libc::close(writer);
        // Nobody to tell: the shim died, maybe before it could be said that this process shall die with it.
        if told < 0 || errno != [0; 4] {
            libc::_exit(1);
        }
        loop {
            libc::pause();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command;

    #[test]
    fn a_holder_that_nobody_waits_for_ends() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut pidfd = -1;
        let holder = match clone(libc::CLONE_PIDFD, libc::SIGCHLD, &mut pidfd).unwrap() {
            0 => report_and_sleep(writer.as_raw_fd(), None),
            pid => pid,
        };
        // SAFETY: the kernel made it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let ended = command::wait(&pidfd, Duration::from_secs(10)).unwrap();
        if !ended {
            crate::sys::process::pidfd_send_signal(&pidfd, libc::SIGKILL).unwrap();
        }
        reap(holder);
        assert!(ended, "it sleeps for ever");
    }
}
