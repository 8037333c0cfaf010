//! Linux security modules: what this host has, and the label that the payload gets at its execve.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Context, Error, Result};
use crate::plan::process::ProcessPlan;

/// The inode of the root of every procfs (`PROC_ROOT_INO` of the kernel).
const PROC_ROOT: u64 = 1;
/// The profile that asks for no confinement, which a host without AppArmor gives too.
const UNCONFINED: &CStr = c"unconfined";

/// Refuses labels of a module that this host does not run: without it they would silently confine nothing.
pub fn check_host(process: &ProcessPlan, mount_label: Option<&str>) -> Result<()> {
    let profile = process.apparmor_profile.as_deref().filter(|&profile| profile != UNCONFINED);
    if let Some(profile) = profile
        && !has_apparmor()
    {
        return Err(Error::unsupported(format!(
            "process.apparmorProfile asks for {profile:?}, but AppArmor is not enabled on this host"
        )));
    }
    let labels = [
        ("process.selinuxLabel", process.selinux_label.as_deref().map(CStr::to_string_lossy)),
        ("linux.mountLabel", mount_label.filter(|label| !label.is_empty()).map(Into::into)),
    ];
    for (field, label) in labels {
        if let Some(label) = label
            && !has_selinux()
        {
            return Err(Error::unsupported(format!(
                "{field} asks for {label:?}, but SELinux is not enabled on this host"
            )));
        }
    }
    Ok(())
}

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// SELinux counts as enabled once a policy is loaded, which the file system of its policy shows.
fn has_selinux() -> bool {
    std::fs::metadata("/sys/fs/selinux/enforce").is_ok()
}

/// Asks the kernel to change to the labels at execve. The caller has the container as its root.
pub fn prepare(process: &ProcessPlan) -> Result<()> {
    if let Some(profile) =
        process.apparmor_profile.as_deref().filter(|&profile| profile != UNCONFINED || has_apparmor())
    {
        let value = [b"exec ", profile.to_bytes()].concat();
        // The second is the place of kernels that stack modules only since 5.8 or have AppArmor as the only one.
        write(&["self/attr/apparmor/exec", "self/attr/exec"], &value)
            .map_err(|errno| Error::sys(format!("change to the AppArmor profile {profile:?} at exec"), errno))
            .map_err(|error| match error.errno() {
                Some(Errno::ENOENT) => error.hint("the profile is not loaded on this host"),
                _ => error,
            })?;
    }
    if let Some(label) = &process.selinux_label {
        write(&["self/attr/exec"], label.to_bytes()).on("change at exec to the SELinux label", format!("{label:?}"))?;
    }
    Ok(())
}

/// Writes to the first of `names` that is there, below a /proc that is the kernel's.
///
/// CVE-2019-16884 and its kind: an image that brings its own /proc, or has something mounted over a file of it, would
/// take the write and leave the process without its label. So the directory must be the root of a procfs, and the way
/// from it to the file must cross no mount and follow no magic link.
fn write(names: &[&str], value: &[u8]) -> Result<(), Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let proc = openat2(AT_FDCWD, "/proc", how)?;
    if fstatfs(&proc)?.filesystem_type() != PROC_SUPER_MAGIC || fstat(&proc)?.st_ino != PROC_ROOT {
        return Err(Errno::EXDEV);
    }
    let mut last = Errno::ENOENT;
    for name in names {
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(&proc, *name, how) {
            Ok(file) => {
                return File::from(file)
                    .write_all(value)
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
            }
            Err(errno) => last = errno,
        }
    }
    Err(last)
}
