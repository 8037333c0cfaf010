//! The channel between init (or the process of an exec) and the parent that made it.
//!
//! One SOCK_SEQPACKET pair for a child; one packet is one typed message as JSON, with its fds as SCM_RIGHTS:
//!
//! ```text
//!   child                                   parent
//!   Request::IdMaps            ──────────►  writes uid_map, gid_map
//!                              ◄──────────  Reply::Done
//!   Request::Failed(Error)     ──────────►  (no reply; end of file follows)
//! ```
//!
//! A message without fds is written by write(2), and an answer that brings none is read by read(2): a seccomp filter that
//! init is under already may well not let sendmsg(2) and recvmsg(2) through.
//!
//! Only the child asks. The channel knows packets and fds; what they mean is [`crate::message`]'s. Both ends are
//! close-on-exec, so that end of file tells the parent that the program runs, or that the child is gone.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, recv, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::scm::receive;

/// The longest message: an error with a long hook output fits, a flood does not.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The longest answer without fds, of those that are read by [`Channel::read`].
const ANSWER: usize = 256;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What came in: a message, or the end.
#[derive(Debug)]
pub enum Incoming<T> {
    /// A message and the fds that came with it.
    Message(T, Vec<OwnedFd>),
    /// The other end is closed.
    End,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// A connected pair.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .on("make", "the channel to init")?;
        Ok((Channel(a), Channel(b)))
    }

    /// Sends one message with its fds.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[&OwnedFd]) -> Result<()> {
        let bytes = encode(message)?;
        if fds.is_empty() {
            return self.write(&bytes);
        }
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        // MSG_NOSIGNAL: the other end may be gone, which is an error to report and no reason to die.
        let (socket, flags) = (self.0.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        again(|| sendmsg::<UnixAddr>(socket, &[IoSlice::new(&bytes)], &rights, flags, None))
            .map(drop)
            .on("write to", "the channel between init and its parent")
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        again(|| nix::unistd::write(&self.0, bytes)).map(drop).on("write to", "the channel between init and its parent")
    }

    /// Waits for one message that brings no fds, and is no longer than the few words of an answer; any fds that it brings
    /// all the same are closed.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Incoming<T>> {
        let mut bytes = [0; ANSWER];
        match again(|| nix::unistd::read(&self.0, &mut bytes)) {
            Ok(0) | Err(Errno::ECONNRESET) => Ok(Incoming::End),
            Ok(length) => Ok(Incoming::Message(decode(&bytes[..length])?, Vec::new())),
            Err(errno) => Err(errno).on("read from", "the channel between init and its parent"),
        }
    }

    /// Waits for one message.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Incoming<T>> {
        match self.packet() {
            Ok((bytes, _)) if bytes.is_empty() => Ok(Incoming::End),
            Ok((bytes, fds)) => Ok(Incoming::Message(decode(&bytes)?, fds)),
            Err(errno) => Err(errno).on("read from", "the channel between init and its parent"),
        }
    }

    fn packet(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
        // Its length first: memory for the longest would be asked of the kernel, and given back, each time.
        let (socket, peek) = (self.0.as_raw_fd(), MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC);
        let length = last_words(|| recv(socket, &mut [], peek))?;
        let mut bytes = vec![0; length.min(MAX_MESSAGE)];
        let (length, fds) = last_words(|| receive(self.0.as_fd(), &mut bytes))?;
        bytes.truncate(length);
        Ok((bytes, fds))
    }
}

/// Calls again what a signal has interrupted.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// The same for reading from an end that may be closed before it has read all that was sent to it. The kernel tells that
/// once, before it gives out what came from there, which is all that is wanted.
fn last_words<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match again(&mut call) {
            Err(Errno::ECONNRESET) => {}
            done => return done,
        }
    }
}

/// A message as it stands in its packet.
fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)
        .map_err(|error| Error::caused(Kind::System, "encode a message to init or its parent", error))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(Error::new(
            Kind::System,
            format!("a message of {} bytes is too long for the channel", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// Reads a packet back. Strict: what is not exactly one message is an error.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T> {
    serde_json::from_slice(packet)
        .map_err(|error| Error::caused(Kind::System, "read a message between init and its parent", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_whatever_the_other_end_left_unread() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&1, &[]).unwrap();
        theirs.send(&2, &[]).unwrap();
        theirs.send(&3, &[]).unwrap();
        drop(theirs);
        assert!(matches!(ours.receive::<i32>().unwrap(), Incoming::Message(2, _)));
        assert!(matches!(ours.receive::<i32>().unwrap(), Incoming::Message(3, _)));
        assert!(matches!(ours.receive::<i32>().unwrap(), Incoming::End));
    }
}
