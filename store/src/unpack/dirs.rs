//! The directories at hand, and how a path leads to one.
//!
//! A directory's time changes with every entry made in it, and a layer says what it has to be. So each that is opened remembers the times it
//! has to have, and gets them when it is put away; opened again later, it is asked for them. Nothing is kept for all directories.
//!
//! At most one slot is for one directory, whatever paths lead to it, or two would restore different times.

use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags, Timestamps};
use rustix::io::Errno;

use super::attributes::{self, EPOCH};
use super::lower::{self, Below, View, is_whiteout};
use super::tar::corrupt;
use super::tree::Tree;
use super::{Form, failed};
use crate::error::Result;
use crate::fs::doors::{self, Door, Use};

/// As many directories as a build of anything keeps going back to.
const SLOTS: usize = 64;
/// Links in one path, as the kernel's own limit.
const MOST_LINKS: usize = 40;
/// Steps to one directory: a path of links to links goes nowhere.
const MOST_STEPS: usize = 8192;

/// A directory of the tree, open.
pub(super) struct Dir {
    path: Vec<u8>,
    /// Whatever its permissions are, to be changed.
    pub(super) fd: Rc<Door>,
    pub(super) ino: u64,
    /// What is made in it gets its group.
    pub(super) group: Option<u32>,
    /// What it has to have in the end.
    pub(super) times: Timestamps,
    /// It may not have them now.
    pub(super) touched: bool,
    used: u64,
    /// The links that led here: the directories they are in, and their names there.
    links: Vec<(u64, Vec<u8>)>,
}

impl Dir {
    /// The first slot.
    pub(super) fn root(fd: Door, stat: &rustix::fs::Stat, times: Timestamps) -> Self {
        Self {
            path: Vec::new(),
            fd: Rc::new(fd),
            ino: stat.st_ino,
            group: (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid),
            times,
            touched: true,
            used: 0,
            links: Vec::new(),
        }
    }
}

/// Where a walk led.
pub(super) struct Node {
    pub(super) fd: Rc<Door>,
    /// What is below it; empty too when nobody has looked.
    pub(super) view: View,
    links: Vec<(u64, Vec<u8>)>,
}

