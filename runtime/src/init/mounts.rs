//! Makes the container's mounts, in the order of the configuration: what a later one stands on, an earlier one made.
//!
//! Each is made detached, then attached to the descriptor of its target. The target is looked up once, inside the root.

use std::borrow::Cow;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, readlinkat};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::symlinkat;

use crate::error::{Error, Kind, Result};
use crate::init::attributes::Changes;
use crate::init::cgroup_mount;
use crate::init::path::{self, Object};
use crate::init::rootfs::Root;
use crate::init::{copy_up, filesystem};
use crate::parent::mount_source::{Opened, Sources, Tree};
use crate::plan::cgroup_view::CgroupView;
use crate::plan::mounts::{Attributes, CopyUp, Filesystem, Link, Mount, Privacy, Source};
use crate::sys::mount::{self as sys, ATTR_RDONLY, Depth, attach};

/// Makes all of `mounts`. `cgroups` is called before the first mount that shows the container's cgroups: init must be in them
/// (and in the cgroup namespace) by then, and they may be made while it does the mounts before that one. It returns their
/// directories as trees, as the parent opened them: all hierarchies of `view` in order, or none.
///
/// `binds` opens the sources of a row of bind mounts, given as indices. It is asked for as many at once as stand in a row,
/// but for so few that the descriptors stay far below any limit.
///
/// `step` is told of each mount before it is made.
pub fn mount_all(
    root: &mut Root,
    mounts: &[Mount],
    sources: &mut Sources,
    view: &CgroupView,
    mut cgroups: impl FnMut() -> Result<Vec<OwnedFd>>,
    mut binds: impl FnMut(Range<usize>) -> Result<Vec<Opened>>,
    step: impl Fn(&str),
) -> Result<()> {
    let mut opened = Vec::new().into_iter();
    let mut sysfs = sources.sysfs.take();
    for (index, mount) in mounts.iter().enumerate() {
        step(&describe(mount));
        match &mount.source {
            Source::Bind(_) => {
                if opened.len() == 0 {
                    opened = binds(index..index + row(&mounts[index..]))?.into_iter();
                }
                match opened.next() {
                    Some(source) => bind_mount(root, mount, source)?,
                    None => return Err(failed(mount, Kind::System, "its source has not been opened")),
                }
            }
            Source::Filesystem(new) => new_filesystem(root, mount, new, &mut sysfs)?,
            Source::Remount(new) => remount(root, mount, new)?,
            Source::Cgroup => cgroup_mount::mount(root, mount, view, &mut cgroups)?,
        }
    }
    Ok(())
}

/// How many bind mounts stand in a row, up to what is opened at once.
fn row(mounts: &[Mount]) -> usize {
    const MOST: usize = 64;
    mounts.iter().take(MOST).take_while(|mount| matches!(mount.source, Source::Bind(_))).count()
}

/// What `mount` is, as every failure of it begins.
pub(super) fn describe(mount: &Mount) -> String {
    let source: Cow<'_, str> = match &mount.source {
        Source::Bind(bind) => bind.path.to_string_lossy(),
        Source::Filesystem(new) => new.kind.to_string_lossy(),
        Source::Cgroup => "cgroup".into(),
        Source::Remount(_) => return format!("remount {}", mount.destination.display()),
    };
    format!("mount {source} on {}", mount.destination.display())
}

pub(super) fn failed(mount: &Mount, kind: Kind, cause: &str) -> Error {
    Error::caused(kind, describe(mount), cause)
}

pub(super) fn failed_call(mount: &Mount) -> impl Fn(Errno) -> Error {
    move |errno| Error::sys(describe(mount), errno)
}

fn bind_mount(root: &Root, mount: &Mount, source: Opened) -> Result<()> {
    let Tree { fd, pending } = match source {
        Opened::Tree(tree) => tree,
        Opened::Link(text) => return copy_link(root, mount, &text),
    };
    let target = target(root, mount, || {
        let kind = fstat(&fd)?.st_mode & SFlag::S_IFMT.bits();
        Ok(if kind == SFlag::S_IFDIR.bits() { Object::Directory } else { Object::File })
    })?;
    guard_procfs(mount, &target, Some(&fd))?;
    attach(&fd, &target).map_err(|errno| match errno {
        Errno::ENOTDIR | Errno::EINVAL => mismatch(mount, &fd, &target, errno),
        errno => Error::sys(describe(mount), errno),
    })?;
    settle(root, mount, &fd, pending)
}

