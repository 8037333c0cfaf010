//! `diff`: what a container has changed of its image's root.
//!
//! ```text
//! upper directory   what the container wrote, as overlayfs keeps it    a device 0:0 hides a name below, an attribute all of a directory
//! below             the image's layers, merged                         to tell what is new from what is changed
//! ```
//!
//! As docker's: a directory is changed (`C`) if something in it is, or its own attributes are; a file that was only touched and is the
//! same is not. What the runtime makes in every root to mount upon is not shown.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::tree::{look, names};
use crate::{beneath, records, root};

/// Directories in each other.
const DEEPEST: usize = 400;

/// Made in every root for what is mounted there, if it is not there.
const MADE: [&str; 10] = [
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It is another now.
    Changed,
    /// It is gone.
    Deleted,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: Kind,
    /// To what.
    pub path: PathBuf,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            Kind::Added => 'A',
            Kind::Changed => 'C',
            Kind::Deleted => 'D',
        };
        write!(f, "{letter} {}", self.path.display())
    }
}

/// What a container has changed, by path.
///
/// # Errors
/// There is no such container, or its root cannot be read.
pub async fn diff(client: &Client, name: &str) -> Result<Vec<Change>> {
    let record = records::find(client, name)?;
    let mounts = client.store.mounts(&record.snapshot).await?;
    let layers = root::layers(&mounts)?;
    let Some(upper) = &layers.upper else {
        return Err(Error::failed(format!(
            "container {}: the store keeps its root as a full copy, which says nothing of changes",
            record.name
        )));
    };
    let below = root::below(&mounts)?;
    let changed = rustix::fs::open(upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open the changes of container {}", record.name))?;
    let below = below
        .map(|it| beneath::reopen(it.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY))
        .transpose()
        .context(|| format!("open the image's root of container {}", record.name))?;
    differences(changed.as_fd(), below.as_ref().map(AsFd::as_fd))
}

fn differences(changed: BorrowedFd<'_>, below: Option<BorrowedFd<'_>>) -> Result<Vec<Change>> {
    let mut walk = Walk { changes: Vec::new() };
    walk.directory(changed, below, Path::new("/"), false, 0)?;
    let mut changes = walk.changes;
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changes)
}

struct Walk {
    changes: Vec<Change>,
}

impl Walk {
    fn push(&mut self, kind: Kind, path: PathBuf) {
        self.changes.push(Change { kind, path });
    }

    /// What is changed in a directory; whether anything is. `opaque`: nothing of the one below is seen.
    fn directory(
        &mut self,
        changed: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        path: &Path,
        opaque: bool,
        depth: usize,
    ) -> Result<bool> {
        if depth > DEEPEST {
            return Err(Error::failed(format!(
                "{}: there are more than {DEEPEST} directories in each other",
                path.display()
            )));
        }
        let before = self.changes.len();
        let here = names(changed, path)?;
        for name in &here {
            let Some(found) = there(changed, name, path)? else { continue };
            let old = below.map(|below| there(below, name, path)).transpose()?.flatten();
            self.item(&found, old.as_ref(), &path.join(name), depth)?;
        }
        if let (true, Some(below)) = (opaque, below) {
            for name in names(below, path)?.into_iter().filter(|it| here.binary_search(it).is_err()) {
                self.push(Kind::Deleted, path.join(name));
            }
        }
        Ok(self.changes.len() > before)
    }

    fn item(&mut self, found: &OwnedFd, old: Option<&OwnedFd>, path: &Path, depth: usize) -> Result<()> {
        let stat = beneath::stat(found)?;
        let kind = beneath::kind(&stat);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            if old.is_some() {
                self.push(Kind::Deleted, path.to_owned());
            }
            return Ok(());
        }
        let before = self.changes.len();
        let old_stat = old.map(beneath::stat).transpose()?;
        if kind == FileType::Directory {
            let dir = open(found, path)?;
            let old_dir = match (old, &old_stat) {
                (Some(old), Some(stat)) if beneath::kind(stat) == FileType::Directory => Some(open(old, path)?),
                _ => None,
            };
            self.directory(dir.as_fd(), old_dir.as_ref().map(AsFd::as_fd), path, is_opaque(&dir), depth + 1)?;
        }
        let something = self.changes.len() > before;
        match &old_stat {
            None if !something && is_made(path, &stat) => {}
            None => self.push(Kind::Added, path.to_owned()),
            Some(old_stat) if something || differ(&stat, old_stat) => self.push(Kind::Changed, path.to_owned()),
            Some(_) => {}
        }
        Ok(())
    }
}

