//! Just enough of rtnetlink(7) to move network devices: requests, dumps, attributes.
//!
//! On the wire: `nlmsghdr { len: u32, type: u16, flags: u16, seq: u32, pid: u32 }`, a fixed body for the type, then
//! attributes `{ len: u16, type: u16, payload }`, each padded to four bytes; everything in the host's byte order. A
//! length that does not fit its field is an error, never cut (CVE-2021-43784), and nothing of a reply is trusted to lie
//! within it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};

/// The header of a message.
const HEAD: usize = 16;
/// The header of an attribute.
const ATTRIBUTE: usize = 4;
/// Set in a dump's messages when the table changed meanwhile, so that the dump may be inconsistent.
const DUMP_INTERRUPTED: u16 = 0x10;
/// How often an interrupted dump is tried again.
const TRIES: usize = 16;

/// The largest answer in one piece; the kernel fills 32 KiB at most in a dump.
const PIECE: usize = 64 << 10;

/// A request being written.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request to change something, answered with success or an error: type (`RTM_*`), flags (`NLM_F_*`) and body.
    pub fn change(kind: u16, flags: i32, body: &[u8]) -> Self {
        Self::new(kind, flags | libc::NLM_F_ACK, body)
    }

    /// A request for one thing, which the body and attributes name.
    pub fn get(kind: u16, body: &[u8]) -> Self {
        // The acknowledgement marks the end of the answer.
        Self::new(kind, libc::NLM_F_ACK, body)
    }

    /// A request for a whole table.
    pub fn dump(kind: u16, body: &[u8]) -> Self {
        Self::new(kind, libc::NLM_F_DUMP, body)
    }

    fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut bytes = vec![0; HEAD];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(body);
        let mut request = Self { bytes };
        request.pad();
        request
    }

    /// Appends an attribute. What is too long for one is `EMSGSIZE`.
    pub fn attribute(mut self, kind: u16, payload: &[u8]) -> Result<Self, Errno> {
        let length = payload.len().checked_add(ATTRIBUTE).and_then(|length| u16::try_from(length).ok());
        let length = length.ok_or(Errno::EMSGSIZE)?;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(payload);
        self.pad();
        Ok(self)
    }

    /// Appends an attribute that is a string.
    pub fn text(self, kind: u16, text: &str) -> Result<Self, Errno> {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The bytes to send.
    fn finish(&self, sequence: u32) -> Result<Vec<u8>, Errno> {
        let length = u32::try_from(self.bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut bytes = self.bytes.clone();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(bytes)
    }
}

/// A socket of the kernel's routing family. It belongs to the network namespace it was made in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket in the present network namespace.
    pub fn new() -> Result<Self, Errno> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a request, waits for the end of its answer, and returns the bodies of the messages in it.
    pub fn ask(&mut self, request: &Request) -> Result<Vec<Vec<u8>>, Errno> {
        for _ in 0..TRIES {
            match self.exchange(request)? {
                Some(bodies) => return Ok(bodies),
                // The table changed under the dump: what was read may miss an entry.
                None => continue,
            }
        }
        Err(Errno::EAGAIN)
    }

    fn exchange(&mut self, request: &Request) -> Result<Option<Vec<Vec<u8>>>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence)?;
        // The kernel works the request off before send returns, so that the answer only has to be fetched.
        if send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())? != bytes.len() {
            return Err(Errno::EMSGSIZE);
        }
        let mut buffer = vec![0; PIECE];
        let mut answer = Answer::default();
        loop {
            let (length, from) = match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut buffer) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            // Only the kernel has the port 0.
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            if answer.take(&buffer[..length], self.sequence)? {
                return Ok((!answer.interrupted).then_some(answer.bodies));
            }
        }
    }
}

/// The answer to one request, as far as it has come.
#[derive(Debug, Default)]
pub struct Answer {
    bodies: Vec<Vec<u8>>,
    interrupted: bool,
}

impl Answer {
    /// The bodies of the messages that have come.
    pub fn bodies(&self) -> &[Vec<u8>] {
        &self.bodies
    }

