//! Messages over a unix socket that bring a descriptor.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Receives one packet and at most one descriptor: the packet's length (0: the peer has gone) and the descriptor.
///
/// A packet that does not fit is `EMSGSIZE`; descriptors beyond the first are closed.
pub fn receive(socket: BorrowedFd<'_>, into: &mut [IoSliceMut<'_>]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut control = cmsg_space!([i32; 1]);
    let received = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), into, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut first = None;
    for message in received.cmsgs()? {
        let ControlMessageOwned::ScmRights(fds) = message else { continue };
        for fd in fds {
            // SAFETY: the kernel has just installed `fd` in this process for this message, nothing else knows its number,
            // and each number of the message is seen here exactly once.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            first.get_or_insert(fd);
        }
    }
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((received.bytes, first))
}
