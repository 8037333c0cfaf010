//! The mount system calls that work on descriptors: trees are made detached, then attached to a descriptor.
//!
//! See open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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

const ATTR_IDMAP: u64 = 0x10_0000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const AT_RECURSIVE: libc::c_uint = libc::AT_RECURSIVE as libc::c_uint;
const AT_EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// How much of a tree of mounts is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One mount alone.
    One,
    /// A mount and all below it.
    Tree,
}

impl Depth {
    fn at_flag(self) -> libc::c_uint {
        match self {
            Self::One => 0,
            Self::Tree => AT_RECURSIVE,
        }
    }
}

fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)?;
    // SAFETY: the callers pass only results of system calls that on success return a descriptor made by that very call, so
    // nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A detached copy of the mounts at `path`, an absolute path or one below the working directory.
pub fn clone_tree<P: ?Sized + NixPath>(path: &P, depth: Depth) -> Result<OwnedFd, Errno> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth.at_flag();
    // SAFETY: open_tree reads the nul-terminated path, which lives until the call returns, and touches no other memory.
    owned(
        path.with_nix_path(|path| unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?,
    )
}

/// Attaches the detached tree `tree` onto the object behind `onto`, whatever its name now is.
pub fn attach(tree: impl AsFd, onto: impl AsFd) -> Result<(), Errno> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (tree, onto) = (tree.as_fd().as_raw_fd(), onto.as_fd().as_raw_fd());
    // SAFETY: move_mount reads two nul-terminated strings with static lifetime, and writes no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), onto, c"".as_ptr(), flags) };
    Errno::result(result).map(drop)
}

/// Opens a context to make a file system of the type `name`. Reading from it gives the kernel's words on what failed.
pub fn fsopen(name: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: fsopen reads the nul-terminated name, which lives until it returns.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets a parameter: without a value a flag, else a string of at most 255 bytes.
pub fn set(context: impl AsFd, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    // SAFETY: fsconfig reads the nul-terminated key, and the value where the command has one; both live until it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_fd().as_raw_fd(), command, key.as_ptr(), value, 0) };
    Errno::result(result).map(drop)
}

/// Makes the file system that `context` describes.
pub fn create(context: impl AsFd) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command of fsconfig takes neither key nor value, so the kernel reads no memory of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_fd().as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    Errno::result(result).map(drop)
}

/// Makes a detached mount of the file system in `context`, with the `ATTR_` bits given.
pub fn fsmount(context: impl AsFd, attributes: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: fsmount takes three integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets and clears `ATTR_` bits of the one mount that `mount` is the root of. `ENOSYS` before Linux 5.12.
pub fn set_attributes(mount: impl AsFd, set: u64, clear: u64) -> Result<(), Errno> {
    mount_setattr(mount, &MountAttr { set, clear, propagation: 0, user_namespace: 0 })
}

/// Makes the one detached `mount` show its files' owners as `user_namespace` maps them. `ENOSYS` before Linux 5.12, `EINVAL`
/// where the file system cannot.
pub fn set_idmap(mount: impl AsFd, user_namespace: impl AsFd) -> Result<(), Errno> {
    let user_namespace = user_namespace.as_fd().as_raw_fd() as u64;
    mount_setattr(mount, &MountAttr { set: ATTR_IDMAP, clear: 0, propagation: 0, user_namespace })
}

fn mount_setattr(mount: impl AsFd, attributes: &MountAttr) -> Result<(), Errno> {
    let (mount, attributes) = (mount.as_fd().as_raw_fd(), std::ptr::from_ref(attributes));
    // SAFETY: the kernel reads a nul-terminated string and exactly `size_of::<MountAttr>()` bytes of a structure that has
    // its layout (repr(C), four 64-bit fields); both live until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), AT_EMPTY_PATH, attributes, size_of::<MountAttr>())
    };
    Errno::result(result).map(drop)
}
