//! The container's root: attached in the new mount namespace, switched to, and closed for writing at the end.
//!
//! The root is one directory descriptor, taken from the host once. Everything below it is reached from that descriptor
//! ([`crate::init::path`]), so that no name has to be trusted twice.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{chroot, fchdir};

use crate::error::{Context, Error, Kind, Result};
use crate::init::attributes::Changes;
use crate::parent::mount_source::Sources;
use crate::plan::mounts::{Access, Attach, Attributes, Propagation, RootChange, RootfsPlan};
use crate::procfs::Procfs;
use crate::sys::mount::{ATTR_RDONLY, Depth, attach as attach_tree, attach_at, pivot_to_working_directory};

/// The container's root directory, and what is to be done with it once nothing more is made in it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Mounts that become read-only last: other mount points and nodes have to be made in them first.
    pub(super) late_readonly: Vec<(OwnedFd, String)>,
    /// The container's /dev/null, once it is made.
    pub(super) null: Option<OwnedFd>,
    /// The host's procfs, on a kernel where attributes can only be changed by a path.
    procfs: Option<Procfs>,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// A root that is attached already.
    pub fn at(fd: OwnedFd) -> Self {
        Self { fd, late_readonly: Vec::new(), null: None, procfs: None }
    }

    /// Whether what was taken from the host could not get its attributes while it was detached (before Linux 5.12).
    pub(super) fn settles_late(&self) -> bool {
        self.procfs.is_some()
    }

    /// mount(2) with `flags` on the mount `target` is the root of, for kernels without mount_setattr(2). That call knows
    /// paths only; this one goes through the host's procfs to an entry of our own process, so it leads to that very mount,
    /// after the switch of the root too.
    pub(super) fn change_by_path(&self, target: impl AsFd, flags: u64) -> Result<(), Errno> {
        let procfs = self.procfs.as_ref().ok_or(Errno::ENOSYS)?;
        let name = format!("self/fd/{}", target.as_fd().as_raw_fd());
        fchdir(procfs)?;
        let flags = MsFlags::from_bits_retain(flags);
        let changed = mount(None::<&str>, name.as_str(), None::<&str>, flags, None::<&str>);
        fchdir(self)?;
        changed
    }
}

/// Attaches the root in the mount namespace, which is a new copy of the host's.
///
/// The file mode mask becomes 0, so that mount points and nodes get the modes that are meant; init sets the payload's later.
pub fn attach(plan: &RootfsPlan, sources: &mut Sources) -> Result<Root> {
    umask(Mode::empty());
    // Before anything is mounted: in a copy of shared mounts each mount, and at the switch each unmount, would appear on
    // the host. Private and not slave, because nothing of this tree is kept: what the container gets has been copied.
    if plan.change != RootChange::Chroot {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .on("separate", "the mount namespace from the host's")?;
    }
    let tree = sources.root.take().ok_or_else(|| Error::new(Kind::System, "the root has not been opened"))?;
    attach_root(plan, &tree.fd).on("attach the root", plan.path.display())?;
    let mut root = Root::at(tree.fd);
    if let Some(pending) = tree.pending {
        root.procfs = Some(Procfs::host()?);
        pending.apply_attached(&root, &root).on("set the propagation of", plan.path.display())?;
    }
    Ok(root)
}

fn attach_root(plan: &RootfsPlan, root: &OwnedFd) -> Result<(), Errno> {
    if plan.attach == Attach::AtPath {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match open(&plan.path, flags, Mode::empty()) {
            // The path is the host's and is looked up again only because hooks will do the same: it must be what was opened.
            Ok(place) if same(&place, root)? => return attach_tree(root, &place),
            Ok(_) => return Err(Errno::ESTALE),
            // In a user namespace the way there may be closed, and so it is then for those hooks that could care.
            Err(Errno::EACCES) if plan.change != RootChange::Chroot => {}
            Err(errno) => return Err(errno),
        }
    }
    attach_at(root, AT_FDCWD, c"/")
}

