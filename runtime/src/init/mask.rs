//! Hides paths of the container, and makes others read-only.
//!
//! A directory is covered by an empty read-only tmpfs, the same one for all of them; a file by the container's /dev/null,
//! which is checked to be that (CVE-2025-31133). Both are attached to the descriptor of what they cover. What does not exist
//! needs no cover.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{SFlag, fstat, makedev};

use crate::error::{Context, Error, Kind, Result};
use crate::init::attributes::Changes;
use crate::init::path;
use crate::init::rootfs::Root;
use crate::plan::mounts::{Attributes, Masks};
use crate::sys::mount::{
    self as sys, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Depth, Symlink, attach, clone_tree,
};

/// Applies both lists: the read-only paths first, so that a cover inside one of them stays on top.
pub fn apply(root: &Root, masks: &Masks) -> Result<()> {
    for path in &masks.readonly {
        make_readonly(root, path)?;
    }
    let mut covers = Covers { directory: None, null: None };
    for path in &masks.masked {
        let Some(target) = find(root, path, "mask")? else { continue };
        covers.cover(root, &target).map_err(|error| error.within(format!("mask {}", path.display())))?;
    }
    Ok(())
}

/// Opens what is at `path`, if anything is.
fn find(root: &Root, path: &Path, operation: &str) -> Result<Option<OwnedFd>> {
    match path::open(root, path, OFlag::O_PATH, ResolveFlag::empty()) {
        Ok(found) => Ok(Some(found)),
        // ELOOP: a magic link of procfs, which the container's own processes would have to have made a target of.
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Error::sys(format!("{operation} {}", path.display()), errno)),
    }
}

/// Binds the path on itself, with all below, and makes this one mount read-only.
fn make_readonly(root: &Root, path: &Path) -> Result<()> {
    let Some(target) = find(root, path, "make read-only")? else { return Ok(()) };
    let shown = path.display();
    let tree = clone_tree(&target, c"", Depth::Tree, Symlink::Itself).on("make read-only", shown)?;
    // Bits that are set already stay, as a mount only ever gets more closed here.
    let change = Changes::of_mount(Attributes { set: ATTR_RDONLY, clear: 0 });
    let pending = match change.apply(&tree) {
        Err(Errno::ENOSYS) => true,
        result => result.on("make read-only", path.display()).map(|()| false)?,
    };
    attach(&tree, &target).on("make read-only", path.display())?;
    if pending {
        change.apply_attached(root, &tree).on("make read-only", path.display())?;
    }
    Ok(())
}

/// What is put over masked paths, made when the first one needs it.
struct Covers {
    directory: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

impl Covers {
    fn cover(&mut self, root: &Root, target: &OwnedFd) -> Result<()> {
        let found = fstat(target).on("look at", "it")?;
        if found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
            return self.cover_directory(target).on("cover", "the directory");
        }
        if self.null.is_none() {
            self.null = Some(null(root)?);
        }
        let Some(null) = &self.null else { return Ok(()) };
        let cover = clone_tree(null, c"", Depth::One, Symlink::Itself).on("copy", "/dev/null")?;
        attach(cover, target).on("cover", "the file")
    }

    fn cover_directory(&mut self, target: &OwnedFd) -> Result<(), Errno> {
        match &self.directory {
            // The first one is attached as it is: a mount that is made only to be copied would have to be unmounted.
            None => {
                let first = empty_directory()?;
                attach(&first, target)?;
                self.directory = Some(first);
                Ok(())
            }
            Some(first) => attach(clone_tree(first, c"", Depth::One, Symlink::Itself)?, target),
        }
    }
}

/// A detached tmpfs that is empty, and stays so.
pub(super) fn empty_directory() -> Result<OwnedFd, Errno> {
    let context = sys::fsopen(c"tmpfs")?;
    sys::set_string(&context, c"source", c"tmpfs")?;
    sys::set_string(&context, c"nr_blocks", c"1")?;
    sys::set_string(&context, c"nr_inodes", c"1")?;
    sys::set_string(&context, c"mode", c"755")?;
    // The filesystem itself too: the mount alone could be made writable again by who may mount.
    sys::set_flag(&context, c"ro")?;
    sys::create(&context)?;
    sys::fsmount(&context, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)
}

/// The container's /dev/null: the node that was made for it, or what a mount of the configuration has there. What is
/// checked and what is copied are the same descriptor, so that nobody can exchange it between.
fn null(root: &Root) -> Result<OwnedFd> {
    let found = match &root.null {
        Some(made) => made.try_clone().on("copy", "/dev/null")?,
        None => {
            let no_links = ResolveFlag::RESOLVE_NO_SYMLINKS;
            match path::open(root, Path::new("/dev/null"), OFlag::O_PATH, no_links) {
                Err(Errno::ELOOP) => return Err(no_null()),
                found => found.on("open", "/dev/null")?,
            }
        }
    };
    if is_null(&found).on("look at", "/dev/null")? { Ok(found) } else { Err(no_null()) }
}

fn no_null() -> Error {
    Error::new(Kind::System, "/dev/null is not the null device (1:3), so no file can be masked with it")
}

fn is_null(node: impl AsFd) -> Result<bool, Errno> {
    let found = fstat(node)?;
    Ok(found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && found.st_rdev == makedev(1, 3))
}
