//! Copies of whole trees with everything that a file has, for hosts without overlayfs.
//!
//! Below two directory descriptors, by name only one step at a time, and never through a link. Extents are shared where the file
//! system can (FICLONE), else the kernel copies (copy_file_range(2)); holes stay holes and names of one file stay names of one file.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, Whence, fchownat, linkat, lseek, symlinkat};

use crate::error::{Context, Error, Result};
use crate::fault;
use crate::fs::doors::{self, Door, Use};
use crate::fs::names;

/// Directories within directories, at most: each takes a descriptor on both sides.
const DEEPEST: usize = 1024;

/// Of a list of attributes, and of the value of one: XATTR_LIST_MAX and XATTR_SIZE_MAX.
const LONGEST: usize = 64 << 10;

/// Copies all below `from`, and what the directory itself has, into the empty directory `to`.
pub fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let copying = || "copy what the root directory of a tree has".to_owned();
    let from = Door::to(from.try_clone_to_owned().context(copying)?, Use::Look).map_err(io::Error::from);
    let from = from.context(copying)?;
    let stat = with_own_mode(&from, fstat(&from).context(copying)?).context(copying)?;
    let mut copy = Copy { top: to, links: HashMap::new() };
    copy.below(from.as_fd(), to, Path::new(""), 0)?;
    attributes(&dot(from.as_fd()), &dot(to), &stat).context(copying)?;
    // Its own permissions may keep us from going by its name.
    let (accessed, modified) = times_of(&stat);
    futimens(to, &accessed, &modified).context(copying)
}

struct Copy<'a> {
    top: BorrowedFd<'a>,
    /// The first name of each file that has several, below `top`.
    links: HashMap<u64, PathBuf>,
}

/// An entry: a name in a directory.
struct Entry<'a> {
    dir: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Entry<'_> {
    /// A path for calls that know none but paths, such as those of extended attributes. It goes through our descriptor, so that
    /// nobody can lead it elsewhere.
    fn path(&self) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", self.dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name.to_bytes());
        path
    }
}

fn dot(dir: BorrowedFd<'_>) -> Entry<'_> {
    Entry { dir, name: c"." }
}

impl Copy<'_> {
    fn below(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<()> {
        let listing = || format!("list /{}", path.display());
        if depth > DEEPEST {
            return Err(Error::exhausted(format!("directories are nested more than {DEEPEST} deep: no copy is made")));
        }
        let mut dir = Dir::from_fd(directory(from, c".").context(listing)?).context(listing)?;
        for name in names(&mut dir).context(listing)? {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let stat = fstatat(from, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .context(|| format!("look at /{}", path.display()))?;
            let (from, to) = (Entry { dir: from, name: &name }, Entry { dir: to, name: &name });
            if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
                self.directory(&from, &to, &stat, &path, depth)?;
            } else {
                self.other(&from, &to, &stat, &path).context(|| format!("copy /{}", path.display()))?;
            }
            fault::point("snapshots.copy.entry")?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        from: &Entry<'_>,
        to: &Entry<'_>,
        stat: &FileStat,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        let copying = || format!("copy directory /{}", path.display());
        mkdirat(to.dir, to.name, Mode::S_IRWXU).context(copying)?;
        let below = doors::directory(from.dir, from.name, Use::Look).map_err(io::Error::from).context(copying)?;
        let stat = &with_own_mode(&below, *stat).context(copying)?;
        let into = directory(to.dir, to.name).context(copying)?;
        self.below(below.as_fd(), into.as_fd(), path, depth + 1)?;
        attributes(from, to, stat).context(copying)?;
        // Last: what is made within changes it.
        times(to, stat).context(copying)
    }

    fn other(&mut self, from: &Entry<'_>, to: &Entry<'_>, stat: &FileStat, path: &Path) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                return link(self.top, first, to);
            }
            self.links.insert(stat.st_ino, path.to_owned());
        }
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFREG => {
                let door = doors::file(from.dir, from.name)?;
                let stat = with_own_mode(&door, *stat)?;
                file(&door, to, &stat)?;
                attributes(from, to, &stat)?;
                return times(to, &stat);
            }
            SFlag::S_IFLNK => symlinkat(readlinkat(from.dir, from.name)?.as_os_str(), to.dir, to.name)?,
            _ => mknodat(to.dir, to.name, kind, Mode::S_IRUSR, stat.st_rdev)?,
        }
        attributes(from, to, stat)?;
        times(to, stat)
    }
}

