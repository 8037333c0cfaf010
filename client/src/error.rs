//! What goes wrong: one sentence with its remedy, and the exit code that scripts see.

use std::fmt;
use std::io;

use tare_proto::ttrpc::{self, Code};

/// What a program decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The call is wrong: exit code 125, as all of `tarectl`'s own failures.
    Usage,
    /// There is no such container, image, network or volume.
    NotFound,
    /// A name or a port is taken.
    Conflict,
    /// The container's command cannot be run: exit code 126.
    CannotRun,
    /// The container's command is not there: exit code 127.
    CommandNotFound,
    /// The store or a shim went away while it was asked: what was done is not known.
    CutOff,
    /// The store or a shim takes nothing up now: nothing was begun.
    Unavailable,
    /// Everything else.
    Failed,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What a program decides on.
    pub kind: Kind,
    /// What was tried, on what, why it failed, and what to do.
    pub message: String,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The call is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// It is taken.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// The host, the store or a shim failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The same failure with what the caller alone knows before it.
    #[must_use]
    pub fn within(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }

    /// As what the process ends (docker's `run`: "Exit status").
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::CannotRun => 126,
            Kind::CommandNotFound => 127,
            Kind::Usage | Kind::NotFound | Kind::Conflict | Kind::CutOff | Kind::Unavailable | Kind::Failed => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Puts what was tried before why it failed.
pub trait Context<T> {
    /// `what` names the operation and its object: "read /var/lib/tarectl/networks/web.json".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

/// Whether there is no room for what was to be written.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let kind = if error.kind() == io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Failed };
            let remedy = if is_full(&error) { "; make room on that disk and try again" } else { "" };
            Error::new(kind, format!("{}: {error}{remedy}", what()))
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).context(what)
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).context(what)
    }
}

impl<T> Context<T> for ttrpc::Result<T> {
    /// The other side's sentence is whole: nothing is put before it, but when it could not be reached.
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| match error {
            ttrpc::Error::RpcStatus(status) => {
                let kind = match status.code() {
                    Code::NOT_FOUND => Kind::NotFound,
                    Code::ALREADY_EXISTS => Kind::Conflict,
                    Code::INVALID_ARGUMENT => Kind::Usage,
                    Code::UNAVAILABLE => Kind::Unavailable,
                    _ => Kind::Failed,
                };
                Error::new(kind, status.message)
            }
            ttrpc::Error::Socket(_) | ttrpc::Error::LocalClosed | ttrpc::Error::RemoteClosed | ttrpc::Error::Eof => {
                Error::new(Kind::CutOff, format!("{}: {error}", what()))
            }
            // Among them what took too long.
            other => Error::failed(format!("{}: {other}", what())),
        })
    }
}