fn mismatch(mount: &Mount, source: &OwnedFd, target: &OwnedFd, errno: Errno) -> Error {
    let is_directory =
        |fd: &OwnedFd| fstat(fd).map(|found| found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits());
    match (is_directory(source), is_directory(target)) {
        (Ok(true), Ok(false)) => failed(mount, Kind::System, "the source is a directory, but the destination is not"),
        (Ok(false), Ok(true)) => {
            failed(mount, Kind::System, "the source is not a directory, but the destination is one")
        }
        _ => Error::sys(describe(mount), errno),
    }
}

/// Does what could not be done while the mount was detached: nothing, on a kernel with mount_setattr(2).
fn settle(root: &Root, mount: &Mount, attached: &OwnedFd, pending: Option<Changes>) -> Result<()> {
    let Some(pending) = pending else { return Ok(()) };
    pending.apply_attached(root, attached).map_err(|errno| match errno {
        Errno::EOPNOTSUPP => {
            failed(mount, Kind::Unsupported, "an option for all mounts below it (rro, rnosuid, ...) needs Linux 5.12")
        }
        errno => Error::sys(describe(mount), errno),
    })
}

/// `copy-symlink`: the same link as the source, in place of a mount. One that is there already must say the same.
fn copy_link(root: &Root, mount: &Mount, text: &Path) -> Result<()> {
    let what = || format!("copy the link to {} to {}", text.display(), mount.destination.display());
    let system = |errno| Error::sys(what(), errno);
    let (parent, name) = parent_and_name(&mount.destination);
    let directory = path::locate_or_make(root, parent, Link::Follow, Object::Directory).map_err(system)?;
    match symlinkat(text, &directory, name) {
        Err(Errno::EEXIST) if readlinkat(&directory, name).is_ok_and(|found| found == text.as_os_str()) => Ok(()),
        Err(Errno::EEXIST) => Err(Error::caused(Kind::System, what(), "something else is there")),
        result => result.map_err(system),
    }
}

/// A clean absolute path other than `/` always has both.
pub(super) fn parent_and_name(path: &Path) -> (&Path, &std::ffi::OsStr) {
    (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default())
}

/// Opens the mount's target; `object` says what to make where nothing is.
fn target(root: &Root, mount: &Mount, object: impl FnOnce() -> Result<Object, Errno>) -> Result<OwnedFd> {
    let destination = mount.destination.as_path();
    if destination.starts_with("/proc") || is_kernel_view(&mount.source) {
        return strict_target(root, mount, object);
    }
    let found = match path::locate(root, destination, mount.destination_link) {
        Err(Errno::ENOENT) => object().and_then(|object| path::make_missing(root, destination, object)),
        found => found,
    };
    found.map_err(|errno| no_target(mount, errno))
}

fn no_target(mount: &Mount, errno: Errno) -> Error {
    let make = |cause: &str| failed(mount, Kind::System, cause);
    match errno {
        Errno::ENOENT if is_inside_proc(mount) => make("the destination is inside procfs, where nothing can be made"),
        Errno::EROFS => make("the destination does not exist, and cannot be made on a read-only filesystem"),
        Errno::ENOTDIR => make("a part of the destination's path is not a directory"),
        Errno::ELOOP => make("the destination leads through too many links, or one of procfs"),
        Errno::EAGAIN => make("the destination's path keeps changing while it is looked up"),
        errno => Error::sys(format!("{}: open the destination", describe(mount)), errno),
    }
}

/// procfs and sysfs, and whatever is mounted below /proc, are only taken at their real place: through a link in the image,
/// all that the runtime later hides or writes there would be something else (CVE-2019-19921, CVE-2023-27561).
fn is_kernel_view(source: &Source) -> bool {
    matches!(source, Source::Filesystem(new) if *new.kind == *c"proc" || *new.kind == *c"sysfs")
}

