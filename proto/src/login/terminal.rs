//! What a person is asked at the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

/// An answer, in bytes: what is longer is none.
const LONGEST: u64 = 1 << 20;

/// The process's own terminal, whatever its standard streams are.
///
/// # Errors
/// It has none.
pub fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// Asks for a line.
///
/// # Errors
/// The terminal is gone.
pub fn ask(mut terminal: &File, prompt: &str) -> io::Result<String> {
    terminal.write_all(prompt.as_bytes())?;
    let mut line = String::new();
    BufReader::new(terminal.take(LONGEST)).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a line, and does not show what is typed. The keys come one by one and none is a signal's, so that ^C leaves a terminal
/// that shows again.
///
/// # Errors
/// The terminal is gone, or the person gave up by ^C ([`io::ErrorKind::Interrupted`]).
pub fn ask_hidden(mut terminal: &File, prompt: &str) -> io::Result<String> {
    terminal.write_all(prompt.as_bytes())?;
    let before = tcgetattr(terminal)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
    tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
    let read = keys(&mut terminal.take(LONGEST));
    let restored = tcsetattr(terminal, SetArg::TCSAFLUSH, &before);
    terminal.write_all(b"\n")?;
    restored?;
    read
}

/// A line of keys, with those that take others back.
fn keys(from: &mut impl Read) -> io::Result<String> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const CLEAR: u8 = 21;
    let mut line = Vec::new();
    let mut key = [0];
    while from.read(&mut key)? == 1 {
        match key[0] {
            b'\r' | b'\n' => break,
            END if line.is_empty() => break,
            INTERRUPT => return Err(io::ErrorKind::Interrupted.into()),
            CLEAR => line.clear(),
            8 | 127 => drop(line.pop()),
            other => line.push(other),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line_and_can_be_taken_back() {
        for (typed, line) in [("secret\nmore", "secret"), ("sx\x7fecret\r", "secret"), ("x\x15y\n", "y"), ("\x04", "")]
        {
            assert_eq!(keys(&mut typed.as_bytes()).unwrap(), line);
        }
        assert_eq!(keys(&mut &b"se\x03"[..]).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
