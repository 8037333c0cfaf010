//! Where a copy goes: cp(1)'s rules, as docker states them.
//!
//! | the target is | a file goes | a directory goes |
//! |---|---|---|
//! | not there | to that name; with a slash at the end it is an error | to that name |
//! | a file | in its place | nowhere: an error |
//! | a directory | into it | into it; what is in it, if the source ends with `/.` |

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::error::{Error, Kind, Result};
use crate::record::Container;
use crate::tree::Copier;

/// What the end of a path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// It ends with `/`, or with `/.`: it must be a directory.
    pub(super) slash: bool,
    /// It ends with `/.`: what is in it is meant.
    pub(super) contents: bool,
}

impl Asked {
    pub(super) fn new(path: &str) -> Self {
        let contents = path == "." || path.ends_with("/.");
        Self { slash: contents || path.ends_with('/'), contents }
    }
}

/// Where a copy goes.
#[derive(Debug)]
pub(super) enum Landing {
    /// What is in the source goes into this directory.
    Within(OwnedFd),
    /// The source itself goes into this directory, by this name.
    Named(OwnedFd, PathBuf),
}

impl Landing {
    /// By these rules. `open` opens a path as the target's side has it; `path` has no link at its end; `name` is the source's, none if
    /// what is in it is meant.
    pub(super) fn find(
        open: impl Fn(&Path, OFlags) -> rustix::io::Result<OwnedFd>,
        path: &Path,
        asked: &Asked,
        is_dir: bool,
        name: Option<&Path>,
    ) -> Result<Self> {
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let failed = |error: Errno, path: &Path| {
            let kind = if error == Errno::NOENT { Kind::NotFound } else { Kind::Failed };
            Error::new(kind, format!("open {}: {}", path.display(), std::io::Error::from(error)))
        };
        match open(path, OFlags::PATH) {
            Ok(found) => match (self::is_dir(found.as_fd())?, is_dir, name) {
                (true, true, None) => Ok(Self::Within(found)),
                (true, _, Some(name)) => Ok(Self::Named(found, name.to_owned())),
                (true, false, None) => Err(Error::usage(format!("{} is a directory", path.display()))),
                (false, true, _) => Err(Error::usage(format!(
                    "cannot copy directory: {} is not a directory: remove it first, or give another target",
                    path.display()
                ))),
                (false, false, _) if asked.slash => Err(no_directory(path)),
                (false, false, _) => Self::named(open, path, failed),
            },
            Err(Errno::NOENT) if asked.slash && !is_dir => Err(no_directory(path)),
            Err(Errno::NOENT) => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                open(parent, directory).map_err(|error| failed(error, parent))?;
                Self::named(open, path, failed)
            }
            Err(error) => Err(failed(error, path)),
        }
    }

    fn named(
        open: impl Fn(&Path, OFlags) -> rustix::io::Result<OwnedFd>,
        path: &Path,
        failed: impl Fn(Errno, &Path) -> Error,
    ) -> Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(no_directory(path)) };
        let dir = open(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| failed(error, parent))?;
        Ok(Self::Named(dir, name.into()))
    }

    /// Copies there what `from`, an `O_PATH` descriptor, stands for.
    pub(super) fn copy(&self, copier: &mut Copier, from: BorrowedFd<'_>, path: &Path) -> Result<()> {
        match self {
            Self::Within(dir) => {
                let source = beneath::reopen(from, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| {
                    Error::failed(format!("open {}: {}", path.display(), std::io::Error::from(error)))
                })?;
                copier.contents(source.as_fd(), dir.as_fd())
            }
            Self::Named(dir, name) => copier.item(from, dir.as_fd(), name, path),
        }
    }
}

fn no_directory(path: &Path) -> Error {
    Error::usage(format!("no such directory: {}: make it first, or leave out the slash at the end", path.display()))
}

/// Whether a descriptor is a directory's.
pub(super) fn is_dir(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(beneath::kind(&beneath::stat(fd)?) == FileType::Directory)
}

/// The failure to find a target, with docker's words.
pub(super) fn in_container(error: Error, path: &Path, record: &Container) -> Error {
    match error.kind {
        Kind::NotFound => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            Error::not_found(format!(
                "could not find the file {} in container {}: make the directory first",
                parent.display(),
                record.name
            ))
        }
        _ => error,
    }
}
