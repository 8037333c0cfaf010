//! Whose rights the daemon has.

use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

/// The inode of the first user namespace in the kernel's own file system of namespaces (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether we are root of the first user namespace: only he makes devices and sets `trusted.*` attributes. The maps of a namespace do not
/// tell: another one may map every id to itself too.
pub(crate) fn is_hosts_root() -> bool {
    static FIRST: LazyLock<bool> = LazyLock::new(|| {
        std::fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() == FIRST_USER_NAMESPACE)
    });
    *FIRST && nix::unistd::geteuid().is_root()
}
