//! What the layers below show at a place, as overlayfs would merge them: top first, to the first whiteout, opaque directory or file.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attributes::Marks;
use super::failed;
use crate::error::Result;
use crate::fs::doors::{self, Door, Use};

/// One directory as the layers below have it: each layer's part, top first. Empty where there is nothing below.
pub(super) type View = Vec<Rc<Door>>;

/// What a name in a view is.
pub(super) enum Below {
    Nothing,
    Directory(View),
    /// Anything else: the directory it is in, and its state.
    Other(Rc<Door>, Stat),
}

pub(super) fn look(view: &View, name: &[u8], marks: &Marks) -> Result<Below> {
    let mut parts = View::new();
    for layer in view {
        let Some(stat) = stat(layer.as_fd(), name)? else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = directory(layer.as_fd(), name, Use::Look)?;
                let opaque = marks.is_opaque(directory.as_fd())?;
                parts.push(Rc::new(directory));
                if opaque {
                    break;
                }
            }
            _ if is_whiteout(&stat) || !parts.is_empty() => break,
            _ => return Ok(Below::Other(Rc::clone(layer), stat)),
        }
    }
    Ok(if parts.is_empty() { Below::Nothing } else { Below::Directory(parts) })
}

/// A character device 0:0 is how overlayfs says that a name is gone.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The state of the name itself, never of what it points to.
pub(super) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match doors::stat(directory, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed("look at its place", error)),
    }
}

/// Opens a directory by its last name; not if that is a link.
pub(super) fn directory(parent: BorrowedFd<'_>, name: &[u8], what: Use) -> Result<Door> {
    doors::directory(parent, name, what).map_err(|error| failed("open a directory", error))
}
