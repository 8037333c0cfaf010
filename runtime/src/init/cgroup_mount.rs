//! The mount of type `cgroup`: the container's view of its cgroups, as runc shows it.
//!
//! ```text
//!   version 2    /sys/fs/cgroup                a cgroup2 mount; where it is refused, the container's directory bound
//!   version 1    /sys/fs/cgroup                a tmpfs
//!                /sys/fs/cgroup/memory         each hierarchy, under its name on the host
//!                /sys/fs/cgroup/cpu            a link to cpu,cpuacct where that is one hierarchy
//! ```

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use crate::error::{Error, Kind, Result};
use crate::init::attributes::Changes;
use crate::init::mounts::{describe, failed, failed_call, place};
use crate::init::rootfs::Root;
use crate::init::{filesystem, mask};
use crate::parent::mount_source::open_cgroup;
use crate::plan::cgroup_view::{CgroupView, Hierarchy, Scope, Version};
use crate::plan::mounts::{Attributes, CopyUp, Filesystem, Mount, Privacy};
use crate::sys::mount::{self as sys, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, Depth, attach, attach_at};

/// The attributes every mount of cgroups has, with those the configuration adds.
pub fn attributes(mount: &Mount) -> Attributes {
    Attributes { set: mount.attributes.set | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, clear: mount.attributes.clear }
}

/// Mounts the view. `join` joins the cgroups and returns the directories of the hierarchies as the parent opened them, in
/// their order; none where it could not, or need not.
pub(super) fn mount(
    root: &Root,
    mount: &Mount,
    view: &CgroupView,
    join: impl FnOnce() -> Result<Vec<OwnedFd>>,
) -> Result<()> {
    let target = place(root, mount)?;
    match view.version {
        Version::Unified => unified(root, mount, view, join()?, &target),
        Version::Legacy => legacy(root, mount, view, join, &target),
    }
}

fn unified(root: &Root, mount: &Mount, view: &CgroupView, trees: Vec<OwnedFd>, target: &OwnedFd) -> Result<()> {
    let flags = view.hierarchies.iter().flat_map(|hierarchy| &hierarchy.options).map(String::as_str);
    let tree = match filesystem::detached(&new(c"cgroup2", c"cgroup"), flags, mount.attributes.set) {
        // A user namespace without a cgroup namespace may not mount it.
        Err(Errno::EPERM | Errno::EBUSY) => match view.hierarchies.first() {
            Some(hierarchy) => match bound(mount, hierarchy, trees.into_iter().next()) {
                // The container's cgroup is not to be seen from here. What is there instead must not stay writable
                // (CVE-2023-25809).
                Err(error) if error.errno() == Some(Errno::ENOENT) => empty(mount)?,
                tree => tree?,
            },
            None => empty(mount)?,
        },
        made => made.map_err(failed_call(mount))?,
    };
    attach(&tree, target).map_err(failed_call(mount))?;
    settle(root, mount, &tree)?;
    propagate(root, mount, &tree)
}

fn empty(mount: &Mount) -> Result<OwnedFd> {
    mask::empty_directory().map_err(failed_call(mount))
}

fn propagate(root: &Root, mount: &Mount, tree: &OwnedFd) -> Result<()> {
    Changes::of_filesystem(mount.tree_attributes, &mount.propagation)
        .apply_attached(root, tree)
        .map_err(failed_call(mount))
}

/// Sets the attributes of a tree that could not get them while it was detached: read-only above all (CVE-2023-25809).
fn settle(root: &Root, mount: &Mount, tree: &OwnedFd) -> Result<()> {
    if !root.settles_late() {
        return Ok(());
    }
    let changes = Changes::of_bind(Depth::Tree, attributes(mount), Attributes::default(), &[], Privacy::Private);
    changes.apply_attached(root, tree).map_err(failed_call(mount))
}

/// The hierarchy's directory as a tree with all attributes.
fn bound(mount: &Mount, hierarchy: &Hierarchy, tree: Option<OwnedFd>) -> Result<OwnedFd> {
    match tree {
        Some(tree) => Ok(tree),
        None => open_cgroup(hierarchy, attributes(mount))?
            .ok_or_else(|| failed(mount, Kind::System, "not permitted to bind the container's cgroup")),
    }
}

fn new(kind: &CStr, name: &CStr) -> Filesystem {
    let (kind, name) = (kind.into(), name.into());
    Filesystem { kind, name, super_flags: 0, data: Vec::new(), copy_up: CopyUp::No, root_label: None }
}

fn legacy(
    root: &Root,
    mount: &Mount,
    view: &CgroupView,
    join: impl FnOnce() -> Result<Vec<OwnedFd>>,
    target: &OwnedFd,
) -> Result<()> {
    let call = failed_call(mount);
    let usual = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
    let directory = filesystem::detached(&new(c"tmpfs", c"tmpfs"), ["mode=755"].into_iter(), usual).map_err(&call)?;
    attach(&directory, target).map_err(&call)?;
    let mut trees = join()?.into_iter();
    for hierarchy in &view.hierarchies {
        let name = CString::new(hierarchy.name.as_str()).map_err(|_| call(Errno::EINVAL))?;
        let within = |error: Error| error.within(describe(mount));
        mkdirat(&directory, name.as_c_str(), Mode::from_bits_truncate(0o755)).map_err(&call)?;
        let tree = hierarchy_tree(mount, view.scope, hierarchy, trees.next()).map_err(within)?;
        // Nobody else can reach this tmpfs yet, so its names are what we made them.
        attach_at(&tree, &directory, &name)
            .map_err(|errno| within(Error::sys(format!("attach the cgroup {}", hierarchy.name), errno)))?;
        settle(root, mount, &tree)?;
        if hierarchy.name.contains(',') {
            for controller in hierarchy.name.split(',') {
                match symlinkat(Path::new(&hierarchy.name), &directory, controller) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(call(errno)),
                }
            }
        }
    }
    // Last, because its directories had to be made.
    let readonly = Attributes { set: mount.attributes.set & sys::ATTR_RDONLY, clear: 0 };
    Changes::of_mount(readonly).apply_attached(root, &directory).map_err(&call)?;
    propagate(root, mount, &directory)
}

fn hierarchy_tree(mount: &Mount, scope: Scope, hierarchy: &Hierarchy, tree: Option<OwnedFd>) -> Result<OwnedFd> {
    if scope == Scope::Namespace {
        let options = hierarchy.options.iter().map(String::as_str);
        match filesystem::detached(&new(c"cgroup", c"cgroup"), options, attributes(mount).set) {
            Err(Errno::EPERM | Errno::EBUSY) => {}
            made => return made.map_err(|errno| Error::sys(format!("mount the cgroup {}", hierarchy.name), errno)),
        }
    }
    bound(mount, hierarchy, tree)
}
