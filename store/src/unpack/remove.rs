//! Removing what an entry or a whiteout takes away, by directory fds alone.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType};

use super::lower::{self, directory};
use super::{attributes, failed};
use crate::error::Result;
use crate::fs::doors::Use;

/// Removes a name, with all below it. As deep as [`super::Limits::depth`] lets layers make it.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8], is_directory: bool) -> Result<()> {
    if is_directory {
        let inside = directory(parent, name, Use::Change)?;
        for (name, is_directory) in list(inside.as_fd())? {
            remove(inside.as_fd(), &name, is_directory)?;
        }
    }
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(parent, name, flags).map_err(|error| failed("remove what it replaces", error))
}

/// Removes what is in a directory and is not `ours`, by the key of directory and name. True if nothing is left.
pub(super) fn clear(inside: BorrowedFd<'_>, ours: &HashSet<u64>, key: &impl Fn(u64, &[u8]) -> u64) -> Result<bool> {
    let stat = rustix::fs::fstat(inside).map_err(|error| failed("look at a directory", error))?;
    let mut empty = true;
    for (name, is_directory) in list(inside)? {
        let keep = ours.contains(&key(stat.st_ino, &name));
        empty &= remove_but(inside, &name, is_directory, keep, ours, key)?;
    }
    Ok(empty)
}

/// Removes a name unless it, or something below it, is to be kept. True if it is gone.
pub(super) fn remove_but(
    parent: BorrowedFd<'_>,
    name: &[u8],
    is_directory: bool,
    keep: bool,
    ours: &HashSet<u64>,
    key: &impl Fn(u64, &[u8]) -> u64,
) -> Result<bool> {
    if !is_directory {
        if !keep {
            remove(parent, name, false)?;
        }
        return Ok(!keep);
    }
    let inside = directory(parent, name, Use::Change)?;
    let before = rustix::fs::fstat(&inside).map_err(|error| failed("look at a directory", error))?;
    let empty = clear(inside.as_fd(), ours, key)?;
    if empty && !keep {
        remove(parent, name, true)?;
        return Ok(true);
    }
    attributes::touch(&inside, &attributes::times_of(&before))?;
    inside.shut().map_err(|error| failed("set its permissions", error))?;
    Ok(false)
}

/// The names in a directory, and which are directories.
pub(super) fn list(inside: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, bool)>> {
    let mut names = Vec::new();
    let read = Dir::read_from(inside).map_err(|error| failed("read a directory", error))?;
    for item in read {
        let item = item.map_err(|error| failed("read a directory", error))?;
        let name = item.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let is_directory = match item.file_type() {
            FileType::Unknown => lower::stat(inside, name)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        names.push((name.to_owned(), is_directory));
    }
    Ok(names)
}
