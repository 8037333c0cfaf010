//! The root as criu wants it: a mount point that nothing is mounted over, with the mount points of the container in it.
//!
//! criu mounts what the image says, but makes no directory for it, while the root file system may be a fresh one: `create`
//! would make what is missing, so the restore does. This runs in criu's process, in a mount namespace of its own.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::error::{Context, Error, Result};
use crate::init::path::{Object, locate_or_make};
use crate::plan::Plan;
use crate::plan::mounts::{Bind, Mount, Source, SourceLink};
use crate::state::ContainerDir;
use crate::sys::mount::{Symlink, attach, clone_tree};

/// The directory that the root will be bound to.
pub(super) fn make_place(dir: &ContainerDir) -> Result<PathBuf> {
    let place = dir.path().join("criu-root");
    fs::create_dir(&place).on("make", place.display())?;
    Ok(place)
}

/// Removes it again. What is bound to it was never bound in this namespace.
pub(super) fn remove_place(place: &Path) -> Result<()> {
    fs::remove_dir(place).on("remove", place.display())
}

/// Binds the root to `place`, and makes what is missing in it.
pub(super) fn prepare(plan: &Plan, place: &Path) -> Result<()> {
    // Nothing that is mounted here may appear on the host. A slave, so that what the host unmounts is not kept busy.
    change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
    let shown = plan.rootfs.path.display();
    mount(Some(&plan.rootfs.path), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .on("bind the root directory", shown)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(place, flags, Mode::empty()).on("open", place.display())?;
    for (index, mount) in plan.mounts.iter().enumerate() {
        if !is_in_filesystem(mount, &plan.mounts[..index]) {
            make_point(&root, mount)?;
        }
    }
    Ok(())
}

fn change(path: &Path, propagation: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, propagation, None::<&str>).on("separate the mounts of", "criu")
}

/// Whether the mount point lies in a file system that criu will mount: what is in a tmpfs is in the image, and what is in
/// procfs or sysfs is the kernel's.
fn is_in_filesystem(mount: &Mount, before: &[Mount]) -> bool {
    let above = before
        .iter()
        .rev()
        .find(|other| mount.destination != other.destination && mount.destination.starts_with(&other.destination));
    above.is_some_and(|other| !matches!(other.source, Source::Bind(_)))
}

fn make_point(root: &impl AsFd, mount: &Mount) -> Result<()> {
    match &mount.source {
        Source::Bind(bind) if bind.link == SourceLink::Copy => Ok(()),
        Source::Bind(bind) => bind_now(root, mount, bind),
        Source::Filesystem(_) | Source::Cgroup => point(root, mount, Object::Directory).map(drop),
        Source::Remount(_) => Ok(()),
    }
}

/// Binds what the container will have there, because the mount point of another mount may lie in it.
fn bind_now(root: &impl AsFd, mount: &Mount, bind: &Bind) -> Result<()> {
    let what = || format!("mount {} on {}", bind.path.display(), mount.destination.display());
    let source = match clone_tree(AT_FDCWD, &bind.path, bind.depth, Symlink::Follow) {
        Err(Errno::ENOENT) => return Err(Error::invalid(format!("{}: source does not exist", what()))),
        source => source.map_err(|errno| Error::sys(what(), errno))?,
    };
    let mode = fstat(&source).map_err(|errno| Error::sys(what(), errno))?.st_mode;
    let kind = if mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() { Object::Directory } else { Object::File };
    let target = point(root, mount, kind)?;
    attach(&source, &target).map_err(|errno| Error::sys(what(), errno))
}

fn point(root: &impl AsFd, mount: &Mount, kind: Object) -> Result<OwnedFd> {
    locate_or_make(root, &mount.destination, mount.destination_link, kind)
        .on("make the mount point", mount.destination.display())
}
