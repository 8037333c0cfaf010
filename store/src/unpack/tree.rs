//! The tree that a layer becomes: what is known while it does, and its beginning and end.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::BufRead;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::attributes::{self, EPOCH, Marks, Rights};
use super::dirs::Dir;
use super::lower::View;
use super::tar::{Entry, Kind, Reader, corrupt};
use super::{Form, Options, failed};
use crate::error::Result;
use crate::fs::doors::{Door, Use};
use crate::rights::is_hosts_root;

/// One extraction.
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) form: Form<'a>,
    pub(super) options: &'a Options,
    pub(super) marks: Marks,
    /// The layers' roots below, once somebody had to know.
    pub(super) lowers: Option<View>,
    /// The root's slot is the first.
    pub(super) dirs: Vec<Dir>,
    pub(super) clock: u64,
    /// The modes that calls are given are those that come out: no umask, and no default ACL so far.
    pub(super) exact: bool,
    pub(super) ids: (u32, u32),
    pub(super) rights: Rights,
    /// In a whole tree: what this layer made, by directory and name; its whiteouts do not mean that.
    pub(super) ours: HashSet<u64>,
    /// Devices of this layer that were not made, in the same way: a hard link to one is passed over too.
    pub(super) passed_over: HashSet<u64>,
    hashing: RandomState,
    /// Directories that were made without an entry, by inode.
    pub(super) implied: HashSet<u64>,
    /// The directories that got whiteouts, a path each.
    pub(super) whiteouts_in: HashSet<Vec<u8>>,
    pub(super) remembered: usize,
    pub(super) root_opaque: bool,
    root_given: bool,
    pub(super) inodes: u64,
    pub(super) bytes: u64,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, form: Form<'a>, options: &'a Options, umask_is_zero: bool) -> Result<Self> {
        let fd = root.try_clone_to_owned().map_err(|error| {
            failed("hold the root", rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| failed("look at the root", error))?;
        let overlay = matches!(form, Form::Overlay { .. });
        let marks = match form {
            Form::Overlay { userxattr, .. } => Marks::overlay(userxattr),
            Form::Tree => Marks::TREE,
        };
        let fd = Door::to(fd, Use::Change).map_err(|error| failed("enter the root", error))?;
        let first = Dir::root(fd, &stat, if overlay { EPOCH } else { attributes::times_of(&stat) });
        Ok(Self {
            root,
            form,
            options,
            marks,
            lowers: None,
            dirs: vec![first],
            clock: 0,
            // What lies in a whole tree already may have default ACLs.
            exact: umask_is_zero && overlay,
            ids: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            rights: Rights { owners: !options.rootless, confined: options.rootless || !is_hosts_root() },
            ours: HashSet::new(),
            passed_over: HashSet::new(),
            hashing: RandomState::new(),
            implied: HashSet::new(),
            whiteouts_in: HashSet::new(),
            remembered: 0,
            root_opaque: false,
            root_given: false,
            inodes: 0,
            bytes: 0,
        })
    }

    pub(super) fn is_overlay(&self) -> bool {
        matches!(self.form, Form::Overlay { .. })
    }

    /// Puts one entry in its place.
    pub(super) fn apply(&mut self, entry: &Entry, data: &mut Reader<'_, impl BufRead>) -> Result<()> {
        // What AUFS, docker's first driver, kept of its own: nobody reads it, and no file can have such a name.
        let own = entry.path.starts_with(b".wh..wh.") && entry.path != super::whiteout::OPAQUE;
        if own {
            return Ok(());
        }
        let (parent, name) = split(&entry.path);
        if name.is_empty() {
            return self.apply_root(entry);
        }
        match name.strip_prefix(b".wh.") {
            Some(hidden) => self.whiteout(parent, hidden),
            None => self.make(parent, name, entry, data),
        }
    }

    fn apply_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(corrupt("the root of an image is a directory, and nothing may take its place"));
        }
        self.root_given = true;
        let fd = Rc::clone(&self.dirs[0].fd);
        self.settle_directory(&fd, entry, None)?;
        self.dirs[0].group = (entry.mode & 0o2000 != 0).then_some(entry.gid);
        self.dirs[0].times = attributes::times(entry);
        Ok(())
    }

    /// What can only be known at the end.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.finish_whiteouts()?;
        if !self.root_given && self.is_overlay() {
            self.inherit_root()?;
        }
        self.put_all_away()
    }

    /// An overlay shows the top layer's root: where the layer has none, it is that of the layer below.
    fn inherit_root(&mut self) -> Result<()> {
        self.walk(b"", true)?;
        let root = Rc::clone(&self.dirs[0].fd);
        match self.lowers.as_ref().and_then(|lowers| lowers.first()) {
            Some(below) => {
                let stat = attributes::copy_directory(below, &root, &self.marks, self.rights)?;
                self.dirs[0].times = attributes::times_of(&stat);
            }
            None => attributes::directory_mode(&root, 0o755)?,
        }
        Ok(())
    }

    /// A whole tree's record of what this layer made.
    pub(super) fn key(&self, parent: u64, name: &[u8]) -> u64 {
        self.hashing.hash_one((parent, name))
    }

    pub(super) fn note_ours(&mut self, parent: u64, name: &[u8]) {
        if !self.is_overlay() {
            let key = self.key(parent, name);
            self.ours.insert(key);
        }
    }
}

/// The directory's path and the last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
