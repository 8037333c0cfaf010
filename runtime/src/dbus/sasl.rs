//! Who we are, told to a bus before anything else (D-Bus specification, "Authentication Protocol").
//!
//! ```text
//!   \0 AUTH EXTERNAL 31303030 ──►            the uid in hexadecimal digits of its decimal ones
//!                     ◄── REJECTED …          it is another one there: we are in a user namespace
//!   AUTH EXTERNAL     ──►                     then whoever the socket says we are
//!                     ◄── DATA
//!   DATA              ──►
//!                     ◄── OK 1234deadbeef
//!   BEGIN             ──►                     messages from here on
//! ```

use std::fmt::Write;

/// What to do after a line of the other side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this, and read another line.
    Send(&'static str),
    /// It knows us: send this, and messages.
    Begin(&'static str),
    /// It does not want us.
    Refused,
}

/// Which way of telling is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A uid.
    Uid,
    /// Whoever the socket says we are.
    Nobody,
}

/// The longest line: the other side says nothing that is near it.
pub(super) const MAX_LINE: usize = 4096;

/// The first line. In a user namespace our uid is not what the other side calls it.
pub(super) fn begin(uid: u32, in_user_namespace: bool) -> (String, Claim) {
    if in_user_namespace {
        return ("\0AUTH EXTERNAL\r\n".to_owned(), Claim::Nobody);
    }
    let mut line = "\0AUTH EXTERNAL ".to_owned();
    for digit in uid.to_string().bytes() {
        // Writing to a string does not fail.
        let _ = write!(line, "{digit:02x}");
    }
    (line + "\r\n", Claim::Uid)
}

/// What to do about `line`, without its line end.
pub(super) fn next(line: &str, claim: &mut Claim) -> Step {
    match line.split(' ').next().unwrap_or_default() {
        "OK" => Step::Begin("BEGIN\r\n"),
        "DATA" => Step::Send("DATA\r\n"),
        "REJECTED" | "ERROR" if *claim == Claim::Uid => {
            *claim = Claim::Nobody;
            Step::Send("AUTH EXTERNAL\r\n")
        }
        _ => Step::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_claimed_and_then_nobody_in_particular() {
        let (line, mut claim) = begin(1000, false);
        assert_eq!(line, "\0AUTH EXTERNAL 31303030\r\n");
        assert_eq!(next("OK 12ab", &mut claim), Step::Begin("BEGIN\r\n"));
        assert_eq!(next("REJECTED EXTERNAL", &mut claim), Step::Send("AUTH EXTERNAL\r\n"));
        assert_eq!(next("DATA", &mut claim), Step::Send("DATA\r\n"));
        assert_eq!(next("OK 12ab", &mut claim), Step::Begin("BEGIN\r\n"));
        assert_eq!(next("REJECTED EXTERNAL", &mut claim), Step::Refused);
        assert_eq!(next("what", &mut claim), Step::Refused);
        assert_eq!(begin(0, true), ("\0AUTH EXTERNAL\r\n".to_owned(), Claim::Nobody));
    }
}
