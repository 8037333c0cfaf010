//! Descriptors over a Unix socket: unix(7), SCM_RIGHTS.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// As many as the kernel lets one message have (SCM_MAX_FD).
const MOST: usize = 253;

/// One message.
#[derive(Debug)]
pub struct Message {
    /// How many bytes came with it, of at most 4096; none is end-of-file.
    pub length: usize,
    /// All the descriptors that came; close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one message.
pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Message> {
    let mut bytes = [0; 4096];
    let mut bytes = [IoSliceMut::new(&mut bytes)];
    let mut control = cmsg_space!([RawFd; MOST]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            for fd in received {
                // SAFETY: the kernel has just installed this descriptor for us; each number is in the message once, and the
                // list we took it from is dropped without closing anything.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok(Message { length: message.bytes, descriptors })
}
