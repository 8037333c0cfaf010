//! The mount system calls that work on descriptors: trees are made detached, then attached to a descriptor.
//!
//! See open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2), pivot_root(2).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;

/// `MOUNT_ATTR_RDONLY`.
pub const ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the field that holds one of relatime (0), noatime, strictatime.
pub const ATTR_ATIME: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`.
pub const ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const ATTR_IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW` (Linux 5.14).
pub const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Whether a call concerns one mount or the whole tree below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// This mount alone.
    One,
    /// This mount and all mounts below it.
    Tree,
}

impl Depth {
    fn at_flag(self) -> libc::c_uint {
        match self {
            Self::One => 0,
            Self::Tree => libc::AT_RECURSIVE as libc::c_uint,
        }
    }
}

/// Whether a final symbolic link is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlink {
    /// The link's target is meant.
    Follow,
    /// The link itself is meant.
    Itself,
}

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// Makes the result of a raw system call that returns a new descriptor an owned one.
fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)?;
    // SAFETY: the callers pass only results of system calls that on success return a descriptor made by that very call;
    // no one else knows its number, so it is owned once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens a detached copy of the mounts at `path`: of the mount that holds it, or with [`Depth::Tree`] of those below too.
pub fn clone_tree<P: ?Sized + NixPath>(
    dir: impl AsFd,
    path: &P,
    depth: Depth,
    symlink: Symlink,
) -> Result<OwnedFd, Errno> {
    let follow = match symlink {
        Symlink::Follow => 0,
        Symlink::Itself => libc::AT_SYMLINK_NOFOLLOW as libc::c_uint,
    };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint | depth.at_flag() | follow;
    // SAFETY: open_tree reads the nul-terminated path, which lives until the call returns, and touches no other memory.
    owned(path.with_nix_path(|path| unsafe {
        libc::syscall(libc::SYS_open_tree, dir.as_fd().as_raw_fd(), path.as_ptr(), flags)
    })?)
}

/// Attaches the detached tree (or moves the mount) `tree` onto the object behind `onto`, whatever its name now is.
pub fn attach(tree: impl AsFd, onto: impl AsFd) -> Result<(), Errno> {
    move_mount(tree.as_fd(), onto.as_fd(), c"", MOVE_MOUNT_T_EMPTY_PATH)
}

/// Attaches the detached tree `tree` on `name` below `dir`; `name` is resolved by the kernel as usual, so it must be one
/// that nobody else can change.
pub fn attach_at(tree: impl AsFd, dir: impl AsFd, name: &CStr) -> Result<(), Errno> {
    move_mount(tree.as_fd(), dir.as_fd(), name, 0)
}

fn move_mount(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_uint) -> Result<(), Errno> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | flags;
    // SAFETY: move_mount reads two nul-terminated strings, both alive until it returns, and writes no memory of ours.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), dir.as_raw_fd(), name.as_ptr(), flags)
    };
    Errno::result(result).map(drop)
}

/// Opens a context to make a filesystem of the type `name`.
pub fn fsopen(name: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: fsopen reads the nul-terminated name, which lives until it returns.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets a parameter that has no value.
pub fn set_flag(context: impl AsFd, key: &CStr) -> Result<(), Errno> {
    // SAFETY: fsconfig reads the nul-terminated key, which lives until it returns; this command takes no value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            FSCONFIG_SET_FLAG,
            key.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Sets a parameter to a string of at most 255 bytes.
pub fn set_string(context: impl AsFd, key: &CStr, value: &CStr) -> Result<(), Errno> {
    // SAFETY: fsconfig reads the two nul-terminated strings, which live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            FSCONFIG_SET_STRING,
            key.as_ptr(),
            value.as_ptr(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Makes the filesystem that `context` describes.
pub fn create(context: impl AsFd) -> Result<(), Errno> {
    // SAFETY: this command of fsconfig takes neither key nor value, so the kernel reads no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Makes a detached mount of the filesystem in `context`, with the `ATTR_` bits given.
pub fn fsmount(context: impl AsFd, attributes: u64) -> Result<OwnedFd, Errno> {
    let attributes = libc::c_uint::try_from(attributes).map_err(|_| Errno::EINVAL)?;
    // SAFETY: fsmount takes three integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// What mount_setattr(2) is to change: `struct mount_attr`, without the user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `ATTR_` bits to set.
    pub set: u64,
    /// `ATTR_` bits to clear; the whole of [`ATTR_ATIME`] where any of it is set.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Changes the attributes of the mount `mount` is the root of. `ENOSYS` before Linux 5.12.
pub fn set_attributes(mount: impl AsFd, depth: Depth, change: Change) -> Result<(), Errno> {
    let Change { set, clear, propagation } = change;
    mount_setattr(mount.as_fd(), depth, &MountAttr { set, clear, propagation, user_namespace: 0 })
}

/// Makes the detached `mount` show its files' owners as `user_namespace` maps them.
pub fn set_idmap(mount: impl AsFd, depth: Depth, user_namespace: impl AsFd) -> Result<(), Errno> {
    let user_namespace = user_namespace.as_fd().as_raw_fd() as u64;
    mount_setattr(mount.as_fd(), depth, &MountAttr { set: ATTR_IDMAP, clear: 0, propagation: 0, user_namespace })
}

fn mount_setattr(mount: BorrowedFd<'_>, depth: Depth, attributes: &MountAttr) -> Result<(), Errno> {
    // SAFETY: the kernel reads a nul-terminated string and exactly `size_of::<MountAttr>()` bytes of a structure that has
    // its layout (repr(C), four 64-bit fields); both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint | depth.at_flag(),
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Swaps the root mount of this namespace for the one the working directory is the root of, and stacks the old one on it.
pub fn pivot_to_working_directory() -> Result<(), Errno> {
    // SAFETY: pivot_root reads two nul-terminated strings with static lifetime.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    Errno::result(result).map(drop)
}

/// Sets an extended attribute of what `path` leads to. An `O_PATH` descriptor has such a path below /proc.
pub fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: setxattr reads two nul-terminated strings and as many bytes as it is told, all of which live until it returns.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}
