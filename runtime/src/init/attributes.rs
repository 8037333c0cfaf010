//! Attributes and propagation of one mount or tree: by mount_setattr(2) where the kernel has it (5.12), else by mount(2).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::init::rootfs::Root;
use crate::plan::mounts::{Attributes, Privacy, Propagation};
use crate::sys::mount::{self as sys, Change, Depth, set_attributes};

/// All that changes on one tree after it is made, in this order: the mount, the tree, the propagation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<(Depth, Change)>);

impl Changes {
    /// Puts together what a mount asks for with what keeps it apart from the host's own mounts.
    pub fn of_bind(
        depth: Depth,
        own: Attributes,
        tree: Attributes,
        propagation: &[Propagation],
        privacy: Privacy,
    ) -> Self {
        let mut changes = Self::default();
        changes.push(Depth::One, own, 0);
        // A first step that leaves no peer anyway needs none before it.
        let leaves_no_peer =
            propagation.first().is_some_and(|first| first.depth == Depth::Tree && first.flag != libc::MS_SHARED);
        let apart = match privacy {
            _ if leaves_no_peer => 0,
            Privacy::Slave => libc::MS_SLAVE,
            Privacy::Private => libc::MS_PRIVATE,
            Privacy::Kept => 0,
        };
        changes.push(Depth::Tree, tree, apart);
        for step in propagation {
            changes.push(step.depth, Attributes::default(), step.flag);
        }
        if depth == Depth::One {
            // There is only one mount, so that the steps may be one call.
            for (depth, _) in &mut changes.0 {
                *depth = Depth::One;
            }
        }
        changes.merged()
    }

    /// What a new filesystem still needs once it is mounted with its attributes.
    pub fn of_filesystem(tree: Attributes, propagation: &[Propagation]) -> Self {
        Self::of_bind(Depth::One, Attributes::default(), tree, propagation, Privacy::Kept)
    }

    /// Changes the attributes of one mount.
    pub fn of_mount(attributes: Attributes) -> Self {
        let mut changes = Self::default();
        changes.push(Depth::One, attributes, 0);
        changes
    }

    /// Adds a change of the attributes of the one mount.
    pub(super) fn add_own(&mut self, attributes: Attributes) {
        self.push(Depth::One, attributes, 0);
    }

    fn push(&mut self, depth: Depth, attributes: Attributes, propagation: u64) {
        if !attributes.is_empty() || propagation != 0 {
            self.0.push((depth, Change { set: attributes.set, clear: attributes.clear, propagation }));
        }
    }

