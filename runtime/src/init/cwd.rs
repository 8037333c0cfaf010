//! The working directory: made if it is missing, entered, and known to be inside the container.
//!
//! CVE-2024-21626: a working directory such as /proc/self/fd/7 must not lead through a descriptor of the host that the
//! process still has. So no step of the way may be a magic link, and the kernel must afterwards be able to name the place
//! from the root.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat, umask};
use nix::unistd::{fchdir, getcwd};

use crate::error::{Context, Error, Kind, Result};

/// Whether the directory has been entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It has.
    Yes,
    /// This identity may not; the payload's may.
    NotAllowed,
}

/// Makes the directory with all its parents, mode 0755, if it is not there. The caller has the container as its root, and
/// the root is not yet read-only.
pub fn make(cwd: &CStr) -> Result<()> {
    let path = path(cwd);
    match open(path) {
        Err(Errno::ENOENT) => {}
        // Whatever else is wrong with it, entering it will say.
        _ => return Ok(()),
    }
    let mask = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let made = make_missing(path);
    umask(mask);
    made.on("make the working directory", path.display())
}

/// Makes what is missing below the deepest part that is there. Links count in the part that is there alone: a component
/// that is made is entered without following one, so that nothing is made at the other end of a dangling link
/// (CVE-2026-55686).
fn make_missing(path: &Path) -> Result<(), Errno> {
    let mut existing = path;
    let mut dir = loop {
        existing = existing.parent().ok_or(Errno::ENOENT)?;
        match open(existing) {
            Err(Errno::ENOENT) => {}
            opened => break opened?,
        }
    };
    let missing = path.strip_prefix(existing).map_err(|_| Errno::EINVAL)?;
    for component in missing.components() {
        let Component::Normal(name) = component else {
            // ".." below something that is not there leads nowhere.
            return Err(Errno::ENOENT);
        };
        match mkdirat(&dir, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        dir = openat(&dir, name, flags, Mode::empty())?;
    }
    Ok(())
}

/// Enters the directory. Root may not enter what only the user may (a network file system that squashes root), and the
/// other way round, so this is tried before and after the change of identity.
pub fn enter(cwd: &CStr) -> Result<Entered> {
    match open(path(cwd)).and_then(fchdir) {
        Ok(()) => {}
        Err(Errno::EACCES | Errno::EPERM) => return Ok(Entered::NotAllowed),
        Err(errno) => return Err(failed(cwd, errno)),
    }
    match getcwd() {
        Ok(here) if here.is_absolute() => Ok(Entered::Yes),
        // "(unreachable)/…" from the kernel, which libc reports as ENOENT.
        _ => Err(Error::new(Kind::Invalid, format!("process.cwd {cwd:?} is outside of the container's root"))),
    }
}

/// Enters the directory as the payload's user.
pub fn enter_as_user(cwd: &CStr) -> Result<()> {
    match enter(cwd)? {
        Entered::Yes => Ok(()),
        Entered::NotAllowed => Err(failed(cwd, Errno::EACCES)),
    }
}

fn failed(cwd: &CStr, errno: Errno) -> Error {
    let error = Error::sys(format!("chdir to process.cwd {cwd:?}"), errno);
    match errno {
        Errno::ELOOP => {
            error.hint("its links run in a circle, or one is a magic link of /proc, which could lead outside")
        }
        _ => error,
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

fn path(cwd: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(cwd.to_bytes()))
}
