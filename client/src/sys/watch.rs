//! Waiting for descriptors.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor until the result is dropped. Fails with EPERM for what is always ready (epoll(7)).
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its number until it is dropped, which only the `AsyncFd` does; nobody here takes a mutable
    // reference of it to put another in its place.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}
