//! Who we are, told to a bus before anything else (D-Bus specification, "Authentication Protocol").
//!
//! ```text
//!   \0 AUTH EXTERNAL 31303030   BEGIN  ──►     the uid, its decimal digits in hexadecimal ones
//!                     ◄── OK 1234deadbeef      messages from here on
//!
//!   \0 AUTH EXTERNAL   DATA   BEGIN    ──►     in a user namespace, where our uid is not what the other side calls it:
//!         ◄── DATA    ◄── OK 1234deadbeef      whoever the socket says we are
//! ```
//!
//! All of it goes out at once, and the first message only after the answer: a peer that is systemd does not look again at
//! what it has read together with `BEGIN`.

use std::fmt::Write;

/// How many answers there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answers(usize);

/// The longest line: the other side says nothing that is near it.
pub(super) const MAX_LINE: usize = 4096;

/// What to say, and what is answered to it.
pub(super) fn introduction(uid: u32, in_user_namespace: bool) -> (String, Answers) {
    if in_user_namespace {
        return ("\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_owned(), Answers(2));
    }
    let mut line = "\0AUTH EXTERNAL ".to_owned();
    for digit in uid.to_string().bytes() {
        // Writing to a string does not fail.
        let _ = write!(line, "{digit:02x}");
    }
    (line + "\r\nBEGIN\r\n", Answers(1))
}

impl Answers {
    /// How many bytes of `read` are the answers, and whether we are accepted; `None` while there are fewer.
    pub(super) fn read(self, read: &[u8]) -> Option<(usize, bool)> {
        let (mut at, mut accepted) = (0, false);
        for _ in 0..self.0 {
            let length = read[at..].windows(2).position(|two| two == b"\r\n")?;
            let line = &read[at..at + length];
            // Older ones accept us without data, and then once more, or not, with them.
            accepted |= line == b"OK" || line.starts_with(b"OK ");
            at += length + 2;
            if line.starts_with(b"REJECTED") {
                return Some((at, false));
            }
        }
        Some((at, accepted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_claimed_or_nobody_in_particular() {
        let (line, answers) = introduction(1000, false);
        assert_eq!(line, "\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n");
        for (text, expected) in [
            ("", None),
            ("OK 12a", None),
            ("OK 12ab\r\nl", Some((9, true))),
            ("REJECTED EXTERNAL\r\n", Some((19, false))),
            ("ERROR\r\n", Some((7, false))),
            ("OKAY\r\n", Some((6, false))),
        ] {
            assert_eq!(answers.read(text.as_bytes()), expected, "{text}");
        }
        let (line, answers) = introduction(0, true);
        assert_eq!(line, "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        for (text, expected) in [
            ("DATA\r\n", None),
            ("DATA\r\nOK 12\r\n", Some((13, true))),
            ("OK 12\r\nOK 12\r\nl", Some((14, true))),
            ("OK 12\r\nERROR\r\n", Some((14, true))),
            ("REJECTED EXTERNAL\r\n", Some((19, false))),
            ("DATA\r\nREJECTED EXTERNAL\r\n", Some((25, false))),
        ] {
            assert_eq!(answers.read(text.as_bytes()), expected, "{text}");
        }
    }
}
