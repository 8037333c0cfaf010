//! One failure, one sentence: what was tried, on what, why it failed, and what to do about it where that is known.
//!
//! An [`Error`] is made where the failure happens and says it completely; a caller adds only what it alone knows
//! ([`Error::within`]). Code decides on [`Kind`], never on the text. The same structure crosses the channel between
//! init and its parent, so a failure inside the container reads exactly like one outside.

use std::fmt;
use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is: all that the program itself ever decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The configuration or the call is wrong; nothing was done.
    Invalid,
    /// The container (or another named thing) does not exist.
    NotFound,
    /// The container exists already.
    Exists,
    /// The container is in a state that does not allow the operation.
    State,
    /// This host (kernel, LSM, service) lacks what was asked for.
    Unsupported,
    /// A system call or a file operation failed.
    System,
}

/// A failure as a sentence: `operation object: cause`, then the remedy if one is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    what: String,
    cause: String,
    errno: Option<i32>,
}

impl Error {
    /// A failure told in full by `what`, a clause such as `"linux.namespaces names the type pid twice"`.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), cause: String::new(), errno: None }
    }

    /// A wrong configuration or call. `what` names the field and says what is wrong with it.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, what)
    }

    /// Something this host lacks.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, what)
    }

    /// A failed system call: `what` is the operation and its object, such as `"mount /host/x on /data"`.
    pub fn sys(what: impl Into<String>, errno: Errno) -> Self {
        Self { kind: Kind::System, what: what.into(), cause: describe(errno), errno: Some(errno as i32) }
    }

    /// A failure whose cause is better said in words than by `errno`.
    pub fn caused(kind: Kind, what: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { kind, what: what.into(), cause: cause.to_string(), errno: None }
    }

    /// Puts what only the caller knows in front: `error.within("create container c1")`.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.what = format!("{outer}: {}", self.what);
        self
    }

    /// Adds what to do about it, or what makes it so, behind the cause.
    #[must_use]
    pub fn hint(mut self, remedy: impl fmt::Display) -> Self {
        if self.cause.is_empty() {
            self.what = format!("{}; {remedy}", self.what);
        } else {
            self.cause = format!("{}; {remedy}", self.cause);
        }
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The system error number behind it, if one is.
    pub fn errno(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.cause.is_empty() {
            write!(f, ": {}", self.cause)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The text of an error number as callers of a runtime match it: lower case, as libc and Go both print it.
fn describe(errno: Errno) -> String {
    let text = errno.desc();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => format!("error {}", errno as i32),
    }
}

/// Turns a bare system error into an [`Error`] by saying what was tried, and on what.
pub trait Context<T> {
    /// Says what was tried: `open(path).on("open", path.display())` becomes `open /x: no such file or directory`.
    fn on(self, operation: &str, object: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn on(self, operation: &str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::sys(format!("{operation} {object}"), errno))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn on(self, operation: &str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(raw) => Error::sys(format!("{operation} {object}"), Errno::from_raw(raw)),
            None => Error::caused(Kind::System, format!("{operation} {object}"), error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_one_sentence() {
        let failed: Result<(), Errno> = Err(Errno::ENOENT);
        let error = failed.on("open", "/x").unwrap_err();
        assert_eq!(error.to_string(), "open /x: no such file or directory");
        assert_eq!(error.errno(), Some(Errno::ENOENT));
        assert_eq!(error.kind(), Kind::System);
    }

    #[test]
    fn a_hint_stands_behind_the_cause() {
        let error = Error::sys("set RLIMIT_CORE", Errno::EPERM).hint("it needs CAP_SYS_RESOURCE");
        assert_eq!(error.to_string(), "set RLIMIT_CORE: operation not permitted; it needs CAP_SYS_RESOURCE");
        assert_eq!(error.errno(), Some(Errno::EPERM));
        assert_eq!(Error::invalid("x is wrong").hint("use y").to_string(), "x is wrong; use y");
    }

    #[test]
    fn a_wrap_adds_only_its_own_words() {
        let error = Error::invalid("process.cwd is empty").within("container c1");
        assert_eq!(error.to_string(), "container c1: process.cwd is empty");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}