fn strict_target(root: &Root, mount: &Mount, object: impl FnOnce() -> Result<Object, Errno>) -> Result<OwnedFd> {
    let destination = mount.destination.as_path();
    let no_links = ResolveFlag::RESOLVE_NO_SYMLINKS;
    let flags = OFlag::O_PATH;
    let found = match path::open(root, destination, flags, no_links) {
        Err(Errno::ENOENT) => {
            // A link that leads nowhere is no place either: look again without making anything through one.
            let (parent, _) = parent_and_name(destination);
            match path::open(root, parent, flags, no_links) {
                Ok(_) | Err(Errno::ENOENT) => object()
                    .and_then(|object| path::make_missing(root, destination, object))
                    .and_then(|_| path::open(root, destination, flags, no_links)),
                Err(errno) => Err(errno),
            }
        }
        found => found,
    };
    found.map_err(|errno| match errno {
        Errno::ELOOP => {
            // The second half is what callers of runc look for.
            failed(mount, Kind::System, "the image has a symbolic link there: must be mounted on ordinary directory")
        }
        errno => no_target(mount, errno),
    })
}

/// The files of procfs that may be covered by others: lxcfs shows the container's own numbers in them.
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

fn is_inside_proc(mount: &Mount) -> bool {
    mount.destination.starts_with("/proc") && mount.destination != Path::new("/proc")
}

/// The directory for a mount that is neither procfs nor inside it.
pub(super) fn place(root: &Root, mount: &Mount) -> Result<OwnedFd> {
    let target = target(root, mount, || Ok(Object::Directory))?;
    if mount.destination == Path::new("/proc") {
        return Err(failed(mount, Kind::Invalid, "only a procfs may be mounted on /proc"));
    }
    guard_procfs(mount, &target, None)?;
    Ok(target)
}

/// Refuses a mount that would put something else in the place of procfs, whatever path leads there (CVE-2019-16884).
fn guard_procfs(mount: &Mount, target: &OwnedFd, source: Option<&OwnedFd>) -> Result<()> {
    let destination = mount.destination.as_path();
    let is_procfs =
        |fd: &OwnedFd| fstatfs(fd).map(|found| found.filesystem_type() == PROC_SUPER_MAGIC).map_err(failed_call(mount));
    if destination == Path::new("/proc") {
        return match source {
            Some(source) if !is_procfs(source)? => {
                Err(failed(mount, Kind::Invalid, "only a procfs may be mounted on /proc"))
            }
            _ => Ok(()),
        };
    }
    let below = is_inside_proc(mount) || is_procfs(target)?;
    if below && !COVERABLE.iter().any(|allowed| destination == Path::new(allowed)) {
        return Err(failed(mount, Kind::Invalid, "the destination is inside procfs, where it could hide what is real"));
    }
    Ok(())
}

fn new_filesystem(root: &mut Root, mount: &Mount, new: &Filesystem, sysfs: &mut Option<Tree>) -> Result<()> {
    let target = target(root, mount, || Ok(Object::Directory))?;
    match &*new.kind {
        // Beside another procfs it hides nothing, wherever that is; inside it, it would.
        kind if *kind == *c"proc" && !is_inside_proc(mount) => {}
        kind if mount.destination == Path::new("/proc") => {
            let cause = format!("only a procfs may be mounted on /proc, not {}", kind.to_string_lossy());
            return Err(failed(mount, Kind::Invalid, &cause));
        }
        _ => guard_procfs(mount, &target, None)?,
    }
    if !filesystem::is_detachable(new) {
        return by_path(root, mount, new, &target);
    }
    // Made read-only at the end where other mount points are yet to be made in it; a copy has to be written, too, and so has a label.
    let written = *new.kind == *c"tmpfs" || new.root_label.is_some();
    let late = written && mount.attributes.set & ATTR_RDONLY != 0;
    let attributes = if late { mount.attributes.set & !ATTR_RDONLY } else { mount.attributes.set };
    let Tree { fd: made, pending } = match make(new, &target, attributes) {
        Err(Errno::EPERM) if *new.kind == *c"sysfs" && sysfs.is_some() => bound_sysfs(mount, sysfs.take())?,
        made => Tree { fd: made.map_err(|errno| explain_filesystem(mount, new, errno))?, pending: None },
    };
    if new.copy_up == CopyUp::Yes {
        copy_up::copy(&target, &made).map_err(|error| error.within(describe(mount)))?;
    }
    if let Some(label) = &new.root_label {
        filesystem::label_root(&made, label).map_err(|error| error.within(describe(mount)))?;
    }
    attach(&made, &target).map_err(failed_call(mount))?;
    settle(root, mount, &made, pending)?;
    let changes = Changes::of_filesystem(mount.tree_attributes, &mount.propagation);
    if !changes.is_empty() {
        settle(root, mount, &made, Some(changes))?;
    }
    if late {
        root.late_readonly.push((made, mount.destination.display().to_string()));
    }
    Ok(())
}

