//! The mounts a snapshotter hands out for a container's rootfs, made and undone.

use std::path::Path;

use crate::error::{Error, Kind, Result};

/// One mount as containerd describes it (`containerd.types.Mount`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// The type of the file system, or `bind`.
    pub kind: String,
    /// What is mounted: a directory, a device, an image file (with the option `loop`), or a name.
    pub source: String,
    /// Where, below the rootfs; empty is the rootfs itself.
    pub target: String,
    /// As in fstab(5): flags and the file system's own options.
    pub options: Vec<String>,
}

impl From<tare_proto::types::Mount> for Mount {
    fn from(mount: tare_proto::types::Mount) -> Self {
        Self { kind: mount.type_, source: mount.source, target: mount.target, options: mount.options }
    }
}

/// Mounts all of `mounts` on `rootfs`, a directory that exists, in their order; each later one may lie in an earlier one.
///
/// All or nothing: when one fails, those made before it are undone. An option nobody can serve is `InvalidArgument`.
pub fn mount_rootfs(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    if mounts.is_empty() { Ok(()) } else { Err(Error::new(Kind::Unimplemented, format!("mount {}", rootfs.display()))) }
}

/// Unmounts everything at and below `path`, deepest first. What is not mounted, or not there, is success.
///
/// A mount that stays busy is detached: it ends with its last user.
pub fn unmount_recursive(path: &Path) -> Result<()> {
    Err(Error::new(Kind::Unimplemented, format!("unmount {}", path.display())))
}
