//! Owner, permissions, extended attributes and times of what was made, in the order that the kernel needs.
//!
//! chown(2) takes away the set-id bits and `security.capability`, so it comes first; the mode is next; an access ACL contains
//! the mode; times are last, since all of these and every write change them.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::failed;
use super::tar::{Entry, Time};
use crate::error::Result;
use crate::fs::doors::Door;

/// Of a tree in overlayfs' form: what its marks are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// `trusted.overlay.` or `user.overlay.`; none where the tree is no overlay.
    prefix: Option<&'static str>,
}

impl Marks {
    pub(super) const TREE: Self = Self { prefix: None };

    pub(super) fn overlay(userxattr: bool) -> Self {
        Self { prefix: Some(if userxattr { "user.overlay." } else { "trusted.overlay." }) }
    }

    fn opaque(&self) -> Option<&'static str> {
        match self.prefix {
            Some("user.overlay.") => Some("user.overlay.opaque"),
            Some(_) => Some("trusted.overlay.opaque"),
            None => None,
        }
    }

    /// Whether a name on disk is this mark of overlayfs.
    pub(super) fn is(&self, name: &[u8], mark: &str) -> bool {
        self.prefix.is_some_and(|prefix| name.strip_prefix(prefix.as_bytes()) == Some(mark.as_bytes()))
    }

    pub(super) fn is_opaque(&self, directory: BorrowedFd<'_>) -> Result<bool> {
        let Some(name) = self.opaque() else { return Ok(false) };
        let mut value = [MaybeUninit::uninit(); 8];
        match rustix::fs::fgetxattr(directory, name, &mut value) {
            Ok((value, _)) => Ok(*value == *b"y"),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
            Err(error) => Err(failed("read whether a directory is opaque", error)),
        }
    }

    pub(super) fn set_opaque(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let Some(name) = self.opaque() else { return Ok(()) };
        rustix::fs::fsetxattr(directory, name, b"y", XattrFlags::empty())
            .map_err(|error| failed("make its directory opaque", error))
    }

    /// Under which name an image's attribute is kept; `None`: not at all.
    ///
    /// SELinux labels are the host's to give. What an image calls `trusted.overlay.x` must not become a mark of our own layer: overlayfs
    /// shows `trusted.overlay.overlay.x` under that name.
    pub(super) fn stored<'n>(&self, name: &'n [u8]) -> Option<Cow<'n, [u8]>> {
        if name == b"security.selinux" {
            return None;
        }
        match self.prefix.and_then(|prefix| Some((prefix, name.strip_prefix(prefix.as_bytes())?))) {
            Some((prefix, rest)) => Some(Cow::Owned([prefix.as_bytes(), b"overlay.", rest].concat())),
            None => Some(Cow::Borrowed(name)),
        }
    }

    /// The image's name of an attribute on disk; `None`: it is a mark, or the host's.
    pub(super) fn shown<'n>(&self, name: &'n [u8]) -> Option<Cow<'n, [u8]>> {
        if name == b"security.selinux" {
            return None;
        }
        match self.prefix.and_then(|prefix| Some((prefix, name.strip_prefix(prefix.as_bytes())?))) {
            Some((prefix, rest)) => {
                rest.strip_prefix(b"overlay.").map(|rest| Cow::Owned([prefix.as_bytes(), rest].concat()))
            }
            None => Some(Cow::Borrowed(name)),
        }
    }
}

/// Sets an attribute of a thing that is open.
pub(super) fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8], confined: bool) -> Result<()> {
    judge(name, rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()), confined)
}

/// Takes an attribute away.
pub(super) fn remove_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(()),
        Err(error) => Err(failed("remove an extended attribute that it had", error)),
    }
}

/// Takes away what a directory with a default ACL gave to what was made in it.
pub(super) fn drop_acls(fd: BorrowedFd<'_>) -> Result<()> {
    remove_xattr(fd, b"system.posix_acl_access")?;
    match remove_xattr(fd, b"system.posix_acl_default") {
        // Only directories have one.
        Err(error) if error.kind == crate::error::Kind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Sets an attribute of a link, device or pipe, which cannot be opened, by its name in its directory.
pub(super) fn set_xattr_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    key: &[u8],
    value: &[u8],
    confined: bool,
) -> Result<()> {
    judge(key, rustix::fs::lsetxattr(by_proc(directory, name), key, value, XattrFlags::empty()), confined)
}

/// A path that begins at an open directory and ends in a name that is not followed.
pub(super) fn by_proc(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn judge(name: &[u8], result: rustix::io::Result<()>, confined: bool) -> Result<()> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    match result {
        Ok(()) => Ok(()),
        // As containerd does: a file system without it still holds the files.
        Err(Errno::NOTSUP) => {
            tracing::warn!(attribute = shown(), "the file system does not keep an extended attribute of the layer");
            Ok(())
        }
        // Only root has these, and nobody has `user.` attributes on what is neither file nor directory.
        Err(Errno::PERM) if confined || name.starts_with(b"user.") => Ok(()),
        Err(error) => Err(failed(&format!("set its extended attribute {:?}", shown()), error)),
    }
}

/// All attributes of a thing that is open, sorted by name; `trusted.` ones only for root, by the kernel's rule.
pub(super) fn xattrs(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = read(|buffer| rustix::fs::flistxattr(fd, spare_capacity(buffer)))?;
    values(&names, |name, buffer| rustix::fs::fgetxattr(fd, name, spare_capacity(buffer)))
}

/// The same of a link, device or pipe.
pub(super) fn xattrs_at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = by_proc(directory, name);
    let names = read(|buffer| rustix::fs::llistxattr(&*path, spare_capacity(buffer)))?;
    values(&names, |key, buffer| rustix::fs::lgetxattr(&*path, key, spare_capacity(buffer)))
}

