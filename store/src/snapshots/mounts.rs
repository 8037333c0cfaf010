//! What is to be mounted, in containerd's words.

use std::path::Path;

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};
use rustix::system::uname;

use super::rows::Row;
use super::{Driver, Kind, Snapshots, ids};
use crate::rights::is_hosts_root;

/// One mount to be done; options are as mount(8) takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `bind` or `overlay`.
    pub kind: String,
    /// A directory, or for overlay a word.
    pub source: String,
    /// Below the root of the container; empty for the root itself.
    pub target: String,
    /// `ro`, `lowerdir=…`, …
    pub options: Vec<String>,
}

/// What every mount of overlayfs gets here.
#[derive(Debug, Default)]
pub(super) struct OverlayOptions {
    options: Vec<String>,
    pub(super) userxattr: bool,
}

impl OverlayOptions {
    /// Asks once what this kernel knows, and whether we are root of the first user namespace. Its module is loaded by now, where it can be.
    pub(super) fn of_this_kernel() -> Self {
        let parameter = |name: &str| std::fs::read_to_string(format!("/sys/module/overlay/parameters/{name}")).ok();
        let mut options = Vec::new();
        // An index would refuse a layer that once was the upper one of another mount.
        if parameter("index").is_some() {
            options.push("index=off".to_owned());
        }
        // Either would put into a layer what only overlayfs understands: a commit could not tell it from what was changed.
        for name in ["redirect_dir", "metacopy"] {
            if parameter(name).is_some_and(|it| it.starts_with('Y')) {
                options.push(format!("{name}=off"));
            }
        }
        let userxattr = !is_hosts_root();
        if userxattr {
            options.push("userxattr".to_owned());
        }
        Self { options, userxattr }
    }
}

/// Overlayfs where the kernel has it and the store does not itself lie on one, whose directories cannot be upper ones.
pub(super) fn best(dir: &Path, has_overlay: bool) -> Driver {
    let on_overlay = statfs(dir).is_ok_and(|it| it.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
    if has_overlay && !on_overlay { Driver::Overlay } else { Driver::Native }
}

/// Whether the kernel has overlayfs, be it in a module that nobody has needed since the host booted: asking for a file system loads it.
pub(super) fn has_overlay() -> bool {
    match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => true,
        // An ordinary user may not ask, but the mount in a namespace of his will load it.
        Err(Errno::PERM) => is_loaded("overlay") || is_a_module("overlay"),
        Err(_) => false,
    }
}

fn is_loaded(name: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems");
    known.is_ok_and(|it| it.lines().any(|line| line.split('\t').nth(1) == Some(name)))
}

/// Whether there is a module of this name for the running kernel.
fn is_a_module(name: &str) -> bool {
    let uname = uname();
    let list = Path::new("/lib/modules").join(uname.release().to_string_lossy().as_ref()).join("modules.dep");
    std::fs::read_to_string(list).is_ok_and(|it| names_module(&it, name))
}

/// `modules.dep` has a line for each module: its file, which may be compressed, a colon, and those it needs.
fn names_module(list: &str, name: &str) -> bool {
    list.lines().filter_map(|line| line.split(':').next()?.rsplit('/').next()?.split_once(".ko")).any(|it| it.0 == name)
}

impl Snapshots {
    /// `parents`: the top one first.
    pub(super) fn mounts_of(&self, driver: Driver, row: &Row, parents: &[Row]) -> Vec<Mount> {
        let trees = self.trees();
        let path = |it: std::path::PathBuf| it.to_string_lossy().into_owned();
        let fs = |tree: u64| path(trees.fs(tree));
        let mut options = ids::options(&row.labels);
        let bind = |tree: u64, mut options: Vec<String>| {
            options.push(if row.kind == Kind::View { "ro" } else { "rw" }.to_owned());
            options.push("rbind".to_owned());
            vec![Mount { kind: "bind".into(), source: fs(tree), target: String::new(), options }]
        };
        match (row.kind, parents, driver) {
            (Kind::View, [only], _) | (Kind::View, [only, ..], Driver::Native) => bind(only.tree, options),
            (_, [], _) | (_, _, Driver::Native) => bind(row.tree, options),
            (_, parents, Driver::Overlay) => {
                if row.kind == Kind::Active {
                    options.push(format!("workdir={}", path(trees.work(row.tree))));
                    options.push(format!("upperdir={}", fs(row.tree)));
                }
                let lowers: Vec<String> = parents.iter().map(|it| fs(it.tree)).collect();
                options.push(format!("lowerdir={}", lowers.join(":")));
                options.extend(self.inner.overlay.options.clone());
                vec![Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_by_its_file() {
        let list = "kernel/fs/overlayfs/overlay.ko:\nkernel/net/ceph/libceph.ko.xz: kernel/lib/crc.ko.xz\n";
        assert!(names_module(list, "overlay") && names_module(list, "libceph"));
        assert!(!names_module(list, "crc") && !names_module(list, "over") && !names_module(list, "overlayfs"));
    }

    #[test]
    fn overlayfs_is_taken_where_the_kernel_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let on_overlay = statfs(dir.path()).unwrap().filesystem_type() == OVERLAYFS_SUPER_MAGIC;
        assert_eq!(best(dir.path(), true) == Driver::Overlay, !on_overlay);
        assert_eq!(best(dir.path(), false), Driver::Native);
        // This asks whoever runs the tests, and by then it is loaded.
        assert!(!is_loaded("overlay") || has_overlay());
    }
}
