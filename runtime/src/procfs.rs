//! A procfs that can be trusted: the only way in which the runtime reads or writes files in it for a container.
//!
//! What is at `/proc` inside a container may be a tmpfs, a link or another file mounted over an entry, laid out to swallow or
//! redirect a write (an LSM label, a sysctl). So the files are reached from a descriptor of a procfs root that is checked
//! once, never through a link, a magic link or a mount above it. The host's own `/proc`, opened before the root is switched,
//! costs one open and serves in every namespace: procfs answers `self`, and the sysctls, for the process that asks.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Context, Result};
use crate::sys::mount;

/// The inode number of every procfs' root directory (`PROC_ROOT_INO`).
const ROOT_INODE: u64 = 1;

/// The root of a procfs that is one.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// The `/proc` of the mount namespace this process is in now, which must not be a container's. Where that is not a
    /// procfs, a detached one of our own.
    pub fn host() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if let Ok(root) = open("/proc", flags, Mode::empty())
            && is_root_of_procfs(&root).unwrap_or(false)
        {
            return Ok(Self(root));
        }
        Self::private()
    }

    /// A detached procfs of the process' pid namespace, which nothing else can reach or mount over.
    pub fn private() -> Result<Self> {
        let context = mount::fsopen(c"proc").on("open", "a filesystem of the type proc")?;
        mount::create(&context).on("make", "a private procfs")?;
        let attributes = mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
        mount::fsmount(&context, attributes).on("mount", "a private procfs").map(Self)
    }

    /// Opens `path`, which is relative to the procfs' root, such as `self/attr/exec`.
    pub fn open(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        // `self` and `thread-self` are links by their text, so links are not refused as such.
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).resolve(resolve);
        loop {
            match openat2(&self.0, Path::new(path), how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// Writes `value` to `path` in one write. Where the host's procfs is read-only, because the runtime is in a container
    /// itself, one of our own is tried.
    pub fn write(&self, path: &str, value: &[u8]) -> Result<(), Errno> {
        let file = match self.open(path, OFlag::O_WRONLY) {
            Err(Errno::EROFS) => Self::private().map_err(|_| Errno::EROFS)?.open(path, OFlag::O_WRONLY),
            file => file,
        };
        let mut file = std::fs::File::from(file?);
        match file.write(value) {
            Ok(written) if written == value.len() => Ok(()),
            Ok(_) => Err(Errno::EIO),
            Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
        }
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether `directory` is the root of a procfs.
fn is_root_of_procfs(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstatfs(directory)?.filesystem_type() == PROC_SUPER_MAGIC && fstat(directory)?.st_ino == ROOT_INODE)
}
