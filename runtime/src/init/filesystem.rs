//! Making one filesystem of a given type: detached where the type is one of the kernel's own, else by mount(2) on the target.
//!
//! The new calls take options one by one, each at most 255 bytes, and what filesystems with a device or a server make of
//! that differs from kernel to kernel; those get the one string they have always got.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::error::{Context, Result};
use crate::init::attributes::{fd_path, to_legacy};
use crate::plan::mounts::Filesystem;
use crate::sys::mount as sys;

/// Types whose options are short words, and whose mounts can be detached on every kernel we run on.
const DETACHABLE: [&CStr; 9] =
    [c"proc", c"sysfs", c"tmpfs", c"devpts", c"mqueue", c"cgroup", c"cgroup2", c"ramfs", c"securityfs"];

/// fsconfig(2) takes strings of at most this length.
const LONGEST_VALUE: usize = 255;

/// Whether [`detached`] can make it.
pub(super) fn is_detachable(filesystem: &Filesystem) -> bool {
    DETACHABLE.contains(&filesystem.kind.as_c_str())
        && filesystem.name.count_bytes() <= LONGEST_VALUE
        && filesystem.data.iter().all(|option| option.len() <= LONGEST_VALUE)
}

/// Makes the filesystem and a detached mount of it.
pub(super) fn detached<'a>(
    filesystem: &Filesystem,
    options: impl Iterator<Item = &'a str>,
    attributes: u64,
) -> Result<OwnedFd, Errno> {
    let context = sys::fsopen(&filesystem.kind)?;
    if !filesystem.name.is_empty() {
        sys::set_string(&context, c"source", &filesystem.name)?;
    }
    for (bit, word) in SUPER_WORDS {
        if filesystem.super_flags & bit != 0 {
            sys::set_flag(&context, word)?;
        }
    }
    for option in options {
        set(context.as_fd(), option)?;
    }
    sys::create(&context)?;
    sys::fsmount(&context, attributes)
}

/// The words for `MS_` bits of a filesystem; `silent` and `iversion` mean nothing to those in question.
const SUPER_WORDS: [(u64, &CStr); 4] = [
    (libc::MS_SYNCHRONOUS, c"sync"),
    (libc::MS_DIRSYNC, c"dirsync"),
    (libc::MS_LAZYTIME, c"lazytime"),
    (libc::MS_MANDLOCK, c"mand"),
];

/// Sets one option; one string of a configuration may hold several with commas between.
fn set(context: BorrowedFd<'_>, option: &str) -> Result<(), Errno> {
    let (key, value) = match option.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (option, None),
    };
    // In these values a comma is a comma; mount(8) needs quotes for that.
    if let ("context" | "fscontext" | "defcontext" | "rootcontext" | "mpol", Some(value)) = (key, value) {
        return set_one(context, key, Some(value.trim_matches('"')));
    }
    if let Some((first, rest)) = option.split_once(',') {
        set(context, first)?;
        return set(context, rest);
    }
    if option.is_empty() { Ok(()) } else { set_one(context, key, value) }
}

fn set_one(context: BorrowedFd<'_>, key: &str, value: Option<&str>) -> Result<(), Errno> {
    let string = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
    match value {
        Some(value) => sys::set_string(context, &string(key)?, &string(value)?),
        None => sys::set_flag(context, &string(key)?),
    }
}

/// Gives the root of a mounted filesystem its SELinux label.
pub(super) fn label_root(mount: &OwnedFd, label: &CStr) -> Result<()> {
    let path = CString::new(fd_path(mount)).map_err(|_| Errno::EINVAL);
    path.and_then(|path| sys::set_xattr(&path, c"security.selinux", label.to_bytes_with_nul()))
        .on("give it the SELinux label", format!("{label:?}"))
}

/// Mounts on `target` with one string of options. `flags` are further `MS_` bits.
pub(super) fn on_target(
    filesystem: &Filesystem,
    target: BorrowedFd<'_>,
    attributes: u64,
    flags: u64,
) -> Result<(), Errno> {
    let flags = MsFlags::from_bits_retain(filesystem.super_flags | to_legacy(attributes) | flags);
    let data = filesystem.data.join(",");
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(filesystem.name.as_c_str()), fd_path(target).as_str(), Some(filesystem.kind.as_c_str()), flags, data)
}
