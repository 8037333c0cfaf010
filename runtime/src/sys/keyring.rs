//! Session keyrings: keyctl(2).

use std::ffi::CStr;

use nix::errno::Errno;
use nix::libc;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;

/// Makes the session keyring `name` this process's, creating it if this user has none of that name; its serial number.
pub fn join_session(name: &CStr) -> Result<i32, Errno> {
    // SAFETY: the kernel reads the NUL-terminated name, which lives until it returns.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(serial).map(|serial| serial as i32)
}

/// Replaces the permissions of a key.
pub fn set_permissions(key: i32, permissions: u32) -> Result<(), Errno> {
    // SAFETY: KEYCTL_SETPERM takes integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) }).map(drop)
}

/// `type;uid;gid;permissions in hexadecimal;description` of a key, cut to the length of `into`.
pub fn describe(key: i32, into: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: the kernel writes at most as many bytes as are said, and the slice has room for them.
    let length = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key, into.as_mut_ptr(), into.len()) };
    let length = Errno::result(length)? as usize;
    Ok(&into[..length.min(into.len())])
}
