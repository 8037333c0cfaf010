//! The foreground of `run` and `exec`: waits for the container's process, forwards signals to it, and carries bytes between
//! the caller's terminal and the container's, if it has one.
//!
//! ```text
//!   standard input ──► [buffer] ──► master         (end of file: the pty's own end-of-file character)
//!   standard output ◄── [buffer] ◄── master        (hang-up: nobody in the container has it open)
//!   signals ──► the process                        (SIGWINCH: the size; SIGCHLD: reap)
//!   pidfd ──► the status, once what was written is out
//! ```
//!
//! One loop around poll(2). A direction is polled only when it can move, so nothing spins: a buffer is read into when it
//! is empty and written from when it is not.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{read, write};

use super::raw::RawMode;
use crate::error::{Context, Result};
use crate::signals::Signals;
use crate::sys::process::{Child, Exit, pidfd_send_signal, wait};
use crate::sys::{fds, tty};

/// What is read at once: the kernel's own buffer of a pty.
const CHUNK: usize = 4096;

/// Stays with the process until it ends; its status as a shell gives it. `console` is the master end of its pty.
///
/// Without a console the process has our stdio itself, and only signals are forwarded.
pub fn relay(child: Child, console: Option<OwnedFd>, signals: &Signals) -> Result<i32> {
    let [input, output, error] = [0, 1, 2].map(fds::standard);
    match console {
        None => wait_in_foreground(&child, signals),
        Some(master) => Relay::new(child, master, signals, input, [output, error])?.run(),
    }
    .map(Exit::status)
}

/// Makes a new pty fit to be relayed, before a program runs on it. A pty that goes to a console socket is left as the kernel
/// makes it: its modes are the receiver's business.
pub fn adopt(master: &OwnedFd) -> Result<()> {
    let mut modes = tcgetattr(master).on("read the modes of", "the container's pty")?;
    // A program's output reaches the caller byte for byte: where "\n" must become "\r\n", the caller's terminal does that.
    modes.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(master, SetArg::TCSANOW, &modes).on("set the modes of", "the container's pty")?;
    if let Some(screen) = screen([0, 1, 2].map(fds::standard)) {
        copy_size(screen, master);
    }
    Ok(())
}