    /// Joins neighbours that one call can do: attributes first, and at most one propagation, last.
    fn merged(self) -> Self {
        let mut merged: Vec<(Depth, Change)> = Vec::with_capacity(self.0.len());
        for (depth, change) in self.0 {
            match merged.last_mut() {
                Some((last_depth, last)) if *last_depth == depth && last.propagation == 0 => {
                    last.set = last.set & !change.clear & !change.set | change.set;
                    last.clear |= change.clear;
                    last.clear &= !change.set | sys::ATTR_ATIME;
                    last.propagation = change.propagation;
                }
                _ => merged.push((depth, change)),
            }
        }
        Self(merged)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the changes on a mount, be it detached or not. `ENOSYS`: the kernel is older than 5.12, see [`Self::apply_attached`].
    pub fn apply(&self, mount: impl AsFd) -> Result<(), Errno> {
        self.0.iter().try_for_each(|(depth, change)| set_attributes(&mount, *depth, *change))
    }

    /// Makes the changes on a mount that is attached, for kernels without mount_setattr(2). `EOPNOTSUPP`: only that call
    /// could do it, which is so for attributes of a whole tree.
    pub(super) fn apply_attached(&self, root: &Root, mount: impl AsFd) -> Result<(), Errno> {
        match self.apply(&mount) {
            Err(Errno::ENOSYS) => {}
            result => return result,
        }
        for (depth, change) in &self.0 {
            if *depth == Depth::Tree && (change.set | change.clear) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            if change.set | change.clear != 0 {
                remount(root, mount.as_fd(), *change)?;
            }
            if change.propagation != 0 {
                let recursive = if *depth == Depth::Tree { libc::MS_REC } else { 0 };
                root.change_by_path(mount.as_fd(), change.propagation | recursive)?;
            }
        }
        Ok(())
    }
}

/// mount(2) replaces all flags of a mount at once, so those it has now are read first.
fn remount(root: &Root, mount: impl AsFd, change: Change) -> Result<(), Errno> {
    let now = from_statfs(fstatvfs(&mount)?.flags());
    let wanted = now & !change.clear | change.set;
    root.change_by_path(mount, libc::MS_REMOUNT | libc::MS_BIND | to_legacy(wanted))
}

/// The name of a descriptor for system calls that take only paths, while `/proc` is the host's.
pub(super) fn fd_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// `ATTR_` bits, where statfs(2) and mount(2) have theirs.
const BITS: [(u64, FsFlags, u64); 6] = [
    (sys::ATTR_RDONLY, FsFlags::ST_RDONLY, libc::MS_RDONLY),
    (sys::ATTR_NOSUID, FsFlags::ST_NOSUID, libc::MS_NOSUID),
    (sys::ATTR_NODEV, FsFlags::ST_NODEV, libc::MS_NODEV),
    (sys::ATTR_NOEXEC, FsFlags::ST_NOEXEC, libc::MS_NOEXEC),
    (sys::ATTR_NOATIME, FsFlags::ST_NOATIME, libc::MS_NOATIME),
    (sys::ATTR_NODIRATIME, FsFlags::ST_NODIRATIME, libc::MS_NODIRATIME),
];

/// MS_NOSYMFOLLOW, since Linux 5.10.
const MS_NOSYMFOLLOW: u64 = 256;

fn from_statfs(flags: FsFlags) -> u64 {
    let mut attributes =
        BITS.iter().filter(|(_, st, _)| flags.contains(*st)).fold(0, |all, (attribute, ..)| all | attribute);
    if !flags.contains(FsFlags::ST_RELATIME) && !flags.contains(FsFlags::ST_NOATIME) {
        attributes |= sys::ATTR_STRICTATIME;
    }
    attributes
}

/// `ATTR_` bits as mount(2) takes them.
pub(super) fn to_legacy(attributes: u64) -> u64 {
    let mut flags = BITS.iter().filter(|(attribute, ..)| attributes & attribute != 0).fold(0, |all, (.., ms)| all | ms);
    if attributes & sys::ATTR_STRICTATIME != 0 {
        flags |= libc::MS_STRICTATIME;
    }
    if attributes & sys::ATTR_NOSYMFOLLOW != 0 {
        flags |= MS_NOSYMFOLLOW;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u64) -> Attributes {
        Attributes { set: bits, clear: 0 }
    }

    #[test]
    fn a_single_mount_is_changed_by_one_call() {
        let own = Attributes { set: sys::ATTR_NOSUID | sys::ATTR_NOATIME, clear: sys::ATTR_ATIME | sys::ATTR_RDONLY };
        let private = [Propagation { flag: libc::MS_PRIVATE, depth: Depth::Tree }];
        let changes = Changes::of_bind(Depth::One, own, set(sys::ATTR_RDONLY), &private, Privacy::Slave);
        let change = Change {
            set: sys::ATTR_NOSUID | sys::ATTR_NOATIME | sys::ATTR_RDONLY,
            clear: sys::ATTR_ATIME,
            propagation: libc::MS_PRIVATE,
        };
        assert_eq!(changes.0, [(Depth::One, change)]);
    }

    #[test]
    fn a_tree_is_kept_apart_before_it_may_share() {
        let shared = [Propagation { flag: libc::MS_SHARED, depth: Depth::Tree }];
        let none = Attributes::default();
        let steps = |privacy| {
            let changes = Changes::of_bind(Depth::Tree, set(sys::ATTR_RDONLY), none, &shared, privacy);
            changes.0.iter().map(|(depth, change)| (*depth, change.propagation)).collect::<Vec<_>>()
        };
        assert_eq!(
            steps(Privacy::Slave),
            [(Depth::One, 0), (Depth::Tree, libc::MS_SLAVE), (Depth::Tree, libc::MS_SHARED)]
        );
        assert_eq!(steps(Privacy::Kept), [(Depth::One, 0), (Depth::Tree, libc::MS_SHARED)]);
    }

    #[test]
    fn nothing_to_change_is_no_call() {
        let none = Attributes::default();
        assert!(Changes::of_bind(Depth::Tree, none, none, &[], Privacy::Kept).is_empty());
        assert!(Changes::of_filesystem(none, &[]).is_empty());
    }
}
