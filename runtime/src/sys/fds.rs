//! All descriptors of this process at once: close_range(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    match close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) {
        // CLOSE_RANGE_CLOEXEC is younger (5.11) than close_range itself (5.9).
        Err(Errno::EINVAL | Errno::ENOSYS) => each_open(first, |fd| {
            // SAFETY: F_SETFD takes an integer and changes a flag only, also where somebody owns the descriptor.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }),
        other => other,
    }
}

/// Closes every descriptor from 3 on except those in `keep` and the `preserved` ones that follow standard error. It allocates
/// nothing.
///
/// For a process that was just cloned and has a copy of all its parent's descriptors: what it is not told to keep it must
/// never touch again, as with memory after the end of its owner.
pub fn close_all_but(preserved: u32, keep: &[Option<BorrowedFd<'_>>]) -> Result<(), Errno> {
    let mut next = 3 + preserved;
    let kept = |from| keep.iter().flatten().map(|fd| fd.as_raw_fd() as u32).filter(|&fd| fd >= from).min();
    while let Some(fd) = kept(next) {
        if fd > next {
            close_range(next, fd - 1, 0)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX, 0)
}

/// Standard input, output or error, by number: open for as long as the program runs, since its beginning opens what the
/// caller left closed ([`super::begin`]).
pub fn standard(number: u8) -> BorrowedFd<'static> {
    assert!(number <= 2, "{number} is not a standard descriptor");
    // SAFETY: the number is not -1, and nothing in this program closes the descriptors 0 to 2 (dup2 replaces them).
    unsafe { BorrowedFd::borrow_raw(number.into()) }
}

/// Whether `number` is open and stays so over execve.
pub fn survives_exec(number: u32) -> bool {
    // SAFETY: F_GETFD only reads a flag; a number that is no descriptor gives EBADF.
    unsafe { libc::fcntl(number as libc::c_int, libc::F_GETFD) == 0 }
}

/// Takes over descriptor `number`, which the caller of the program has passed to us by its number: from now on it is owned,
/// and close-on-exec. It must be open for writing (`EBADF` otherwise), and none of the standard descriptors.
pub fn take_writable(number: i32) -> Result<OwnedFd, Errno> {
    if number <= 2 {
        return Err(Errno::EBADF);
    }
    // SAFETY: F_GETFL only reads flags; a number that is no descriptor gives EBADF.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFL) })?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(Errno::EBADF);
    }
    // SAFETY: F_SETFD takes an integer and changes a flag only.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the number is open, as just seen, and was given to us on the command line for this one use: nothing else in
    // this program opened it, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: takes three integers. With CLOEXEC it closes nothing now; without, close_all_but's caller has been told that
    // nothing in the range is used again.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Calls `act` with every number that a descriptor could have: the way without close_range(2).
fn each_open(first: u32, act: impl Fn(libc::c_int)) -> Result<(), Errno> {
    let (limit, _) = super::sched::limit(0, libc::RLIMIT_NOFILE)?;
    let last = u32::try_from(limit).unwrap_or(u32::MAX).min(1 << 20);
    (first..last).for_each(|fd| act(fd as libc::c_int));
    Ok(())
}
