//! This process's own ends: its terminal in raw mode, its size, and its standard streams without a thread that waits at each.
//!
//! A terminal or a pipe given to us may be shared with others, so it is never made non-blocking: it is watched, looked at with
//! poll(2), and then read or written no more than is there or fits. What cannot be watched (a file, /dev/null) never waits.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Error, Result};
use crate::sys::watch::watch;

/// What is written to a pipe at once: so much fits when poll(2) says that anything does (pipe(7), `PIPE_BUF`).
const CHUNK: usize = 4096;

/// Whether our input is a terminal.
#[must_use]
pub fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Columns and rows of the terminal that we are shown on, if there is one.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    [output.as_fd(), input.as_fd(), errors.as_fd()].into_iter().find_map(|terminal| {
        let size = rustix::termios::tcgetwinsize(terminal).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
    })
}

/// Our terminal as it was before; it is so again when this is dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Lets every key go through as it is typed. None when our input is no terminal.
    ///
    /// # Errors
    /// The terminal cannot be set.
    pub fn enter() -> Result<Option<Self>> {
        if !is_input() {
            return Ok(None);
        }
        let what = || "set the terminal".to_owned();
        let terminal = io::stdin().as_fd().try_clone_to_owned().context(what)?;
        let before = tcgetattr(&terminal).context(what)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSADRAIN, &raw).context(what)?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has hung up needs no more.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// One of our standard streams.
#[derive(Debug)]
pub struct Stream {
    file: File,
    /// None for what never waits.
    watched: Option<AsyncFd<OwnedFd>>,
    interest: PollFlags,
}

impl Stream {
    /// Standard input.
    ///
    /// # Errors
    /// It is closed.
    pub fn input() -> Result<Self> {
        Self::new(io::stdin(), Interest::READABLE, PollFlags::POLLIN).context(|| "watch standard input".to_owned())
    }

    /// Standard output.
    ///
    /// # Errors
    /// It is closed.
    pub fn output() -> Result<Self> {
        Self::new(io::stdout(), Interest::WRITABLE, PollFlags::POLLOUT).context(|| "watch standard output".to_owned())
    }

    /// Standard error.
    ///
    /// # Errors
    /// It is closed.
    pub fn errors() -> Result<Self> {
        Self::new(io::stderr(), Interest::WRITABLE, PollFlags::POLLOUT).context(|| "watch standard error".to_owned())
    }

    fn new(stream: impl AsFd, interest: Interest, flags: PollFlags) -> io::Result<Self> {
        let file = File::from(stream.as_fd().try_clone_to_owned()?);
        let watched = match watch(OwnedFd::from(file.try_clone()?), interest) {
            // epoll(7) refuses what is always ready.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => None,
            watched => Some(watched?),
        };
        Ok(Self { file, watched, interest: flags })
    }

    /// What comes next, at most a chunk; nothing at the end. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// As read(2).
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.ready().await?;
            match self.file.read(buffer) {
                Err(error) if waits(&error) => {}
                // A terminal that has hung up.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(0),
                read => return read,
            }
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.ready().await?;
            match self.file.write(&rest[..rest.len().min(CHUNK)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until a call would not.
    async fn ready(&self) -> io::Result<()> {
        let Some(watched) = &self.watched else { return Ok(()) };
        loop {
            let wanted = if self.interest == PollFlags::POLLIN { Interest::READABLE } else { Interest::WRITABLE };
            let mut guard = watched.ready(wanted).await?;
            let mut fds = [PollFd::new(self.file.as_fd(), self.interest)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(0) => guard.clear_ready(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                // A hang-up, too: the call tells.
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The keys that leave a container running: `ctrl-p,ctrl-q`, or others by `--detach-keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them have been typed, one after the other.
    typed: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: vec![0x10, 0x11], typed: 0 }
    }
}

impl DetachKeys {
    /// As docker writes them: letters, or `ctrl-` and a letter or one of @ [ \ ] ^ _, with commas between. Empty: the usual ones.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wrong = || {
            Error::usage(format!(
                "{text:?} are no keys to detach with: give letters or ctrl- and a letter (or one of @ [ \\ ] ^ _), with commas between, \
                 as in ctrl-p,ctrl-q"
            ))
        };
        let mut keys = Vec::new();
        for word in text.split(',') {
            let key = match (word.strip_prefix("ctrl-"), word.as_bytes()) {
                (Some(letter), _) => match letter.as_bytes() {
                    [letter @ b'a'..=b'z'] => letter - b'a' + 1,
                    [letter @ (b'@' | b'['..=b'_')] => letter - b'@',
                    _ => return Err(wrong()),
                },
                (None, [key]) if key.is_ascii() => *key,
                _ => return Err(wrong()),
            };
            keys.push(key);
        }
        Ok(Self { keys, typed: 0 })
    }

    /// What of `bytes` goes on to the container; true when the keys have been typed.
    pub fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (passed, true);
                }
                continue;
            }
            // It was the beginning of something else: what was held back goes on.
            passed.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(*byte == self.keys[0] && self.keys.len() > 1);
            if self.typed == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_written_as_docker_writes_them() {
        for (text, keys) in
            [("", &[0x10, 0x11][..]), ("ctrl-a", &[1]), ("ctrl-@,x", &[0, b'x']), ("a,b,ctrl-_", &[b'a', b'b', 31])]
        {
            assert_eq!(DetachKeys::parse(text).unwrap().keys, keys, "{text}");
        }
        for wrong in ["ctrl-", "ctrl-A", "ctrl-p,", "ctrl-pq", "ab", "ü", "ctrl-1"] {
            assert!(DetachKeys::parse(wrong).unwrap_err().message.contains("ctrl-p,ctrl-q"), "{wrong}");
        }
    }

    #[test]
    fn keys_are_held_back_only_while_they_may_be_those() {
        type Case = (&'static [&'static [u8]], &'static [u8], bool);
        let cases: &[Case] = &[
            (&[b"abc"], b"abc", false),
            (&[b"a\x10\x11b"], b"a", true),
            (&[b"a\x10", b"\x11"], b"a", true),
            (&[b"a\x10", b"b"], b"a\x10b", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11\x10"], b"\x11", false),
        ];
        for (typed, expected, left) in cases {
            let mut keys = DetachKeys::default();
            let (mut passed, mut detached) = (Vec::new(), false);
            for bytes in *typed {
                let (more, now) = keys.filter(bytes);
                passed.extend(more);
                detached |= now;
            }
            assert_eq!((passed.as_slice(), detached), (*expected, *left), "{typed:?}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_pipe_that_is_full_holds_up_nobody_else() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Stream::new(&writer, Interest::WRITABLE, PollFlags::POLLOUT).unwrap();
        let mut input = Stream::new(&reader, Interest::READABLE, PollFlags::POLLIN).unwrap();
        let bytes = vec![7; 1 << 20];
        let taken = async {
            let mut buffer = [0; 1000];
            let mut taken = 0;
            while taken < bytes.len() {
                taken += input.read(&mut buffer).await.unwrap();
            }
            taken
        };
        let (written, taken) = tokio::join!(output.write(&bytes), taken);
        written.unwrap();
        assert_eq!(taken, bytes.len());
        drop((writer, output));
        assert_eq!(input.read(&mut [0; 10]).await.unwrap(), 0);
        // A file cannot be watched, and need not be.
        let file = tempfile::tempfile().unwrap();
        Stream::new(&file, Interest::WRITABLE, PollFlags::POLLOUT).unwrap().write(b"x").await.unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1);
    }
}
