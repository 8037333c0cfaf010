//! Messages over a unix socket that bring descriptors.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// As many descriptors as Linux lets one message bring (SCM_MAX_FD, unix(7)).
const MAX_FDS: usize = 253;

/// Receives one packet and its descriptors: the packet's length (0: the peer has gone) and the descriptors.
///
/// A packet longer than `buffer` is `EMSGSIZE`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut control = cmsg_space!([i32; MAX_FDS]);
    let mut into = [IoSliceMut::new(buffer)];
    let received = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        let ControlMessageOwned::ScmRights(numbers) = message else { continue };
        // SAFETY: the kernel has just installed these descriptors in this process for this message, nothing else knows
        // their numbers, and each number of the message is seen here exactly once.
        fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
    }
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((received.bytes, fds))
}