/// The first of the caller's descriptors that is a terminal.
fn screen(stdio: [BorrowedFd<'_>; 3]) -> Option<BorrowedFd<'_>> {
    stdio.into_iter().find(|&fd| tty::size(fd).is_ok())
}

fn copy_size(screen: BorrowedFd<'_>, master: &OwnedFd) {
    if let Ok((rows, columns)) = tty::size(screen) {
        // It fails only where the pty is gone.
        let _ = tty::set_size(master, rows, columns);
    }
}

fn wait_in_foreground(child: &Child, signals: &Signals) -> Result<Exit> {
    loop {
        let mut ready =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
        wait_for_any(&mut ready)?;
        let ended = is_ready(&ready[1]);
        while let Some(signal) = signals.next()? {
            forward(child, signal);
        }
        if ended {
            return wait(&child.pidfd).on("wait for", "the container's process");
        }
    }
}

/// Passes a signal on to the process, or does what it asks of us.
fn forward(child: &Child, signal: i32) {
    match signal {
        libc::SIGCHLD => reap_others(child),
        // It fails only where the process has ended, which the pidfd tells.
        _ => drop(pidfd_send_signal(&child.pidfd, signal)),
    }
}

/// Reaps what the container left to us as its subreaper, up to the container's process itself, for which the pidfd is there.
fn reap_others(child: &Child) {
    // Children of this thread, which is the only one, except in tests.
    let reap = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WNOTHREAD;
    let look = reap | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = waitid(Id::All, look) {
        if pid.as_raw() == child.pid || waitid(Id::Pid(pid), reap).is_err() {
            return;
        }
    }
}

/// Bytes on their way in one direction.
struct Buffer {
    bytes: [u8; CHUNK],
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Box<Self> {
        Box::new(Self { bytes: [0; CHUNK], from: 0, to: 0 })
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn clear(&mut self) {
        self.from = self.to;
    }

    fn set(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        (self.from, self.to) = (0, bytes.len());
    }

    fn last(&self) -> Option<u8> {
        self.bytes[self.from..self.to].last().copied()
    }

    /// Reads once. `Ok(false)`: there is nothing now.
    fn fill(&mut self, source: impl AsFd) -> Result<bool, Ended> {
        match read(source, &mut self.bytes) {
            Ok(0) => Err(Ended),
            Ok(length) => {
                (self.from, self.to) = (0, length);
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            // EIO: a pty whose other end is closed everywhere, or a terminal that is gone.
            Err(_) => Err(Ended),
        }
    }

    /// Writes once.
    fn drain(&mut self, sink: impl AsFd) -> Result<(), Ended> {
        match write(sink, &self.bytes[self.from..self.to]) {
            Ok(length) => {
                self.from += length;
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(_) => Err(Ended),
        }
    }
}

/// The other side has no more to give, or to take.
struct Ended;

struct Relay<'a> {
    child: Child,
    signals: &'a Signals,
    master: Option<OwnedFd>,
    input: Option<End<'a>>,
    output: Option<End<'a>>,
    /// The caller's terminal: where the size comes from.
    screen: Option<BorrowedFd<'a>>,
    raw: Option<RawMode<'a>>,
    to_container: Box<Buffer>,
    from_container: Box<Buffer>,
    last_input: Option<u8>,
    exit: Option<Exit>,
}

impl<'a> Relay<'a> {
    fn new(
        child: Child,
        master: OwnedFd,
        signals: &'a Signals,
        input: BorrowedFd<'a>,
        [output, error]: [BorrowedFd<'a>; 2],
    ) -> Result<Self> {
        // The master is ours alone: init has closed its copy.
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).on("prepare", "the container's pty")?;
        let screen = screen([input, output, error]);
        let relay = Self {
            child,
            signals,
            master: Some(master),
            input: Some(End::new(input, OFlag::O_RDONLY)),
            output: Some(End::new(output, OFlag::O_WRONLY)),
            screen,
            raw: RawMode::enter(input)?,
            to_container: Buffer::new(),
            from_container: Buffer::new(),
            last_input: None,
            exit: None,
        };
        relay.resize();
        Ok(relay)
    }

    fn run(mut self) -> Result<Exit> {
        loop {
            let ready = self.wait()?;
            self.take_signals()?;
            if ready.ended && self.exit.is_none() {
                self.exit = Some(wait(&self.child.pidfd).on("wait for", "the container's process")?);
                // Nobody reads it any more.
                self.input = None;
                self.to_container.clear();
            }
            if ready.input {
                self.take_input();
            }
            if ready.master_takes {
                self.give_container();
            }
            if ready.master_gives || self.exit.is_some() {
                self.take_from_container();
            }
            if ready.output {
                self.give_output();
            }
            if let Some(exit) = self.exit
                && self.master.is_none()
                && (self.from_container.is_empty() || self.output.is_none())
            {
                return Ok(exit);
            }
        }
    }

    /// Waits until something can be moved, a signal comes, or the process ends.
    fn wait(&self) -> Result<Readiness> {
        // A direction that cannot move is left out: poll would report a hang-up of it again and again.
        let mut master_flags = PollFlags::empty();
        master_flags.set(PollFlags::POLLIN, self.from_container.is_empty());
        master_flags.set(PollFlags::POLLOUT, !self.to_container.is_empty());
        let master = self.master.as_ref().map(AsFd::as_fd).filter(|_| !master_flags.is_empty());
        let input = self.input.as_ref().map(End::fd).filter(|_| self.to_container.is_empty());
        let output = self.output.as_ref().map(End::fd).filter(|_| !self.from_container.is_empty());
        let candidates = [
            (Some(self.signals.as_fd()), PollFlags::POLLIN),
            (Some(self.child.pidfd.as_fd()).filter(|_| self.exit.is_none()), PollFlags::POLLIN),
            (master, master_flags),
            (input, PollFlags::POLLIN),
            (output, PollFlags::POLLOUT),
        ];
        let mut fds: Vec<PollFd<'_>> =
            candidates.iter().filter_map(|&(fd, flags)| fd.map(|fd| PollFd::new(fd, flags))).collect();
        wait_for_any(&mut fds)?;
        let mut answers = fds.iter();
        // What was left out of the poll is not ready.
        let mut answer = |fd: Option<BorrowedFd<'_>>| match fd {
            Some(_) => answers.next().and_then(PollFd::revents).unwrap_or(PollFlags::empty()),
            None => PollFlags::empty(),
        };
        let [_, pidfd, master, input, output] = candidates.map(|(fd, _)| answer(fd));
        let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ok(Readiness {
            ended: !pidfd.is_empty(),
            master_gives: self.from_container.is_empty() && master.intersects(PollFlags::POLLIN | hung_up),
            master_takes: !self.to_container.is_empty() && master.intersects(PollFlags::POLLOUT | hung_up),
            input: !input.is_empty(),
            output: !output.is_empty(),
        })
    }

    fn take_signals(&mut self) -> Result<()> {
        while let Some(signal) = self.signals.next()? {
            match signal {
                libc::SIGWINCH => self.resize(),
                libc::SIGCONT => {
                    if let Some(raw) = &self.raw {
                        // A terminal that is gone by now is no reason to leave the container alone.
                        let _ = raw.again();
                    }
                    self.resize();
                    forward(&self.child, signal);
                }
                // The process is gone: these are for us, who may be waiting for a reader that does not read.
                libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT if self.exit.is_some() => {
                    self.output = None
                }
                _ => forward(&self.child, signal),
            }
        }
        Ok(())
    }

    /// Gives the container's terminal the size of the caller's.
    fn resize(&self) {
        if let (Some(screen), Some(master)) = (self.screen, &self.master) {
            copy_size(screen, master);
        }
    }

    fn take_input(&mut self) {
        let Some(input) = &self.input else { return };
        match self.to_container.fill(input.fd()) {
            Ok(_) => self.last_input = self.to_container.last().or(self.last_input),
            Err(Ended) => {
                self.input = None;
                self.tell_end_of_input();
            }
        }
    }

    /// A pty has no half that could be closed. What a reader in the container takes for the end is the end-of-file
    /// character, at the beginning of a line; elsewhere the first one only ends the line.
    fn tell_end_of_input(&mut self) {
        let Some(modes) = self.master.as_ref().and_then(|master| tcgetattr(master).ok()) else { return };
        if !modes.local_flags.contains(LocalFlags::ICANON) {
            return;
        }
        let end = modes.control_chars[SpecialCharacterIndices::VEOF as usize];
        match self.last_input {
            None | Some(b'\n' | b'\r') => self.to_container.set(&[end]),
            Some(_) => self.to_container.set(&[end, end]),
        }
    }

    fn give_container(&mut self) {
        if let Some(master) = &self.master
            && let Err(Ended) = self.to_container.drain(master)
        {
            self.to_container.clear();
        }
    }

    fn take_from_container(&mut self) {
        let Some(master) = &self.master else { return };
        if !self.from_container.is_empty() {
            return;
        }
        match self.from_container.fill(master) {
            Ok(true) => self.give_output(),
            // The kernel hands over everything that was written before it says that there is nothing.
            Ok(false) if self.exit.is_some() => self.master = None,
            Ok(false) => {}
            Err(Ended) => self.master = None,
        }
    }

    /// Writes what there is. Where nobody takes it, it is dropped, so that the container does not stop for it.
    fn give_output(&mut self) {
        match &self.output {
            Some(output) if self.from_container.drain(output.fd()).is_ok() => {}
            _ => {
                self.output = None;
                self.from_container.clear();
            }
        }
    }
}

struct Readiness {
    ended: bool,
    master_gives: bool,
    master_takes: bool,
    input: bool,
    output: bool,
}

/// One of the caller's standard descriptors.
enum End<'a> {
    /// Opened again for us: it does not block, which the caller's own description must not be made to do.
    Own(File),
    /// As it is: a socket or a file, which is read and written when poll says so.
    Shared(BorrowedFd<'a>),
}

impl<'a> End<'a> {
    fn new(fd: BorrowedFd<'a>, access: OFlag) -> Self {
        let kind = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        if !matches!(kind, Ok(SFlag::S_IFIFO | SFlag::S_IFCHR)) {
            return End::Shared(fd);
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match open(path.as_str(), flags, Mode::empty()) {
            Ok(own) => End::Own(own.into()),
            Err(_) => End::Shared(fd),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            End::Own(file) => file.as_fd(),
            End::Shared(fd) => *fd,
        }
    }
}

fn wait_for_any(fds: &mut [PollFd<'_>]) -> Result<()> {
    loop {
        match poll(fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            polled => return polled.map(drop).on("wait for", "the container's process"),
        }
    }
}

fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|flags| !flags.is_empty())
}

#[cfg(test)]
mod tests;
