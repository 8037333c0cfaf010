//! Messages over a unix socket that bring descriptors.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The most descriptors with one message: one for each cgroup v1 hierarchy, with room to spare.
pub const MAX_FDS: usize = 32;

/// Receives one packet and its descriptors: the packet's length (0: the peer has gone), and what it brought.
///
/// A packet that does not fit is `EMSGSIZE`.
pub fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut control = cmsg_space!([i32; MAX_FDS]);
    let mut slices = [IoSliceMut::new(into)];
    let received = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut all = Vec::new();
    for message in received.cmsgs()? {
        let ControlMessageOwned::ScmRights(fds) = message else { continue };
        for fd in fds {
            // SAFETY: the kernel has just installed `fd` in this process for this message, nothing else knows its number,
            // and each number of the message is seen here exactly once.
            all.push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((received.bytes, all))
}
