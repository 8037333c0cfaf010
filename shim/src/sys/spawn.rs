//! A program started with descriptors at fixed numbers: posix_spawn(3).

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;

/// The first number after stdin, stdout and stderr.
const FIRST: RawFd = 3;

/// Starts a program with /dev/null as 0, 1 and 2, and these descriptors as 3, 4, and so on; its signals are as at a login.
/// Errors are those of execve(2) too: posix_spawn waits for it.
pub fn with_descriptors(
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
    descriptors: &[BorrowedFd<'_>],
) -> nix::Result<u32> {
    let mut actions = PosixSpawnFileActions::init()?;
    for number in 0..FIRST {
        let flags = if number == 0 { OFlag::O_RDONLY } else { OFlag::O_WRONLY };
        actions.add_open(number, c"/dev/null", flags, Mode::empty())?;
    }
    // Copies above all the numbers that are overwritten: one of the descriptors may have the number of another's place.
    let mut copies = Vec::with_capacity(descriptors.len());
    for (number, descriptor) in (FIRST..).zip(descriptors) {
        let above = FIRST.saturating_add(i32::try_from(descriptors.len()).unwrap_or(RawFd::MAX));
        let copy = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: fcntl(F_DUPFD_CLOEXEC) has just made this descriptor and nobody else knows it.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        actions.add_dup2(copy.as_raw_fd(), number)?;
        copies.push(copy);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    // We ignore SIGPIPE; an ignored signal stays ignored over execve.
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    let pid = posix_spawn(program.as_c_str(), &actions, &attributes, arguments, environment)?;
    u32::try_from(pid.as_raw()).map_err(|_| Errno::EOVERFLOW)
}
