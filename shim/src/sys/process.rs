//! Processes: children that die with the shim, and descriptors that name a process for good.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A started child: its id, and the descriptor by which it is waited for and killed.
#[derive(Debug)]
pub struct Spawned {
    /// Unique as long as nobody has waited for the child.
    pub pid: u32,
    /// Readable when the child has ended.
    pub pidfd: OwnedFd,
}

/// Starts the command such that it is killed when the shim dies: a runtime that went on alone would leave a container that
/// the clean-up after the shim has already missed.
pub fn spawn_bound(command: &mut Command) -> io::Result<Spawned> {
    let shim = std::process::id().cast_signed();
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            // Where the shim died before that call, no signal comes any more.
            if libc::getppid() != shim {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            // The shim blocks no signal, but what it ignores (SIGPIPE) would stay ignored in what the runtime starts.
            if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    // Not waited for yet, so the id is still the child's.
    let pid = child.id();
    Ok(Spawned { pid, pidfd: pidfd_open(pid)? })
}

/// pidfd_open(2), closed on exec by the kernel's own rule.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; a non-negative result is a descriptor that is ours alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just returned by the kernel, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2): to this process and no other that got its id later. Signal 0 only asks.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: integers and a null siginfo, which means as kill(2) would fill it.
    if unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_by_a_shim_that_is_gone_by_then_never_runs() {
        let mut command = Command::new("true");
        // SAFETY: system calls on integers only, in a child that has one thread.
        unsafe {
            command.pre_exec(|| {
                // The child goes, and its own child goes on with nobody above it: as after a shim's death at this moment.
                let parent = libc::getpid();
                match libc::fork() {
                    -1 => return Err(io::Error::last_os_error()),
                    0 => {}
                    _ => libc::_exit(0),
                }
                // The kernel tells no other way that the parent is another one now.
                while libc::getppid() == parent {
                    libc::sched_yield();
                }
                Ok(())
            });
        }
        // The pipe of exec's result went along, so that an exec would be told as success.
        let error = spawn_bound(&mut command).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
