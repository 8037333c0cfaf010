//! This host's side of a copy: the caller's own paths, with the links that they have.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::place::{self, Asked, Landing};
use crate::error::{Context, Error, Result};

/// Links in a row.
const MOST_LINKS: usize = 40;

/// What is to be copied.
pub(super) struct Source {
    pub(super) fd: OwnedFd,
    pub(super) is_dir: bool,
    /// What it is called at its target; none if what is in it is meant.
    pub(super) name: Option<PathBuf>,
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn source(text: &str, follow: bool) -> Result<Source> {
    let asked = Asked::new(text);
    let path = Path::new(text);
    let flags = if follow || asked.slash { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let fd = open(path, flags).context(|| format!("lstat {text}"))?;
    let is_dir = place::is_dir(fd.as_fd())?;
    if asked.slash && !is_dir {
        return Err(Error::usage(format!("{text:?} is not a directory")));
    }
    let name = if asked.contents { None } else { name(path)? };
    Ok(Source { fd, is_dir, name })
}

/// The last name of a path: of `.`, `..` and `/`, that of the directory that it is.
fn name(path: &Path) -> Result<Option<PathBuf>> {
    if let Some(name) = path.file_name() {
        return Ok(Some(name.into()));
    }
    let real = path.canonicalize().context(|| format!("find {}", path.display()))?;
    Ok(real.file_name().map(PathBuf::from))
}

/// Where a copy out of a container goes.
pub(super) fn landing(text: &str, is_dir: bool, name: Option<&Path>) -> Result<Landing> {
    let path = resolve(Path::new(text))?;
    Landing::find(open, &path, &Asked::new(text), is_dir, name)
}

/// The path with the directory it lies in made real, and without a link at its end. The end need not be there.
fn resolve(path: &Path) -> Result<PathBuf> {
    let what = || format!("find {}", path.display());
    let mut path = std::path::absolute(path).context(what)?;
    for _ in 0..MOST_LINKS {
        match rustix::fs::readlinkat(CWD, &path, Vec::new()) {
            Ok(target) => {
                let target = PathBuf::from(crate::tree::os(target.as_bytes()));
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            // Not there, or no link.
            Err(_) => return Ok(path),
        }
    }
    Err(Error::failed(format!("{}: there are too many links in a row", what())))
}