/// One more name of a file that was copied: the directories of its first one have their own permissions by now.
fn link(top: BorrowedFd<'_>, first: &Path, to: &Entry<'_>) -> io::Result<()> {
    match linkat(top, first, to.dir, to.name, LinkatFlags::empty()) {
        Err(Errno::EACCES) => {}
        done => return Ok(done?),
    }
    let name = first.file_name().ok_or(io::ErrorKind::NotFound)?;
    let mut doors: Vec<Door> = Vec::new();
    for step in first.parent().into_iter().flatten() {
        let at = doors.last().map_or(top, AsFd::as_fd);
        let door = doors::directory(at, step, Use::Look)?;
        doors.push(door);
    }
    Ok(linkat(doors.last().map_or(top, AsFd::as_fd), name, to.dir, to.name, LinkatFlags::empty())?)
}

fn directory(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// With the permissions that it has when nobody is inside.
fn with_own_mode(door: &Door, mut stat: FileStat) -> io::Result<FileStat> {
    stat.st_mode = door.stat()?.st_mode;
    Ok(stat)
}

fn file(from: &Door, to: &Entry<'_>, stat: &FileStat) -> io::Result<()> {
    let from = File::from(from.as_fd().try_clone_to_owned()?);
    let create = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    let to = File::from(openat(to.dir, to.name, create, Mode::S_IRUSR | Mode::S_IWUSR)?);
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    to.set_len(stat.st_size.cast_unsigned())?;
    let mut at = 0;
    while at < stat.st_size {
        let data = match lseek(&from, at, Whence::SeekData) {
            Ok(data) => data,
            // Nothing but a hole from here on.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = lseek(&from, data, Whence::SeekHole)?.min(stat.st_size);
        range(&from, &to, data, end)?;
        at = end;
    }
    Ok(())
}

fn range(from: &File, to: &File, start: i64, end: i64) -> io::Result<()> {
    use rustix::io::Errno;
    let (mut read, end) = (start.cast_unsigned(), end.cast_unsigned());
    let mut written = read;
    while read < end {
        let rest = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // Not between these two.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return by_hand(from, to, read, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 128 << 10];
    while at < end {
        let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match from.read_at(&mut buffer[..wanted], at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                to.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// Owner, extended attributes and mode, in this order: chown(2) clears set-user-id bits and capabilities, and a mode that shuts out its own
/// owner keeps him from setting attributes.
fn attributes(from: &Entry<'_>, to: &Entry<'_>, stat: &FileStat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match fchownat(to.dir, to.name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // Without privileges there is one owner only, and it is that already.
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => {}
        done => done?,
    }
    xattrs(from, to)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        let mode = Mode::from_bits_truncate(stat.st_mode);
        fchmodat(to.dir, to.name, mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(())
}

fn xattrs(from: &Entry<'_>, to: &Entry<'_>) -> io::Result<()> {
    let (from, to) = (from.path(), to.path());
    let mut list = vec![0; LONGEST];
    let length = match rustix::fs::llistxattr(&*from, &mut list) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0; if length == 0 { 0 } else { LONGEST }];
    for name in list[..length].split(|byte| *byte == 0).filter(|it| !it.is_empty()) {
        let name = CString::new(name)?;
        let length = rustix::fs::lgetxattr(&*from, &name, &mut value)?;
        let set = rustix::fs::lsetxattr(&*to, &name, &value[..length], rustix::fs::XattrFlags::empty());
        match set {
            // A label of this host's security module is given anew.
            Err(_) if name.to_bytes() == b"security.selinux" => {}
            done => done?,
        }
    }
    Ok(())
}

fn times(to: &Entry<'_>, stat: &FileStat) -> io::Result<()> {
    let (accessed, modified) = times_of(stat);
    Ok(utimensat(to.dir, to.name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

fn times_of(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}