fn values(
    names: &[u8],
    get: impl Fn(&[u8], &mut Vec<u8>) -> rustix::io::Result<usize>,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        all.push((name.to_owned(), read(|buffer| get(name, buffer))?));
    }
    all.sort();
    Ok(all)
}

/// Names and values are short, as a rule, and at most 64 KiB.
fn read(get: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(256);
    match get(&mut buffer) {
        Err(Errno::RANGE) => buffer.reserve(65_536),
        Err(Errno::NOTSUP | Errno::NODATA) => return Ok(Vec::new()),
        Err(error) => return Err(failed("read extended attributes", error)),
        Ok(_) => return Ok(buffer),
    }
    buffer.clear();
    get(&mut buffer).map_err(|error| failed("read extended attributes", error))?;
    Ok(buffer)
}

/// Copies owner, permissions, attributes and times of a file that the layer below has, marks excepted.
pub(super) fn copy(from: &Door, to: BorrowedFd<'_>, marks: &Marks, rights: Rights) -> Result<()> {
    let stat = from.stat().map_err(|error| failed("look at it in the layer below", error))?;
    let own_mode = stat.st_mode & 0o7777;
    if rights.owners {
        own(to, stat.st_uid, stat.st_gid)?;
    }
    mode(to, rights.opened(own_mode))?;
    copy_xattrs(from, to, marks, rights)?;
    rights.close(to, own_mode)?;
    touch(to, &times_of(&stat))
}

/// The same of a directory. Returns the state of the one below.
pub(super) fn copy_directory(from: &Door, to: &Door, marks: &Marks, rights: Rights) -> Result<Stat> {
    let stat = from.stat().map_err(|error| failed("look at a directory below", error))?;
    if rights.owners {
        own(to, stat.st_uid, stat.st_gid)?;
    }
    directory_mode(to, stat.st_mode & 0o7777)?;
    copy_xattrs(from, to.as_fd(), marks, rights)?;
    touch(to, &times_of(&stat))?;
    Ok(stat)
}

fn copy_xattrs(from: &Door, to: BorrowedFd<'_>, marks: &Marks, rights: Rights) -> Result<()> {
    for (name, value) in xattrs(from.as_fd())? {
        if Some(&*name) != marks.opaque().map(str::as_bytes) {
            set_xattr(to, &name, &value, rights.confined)?;
        }
    }
    Ok(())
}

/// What this process may do to what it makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    /// Give it any owner. Without that, permissions count for us too: of directories, [`crate::fs::doors`] sees to that.
    pub(super) owners: bool,
    /// Make no devices and no `trusted.*` attributes: only the host's root can.
    pub(super) confined: bool,
}

impl Rights {
    /// Permissions with which we can go on working on something whose own keep us out.
    pub(super) fn opened(self, mode: u32) -> u32 {
        if self.owners { mode } else { mode | 0o700 }
    }

    /// Its own permissions for what had [`Rights::opened`] ones.
    pub(super) fn close(self, fd: impl AsFd, own: u32) -> Result<()> {
        if self.opened(own) == own { Ok(()) } else { mode(fd, own) }
    }
}

pub(super) fn own(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|error| failed("give it its owner", error))
}

pub(super) fn mode(fd: impl AsFd, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, rustix::fs::Mode::from_raw_mode(mode)).map_err(|error| failed("set its permissions", error))
}

/// Of a directory: it lets us in all the same.
pub(super) fn directory_mode(directory: &Door, mode: u32) -> Result<()> {
    directory.set_mode(mode).map_err(|error| failed("set its permissions", error))
}

pub(super) fn touch(fd: impl AsFd, times: &Timestamps) -> Result<()> {
    rustix::fs::futimens(fd, times).map_err(|error| failed("set its times", error))
}

/// As containerd has it: not read before it was written.
pub(super) fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: spec(entry.atime.map_or(entry.mtime, |atime| atime.max(entry.mtime))),
        last_modification: spec(entry.mtime),
    }
}

pub(super) fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec.cast_signed() },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() },
    }
}

/// The times of what no layer says anything of.
pub(super) const EPOCH: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

fn spec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() }
}
