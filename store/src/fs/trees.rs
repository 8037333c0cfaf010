//! Whole trees: how much they take, and how they go. Nothing here follows a link, and nothing trusts a depth: a container wrote
//! these trees, and may be writing still.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::doors::{self, Door, Use};
use crate::error::{Context, Error, Result};

/// So many directories are open at once, at most.
const DEEPEST: usize = 512;

/// What a tree takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of blocks; a file with several names counts once.
    pub size: u64,
    /// Files, directories, and whatever else has an inode.
    pub inodes: u64,
}

/// How much the tree at `path` takes, without crossing into other file systems.
pub fn usage(path: &Path) -> Result<Usage> {
    let measuring = || format!("measure {}", path.display());
    let root = enter(AT_FDCWD, &c_path(path)?, Use::Look).context(measuring)?;
    let stat = fstat(&root).context(measuring)?;
    let mut count = Count { device: stat.st_dev, ..Count::default() };
    count.add(&stat);
    count.below(&root, 0).map_err(|error| error.within(measuring()))?;
    Ok(count.usage)
}

#[derive(Default)]
struct Count {
    usage: Usage,
    device: u64,
    linked: HashSet<u64>,
}

impl Count {
    fn add(&mut self, stat: &FileStat) {
        let directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        if stat.st_nlink > 1 && !directory && !self.linked.insert(stat.st_ino) {
            return;
        }
        self.usage.size += stat.st_blocks.max(0).cast_unsigned() * 512;
        self.usage.inodes += 1;
    }

    fn below(&mut self, dir: &Door, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::exhausted(format!("directories are nested more than {DEEPEST} deep")));
        }
        let listing = || "list a directory".to_owned();
        for name in names(&mut list(dir).context(listing)?).context(listing)? {
            // What went away meanwhile takes nothing.
            let stat = match fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) if stat.st_dev == self.device => stat,
                Ok(_) | Err(Errno::ENOENT) => continue,
                Err(error) => return Err(error).context(|| format!("look at {}", name.to_string_lossy())),
            };
            self.add(&stat);
            if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
                match enter(dir.as_fd(), &name, Use::Look) {
                    Ok(below) => self.below(&below, depth + 1)?,
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                    Err(error) => return Err(error).context(|| format!("open {}", name.to_string_lossy())),
                }
            }
        }
        Ok(())
    }
}

/// Removes the tree at `path`, whatever is in it; there being none is no failure.
pub fn remove_tree(path: &Path) -> Result<()> {
    let removing = || format!("remove {}", path.display());
    let name = c_path(path)?;
    let root = match enter(AT_FDCWD, &name, Use::Change) {
        Ok(root) => root,
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            return gone(unlinkat(AT_FDCWD, name.as_c_str(), UnlinkatFlags::NoRemoveDir)).context(removing);
        }
        Err(error) => return Err(error).context(removing),
    };
    // What is nested too deep is moved up and found again by the next round.
    let mut moved = 0;
    loop {
        let before = moved;
        empty(root.as_fd(), root.as_fd(), 0, &mut moved).context(removing)?;
        if moved == before {
            break;
        }
    }
    gone(unlinkat(AT_FDCWD, name.as_c_str(), UnlinkatFlags::RemoveDir)).context(removing)
}

fn empty(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> nix::Result<()> {
    for name in names(&mut list(dir)?)? {
        match unlinkat(dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(error) => return Err(error),
        }
        // A snapshot that nobody wrote to is two empty directories: they need not be opened.
        if unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir).is_ok() {
            continue;
        }
        // Also to move it: its entry for where it lies changes.
        let below = enter(dir, &name, Use::Change)?;
        if depth >= DEEPEST {
            *moved += 1;
            let to = format!(".deep-{moved}");
            match renameat2(dir, name.as_c_str(), top, to.as_str(), RenameFlags::RENAME_NOREPLACE) {
                // The next round tries the next name.
                Ok(()) | Err(Errno::EEXIST) => continue,
                Err(error) => return Err(error),
            }
        }
        empty(below.as_fd(), top, depth + 1, moved)?;
        gone(unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir))?;
    }
    Ok(())
}

fn gone(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// All names but `.` and `..`.
pub(crate) fn names(dir: &mut Dir) -> nix::Result<Vec<CString>> {
    let entries = dir.iter().map(|entry| entry.map(|it| it.file_name().to_owned()));
    let names = entries.collect::<nix::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|it| it.as_c_str() != c"." && it.as_c_str() != c"..").collect())
}

fn enter(dir: BorrowedFd<'_>, name: &CStr, what: Use) -> nix::Result<Door> {
    doors::directory(dir, name, what).map_err(|error| Errno::from_raw(error.raw_os_error()))
}

fn list(dir: impl AsFd) -> nix::Result<Dir> {
    Dir::from_fd(openat(dir, c".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::invalid(format!("{path:?} is not a path")))
}
