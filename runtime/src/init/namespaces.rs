//! Entering and making the container's namespaces, from inside.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::error::{Context, Error, Result};
use crate::plan::namespaces::{Namespaces, Source};
use crate::sys::process::{setns, unshare};

/// A namespace to join, opened by the parent on the host.
#[derive(Debug)]
pub struct Joined {
    /// The namespace file.
    pub fd: OwnedFd,
    /// Its CLONE_NEW* flag.
    pub flag: i32,
    /// Its path, for messages.
    pub path: String,
}

/// Joins all of `joined`.
///
/// First with the privileges that the process has: a network namespace, say, may belong to the host's user namespace. Then
/// the user namespace, and after it what only its root may join.
pub fn join(joined: &[Joined]) -> Result<()> {
    let mut later = Vec::new();
    for namespace in joined.iter().filter(|namespace| namespace.flag != libc::CLONE_NEWUSER) {
        match setns(&namespace.fd, namespace.flag) {
            Err(Errno::EPERM) => later.push(namespace),
            done => done.on("join the namespace", &namespace.path).map_err(of_another_kind)?,
        }
    }
    if let Some(user) = joined.iter().find(|namespace| namespace.flag == libc::CLONE_NEWUSER) {
        setns(&user.fd, user.flag).on("join the user namespace", &user.path)?;
    }
    for namespace in later {
        setns(&namespace.fd, namespace.flag).on("join the namespace", &namespace.path)?;
    }
    Ok(())
}

/// setns(2) says EINVAL when the file is of another kind than the configuration says.
fn of_another_kind(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EINVAL) => error.hint("it is not of the type that linux.namespaces says"),
        _ => error,
    }
}

/// Makes all new namespaces that can be made by the process that lives in them.
///
/// Not the pid and user namespaces, which clone3 made, nor the time namespace, which the intermediate made; and not the
/// cgroup namespace, whose root is the cgroup that the process is in when it is made: see [`make_cgroup`].
pub fn make(plan: &Namespaces) -> Result<()> {
    let elsewhere =
        libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWCGROUP | crate::plan::namespaces::CLONE_NEWTIME;
    let flags = plan.flags(Source::is_new) & !elsewhere;
    if flags == 0 {
        return Ok(());
    }
    unshare(flags).on("make", "the namespaces")
}

/// Makes the cgroup namespace, after the process has joined its cgroups.
pub fn make_cgroup(plan: &Namespaces) -> Result<()> {
    if plan.cgroup.is_new() {
        unshare(libc::CLONE_NEWCGROUP).on("make", "the cgroup namespace")?;
    }
    Ok(())
}

/// Becomes root of the user namespace, so that what init makes belongs to ids that exist in it.
pub fn become_root() -> Result<()> {
    match setgroups(&[]) {
        // Denied for good in a rootless user namespace (/proc/PID/setgroups); the groups then stay as they are.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno).on("drop", "the supplementary groups"),
    }
    let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
    // Id 0 may be unmapped: then the capabilities of a new user namespace's first process must do.
    match setresgid(wheel, wheel, wheel) {
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(errno).on("become", "gid 0 of the user namespace"),
    }
    match setresuid(root, root, root) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno).on("become", "uid 0 of the user namespace"),
    }
}
