//! Making a container's directory in the unified hierarchy.
//!
//! A controller is there for a directory only if every directory above it passes it on (`cgroup.subtree_control`). All
//! that the mount point offers are passed on, not only those with a limit: statistics need them, and a later update may.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Uid, chown};

use super::v1::{Made, Origin, frozen, make, not_in_use};
use super::{Verdict, devices, files, in_user_namespace, is_root, judge, open_directory};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::cgroup::{CgroupPlan, UnifiedPlace};

/// Makes the directory of a plan and writes its limits. `None`: the container goes without.
pub(super) fn create(place: &UnifiedPlace, plan: &CgroupPlan) -> Result<Option<OwnedFd>> {
    let path = place.mount.join(&place.path);
    let mut made = Made::default();
    let origin = match make(&place.mount, &path, &mut made) {
        Ok(origin) => origin,
        Err(errno) => {
            return match judge(plan, errno, Error::sys(format!("make the cgroup {}", path.display()), errno)) {
                Verdict::GoWithout => Ok(None),
                Verdict::Fail(error) => Err(error),
            };
        }
    };
    if origin == Origin::Found {
        not_in_use(&path)?;
        if files::read(&path, "cgroup.freeze").is_ok_and(|state| state.trim() == "1") {
            return Err(frozen(&path));
        }
    }
    pass_controllers_on(&place.mount, &path)?;
    check_type(&path, place)?;
    let directory = fill(place, origin, &path, plan)?;
    made.keep();
    Ok(Some(directory))
}

/// Writes the limits of a plan into the directory that systemd has made.
pub(super) fn complete(place: &UnifiedPlace, plan: &CgroupPlan) -> Result<OwnedFd> {
    let path = place.mount.join(&place.path);
    // The directories above are systemd's: a controller that it does not know is passed on only where a limit needs it.
    let there = files::read(&path, "cgroup.controllers").unwrap_or_default();
    let lacks = |file: &str| {
        let controller = file.split('.').next().unwrap_or_default();
        controller != "cgroup" && !there.split_whitespace().any(|name| name == controller)
    };
    if place.writes.iter().any(|write| lacks(&write.file)) {
        pass_controllers_on(&place.mount, &path)?;
    }
    fill(place, Origin::Fresh, &path, plan)
}

fn fill(place: &UnifiedPlace, origin: Origin, path: &Path, plan: &CgroupPlan) -> Result<OwnedFd> {
    files::apply(path, &place.writes)?;
    let directory = open_directory(path).on("open the cgroup", path.display())?;
    match devices::attach(directory.as_fd(), origin, &plan.devices) {
        // Without the right to load programs there are no rights to devices beyond the user's own either.
        Err(Errno::EPERM | Errno::EACCES) if !is_root(plan.privilege) || in_user_namespace() => {}
        done => done.on("attach the device program (linux.resources.devices) to", path.display())?,
    }
    if let Some(owner) = place.owner {
        hand_over(path, Uid::from_raw(owner))?;
    }
    Ok(directory)
}

/// Passes the controllers of the mount point on, down to `path`. Usually somebody did so long ago.
fn pass_controllers_on(mount: &Path, path: &Path) -> Result<()> {
    let names = |directory: &Path| -> Result<BTreeSet<String>> {
        let list = files::read(directory, "cgroup.controllers").on("read the controllers of", directory.display())?;
        Ok(list.split_whitespace().map(str::to_owned).collect())
    };
    let offered = names(mount)?;
    if names(path)? == offered {
        return Ok(());
    }
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(mount)).collect();
    let all = offered.iter().map(|name| format!("+{name}")).collect::<Vec<_>>();
    for directory in above.into_iter().rev() {
        // One that cannot be passed on (it is not ours to give, or processes stand in the way) is told by the limit that
        // needs it; the others still help.
        if files::write(directory, "cgroup.subtree_control", &all.join(" ")).is_err() {
            for name in &all {
                let _ = files::write(directory, "cgroup.subtree_control", name);
            }
        }
    }
    Ok(())
}

/// A cgroup below one with processes cannot take any, unless it is made threaded; then only controllers that know threads
/// work in it.
fn check_type(path: &Path, place: &UnifiedPlace) -> Result<()> {
    let kind = files::read(path, "cgroup.type").unwrap_or_default();
    let knows_threads = |file: &str| ["cpu.", "cpuset.", "pids."].iter().any(|prefix| file.starts_with(prefix));
    let limited = place.writes.iter().find(|write| !knows_threads(&write.file));
    match (kind.trim(), limited) {
        ("domain invalid" | "threaded" | "domain threaded", Some(write)) => Err(Error::new(
            Kind::State,
            format!(
                "{} cannot be applied: the cgroup {} is {:?}, for a cgroup above it holds processes; choose another cgroupsPath",
                write.field,
                path.display(),
                kind.trim()
            ),
        )),
        ("domain invalid", None) => {
            files::write(path, "cgroup.type", "threaded").on("make threaded the cgroup", path.display())
        }
        _ => Ok(()),
    }
}

/// Gives the directory to the container's root, and in it what the kernel names as safe to give (cgroups(7), delegation).
fn hand_over(path: &Path, owner: Uid) -> Result<()> {
    let delegate = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let delegate = delegate.unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".to_owned());
    chown(path, Some(owner), None).on("give away the cgroup", path.display())?;
    for file in delegate.lines() {
        match chown(&path.join(file), Some(owner), None) {
            // The list is of the kernel, the file of a controller that may not be there.
            Err(Errno::ENOENT) => {}
            done => done.on("give away", path.join(file).display())?,
        }
    }
    Ok(())
}
