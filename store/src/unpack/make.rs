//! Making one entry: exclusively by its last name in its directory, then everything else through what was made.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid};
use rustix::io::Errno;

use super::attributes;
use super::failed;
use super::lower::{self, Below, is_whiteout};
use super::remove::remove;
use super::tar::{Entry, Kind, Reader, corrupt, shown};
use super::tree::{Tree, split};
use crate::error::Result;
use crate::fs::doors::{Door, Use};

/// What stood where an entry goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// It was in this layer's (or the whole) tree, and is gone.
    Other,
}

impl Tree<'_> {
    pub(super) fn make(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        data: &mut Reader<'_, impl BufRead>,
    ) -> Result<()> {
        // The target first: to reach it may take directories, and the slot below has to stay good.
        let target = match entry.kind {
            Kind::Hardlink => self.hardlink_target(&entry.link, &entry.path)?,
            _ => None,
        };
        let passed_over = match entry.kind {
            Kind::Char | Kind::Block => self.rights.confined,
            Kind::Hardlink => target.is_none(),
            _ => false,
        };
        let slot = self.directory(parent)?;
        let dir = &mut self.dirs[slot];
        dir.touched = true;
        let (fd, ino, group) = (Rc::clone(&dir.fd), dir.ino, dir.group);
        if passed_over {
            self.pass_over(&fd, ino, parent, name)?;
            return self.forget_link(ino, name);
        }
        match entry.kind {
            Kind::Directory => self.make_directory(&fd, ino, group, name, entry)?,
            Kind::File => self.make_file(&fd, ino, group, name, entry, data)?,
            Kind::Hardlink => self.make_hardlink(&fd, ino, name, target.as_ref())?,
            Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo => self.make_special(&fd, ino, group, name, entry)?,
        }
        self.note_ours(ino, name);
        self.forget_link(ino, name)
    }

    /// A device that we may not make. What the layer puts it in the place of is gone all the same, here and below.
    fn pass_over(&mut self, dir: &Door, ino: u64, parent: &[u8], name: &[u8]) -> Result<()> {
        self.make_room(dir.as_fd(), ino, name)?;
        let key = self.key(ino, name);
        self.passed_over.insert(key);
        if self.is_overlay() { self.hide(dir, parent, name) } else { Ok(()) }
    }

    /// Takes away what stands there.
    fn make_room(&mut self, parent: BorrowedFd<'_>, ino: u64, name: &[u8]) -> Result<()> {
        if let Some(stat) = lower::stat(parent, name)? {
            let kind = FileType::from_raw_mode(stat.st_mode);
            if matches!(kind, FileType::Directory | FileType::Symlink) {
                self.forget(Some(ino))?;
            }
            remove(parent, name, kind == FileType::Directory)?;
        }
        Ok(())
    }

    /// Calls what makes the entry; once more if something stood there, which then goes.
    fn exclusively<T>(
        &mut self,
        parent: &Door,
        ino: u64,
        name: &[u8],
        what: &str,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<(T, Before)> {
        match make(parent.as_fd()) {
            Ok(made) => Ok((made, Before::Nothing)),
            Err(Errno::EXIST) => {
                self.make_room(parent.as_fd(), ino, name)?;
                make(parent.as_fd()).map(|made| (made, Before::Other)).map_err(|error| failed(what, error))
            }
            Err(error) => Err(failed(what, error)),
        }
    }

    fn make_file(
        &mut self,
        parent: &Door,
        ino: u64,
        group: Option<u32>,
        name: &[u8],
        entry: &Entry,
        data: &mut Reader<'_, impl BufRead>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let (file, _) =
            self.exclusively(parent, ino, name, "make the file", |dir| rustix::fs::openat(dir, name, flags, mode))?;
        let written = write_data(&file, entry, data)?;
        self.inodes += 1;
        self.bytes += written.next_multiple_of(4096);
        self.settle(file.as_fd(), entry, (group, entry.mode & 0o777))?;
        attributes::touch(&file, &attributes::times(entry))
    }

    /// Owner, permissions and attributes of a file that is open; `made` are its directory's group and the permissions it came with.
    fn settle(&mut self, fd: BorrowedFd<'_>, entry: &Entry, made: (Option<u32>, u32)) -> Result<()> {
        self.settle_owner(fd, entry, Some(made))?;
        // An ordinary user sets no attribute of his own of what he may not write to.
        let stays_open = !entry.xattrs.is_empty();
        let mode = if stays_open { self.rights.opened(entry.mode) } else { entry.mode };
        if !self.exact || mode != made.1 {
            if !self.exact {
                attributes::drop_acls(fd)?;
            }
            attributes::mode(fd, mode)?;
        }
        self.settle_xattrs(fd, entry)?;
        if stays_open { self.rights.close(fd, entry.mode) } else { Ok(()) }
    }

    /// The same of a directory; without `made` it may have been there, and what it had of its own goes.
    pub(super) fn settle_directory(
        &mut self,
        door: &Door,
        entry: &Entry,
        made: Option<(Option<u32>, u32)>,
    ) -> Result<()> {
        let fd = door.as_fd();
        if made.is_none() {
            for (name, _) in attributes::xattrs(fd)? {
                if self.marks.shown(&name).is_some() {
                    attributes::remove_xattr(fd, &name)?;
                }
            }
        }
        self.settle_owner(fd, entry, made)?;
        if !self.exact || made.is_none_or(|(_, made)| entry.mode != made) {
            if !self.exact {
                attributes::drop_acls(fd)?;
            }
            attributes::directory_mode(door, entry.mode)?;
        }
        self.settle_xattrs(fd, entry)
    }

    fn settle_owner(&self, fd: BorrowedFd<'_>, entry: &Entry, made: Option<(Option<u32>, u32)>) -> Result<()> {
        let (uid, gid) = self.ids;
        let owned = made.is_some_and(|(group, _)| (entry.uid, entry.gid) == (uid, group.unwrap_or(gid)));
        if self.rights.owners && !owned { attributes::own(fd, entry.uid, entry.gid) } else { Ok(()) }
    }

    fn settle_xattrs(&mut self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.xattrs {
            if let Some(stored) = self.marks.stored(name) {
                attributes::set_xattr(fd, &stored, value, self.rights.confined)?;
                self.exact &= **name != *b"system.posix_acl_default";
            }
        }
        Ok(())
    }

    fn make_directory(
        &mut self,
        parent: &Door,
        ino: u64,
        group: Option<u32>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        // Set-id bits after the owner; in a set-group-id directory the new one has that bit too.
        let made = self.rights.opened(entry.mode) & 0o777;
        let plain = Mode::from_raw_mode(made);
        let make = |dir: BorrowedFd<'_>| rustix::fs::mkdirat(dir, name, plain);
        let before = match make(parent.as_fd()) {
            Ok(()) => Before::Nothing,
            Err(Errno::EXIST) => match lower::stat(parent.as_fd(), name)? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    let door = lower::directory(parent.as_fd(), name, Use::Change)?;
                    self.settle_directory(&door, entry, None)?;
                    return self.keep_made(door, entry);
                }
                _ => self.exclusively(parent, ino, name, "make the directory", make)?.1,
            },
            Err(error) => return Err(failed("make the directory", error)),
        };
        self.inodes += 1;
        self.bytes += 4096;
        let door = lower::directory(parent.as_fd(), name, Use::Change)?;
        let inherited = if group.is_some() { 0o2000 } else { 0 };
        self.settle_directory(&door, entry, Some((group, made | inherited)))?;
        if before == Before::Other {
            // A file or whiteout of this layer stood there: what is below shows through neither.
            self.marks.set_opaque(door.as_fd())?;
        }
        self.keep_made(door, entry)
    }

    fn keep_made(&mut self, door: Door, entry: &Entry) -> Result<()> {
        let slot = self.keep(entry.path.clone(), Rc::new(door), Vec::new(), Some(attributes::times(entry)))?;
        let dir = &mut self.dirs[slot];
        dir.group = (entry.mode & 0o2000 != 0).then_some(entry.gid);
        self.implied.remove(&dir.ino);
        Ok(())
    }

    /// Links, devices and pipes: never opened, for that would follow or wait.
    fn make_special(&mut self, parent: &Door, ino: u64, group: Option<u32>, name: &[u8], entry: &Entry) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let kind = match entry.kind {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => FileType::Symlink,
        };
        self.exclusively(parent, ino, name, "make it", |dir| match kind {
            FileType::Symlink => rustix::fs::symlinkat(&*entry.link, dir, name),
            _ => rustix::fs::mknodat(dir, name, kind, mode, device),
        })?;
        self.inodes += 1;
        let (uid, gid) = self.ids;
        if self.rights.owners && (entry.uid, entry.gid) != (uid, group.unwrap_or(gid)) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("give it its owner", error))?;
        }
        if kind != FileType::Symlink && (!self.exact || entry.mode & 0o7000 != 0) {
            // It was made a few lines above, in a directory nobody else can reach: it is no link.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| failed("set its permissions", error))?;
        }
        for (key, value) in &entry.xattrs {
            if let Some(stored) = self.marks.stored(key) {
                attributes::set_xattr_at(parent.as_fd(), name, &stored, value, self.rights.confined)?;
            }
        }
        rustix::fs::utimensat(parent, name, &attributes::times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed("set its times", error))
    }

    /// The directory and name of what a hard link means, copied up from the layer below if it is there. `None`: it is a device of this layer
    /// that was passed over.
    fn hardlink_target(&mut self, link: &[u8], path: &[u8]) -> Result<Option<(Rc<Door>, Vec<u8>)>> {
        if link == path {
            return Err(corrupt("a hard link to itself"));
        }
        let missing = || corrupt(format!("a hard link to {}, which neither this layer nor one below has", shown(link)));
        let (parent, name) = split(link);
        if name.is_empty() {
            return Err(corrupt("a hard link to the root"));
        }
        let slot = self.directory(parent)?;
        let (fd, here) = (Rc::clone(&self.dirs[slot].fd), lower::stat(self.dirs[slot].fd.as_fd(), name)?);
        match here {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(corrupt(format!("a hard link to {}, which is a directory", shown(link))));
            }
            Some(stat) if !(self.is_overlay() && is_whiteout(&stat)) => return Ok(Some((fd, name.to_owned()))),
            _ if self.passed_over.contains(&self.key(self.dirs[slot].ino, name)) => return Ok(None),
            Some(_) => return Err(missing()),
            None if !self.is_overlay() => return Err(missing()),
            None => {}
        }
        let node = self.walk(parent, true)?;
        match lower::look(&node.view, name, &self.marks)? {
            Below::Other(below, stat) => {
                let slot = self.directory(parent)?;
                self.dirs[slot].touched = true;
                self.copy_up(below.as_fd(), &stat, fd.as_fd(), name)?;
                Ok(Some((fd, name.to_owned())))
            }
            Below::Directory(_) => Err(corrupt(format!("a hard link to {}, which is a directory", shown(link)))),
            Below::Nothing => Err(missing()),
        }
    }

    fn make_hardlink(
        &mut self,
        parent: &Door,
        ino: u64,
        name: &[u8],
        target: Option<&(Rc<Door>, Vec<u8>)>,
    ) -> Result<()> {
        let Some((directory, original)) = target else { return Ok(()) };
        // Never follows: a hard link to a symbolic link is one.
        let link = |dir: BorrowedFd<'_>| rustix::fs::linkat(&**directory, &**original, dir, name, AtFlags::empty());
        self.exclusively(parent, ino, name, "make the hard link", link).map(drop)
    }
}

/// Writes the data to where it goes: straight from the pipe's buffers. Returns the bytes written.
fn write_data(file: &OwnedFd, entry: &Entry, data: &mut Reader<'_, impl BufRead>) -> Result<u64> {
    let Some(map) = &entry.map else {
        write(file, entry.size, data)?;
        return Ok(entry.size);
    };
    let mut written = 0;
    for segment in map.iter().filter(|segment| segment.length > 0) {
        rustix::fs::seek(file, SeekFrom::Start(segment.offset))
            .map_err(|error| failed("reach a piece of the sparse file", error))?;
        write(file, segment.length, data)?;
        written += segment.length;
    }
    rustix::fs::ftruncate(file, entry.size).map_err(|error| failed("give the sparse file its size", error))?;
    Ok(written)
}

fn write(file: &OwnedFd, length: u64, data: &mut Reader<'_, impl BufRead>) -> Result<()> {
    let mut left = length;
    while left > 0 {
        let piece = data.piece()?;
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match rustix::io::write(file, &piece[..most]) {
            Ok(written) => {
                data.consume(written);
                left -= written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed("write the file", error)),
        }
    }
    Ok(())
}
