//! One connection: opened, calls answered one after another, signals kept until somebody asks for them.
//!
//! The other side may be slow, hang or send what it likes: every wait ends at a deadline, every message has a longest
//! length, and of the signals only the wanted ones are kept.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, connect, getsockopt, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::address::Socket;
use super::reading::{FIXED, Message, MessageType, whole_length};
use super::sasl::{self, Answers};
use super::value::Value;
use super::wire::{self, METHOD_CALL, field};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The one that is called.
    Peer,
    /// A bus, which is to pass on what this rule matches (D-Bus specification, "Match Rules").
    Bus {
        /// The rule.
        rule: String,
    },
}

/// A call of a method.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Whom, on a bus.
    pub destination: &'a str,
    /// Which object.
    pub path: &'a str,
    /// Which interface of it.
    pub interface: &'a str,
    /// Which method.
    pub member: &'a str,
    /// With what.
    pub arguments: &'a [Value],
}

/// Until when to wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    allowed: Duration,
}

/// What the other side refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the error, such as `org.freedesktop.DBus.Error.AccessDenied`.
    pub name: String,
    /// A sentence for people.
    pub message: String,
}

/// Why a connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A system call failed.
    System(Errno),
    /// Nothing came in this time.
    Silent(Duration),
    /// The other side hung up.
    Closed,
    /// It does not accept who we are.
    Stranger,
    /// It sent what is no message of D-Bus.
    Nonsense,
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was answered by an error.
    Refused(Refusal),
    /// It was not answered.
    Broken(Broken),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(errno) => f.write_str(&errno.desc().to_lowercase()),
            Self::Silent(time) => write!(f, "no answer came within {} s", time.as_secs()),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Stranger => f.write_str("it does not accept this user"),
            Self::Nonsense => f.write_str("it does not speak D-Bus, or sends messages that are too long"),
        }
    }
}

impl Deadline {
    /// So much from now on.
    pub fn within(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }
}

