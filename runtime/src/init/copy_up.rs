//! `tmpcopyup`: a new tmpfs starts with a copy of the directory it will cover.
//!
//! Both are reached by descriptor, and no link is followed: the copy is made before the tmpfs is attached, and what changes
//! meanwhile gives an error or an older copy, never a file from elsewhere.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use crate::error::{Context, Error, Kind, Result};

/// Deeper trees than this are refused: each level holds two descriptors.
const DEEPEST: usize = 128;

/// Copies everything in `from` into the empty `to`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = openat(from, c".", flags, Mode::empty()).on("tmpcopyup: open", "the directory")?;
    directory(from, to.as_fd(), 0)
}

fn directory(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::new(Kind::System, format!("tmpcopyup: the directory is more than {DEEPEST} levels deep")));
    }
    let again = from.try_clone().map_err(|error| Error::caused(Kind::System, "tmpcopyup", error))?;
    let mut listing = Dir::from_fd(again).on("tmpcopyup: read", "the directory")?;
    for entry in listing.iter() {
        let entry = entry.on("tmpcopyup: read", "the directory")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from.as_fd(), to, name, depth).map_err(|error| {
                if depth == 0 { error.within(format!("tmpcopyup {}", name.to_string_lossy())) } else { error }
            })?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let shown = || name.to_string_lossy().into_owned();
    let path = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let object = openat(from, name, path, Mode::empty()).on("open", shown())?;
    let stat = fstat(&object).on("look at", shown())?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let read =
        |flags| openat(from, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | flags, Mode::empty());
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::from_bits_truncate(0o700)).on("make", shown())?;
            let flags = OFlag::O_DIRECTORY;
            let source = read(flags).on("open", shown())?;
            let made = openat(to, name, path | flags, Mode::empty()).on("open", shown())?;
            directory(source, made.as_fd(), depth + 1)?;
        }
        SFlag::S_IFREG => {
            // Not blocking, lest it has become a pipe since it was looked at.
            let mut source = File::from(read(OFlag::O_NONBLOCK).on("open", shown())?);
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let mut made = File::from(openat(to, name, flags, Mode::from_bits_truncate(0o600)).on("make", shown())?);
            io::copy(&mut source, &mut made).on("copy", shown())?;
        }
        SFlag::S_IFLNK => {
            let text = readlinkat(&object, c"").on("read the link", shown())?;
            symlinkat(text.as_os_str(), to, name).on("make the link", shown())?;
        }
        // A socket is bound to its process; a copy of it would be one nobody listens on.
        SFlag::S_IFSOCK => return Ok(()),
        kind => mknodat(to, name, kind, Mode::from_bits_truncate(0o600), stat.st_rdev).on("make the node", shown())?,
    }
    set_metadata(to, name, kind, &stat).on("set the owner, mode and times of", shown())
}

/// Owner first, because a change of owner takes the set-id bits away.
fn set_metadata(to: BorrowedFd<'_>, name: &CStr, kind: SFlag, stat: &FileStat) -> Result<(), Errno> {
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind != SFlag::S_IFLNK {
        // This is our own tmpfs, which nobody else can reach yet: the name is what we just made.
        fchmodat(to, name, Mode::from_bits_truncate(stat.st_mode & 0o7777), FchmodatFlags::FollowSymlink)?;
    }
    let times = [TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)];
    utimensat(to, name, &times[0], &times[1], UtimensatFlags::NoFollowSymlink)
}