/// Makes the filesystem, with what a container's defaults leave open.
fn make(new: &Filesystem, target: &OwnedFd, attributes: u64) -> Result<OwnedFd, Errno> {
    let options = || new.data.iter().map(String::as_str);
    if *new.kind == *c"tmpfs" && !options().any(|option| option.starts_with("mode=")) {
        // A tmpfs looks like the directory it covers, unless the configuration says otherwise.
        let mode = format!("mode={:04o}", fstat(target)?.st_mode & 0o7777);
        return filesystem::detached(new, options().chain([mode.as_str()]), attributes);
    }
    match filesystem::detached(new, options(), attributes) {
        // gid=5 is everybody's default, but a user namespace may not have that group: then the terminals are root's.
        Err(Errno::EINVAL) if *new.kind == *c"devpts" && options().any(|option| option.starts_with("gid=")) => {
            filesystem::detached(new, options().filter(|option| !option.starts_with("gid=")), attributes)
        }
        result => result,
    }
}

/// The host's sysfs, as closed as the mount is to be and all below it too, where the container may not have one of its own.
fn bound_sysfs(mount: &Mount, sysfs: Option<Tree>) -> Result<Tree> {
    let mut tree = sysfs.ok_or_else(|| failed(mount, Kind::System, "the host's /sys has not been opened"))?;
    let set = mount.attributes.set | sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC;
    match &mut tree.pending {
        None => {
            let change = sys::Change { set, clear: 0, propagation: 0 };
            sys::set_attributes(&tree.fd, Depth::Tree, change).map_err(failed_call(mount))?;
        }
        // What is below it stays as it is then: it belongs to the host's root, whom a user namespace does not have.
        Some(pending) => pending.add_own(Attributes { set, clear: 0 }),
    }
    Ok(tree)
}

fn explain_filesystem(mount: &Mount, new: &Filesystem, errno: Errno) -> Error {
    let kind = new.kind.to_string_lossy();
    match errno {
        Errno::ENODEV => {
            let cause = format!("the kernel has no filesystem of the type {kind:?}");
            failed(mount, Kind::Unsupported, &cause)
        }
        Errno::EINVAL if !new.data.is_empty() => {
            let cause = format!("{kind} refuses one of its options ({})", new.data.join(","));
            failed(mount, Kind::System, &cause)
        }
        Errno::EPERM if *new.kind == *c"proc" => failed(
            mount,
            Kind::System,
            "not permitted: it needs a new pid namespace beside the user namespace, and a /proc outside that nothing is \
             mounted over",
        ),
        errno => Error::sys(describe(mount), errno),
    }
}

/// For filesystems with a device or a server behind them: mount(2) on the target's descriptor.
fn by_path(root: &Root, mount: &Mount, new: &Filesystem, target: &OwnedFd) -> Result<()> {
    filesystem::on_target(new, target.as_fd(), mount.attributes.set, 0)
        .map_err(|errno| explain_filesystem(mount, new, errno))?;
    let changes = Changes::of_filesystem(mount.tree_attributes, &mount.propagation);
    if changes.is_empty() && new.root_label.is_none() {
        return Ok(());
    }
    // The descriptor at hand is that of what the mount now covers; its name leads to what is on top.
    let made = path::locate(root, &mount.destination, mount.destination_link).map_err(failed_call(mount))?;
    if let Some(label) = &new.root_label {
        filesystem::label_root(&made, label).map_err(|error| error.within(describe(mount)))?;
    }
    settle(root, mount, &made, Some(changes))
}

/// `remount`: other options for what is mounted there.
fn remount(root: &Root, mount: &Mount, new: &Filesystem) -> Result<()> {
    let target =
        path::locate(root, &mount.destination, mount.destination_link).map_err(|errno| no_target(mount, errno))?;
    if mount.destination != Path::new("/proc") {
        guard_procfs(mount, &target, None)?;
    }
    if !new.data.is_empty() || new.super_flags != 0 {
        filesystem::on_target(new, target.as_fd(), mount.attributes.set, libc::MS_REMOUNT)
            .map_err(|errno| explain_filesystem(mount, new, errno))?;
    }
    let changes =
        Changes::of_bind(Depth::Tree, mount.attributes, mount.tree_attributes, &mount.propagation, Privacy::Kept);
    settle(root, mount, &target, Some(changes))
}