/// How many signals are kept for who asks later: more than one job's are not to be expected.
const KEPT: usize = 16;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    link: Link,
    /// What is still to be answered to who we have said we are.
    introduced: Option<Answers>,
    read: Vec<u8>,
    serial: u32,
    /// Calls of our own that only matter if they fail.
    quiet: Vec<u32>,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects, and says who we are: uid `uid`, or whoever the socket says in a user namespace. Waits for no answer.
    pub fn open(
        to: &Socket,
        link: Link,
        uid: u32,
        in_user_namespace: bool,
        deadline: Deadline,
    ) -> Result<Self, Broken> {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(system)?;
        // A listener whose queue is full makes connect(2) wait as long as a send may.
        let seconds = i64::try_from(deadline.allowed.as_secs()).unwrap_or(i64::MAX).max(1);
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, 0)).map_err(system)?;
        match connect(socket.as_raw_fd(), &to.to_unix().map_err(system)?) {
            Err(Errno::EAGAIN) => return Err(Broken::Silent(deadline.allowed)),
            done => done.map_err(system)?,
        }
        let (line, answers) = sasl::introduction(uid, in_user_namespace);
        let signals = VecDeque::new();
        let connection =
            Self { socket, link, introduced: Some(answers), read: Vec::new(), serial: 0, quiet: Vec::new(), signals };
        connection.send(line.as_bytes(), deadline)?;
        Ok(connection)
    }

    /// The pid of who listens at the other end; `None` if it is in no pid namespace that we see.
    pub fn peer(&self) -> Option<i32> {
        getsockopt(&self.socket, sockopt::PeerCredentials).ok().map(|peer| peer.pid()).filter(|&pid| pid > 0)
    }

    /// Whether the other end is a bus.
    pub fn is_bus(&self) -> bool {
        self.link != Link::Peer
    }

    /// Calls a method and waits for its answer. Signals that come before it and that `wanted` wants are kept for
    /// [`Connection::signal`].
    pub fn call(
        &mut self,
        call: &Call<'_>,
        wanted: impl Fn(&Message) -> bool,
        deadline: Deadline,
    ) -> Result<Message, Failure> {
        let mut bytes = Vec::new();
        if let Some(answers) = self.introduced.take() {
            self.authenticate(answers, deadline)?;
            if let Link::Bus { rule } = self.link.clone() {
                bytes.extend(self.quietly("Hello", &[]));
                bytes.extend(self.quietly("AddMatch", &[Value::Text(rule)]));
            }
        }
        let serial = self.next_serial();
        bytes.extend(encode(serial, call, self.is_bus()));
        self.send(&bytes, deadline)?;
        loop {
            let message = self.receive(deadline)?;
            match message.typ {
                MessageType::Return | MessageType::Error if message.reply_to == Some(serial) => {
                    return match message.typ {
                        MessageType::Error => Err(Failure::Refused(refusal(&message))),
                        _ => Ok(message),
                    };
                }
                MessageType::Error if message.reply_to.is_some_and(|serial| self.quiet.contains(&serial)) => {
                    return Err(Failure::Refused(refusal(&message)));
                }
                MessageType::Signal if wanted(&message) => {
                    if self.signals.len() == KEPT {
                        self.signals.pop_front();
                    }
                    self.signals.push_back(message);
                }
                _ => {}
            }
        }
    }

    /// Waits for a signal.
    pub fn signal(&mut self, wanted: impl Fn(&Message) -> bool, deadline: Deadline) -> Result<Message, Broken> {
        if let Some(kept) = self.signals.iter().position(&wanted) {
            return self.signals.remove(kept).ok_or(Broken::Closed);
        }
        loop {
            let message = self.receive(deadline)?;
            if message.typ == MessageType::Signal && wanted(&message) {
                return Ok(message);
            }
        }
    }

    /// Waits until we are known there.
    fn authenticate(&mut self, answers: Answers, deadline: Deadline) -> Result<(), Broken> {
        loop {
            match answers.read(&self.read) {
                Some((length, true)) => {
                    self.read.drain(..length);
                    return Ok(());
                }
                Some((_, false)) => return Err(Broken::Stranger),
                None if self.read.len() > sasl::MAX_LINE => return Err(Broken::Nonsense),
                None => self.fill(deadline)?,
            }
        }
    }

    /// A call of the bus's own method.
    fn quietly(&mut self, member: &str, arguments: &[Value]) -> Vec<u8> {
        let name = "org.freedesktop.DBus";
        let call = Call { destination: name, path: "/org/freedesktop/DBus", interface: name, member, arguments };
        let serial = self.next_serial();
        self.quiet.push(serial);
        encode(serial, &call, true)
    }

    fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    fn receive(&mut self, deadline: Deadline) -> Result<Message, Broken> {
        loop {
            if let Some(start) = self.read.first_chunk::<FIXED>() {
                let length = whole_length(start).ok_or(Broken::Nonsense)?;
                if let Some(bytes) = self.read.get(..length) {
                    let message = Message::parse(bytes).ok_or(Broken::Nonsense)?;
                    self.read.drain(..length);
                    return Ok(message);
                }
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Deadline) -> Result<(), Broken> {
        let mut bytes = [0_u8; 4096];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Err(Broken::Closed),
                Ok(count) => {
                    self.read.extend_from_slice(&bytes[..count]);
                    return Ok(());
                }
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLIN, deadline)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(system(errno)),
            }
        }
    }

    fn send(&self, bytes: &[u8], deadline: Deadline) -> Result<(), Broken> {
        let mut left = bytes;
        while !left.is_empty() {
            match send(self.socket.as_raw_fd(), left, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => left = &left[count..],
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Broken::Closed),
                Err(errno) => return Err(system(errno)),
            }
        }
        Ok(())
    }

    fn wait(&self, event: PollFlags, deadline: Deadline) -> Result<(), Broken> {
        let left = deadline.at.saturating_duration_since(Instant::now());
        // Rounded up: a last millisecond is waited for and not polled away.
        let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), event)], left) {
            Ok(0) => Err(Broken::Silent(deadline.allowed)),
            Ok(_) if Instant::now() >= deadline.at => Err(Broken::Silent(deadline.allowed)),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(system(errno)),
        }
    }
}

fn system(errno: Errno) -> Broken {
    Broken::System(errno)
}

fn encode(serial: u32, call: &Call<'_>, on_bus: bool) -> Vec<u8> {
    let mut fields = vec![
        (field::PATH, Value::Path(call.path.to_owned())),
        (field::INTERFACE, Value::text(call.interface)),
        (field::MEMBER, Value::text(call.member)),
    ];
    if on_bus {
        fields.push((field::DESTINATION, Value::text(call.destination)));
    }
    wire::message(METHOD_CALL, serial, &fields, call.arguments)
}

fn refusal(message: &Message) -> Refusal {
    let text = if message.signature.starts_with('s') { message.body().text() } else { None };
    Refusal { name: message.error.clone(), message: text.unwrap_or_else(|| message.error.clone()) }
}

#[cfg(test)]
mod tests;
