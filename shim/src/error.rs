//! What goes wrong, and as what it crosses to the client.
//!
//! A client decides by the kind (a ttrpc status code); a person reads the message, which is a whole sentence. What a runtime
//! said about its own failure is that sentence, unchanged.

use std::fmt;

use ttrpc::{Code, get_status};

/// The kinds that clients act on; each is one status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such container, process or file. To a daemon that comes back it means: gone.
    NotFound,
    /// The id is in use.
    AlreadyExists,
    /// The container is in a state in which this cannot be done.
    FailedPrecondition,
    /// The request itself is wrong.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// This shim, this host or this runtime cannot do it.
    Unimplemented,
    /// Nothing was begun: the shim is about to end, and another can be asked.
    Unavailable,
    /// Everything else: the runtime or the host failed.
    Internal,
}

impl Kind {
    const fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NOT_FOUND,
            Self::AlreadyExists => Code::ALREADY_EXISTS,
            Self::FailedPrecondition => Code::FAILED_PRECONDITION,
            Self::InvalidArgument => Code::INVALID_ARGUMENT,
            Self::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
            Self::Unimplemented => Code::UNIMPLEMENTED,
            Self::Unavailable => Code::UNAVAILABLE,
            Self::Internal => Code::INTERNAL,
        }
    }
}

/// One failure: its kind for programs, its sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What a program decides on.
    pub kind: Kind,
    /// What was tried, on what, and why it failed.
    pub message: String,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure of the host or the runtime.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// Not in this state.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(get_status(error.kind.code(), error.message))
    }
}

/// Puts what was tried before why it failed.
pub trait Context<T> {
    /// `what` names the operation and its object: "open /run/x/log".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::Internal,
            };
            Error::new(kind, format!("{}: {error}", what()))
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(std::io::Error::from).context(what)
    }
}