impl Tree<'_> {
    /// The slot of the directory of this path, which is made where it is missing. Good until the next call.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<usize> {
        self.clock += 1;
        if path.is_empty() {
            return Ok(0);
        }
        if let Some(found) = self.dirs.iter().rposition(|dir| dir.path == path) {
            self.dirs[found].used = self.clock;
            return Ok(found);
        }
        if path.split(|&byte| byte == b'/').any(|name| name.starts_with(b".wh.")) {
            return Err(corrupt("a directory of its path is called .wh.…, which is how layers delete"));
        }
        let (fd, links) = match self.open(path)? {
            Some(fd) => (Rc::new(fd), Vec::new()),
            None => {
                let node = self.walk(path, false)?;
                (node.fd, node.links)
            }
        };
        self.keep(path.to_owned(), fd, links, None)
    }

    /// The common case, in one call: all of it is there, and no link is on the way.
    pub(super) fn open(&self, path: &[u8]) -> Result<Option<Door>> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
            Ok(fd) => Door::to(fd, Use::Change).map(Some).map_err(|error| failed("open its directory", error)),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::AGAIN) => Ok(None),
            Err(Errno::ACCESS) => self.open_by_steps(path),
            Err(error) => Err(failed("open its directory", error)),
        }
    }

    /// The same where one of them keeps its owner out.
    fn open_by_steps(&self, path: &[u8]) -> Result<Option<Door>> {
        let mut at: Option<Door> = None;
        for name in path.split(|&byte| byte == b'/') {
            let parent = at.as_ref().map_or_else(|| self.dirs[0].fd.as_fd(), AsFd::as_fd);
            match doors::directory(parent, name, Use::Change) {
                Ok(door) => at = Some(door),
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(None),
                Err(error) => return Err(failed("open its directory", error)),
            }
        }
        Ok(at)
    }

    /// Puts a directory into a slot. Without `times` it keeps those that it has.
    pub(super) fn keep(
        &mut self,
        path: Vec<u8>,
        fd: Rc<Door>,
        links: Vec<(u64, Vec<u8>)>,
        times: Option<Timestamps>,
    ) -> Result<usize> {
        let mut stat = rustix::fs::fstat(&*fd).map_err(|error| failed("look at its directory", error))?;
        if self.dirs[0].ino == stat.st_ino {
            return Ok(0);
        }
        let oldest = |dirs: &[Dir]| (1..dirs.len()).min_by_key(|&slot| dirs[slot].used);
        if let Some(same) = self.dirs.iter().position(|dir| dir.ino == stat.st_ino) {
            self.put_away(same)?;
            stat = rustix::fs::fstat(&*fd).map_err(|error| failed("look at its directory", error))?;
        } else if self.dirs.len() >= SLOTS
            && let Some(oldest) = oldest(&self.dirs)
        {
            self.put_away(oldest)?;
        }
        self.dirs.push(Dir {
            path,
            ino: stat.st_ino,
            group: (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid),
            touched: times.is_some(),
            times: times.unwrap_or_else(|| attributes::times_of(&stat)),
            used: self.clock,
            links,
            fd,
        });
        Ok(self.dirs.len() - 1)
    }

    fn put_away(&mut self, slot: usize) -> Result<()> {
        let dir = self.dirs.swap_remove(slot);
        if dir.touched {
            attributes::touch(&*dir.fd, &dir.times)?;
        }
        // Whoever still works in it has the same door, and shuts it.
        Rc::into_inner(dir.fd).map_or(Ok(()), shut)
    }

    /// Puts all away but the root and `but`: a directory or a link went, and paths may lead elsewhere now.
    pub(super) fn forget(&mut self, but: Option<u64>) -> Result<()> {
        for slot in (1..self.dirs.len()).rev() {
            if Some(self.dirs[slot].ino) != but {
                self.put_away(slot)?;
            }
        }
        Ok(())
    }

    /// A name was made or changed that a link had: whoever came by that link does so no more.
    pub(super) fn forget_link(&mut self, parent: u64, name: &[u8]) -> Result<()> {
        for slot in (1..self.dirs.len()).rev() {
            if self.dirs[slot].links.iter().any(|(ino, link)| *ino == parent && link == name) {
                self.put_away(slot)?;
            }
        }
        Ok(())
    }

    /// Gives every directory its times and permissions, the root last.
    pub(super) fn put_all_away(&mut self) -> Result<()> {
        self.forget(None)?;
        self.put_away(0)
    }

    /// Walks name by name through this layer and those below it, making what is missing like what is below. With `look`, or
    /// where anything was missing, the node says what is below.
    pub(super) fn walk(&mut self, path: &[u8], look: bool) -> Result<Node> {
        if look {
            self.fetch_lowers()?;
        }
        loop {
            if let Some(node) = self.try_walk(path)? {
                return Ok(node);
            }
            self.fetch_lowers()?;
        }
    }

    fn fetch_lowers(&mut self) -> Result<()> {
        if self.lowers.is_none() {
            self.lowers = Some(match self.form {
                Form::Overlay { lowers, .. } => {
                    let door = |root| Door::to(root, Use::Look).map(Rc::new);
                    let roots = lowers()?.into_iter().map(door).collect::<rustix::io::Result<View>>();
                    roots.map_err(|error| failed("enter a layer below", error))?
                }
                Form::Tree => View::new(),
            });
        }
        Ok(())
    }

    /// `None`: what is below has to be known first.
    fn try_walk(&mut self, path: &[u8]) -> Result<Option<Node>> {
        let root = |tree: &Self| (Rc::clone(&tree.dirs[0].fd), tree.lowers.clone().unwrap_or_default());
        let (mut fd, mut view) = root(self);
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut links = Vec::new();
        let mut steps = 0;
        let mut todo: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect();
        while let Some(name) = todo.pop() {
            steps += 1;
            if steps > MOST_STEPS || links.len() > MOST_LINKS || names.len() > self.options.limits.depth {
                return Err(corrupt("its directory is reached by too many links, or lies too deep"));
            }
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    // From the root again, as far as there; a link may have led to where we are.
                    names.pop();
                    todo.extend(names.drain(..).rev());
                    (fd, view) = root(self);
                    continue;
                }
                _ => {}
            }
            let (below, target) = match lower::stat(fd.as_fd(), &name)? {
                Some(stat) => match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                    rustix::fs::FileType::Directory => {
                        let child = lower::directory(fd.as_fd(), &name, Use::Change)?;
                        let hidden = view.is_empty() || self.marks.is_opaque(child.as_fd())?;
                        let below = if hidden { Below::Nothing } else { lower::look(&view, &name, &self.marks)? };
                        fd = Rc::new(child);
                        view = if let Below::Directory(view) = below { view } else { View::new() };
                        names.push(name);
                        continue;
                    }
                    rustix::fs::FileType::Symlink => (None, Some(Rc::clone(&fd))),
                    _ if self.is_overlay() && is_whiteout(&stat) => {
                        fd = Rc::new(self.replace_whiteout(&fd, &name)?);
                        view = View::new();
                        names.push(name);
                        continue;
                    }
                    _ => return Err(corrupt("what should be its directory is none")),
                },
                None if self.lowers.is_none() => return Ok(None),
                None => match lower::look(&view, &name, &self.marks)? {
                    Below::Other(parent, stat) if stat.st_mode & 0o170_000 == 0o120_000 => (None, Some(parent)),
                    Below::Other(..) => return Err(corrupt("what should be its directory is none, in a layer below")),
                    below => (Some(below), None),
                },
            };
            if let Some(parent) = target {
                let link = rustix::fs::readlinkat(&*parent, &*name, Vec::new())
                    .map_err(|error| failed("read a link", error))?;
                let here = rustix::fs::fstat(&*fd).map_err(|error| failed("look at its directory", error))?;
                links.push((here.st_ino, name));
                if link.as_bytes().starts_with(b"/") {
                    names.clear();
                    (fd, view) = root(self);
                }
                todo.extend(link.as_bytes().split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                continue;
            }
            let like = if let Some(Below::Directory(view)) = below { view } else { View::new() };
            fd = Rc::new(self.implied(&fd, &name, like.first())?);
            view = like;
            names.push(name);
        }
        Ok(Some(Node { fd, view, links }))
    }

    /// Makes a directory that the layer has no entry for: like the one below, else root's with 0755.
    fn implied(&mut self, parent: &Door, name: &[u8], like: Option<&Rc<Door>>) -> Result<Door> {
        let before = rustix::fs::fstat(parent).map_err(|error| failed("look at its directory", error))?;
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
            .map_err(|error| failed("make a directory of its path", error))?;
        let made = lower::directory(parent.as_fd(), name, Use::Change)?;
        self.inodes += 1;
        self.bytes += 4096;
        match like {
            Some(like) => drop(attributes::copy_directory(like, &made, &self.marks, self.rights)?),
            None => {
                if !self.exact {
                    attributes::mode(&made, 0o755 | (before.st_mode & 0o2000))?;
                }
                attributes::touch(&made, &EPOCH)?;
            }
        }
        let stat = rustix::fs::fstat(&made).map_err(|error| failed("look at a directory of its path", error))?;
        self.implied.insert(stat.st_ino);
        attributes::touch(parent, &attributes::times_of(&before))?;
        Ok(made)
    }

    /// The layer deletes a name and then has entries below it: a new directory that hides the old one.
    fn replace_whiteout(&mut self, parent: &Door, name: &[u8]) -> Result<Door> {
        let before = rustix::fs::fstat(parent).map_err(|error| failed("look at its directory", error))?;
        rustix::fs::unlinkat(parent, name, rustix::fs::AtFlags::empty())
            .map_err(|error| failed("replace a whiteout", error))?;
        let made = self.implied(parent, name, None)?;
        self.marks.set_opaque(made.as_fd())?;
        attributes::touch(parent, &attributes::times_of(&before))?;
        Ok(made)
    }
}

/// Gives a directory its own permissions back.
fn shut(door: Door) -> Result<()> {
    door.shut().map_err(|error| failed("set its permissions", error))
}