    /// Takes one piece in; true when that was the end. An error that the kernel tells is returned.
    pub fn take(&mut self, mut piece: &[u8], sequence: u32) -> Result<bool, Errno> {
        while !piece.is_empty() {
            let length = u32_at(piece, 0).ok_or(Errno::EBADMSG)? as usize;
            let message = piece.get(..length).filter(|message| message.len() >= HEAD).ok_or(Errno::EBADMSG)?;
            let kind = u16_at(message, 4).ok_or(Errno::EBADMSG)?;
            let flags = u16_at(message, 6).ok_or(Errno::EBADMSG)?;
            let body = &message[HEAD..];
            piece = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
            // An answer to an earlier request that was given up.
            if u32_at(message, 8) != Some(sequence) {
                continue;
            }
            self.interrupted |= flags & DUMP_INTERRUPTED != 0;
            match i32::from(kind) {
                libc::NLMSG_NOOP => {}
                libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                    let code = u32_at(body, 0).map_or(0, u32::cast_signed);
                    return if code == 0 { Ok(true) } else { Err(Errno::from_raw(code.saturating_neg())) };
                }
                _ => self.bodies.push(body.to_vec()),
            }
        }
        Ok(false)
    }
}

/// The attributes behind a message's fixed body of `fixed` bytes: kind (without the flag bits) and payload. It ends at
/// the first one that does not fit.
pub fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let payload = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The number at a place in a message, if it lies within.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    Some(u16::from_ne_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// The number at a place in a message, if it lies within.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    Some(u32::from_ne_bytes(bytes.get(at..end)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel would write it, with a length that may lie.
    fn message(length: u32, kind: i32, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend((kind as u16).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn cve_2021_43784_a_length_that_does_not_fit_is_an_error() {
        // 65,536 bytes made a length of 0 and the payload was read as attributes.
        for (length, fits) in [(65_531, true), (65_532, false), (65_536, false), (70_000, false)] {
            let written = Request::change(16, 0, &[0; 16]).attribute(1, &vec![0; length]);
            assert_eq!(written.is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn a_request_is_written_with_padding() {
        let request = Request::change(libc::RTM_NEWLINK, 0, &[7; 16]).text(3, "eth0").unwrap();
        let bytes = request.finish(9).unwrap();
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!((u32_at(&bytes, 0), u16_at(&bytes, 4), u32_at(&bytes, 8)), (Some(44), Some(16), Some(9)));
        assert_eq!(u16_at(&bytes, 6), Some(5));
        assert_eq!(attributes(&bytes[16..], 16).collect::<Vec<_>>(), [(3, &b"eth0\0"[..])]);
    }

    #[test]
    fn an_answer_is_taken_in_to_its_end() {
        let data = message(20, 16, 0, 1, b"data");
        let done = message(20, libc::NLMSG_DONE, 0, 1, &[0; 4]);
        let mut answer = Answer::default();
        assert_eq!(answer.take(&data, 1), Ok(false));
        assert_eq!(answer.take(&[data.clone(), done.clone()].concat(), 1), Ok(true));
        assert_eq!(answer.bodies, [b"data", b"data"]);
        // Another request's answer is no end.
        assert_eq!(Answer::default().take(&done, 2), Ok(false));
        let failed = message(36, libc::NLMSG_ERROR, 0, 1, &[&(-19_i32).to_ne_bytes()[..], &[0; 16]].concat());
        assert_eq!(Answer::default().take(&failed, 1), Err(Errno::ENODEV));
        let mut answer = Answer::default();
        assert_eq!(answer.take(&message(20, 16, DUMP_INTERRUPTED, 1, b"data"), 1), Ok(false));
        assert!(answer.interrupted);
    }

    #[test]
    fn lengths_that_lie_are_caught() {
        for length in [0, 1, 15, 21, u32::MAX] {
            let piece = message(length, 16, 0, 1, b"data");
            assert_eq!(Answer::default().take(&piece, 1), Err(Errno::EBADMSG), "{length}");
        }
        assert_eq!(Answer::default().take(b"abc", 1), Err(Errno::EBADMSG));
        for (body, expected) in [
            (&[][..], 0),
            (&[8, 0, 1, 0, 1, 2, 3, 4], 1),
            (&[8, 0, 1, 0, 1, 2, 3], 0),
            (&[3, 0, 1, 0], 0),
            (&[0, 0, 1, 0], 0),
            (&[255, 255, 1, 0], 0),
            (&[5, 0, 1, 0, 9], 1),
        ] {
            assert_eq!(attributes(body, 0).count(), expected, "{body:?}");
        }
        assert_eq!(attributes(&[1, 2], 16).count(), 0);
    }
}
