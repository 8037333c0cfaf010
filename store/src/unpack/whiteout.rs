//! What a layer takes away (OCI image specification, layer.md, "Whiteouts"): `.wh.name` hides `name` of the layers below, `.wh..wh..opq`
//! all that they have in its directory. Neither means what the same layer brings, whichever comes first.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::failed;
use super::lower::{self, Below, is_whiteout};
use super::remove::{clear, list, remove, remove_but};
use super::tar::corrupt;
use super::tree::Tree;
use crate::error::Result;
use crate::fs::doors::{Door, Use};

/// Makes its directory opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bytes spent on remembering directories with whiteouts, to look at them again in the end. Past it some may be listed in vain.
const MOST_REMEMBERED: usize = 8 << 20;

impl Tree<'_> {
    /// `hidden` is the marker's name behind `.wh.`.
    pub(super) fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> Result<()> {
        match hidden {
            b"" | b"." | b".." => return Err(corrupt("a whiteout that names nothing it could delete")),
            b".wh..opq" => return self.opaque(parent),
            // As at the root: AUFS's own.
            _ if hidden.starts_with(b".wh.") => return Ok(()),
            _ => {}
        }
        let slot = match self.directory(parent) {
            Ok(slot) => slot,
            // As umoci writes it: a directory became a file, and what was in it is deleted too.
            Err(_) if self.is_file(parent) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.dirs[slot].touched = true;
        let (dir, ino) = (Rc::clone(&self.dirs[slot].fd), self.dirs[slot].ino);
        let stands = lower::stat(dir.as_fd(), hidden)?;
        let is_directory = stands.as_ref().is_some_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory);
        if !self.is_overlay() {
            let Some(stat) = stands else { return Ok(()) };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                self.forget(Some(ino))?;
            }
            let key = |ino, name: &[u8]| self.key(ino, name);
            let ours = self.ours.contains(&key(ino, hidden));
            return remove_but(dir.as_fd(), hidden, is_directory, ours, &self.ours, &key).map(drop);
        }
        match stands {
            // This layer's directory stays, and hides the one below.
            Some(stat) if is_directory => {
                let own = lower::directory(dir.as_fd(), hidden, Use::Change)?;
                if !self.only_implied(own.as_fd(), stat.st_ino)? {
                    return self.marks.set_opaque(own.as_fd());
                }
                // It is here only since something in it was deleted before.
                self.forget(Some(ino))?;
                remove(dir.as_fd(), hidden, true)?;
                self.mark_gone(&dir, hidden)
            }
            // This layer's file hides what is below anyway.
            Some(_) => Ok(()),
            None => {
                self.hide(&dir, parent, hidden)?;
                self.forget_link(ino, hidden)
            }
        }
    }

    /// Hides what is below; whether there is anything is seen in the end.
    pub(super) fn hide(&mut self, dir: &Door, parent: &[u8], hidden: &[u8]) -> Result<()> {
        self.mark_gone(dir, hidden)?;
        if self.remembered < MOST_REMEMBERED && !self.whiteouts_in.contains(parent) {
            self.remembered += parent.len() + 64;
            self.whiteouts_in.insert(parent.to_owned());
        }
        Ok(())
    }

    /// The layer has a file where this path needs a directory: there is nothing below to hide.
    fn is_file(&self, path: &[u8]) -> bool {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
            Ok(fd) => {
                rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
            }
            Err(Errno::ACCESS) => self.is_file_by_steps(path),
            Err(error) => error == Errno::NOTDIR,
        }
    }

    /// The same where a directory on the way keeps its owner out.
    fn is_file_by_steps(&self, path: &[u8]) -> bool {
        let mut at = Rc::clone(&self.dirs[0].fd);
        for name in path.split(|&byte| byte == b'/') {
            match lower::stat(at.as_fd(), name).ok().flatten().map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Some(FileType::RegularFile) => return true,
                Some(FileType::Directory) => match lower::directory(at.as_fd(), name, Use::Change) {
                    Ok(door) => at = Rc::new(door),
                    Err(_) => return false,
                },
                _ => return false,
            }
        }
        false
    }

    /// The layer has no entry for this directory, and nothing in it but what deletes.
    fn only_implied(&self, inside: BorrowedFd<'_>, ino: u64) -> Result<bool> {
        if !self.implied.contains(&ino) {
            return Ok(false);
        }
        for (name, is_directory) in list(inside)? {
            let Some(stat) = lower::stat(inside, &name)? else { continue };
            let nothing = match is_directory {
                true => self.only_implied(lower::directory(inside, &name, Use::Look)?.as_fd(), stat.st_ino)?,
                false => is_whiteout(&stat),
            };
            if !nothing {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn mark_gone(&mut self, dir: &impl AsFd, name: &[u8]) -> Result<()> {
        self.inodes += 1;
        rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|error| failed("make the whiteout", error))
    }

    fn opaque(&mut self, parent: &[u8]) -> Result<()> {
        let slot = self.directory(parent)?;
        let (dir, ino) = (Rc::clone(&self.dirs[slot].fd), self.dirs[slot].ino);
        if !self.is_overlay() {
            self.dirs[slot].touched = true;
            self.forget(Some(ino))?;
            let key = |ino, name: &[u8]| self.key(ino, name);
            return clear(dir.as_fd(), &self.ours, &key).map(drop);
        }
        if slot == 0 {
            // Overlayfs merges the roots of layers whatever they say.
            self.root_opaque = true;
            return Ok(());
        }
        self.marks.set_opaque(dir.as_fd())
    }

    /// In the end: the root's opaqueness name by name; and whiteouts where nothing is below, which overlayfs would list, go.
    pub(super) fn finish_whiteouts(&mut self) -> Result<()> {
        if self.root_opaque {
            let root = self.walk(b"", true)?;
            for layer in &root.view {
                for (name, _) in list(layer.as_fd())? {
                    self.hide_at_root(&root.fd, &name)?;
                }
            }
        }
        for path in std::mem::take(&mut self.whiteouts_in) {
            // The directory may be gone again, or be another now: then there is nothing to look at.
            if self.open(&path)?.is_none() {
                continue;
            }
            let slot = self.directory(&path)?;
            let dir = Rc::clone(&self.dirs[slot].fd);
            if !self.walk(&path, true)?.view.is_empty() {
                continue;
            }
            self.dirs[slot].touched = true;
            for (name, is_directory) in list(dir.as_fd())? {
                if !is_directory && lower::stat(dir.as_fd(), &name)?.is_some_and(|stat| is_whiteout(&stat)) {
                    remove(dir.as_fd(), &name, false)?;
                    self.inodes = self.inodes.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    fn hide_at_root(&mut self, root: &Door, name: &[u8]) -> Result<()> {
        match lower::stat(root.as_fd(), name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.marks.set_opaque(lower::directory(root.as_fd(), name, Use::Change)?.as_fd())
            }
            Some(_) => Ok(()),
            None => {
                let view = self.lowers.clone().unwrap_or_default();
                if matches!(lower::look(&view, name, &self.marks)?, Below::Nothing) {
                    Ok(())
                } else {
                    self.mark_gone(root, name)
                }
            }
        }
    }
}
