//! Waiting for descriptors.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor from now on, until the result is dropped. Outside a tokio runtime this panics.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its number until it is dropped, which only the `AsyncFd` does, and nobody here asks the
    // `AsyncFd` for a mutable reference to put another in its place.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}
