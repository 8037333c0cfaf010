//! The runtime's own binary, out of a container's reach (CVE-2019-5736).
//!
//! A process in a container can reach the binary of the runtime that started it, by /proc/PID/exe or by being told to
//! execute /proc/self/exe. So every command that goes into a container first executes itself again from where the file
//! cannot be written: a read-only bind mount of it that is attached nowhere, so that nobody can remount it and nothing is
//! copied. Where the kernel or the caller's privileges do not allow that, from a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::execveat;

use crate::error::{Context, Result};
use crate::sys::mount::{ATTR_RDONLY, Change, Depth, Symlink, clone_tree, set_attributes};

/// This process's binary.
const SELF: &str = "/proc/self/exe";
/// The seals that make a copy in memory as constant as a file on a read-only mount.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// Sees to it that this process runs from a binary that no container can write. Executes itself again if it must, and
/// returns only in a process that is safe.
pub fn protect() -> Result<()> {
    let binary = open(SELF, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open", SELF)?;
    if is_constant(&binary)? {
        return Ok(());
    }
    drop(binary);
    let constant = match read_only_mount() {
        Ok(binary) => binary,
        // Before Linux 5.12, or without privileges over the mount namespace.
        Err(_) => sealed_copy()?,
    };
    execute(&constant)
}

fn is_constant(binary: &OwnedFd) -> Result<bool> {
    let mount = fstatvfs(binary).on("look at the mount of", SELF)?;
    if mount.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(true);
    }
    // Only files in memory have seals.
    let seals = fcntl(binary, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
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

fn execute(binary: &OwnedFd) -> Result<()> {
    let args: Vec<CString> = std::env::args_os().filter_map(c_string).collect();
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
