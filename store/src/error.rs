//! What goes wrong: a kind for programs, a sentence for people.
//!
//! The kind crosses to the client as a ttrpc status code, the sentence as its message. A sentence says what was tried, on
//! which image, layer and entry, why it failed, and what to do if that is known.

use std::fmt;
use std::io;

use ttrpc::{Code, get_status};

/// The kinds that callers act on; each is one status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such image, blob, snapshot, lease, or no such thing at the registry.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// The request itself is wrong.
    InvalidArgument,
    /// What was read from outside is not what it must be: a wrong digest, a malformed layer, a hostile document.
    DataLoss,
    /// Beyond the end of something, or not where the next byte belongs.
    OutOfRange,
    /// Not in this state: a snapshot that has children, a store that is read-only.
    FailedPrecondition,
    /// The registry, or this host, does not allow it.
    PermissionDenied,
    /// The registry wants (other) credentials.
    Unauthenticated,
    /// The registry cannot be reached or cannot answer now; another try may succeed.
    Unavailable,
    /// It took too long.
    DeadlineExceeded,
    /// The disk is full, or a limit was reached.
    ResourceExhausted,
    /// The caller went away.
    Cancelled,
    /// This store cannot do it.
    Unimplemented,
    /// Everything else: the host failed.
    Internal,
}

impl Kind {
    /// The kind that crossed as this code.
    #[must_use]
    pub fn from_code(code: i32) -> Self {
        const ALL: [Kind; 14] = [
            Kind::NotFound,
            Kind::AlreadyExists,
            Kind::InvalidArgument,
            Kind::DataLoss,
            Kind::OutOfRange,
            Kind::FailedPrecondition,
            Kind::PermissionDenied,
            Kind::Unauthenticated,
            Kind::Unavailable,
            Kind::DeadlineExceeded,
            Kind::ResourceExhausted,
            Kind::Cancelled,
            Kind::Unimplemented,
            Kind::Internal,
        ];
        ALL.into_iter().find(|it| it.code() as i32 == code).unwrap_or(Self::Internal)
    }

    /// The status code it crosses as.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NOT_FOUND,
            Self::AlreadyExists => Code::ALREADY_EXISTS,
            Self::InvalidArgument => Code::INVALID_ARGUMENT,
            Self::DataLoss => Code::DATA_LOSS,
            Self::OutOfRange => Code::OUT_OF_RANGE,
            Self::FailedPrecondition => Code::FAILED_PRECONDITION,
            Self::PermissionDenied => Code::PERMISSION_DENIED,
            Self::Unauthenticated => Code::UNAUTHENTICATED,
            Self::Unavailable => Code::UNAVAILABLE,
            Self::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
            Self::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
            Self::Cancelled => Code::CANCELLED,
            Self::Unimplemented => Code::UNIMPLEMENTED,
            Self::Internal => Code::INTERNAL,
        }
    }
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What a program decides on.
    pub kind: Kind,
    /// What was tried, on what, and why it failed.
    pub message: String,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $kind:ident;)*) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(Kind::$kind, message) })*
        }
    };
}

kinds! {
    /// There is no such thing.
    not_found = NotFound;
    /// It is there already.
    exists = AlreadyExists;
    /// The request is wrong.
    invalid = InvalidArgument;
    /// Beyond the end of something.
    out_of_range = OutOfRange;
    /// What came from outside is broken or hostile.
    data_loss = DataLoss;
    /// Not in this state.
    precondition = FailedPrecondition;
    /// It cannot be reached or cannot answer now.
    unavailable = Unavailable;
    /// Too much of something.
    exhausted = ResourceExhausted;
    /// The caller went away.
    cancelled = Cancelled;
    /// This store cannot do it.
    unimplemented = Unimplemented;
    /// The host failed.
    internal = Internal;
}

impl Error {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The same failure, with what the caller alone knows before it: "pull debian: layer 2 of 4".
    #[must_use]
    pub fn within(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
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

/// What a failed system call means for the caller. An [`Error`] that came through a reader or a writer keeps its kind.
#[must_use]
pub fn kind_of(error: &io::Error) -> Kind {
    if let Some(ours) = error.get_ref().and_then(|it| it.downcast_ref::<Error>()) {
        return ours.kind;
    }
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::ResourceExhausted,
        io::ErrorKind::ReadOnlyFilesystem => Kind::FailedPrecondition,
        _ => Kind::Internal,
    }
}

/// What to do about a failed system call, behind its own words, where that is known.
pub(crate) const fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => MAKE_ROOM,
        _ => "",
    }
}

/// What to do about a full disk.
pub(crate) const MAKE_ROOM: &str =
    "; make room on that disk (the store's own: `tare-store rmi` images, then `tare-store gc`) and try again";

/// Puts what was tried before why it failed.
pub trait Context<T> {
    /// `what` names the operation and its object: "open /var/lib/tare-store/lock".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(kind_of(&error), format!("{}: {error}{}", what(), remedy(error.kind()))))
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).context(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_comes_through_readers_and_writers() {
        let full = || io::Error::from_raw_os_error(nix::libc::ENOSPC);
        assert_eq!(kind_of(&full()), Kind::ResourceExhausted);
        let ours = io::Result::<()>::Err(full()).context(|| "write ingest 7".to_owned()).unwrap_err();
        let through = io::Result::<()>::Err(io::Error::other(ours)).context(|| "write the archive".to_owned());
        let error = through.unwrap_err();
        assert_eq!(error.kind, Kind::ResourceExhausted);
        let said = "write the archive: write ingest 7: No space left on device (os error 28); make room on that disk (the store's own: \
                    `tare-store rmi` images, then `tare-store gc`) and try again";
        assert_eq!(error.message, said);
    }
}
