//! Paths inside a root that somebody else may be changing meanwhile.
//!
//! The root is a descriptor; the kernel resolves a path as if it were `/` (openat2(2), `RESOLVE_IN_ROOT`, no magic links), so that no
//! link and no rename leads out. What was reached is used through its descriptor, never by its name again.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// How often a walk is repeated that the kernel could not prove to have stayed inside, since something was renamed meanwhile.
const TRIES: usize = 256;

/// Opens `path` as the root has it. Links are followed, but for one at the end if `flags` has `NOFOLLOW`.
///
/// # Errors
/// As openat2(2).
pub fn open(root: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    for _ in 0..TRIES {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// A place in a directory: the directory, which is inside, and a name without a slash in it.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub dir: OwnedFd,
    /// A name in it; `.` is the directory itself, when the path was the root's.
    pub name: PathBuf,
}

/// The directory that `path` lies in, with links resolved, and its last name, which is not looked at.
///
/// # Errors
/// The directory is not there.
pub fn place(root: impl AsFd, path: &Path) -> rustix::io::Result<Place> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let path = lexical(path);
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(Place { dir: open(root, parent, flags)?, name: name.into() }),
        _ => Ok(Place { dir: open(root, Path::new("/"), flags)?, name: PathBuf::from(".") }),
    }
}

/// As [`place`]; directories that are missing are made with mode 0755, root's.
///
/// # Errors
/// As mkdirat(2).
pub fn place_made(root: impl AsFd, path: &Path) -> rustix::io::Result<Place> {
    let path = lexical(path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return place(root, &path) };
    Ok(Place { dir: directory_made(root, parent)?, name: name.into() })
}

/// Opens the directory `path`; what is missing of it is made with mode 0755, root's.
///
/// # Errors
/// As mkdirat(2).
pub fn directory_made(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let path = lexical(path);
    // From the deepest that is there: each further one is made in a directory that is held, not in a path.
    let mut missing = Vec::new();
    let mut there = path.as_path();
    let mut dir = loop {
        match open(root.as_fd(), there, flags) {
            Ok(dir) => break dir,
            Err(Errno::NOENT) => match (there.parent(), there.file_name()) {
                (Some(parent), Some(name)) => {
                    missing.push(name);
                    there = parent;
                }
                _ => return Err(Errno::NOENT),
            },
            Err(error) => return Err(error),
        }
    };
    for name in missing.into_iter().rev() {
        match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        dir = rustix::fs::openat(&dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    }
    Ok(dir)
}

/// The path from `/`, without `.`, `..` and doubled slashes. `..` is taken away with the name before it, as docker does.
#[must_use]
pub fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// What an open descriptor is.
///
/// # Errors
/// As fstat(2).
pub fn stat(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::fstat(fd).context(|| "look at an open file".to_owned())
}

/// The type in a file's mode.
#[must_use]
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens again what an `O_PATH` descriptor stands for, whatever its name is by now.
///
/// # Errors
/// As open(2).
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a regular file for reading, and nothing else: a fifo or a device there is an error, not a wait.
///
/// # Errors
/// It is not there, or is something else.
pub fn regular(root: impl AsFd, path: &Path) -> Result<File> {
    let what = || format!("open {} in the container's root", path.display());
    let found = open(root, path, OFlags::PATH).context(what)?;
    if kind(&stat(&found)?) != FileType::RegularFile {
        return Err(Error::failed(format!("{}: it is not a regular file", what())));
    }
    let file = reopen(found.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK).context(what)?;
    Ok(File::from(file))
}

/// The whole of a small regular file; none if there is none.
///
/// # Errors
/// It is larger than `limit` bytes, something else than a regular file, or cannot be read.
pub fn read(root: impl AsFd, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match regular(root, path) {
        Ok(file) => file,
        Err(error) if error.kind == crate::error::Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read {} in the container's root", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(Error::failed(format!(
            "{} in the container's root is larger than {limit} bytes, which is more than is read of it",
            path.display()
        )));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
#[path = "beneath_tests.rs"]
mod tests;
