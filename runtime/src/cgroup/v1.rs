//! Making a container's directories in the version 1 hierarchies.
//!
//! One `mkdir` a hierarchy and only the writes that were asked for; nothing is read back. What a hierarchy needs besides:
//! `cpuset` starts without CPUs and memory nodes, and lets no process in until it has some; `devices` starts with what
//! its parent may use.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkdir;

use super::{Directory, Verdict, devices, files, is_root, judge};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::cgroup::{CgroupPlan, Place, Write};

/// Whether a directory was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// This call made it.
    Fresh,
    /// It was there.
    Found,
}

/// The directories made by a call that has not come to its end: removed again unless [`Made::keep`] is called.
#[derive(Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // The error that led here is the one to tell.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Makes `path` below `mount`, with the parents it lacks.
pub(super) fn make(mount: &Path, path: &Path, made: &mut Made) -> Result<Origin, Errno> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            made.0.push(path.to_owned());
            Ok(Origin::Fresh)
        }
        Err(Errno::EEXIST) => Ok(Origin::Found),
        Err(Errno::ENOENT) => match path.parent().filter(|parent| parent.starts_with(mount) && *parent != mount) {
            Some(parent) => {
                make(mount, parent, made)?;
                make(mount, path, made)
            }
            None => Err(Errno::ENOENT),
        },
        Err(errno) => Err(errno),
    }
}

/// Makes every place of a plan and writes its limits; returns the directories that there are then.
pub(super) fn create(places: &[Place], plan: &CgroupPlan) -> Result<Vec<Directory>> {
    let mut made = Made::default();
    let mut directories = Vec::with_capacity(places.len());
    let mut kept: Vec<(&Place, Origin)> = Vec::with_capacity(places.len());
    for place in places {
        let path = place.mount.join(&place.path);
        match make(&place.mount, &path, &mut made) {
            Ok(origin) => {
                kept.push((place, origin));
                directories.push(Directory { controllers: place.controllers.clone(), path });
            }
            Err(errno) => match judge(plan, errno, Error::sys(format!("make the cgroup {}", path.display()), errno)) {
                Verdict::GoWithout => {}
                Verdict::Fail(error) => return Err(error),
            },
        }
    }
    for ((place, origin), directory) in kept.iter().zip(&directories) {
        if *origin == Origin::Found {
            check_unused(place, &directory.path)?;
        }
    }
    for ((place, origin), directory) in kept.iter().zip(&directories) {
        fill(place, *origin, &directory.path, plan)?;
    }
    made.keep();
    Ok(directories)
}

/// Makes the directories that systemd has not made for a unit, in the hierarchies that it does not know, and writes the
/// limits of a plan. The container's first process is in those that it has made.
pub(super) fn complete(places: &[Place], plan: &CgroupPlan) -> Result<Vec<Directory>> {
    let mut made = Made::default();
    let mut directories = Vec::with_capacity(places.len());
    for place in places {
        let path = place.mount.join(&place.path);
        let origin = make(&place.mount, &path, &mut made).on("make the cgroup", path.display())?;
        fill(place, origin, &path, plan)?;
        directories.push(Directory { controllers: place.controllers.clone(), path });
    }
    made.keep();
    Ok(directories)
}

/// A directory that was there must be nobody's: its processes would be killed with the container, and a frozen one would
/// freeze the container's first process before it could say so.
fn check_unused(place: &Place, path: &Path) -> Result<()> {
    let has = |name: &str| place.controllers.iter().any(|controller| controller == name);
    if has("devices") {
        not_in_use(path)?;
    }
    if has("freezer") && files::read(path, "freezer.state").is_ok_and(|state| state.trim() != "THAWED") {
        return Err(frozen(path));
    }
    Ok(())
}

/// Refuses a cgroup that holds processes.
pub(super) fn not_in_use(path: &Path) -> Result<()> {
    match files::pids(path)?.len() {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Exists,
            format!(
                "the container's cgroup {} is not empty: it holds {count} process(es); choose another cgroupsPath",
                path.display()
            ),
        )),
    }
}

/// The error for a cgroup that was there and is frozen.
pub(super) fn frozen(path: &Path) -> Error {
    Error::new(
        Kind::State,
        format!("the container's cgroup {} is frozen: thaw it, or choose another cgroupsPath", path.display()),
    )
}

fn fill(place: &Place, origin: Origin, path: &Path, plan: &CgroupPlan) -> Result<()> {
    let has = |name: &str| place.controllers.iter().any(|controller| controller == name);
    if has("cpuset") {
        let (own, others): (Vec<Write>, Vec<Write>) =
            place.writes.iter().cloned().partition(|write| write.file.starts_with("cpuset."));
        for file in ["cpuset.cpus", "cpuset.mems"] {
            cpuset(place, path, file, origin, own.iter().find(|write| write.file == file))?;
        }
        files::apply(path, &others)?;
    } else {
        files::apply(path, &place.writes)?;
    }
    if has("devices") {
        match devices::write_v1(path, origin, &plan.devices) {
            // Nothing below a user namespace may change device rules, and they are not what protects the host there.
            Err((_, Errno::EPERM)) if !is_root(plan.privilege) => {}
            done => done.map_err(|(error, _)| error)?,
        }
    }
    Ok(())
}

/// Gives a cpuset its CPUs or memory nodes: those asked for, or the parent's.
fn cpuset(place: &Place, path: &Path, file: &str, origin: Origin, asked: Option<&Write>) -> Result<()> {
    let parent = path.parent().unwrap_or(&place.mount);
    if let Some(write) = asked {
        return files::write(path, file, &write.value)
            .or_else(|_| {
                // A parent made just now has none to give yet.
                inherit(&place.mount, parent, file)?;
                files::write(path, file, &write.value)
            })
            .map_err(|errno| files::explain(path, write, errno));
    }
    let filled = match origin {
        Origin::Fresh => inherit(&place.mount, parent, file).and_then(|value| match value.is_empty() {
            true => Ok(()),
            false => files::write(path, file, &value),
        }),
        Origin::Found => inherit(&place.mount, path, file).map(drop),
    };
    filled.on(&format!("fill {file} of"), path.display())
}

/// What a cpuset has; one that has nothing yet gets what its parent has.
fn inherit(mount: &Path, path: &Path, file: &str) -> Result<String, Errno> {
    let value = files::read(path, file)?.trim().to_owned();
    match path.parent().filter(|_| path != mount && value.is_empty()) {
        None => Ok(value),
        Some(parent) => {
            let value = inherit(mount, parent, file)?;
            files::write(path, file, &value)?;
            Ok(value)
        }
    }
}
