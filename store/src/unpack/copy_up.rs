//! What a layer below has, as this layer's own: a hard link to it has to share its inode with it.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};

use super::attributes;
use super::failed;
use super::tree::Tree;
use crate::error::{Context, Result};
use crate::fs::doors;

impl Tree<'_> {
    /// Copies `name` of `from` to the same name in `to`.
    pub(super) fn copy_up(&mut self, from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        self.inodes += 1;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            return self.copy_up_file(from, to, name);
        }
        let link = match kind {
            FileType::Symlink => Some(
                rustix::fs::readlinkat(from, name, Vec::new()).map_err(|error| failed("read a link below", error))?,
            ),
            _ => None,
        };
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let made = match &link {
            Some(link) => rustix::fs::symlinkat(&**link, to, name),
            None => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev),
        };
        made.map_err(|error| failed("copy it up from the layer below", error))?;
        if self.rights.owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("give the copy its owner", error))?;
        }
        if link.is_none() {
            // Made above, in a directory nobody else can reach: it is no link.
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())
                .map_err(|error| failed("give the copy its permissions", error))?;
        }
        for (key, value) in attributes::xattrs_at(from, name)? {
            attributes::set_xattr_at(to, name, &key, &value, self.rights.confined)?;
        }
        rustix::fs::utimensat(to, name, &attributes::times_of(stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed("give the copy its times", error))
    }

    fn copy_up_file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let door = doors::file(from, name).map_err(|error| failed("open it in the layer below", error))?;
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let new = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| failed("copy it up from the layer below", error))?;
        let old = door.as_fd().try_clone_to_owned().context(|| "open it in the layer below".to_owned())?;
        let (mut old, mut new) = (std::fs::File::from(old), std::fs::File::from(new));
        let written = std::io::copy(&mut old, &mut new).context(|| "copy it up from the layer below".to_owned())?;
        self.bytes += written.next_multiple_of(4096);
        attributes::copy(&door, new.as_fd(), &self.marks, self.rights)
    }
}
