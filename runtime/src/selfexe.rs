//! The runtime's own binary, out of a container's reach (CVE-2019-5736).
//!
//! A process in a container can reach the binary of the runtime that started it, by /proc/PID/exe or by being told to
//! execute /proc/self/exe. So every command that goes into a container first sees to it that this is a file which cannot be
//! written: its own, by a read-only bind mount that is attached nowhere, so that nobody can remount it and nothing is
//! copied. What the process has mapped of its binary is mapped again from there, which is all that the kernel asks for to
//! take that file as /proc/self/exe ([`exe::exchange`]); a child has it from its parent.
//!
//! Where the caller's privileges or the kernel do not allow that, the program executes itself again from there, which takes
//! several times as long; and where there can be no such mount, from a sealed copy in memory.

use std::cell::RefCell;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::FsFlags;
use nix::unistd::execveat;

use crate::error::{Context, Result};
use crate::sys::exe;
use crate::sys::mount::{ATTR_RDONLY, Change, Depth, Symlink, clone_tree, set_attributes};

/// This process's binary.
const SELF: &str = "/proc/self/exe";
/// The seals that make a copy in memory as constant as a file on a read-only mount.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// The mount that this process runs from, which is attached nowhere.
///
/// Closing the last descriptor of such a mount takes until every processor has passed a point where it cannot be looking at
/// it any more. The binary stays what it is without it, so it is closed as soon as there is time.
#[derive(Debug, Default)]
pub struct Mount(RefCell<Option<OwnedFd>>);

impl Mount {
    /// Closes it: a new child at once, while its parent has it open, and the parent when others are at work and not waiting.
    pub fn close(&self) {
        drop(self.0.take());
    }
}

/// Sees to it that this process runs from a binary that no container can write. Executes itself again if it must, and
/// returns only in a process that is safe.
pub fn protect() -> Result<Mount> {
    if is_constant()? {
        return Ok(Mount::default());
    }
    let constant = match read_only_mount() {
        Ok(mount) => match exchange(&mount) {
            Ok(()) => return Ok(Mount(Some(mount).into())),
            Err(_) => mount,
        },
        // Before Linux 5.12, or without privileges over the mount namespace.
        Err(_) => sealed_copy()?,
    };
    execute(&constant)
}

fn exchange(mount: &OwnedFd) -> Result<(), Errno> {
    // A file to be mapped must be open for more than its path.
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let binary = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    exe::exchange(binary.as_fd())
}

fn is_constant() -> Result<bool> {
    let found = statfs(SELF).on("look at the file system of", SELF)?;
    // Only files in memory have seals.
    Ok(found.flags().contains(FsFlags::ST_RDONLY) || (found.filesystem_type() == TMPFS_MAGIC && is_sealed()?))
}

fn is_sealed() -> Result<bool> {
    let binary = open(SELF, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open", SELF)?;
    let seals = fcntl(&binary, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    Ok(seals.is_ok_and(|seals| seals.contains(SEALS)))
}

fn read_only_mount() -> Result<OwnedFd, Errno> {
    let mount = clone_tree(AT_FDCWD, SELF, Depth::One, Symlink::Follow)?;
    set_attributes(&mount, Depth::One, Change { set: ATTR_RDONLY, ..Change::default() })?;
    Ok(mount)
}

fn sealed_copy() -> Result<OwnedFd> {
    let memory = memfd_create(c"tare", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .on("make a copy in memory of", SELF)?;
    let mut copy = File::from(memory);
    let mut binary = File::open(SELF).on("open", SELF)?;
    io::copy(&mut binary, &mut copy).on("copy to memory", SELF)?;
    fcntl(copy.as_fd(), FcntlArg::F_ADD_SEALS(SEALS)).on("seal the copy in memory of", SELF)?;
    // A file open for writing cannot be executed.
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open", path)
}

fn execute(binary: &OwnedFd) -> Result<Mount> {
    let words = fs::read("/proc/self/cmdline").on("read", "/proc/self/cmdline")?;
    // Each ends with a NUL, the last one too.
    let args: Vec<CString> = words
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|word| CString::from_vec_with_nul(word.to_vec()).ok())
        .collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            c_string(pair)
        })
        .collect();
    match execveat(binary, c"", &args, &env, AtFlags::AT_EMPTY_PATH) {
        Ok(never) => match never {},
        Err(errno) => Err(errno).on("execute again", SELF),
    }
}

/// What came from the kernel as a C string contains no NUL.
fn c_string(text: OsString) -> Option<CString> {
    CString::new(text.into_vec()).ok()
}