fn same(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Makes the root the process' `/` and working directory.
pub fn pivot(root: &Root, plan: &RootfsPlan) -> Result<()> {
    fchdir(root).on("enter", "the root directory")?;
    match plan.change {
        RootChange::Pivot => {
            pivot_to_working_directory().map_err(explain_pivot)?;
            // The host's tree is stacked on the new root now, so that is what `.` names here.
            umount2(".", MntFlags::MNT_DETACH).on("unmount", "the host's root")?;
        }
        RootChange::MoveAndChroot => {
            if plan.attach == Attach::AtPath {
                attach_at(root, AT_FDCWD, c"/").on("move", "the root directory to /")?;
            }
            // Not earlier: at its path the container's own mounts could be reached by the names in the mount table.
            hide_kernel_filesystems()?;
            chroot(".").on("chroot to", "the root directory")?;
        }
        RootChange::Chroot => return chroot(".").on("chroot to", "the root directory"),
    }
    if let Some(Propagation { flag, depth }) = plan.propagation {
        // Only now, because until now `/` was the host's.
        let recursive = if depth == Depth::Tree { libc::MS_REC } else { 0 };
        let flags = MsFlags::from_bits_retain(flag | recursive);
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).on("set", "linux.rootfsPropagation")?;
    }
    Ok(())
}

fn explain_pivot(errno: Errno) -> Error {
    match errno {
        Errno::EINVAL => Error::caused(
            Kind::System,
            "pivot_root",
            "invalid argument: the host's / may be the initial ramfs, which needs --no-pivot",
        ),
        errno => Error::sys("pivot_root", errno),
    }
}

/// After a mere chroot the host's tree stays in the namespace, out of sight but in reach of whoever may mount: a procfs or
/// sysfs of the host without masks there would let the container mount one without masks, too.
fn hide_kernel_filesystems() -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").on("read", "the mount table")?;
    // The deepest first. Names are looked up from the host's `/`, so none of them can be one of the container's mounts.
    let places: BTreeSet<String> = table.lines().filter_map(kernel_filesystem).collect();
    for place in places.iter().rev() {
        match umount2(place.as_str(), MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            // Locked in a user namespace, or one of the container's, which has no such name here.
            Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => return Err(Error::sys(format!("unmount the host's {place}"), errno)),
        }
        let flags = MsFlags::MS_RDONLY;
        match mount(Some("tmpfs"), place.as_str(), Some("tmpfs"), flags, None::<&str>) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(Error::sys(format!("cover the host's {place}"), errno)),
        }
    }
    Ok(())
}

/// The mount point of a line of mountinfo, if a procfs or sysfs is there.
fn kernel_filesystem(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let kind = after.split(' ').next()?;
    let place = before.split(' ').nth(4)?;
    matches!(kind, "proc" | "sysfs").then(|| unescape(place))
}

/// The mount table writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040 ", "\\011\t", "\\012\n", "\\134\\"]
        .iter()
        .fold(text.to_owned(), |text, pair| text.replace(&pair[..4], &pair[4..]))
}

/// Unmounts what [`RootChange::Chroot`] left at the root's path in the mount namespace that the container shared.
pub fn release(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::sys(format!("unmount {}", path.display()), errno)),
    }
}

/// Closes what is to be read-only. After everything else, because everything else makes something in the root.
pub fn finish(root: &Root, plan: &RootfsPlan) -> Result<()> {
    let readonly = || Changes::of_mount(Attributes { set: ATTR_RDONLY, clear: 0 });
    for (mount, what) in &root.late_readonly {
        readonly().apply_attached(root, mount).on("make read-only", what)?;
    }
    if plan.access == Access::ReadOnly {
        readonly().apply_attached(root, root).on("make read-only", "the root directory")?;
    }
    Ok(())
}
