//! Descriptors that a service manager passes on by their number.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes one; once in a process.
///
/// # Errors
/// It was taken before, or is not open.
pub fn take(number: i32) -> Result<OwnedFd> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(Error::internal("the socket of the service manager was taken before"));
    }
    // SAFETY: fcntl with F_SETFD takes integers only; a number that is no descriptor gives an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(Error::invalid(format!(
            "the service manager says that it passes descriptor {number}: it is not open"
        )));
    }
    // SAFETY: it is open, and `TAKEN` lets no second owner be made; by sd_listen_fds(3) it is this process's alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