fn there(dir: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<Option<OwnedFd>> {
    match look(dir, name) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).context(|| format!("look at {}", path.join(name).display())),
    }
}

fn open(found: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    beneath::reopen(found.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY).context(|| format!("list {}", path.display()))
}

/// Nothing of the directory below shows through.
fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::fgetxattr(dir, *name, &mut value).is_ok_and(|length| value[..length] == *b"y"))
}

/// Only there to be mounted upon.
fn is_made(path: &Path, stat: &Stat) -> bool {
    MADE.iter().any(|made| Path::new(made) == path)
        && (beneath::kind(stat) == FileType::Directory
            || beneath::kind(stat) == FileType::RegularFile && stat.st_size == 0)
}

/// Whether these are two states of a thing. What a directory's times and size say is how it is kept.
fn differ(new: &Stat, old: &Stat) -> bool {
    let attributes = |it: &Stat| (it.st_mode, it.st_uid, it.st_gid, it.st_rdev);
    let content = |it: &Stat| (it.st_size, it.st_mtime, it.st_mtime_nsec);
    attributes(new) != attributes(old) || beneath::kind(new) != FileType::Directory && content(new) != content(old)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn changes_are_those_that_docker_tells() {
        if !rustix::process::geteuid().is_root() {
            return crate::testing::skip("whiteouts need root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (upper, below) = (dir.path().join("upper"), dir.path().join("below"));
        for made in ["etc/sub", "gone", "opaque/x", "same", "var", "mode", "was-dir"] {
            std::fs::create_dir_all(below.join(made)).unwrap();
        }
        for file in ["etc/passwd", "etc/hosts", "etc/kept", "gone/file", "opaque/y", "same/file"] {
            std::fs::write(below.join(file), "old").unwrap();
        }
        for made in ["etc", "opaque", "same", "var", "mode", "new/deep", "dev/pts", "proc"] {
            std::fs::create_dir_all(upper.join(made)).unwrap();
        }
        // Changed, added, copied up without a change, deleted, hidden, made to be mounted upon.
        std::fs::write(upper.join("etc/passwd"), "newer").unwrap();
        std::fs::write(upper.join("new/deep/file"), "").unwrap();
        let copied = upper.join("same/file");
        std::fs::copy(below.join("same/file"), &copied).unwrap();
        let modified = below.join("same/file").metadata().unwrap().modified().unwrap();
        File::options().write(true).open(&copied).unwrap().set_modified(modified).unwrap();
        let whiteout = |path: &str| {
            rustix::fs::mknodat(rustix::fs::CWD, upper.join(path), FileType::CharacterDevice, Mode::empty(), 0)
                .unwrap();
        };
        whiteout("gone");
        whiteout("etc/never-there");
        std::fs::write(upper.join("opaque/x"), "").unwrap();
        rustix::fs::setxattr(upper.join("opaque"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        std::fs::set_permissions(upper.join("mode"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(upper.join("was-dir"), "").unwrap();
        std::fs::write(upper.join("etc/resolv.conf"), "").unwrap();
        let (changed, below) = (File::open(&upper).unwrap(), File::open(&below).unwrap());
        let told: Vec<String> =
            differences(changed.as_fd(), Some(below.as_fd())).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "C /etc",
                "C /etc/passwd",
                "D /gone",
                "C /mode",
                "A /new",
                "A /new/deep",
                "A /new/deep/file",
                "C /opaque",
                "C /opaque/x",
                "D /opaque/y",
                "C /was-dir",
            ]
        );
    }
}
