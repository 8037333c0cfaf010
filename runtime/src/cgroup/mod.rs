//! The cgroups of a container: made from a plan, joined, frozen, killed, changed, removed.
//!
//! [`Cgroup`] is the one handle, over one directory in each version 1 hierarchy (`v1.rs`) or one in the unified hierarchy
//! (`fs.rs`). It is made by [`Cgroup::create`] and found again by [`Cgroup::open`] from what state.json keeps. It must not
//! know the specification: limits arrive as ordered writes.
//!
//! Who makes the directories is this program, or systemd (`systemd/`), which then has a unit for them; from there on both
//! are the same, but for changes and the removal, which systemd is told of.
//!
//! In state.json:
//! ```text
//! {"version": "v1", "made": true, "directories": [{"controllers": ["memory"], "path": "/sys/fs/cgroup/memory/c1"}, ...],
//!  "unit": {"name": "tare-c1.scope", "domain": "system"}}
//! ```

pub mod devices;
mod enter;
mod files;
mod freezer;
mod fs;
pub mod layout;
mod oom;
mod remove;
mod signal;
pub mod stats;
pub mod systemd;
mod v1;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::plan::cgroup::systemd::{drop_weight_of_idle, from_limits};
use crate::plan::cgroup::{CgroupPlan, Limit, OnDenied, Privilege, Target, limits, no_controller};

pub use self::enter::Entry;
pub use self::layout::{Layout, Version};
pub use self::oom::OomWatch;
pub use self::systemd::{SavedUnit, Systemd};

/// One directory of a container's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The controllers of its hierarchy; none for the unified one.
    pub controllers: Vec<String>,
    /// Where it is.
    pub path: PathBuf,
}

/// What state.json keeps of a container's cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCgroup {
    version: SavedVersion,
    /// Whether creation came so far that what is in the directories belongs to the container: until then nothing in them
    /// may be signalled, for they may be those of another.
    made: bool,
    directories: Vec<Directory>,
    /// The unit that systemd has made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<SavedUnit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedVersion {
    None,
    V1,
    V2,
}

/// The cgroups of a container.
#[derive(Debug)]
pub struct Cgroup {
    saved: SavedCgroup,
    /// The directory in the unified hierarchy, from its creation on.
    unified: Option<OwnedFd>,
}

impl SavedCgroup {
    /// What a plan will make.
    pub(crate) fn planned(plan: &CgroupPlan) -> Self {
        let (version, directories) = match &plan.target {
            Target::None => (SavedVersion::None, Vec::new()),
            Target::V1(places) => {
                let directory = |place: &crate::plan::cgroup::Place| Directory {
                    controllers: place.controllers.clone(),
                    path: place.mount.join(&place.path),
                };
                (SavedVersion::V1, places.iter().map(directory).collect())
            }
            Target::V2(place) => {
                let path = place.mount.join(&place.path);
                (SavedVersion::V2, vec![Directory { controllers: Vec::new(), path }])
            }
        };
        let unit = plan.unit.as_ref().map(|unit| SavedUnit { name: unit.name.clone(), domain: unit.domain });
        Self { version, made: false, directories, unit }
    }

    fn version(&self) -> Version {
        match self.version {
            SavedVersion::None => Version::Missing,
            SavedVersion::V1 => Version::V1,
            SavedVersion::V2 => Version::V2,
        }
    }

    /// The directories, one in each hierarchy.
    pub fn directories(&self) -> &[Directory] {
        &self.directories
    }
}

impl Cgroup {
    /// Makes the directories of a plan and writes its limits. Whatever it made is removed if it fails.
    pub fn create(plan: &CgroupPlan) -> Result<Self> {
        let mut saved = SavedCgroup::planned(plan);
        let unified = match &plan.target {
            Target::None => None,
            Target::V1(places) => {
                saved.directories = v1::create(places, plan)?;
                None
            }
            Target::V2(place) => {
                let made = fs::create(place, plan)?;
                if made.is_none() {
                    saved =
                        SavedCgroup { version: SavedVersion::None, made: true, directories: Vec::new(), unit: None };
                }
                made
            }
        };
        saved.made = true;
        Ok(Self { saved, unified })
    }

    /// As [`Cgroup::create`], with the files of [`Cgroup::join_fds`].
    ///
    /// systemd removes every empty directory of a version 1 hierarchy, whosever it is, when it makes a unit above it that does not use
    /// the controller. So what is gone before it is open is made again.
    pub fn create_to_join(plan: &CgroupPlan) -> Result<(Self, Vec<OwnedFd>)> {
        let mut left = 3;
        loop {
            let made = Self::create(plan).and_then(|cgroup| {
                match cgroup.join_fds() {
                    Ok(join) => Ok((cgroup, join)),
                    // Nothing is in it.
                    Err(error) => cgroup.destroy().and(Err(error)),
                }
            });
            match made {
                Err(error) if left > 0 && matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => left -= 1,
                made => return made,
            }
        }
    }

    /// The cgroups of a container that is there.
    pub fn open(saved: &SavedCgroup) -> Result<Self> {
        Ok(Self { saved: saved.clone(), unified: None })
    }

    /// What is to be kept in state.json.
    pub fn saved(&self) -> SavedCgroup {
        self.saved.clone()
    }

    /// Version 2: the directory that clone3(2) lets a new process start in. It is there after [`Cgroup::create`].
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// The files into which a process writes `0` to join.
    ///
    /// On version 1 these are the `tasks` files: a thread that moves itself takes no lock of its thread group, and so
    /// waits for no grace period of RCU, which joining by `cgroup.procs` costs once a hierarchy. The process must have no
    /// other threads.
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>> {
        match (self.saved.version, &self.saved.unit) {
            // systemd has put it there.
            (SavedVersion::V2, Some(_)) => Ok(Vec::new()),
            (version, _) => {
                self.saved.directories.iter().map(|directory| enter::open_join(version, directory)).collect()
            }
        }
    }

    /// The directory of a controller: its version 1 hierarchy, or the unified one.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        let directories = &self.saved.directories;
        let found = match self.saved.version {
            SavedVersion::None => None,
            SavedVersion::V1 => {
                directories.iter().find(|entry| entry.controllers.iter().any(|name| name == controller))
            }
            SavedVersion::V2 => directories.first(),
        };
        found.map(|entry| entry.path.as_path())
    }

    /// Whether the container is in the unified hierarchy.
    pub fn is_unified(&self) -> bool {
        self.saved.version == SavedVersion::V2
    }

    /// The directory whose processes are the container's. Version 1 hierarchies may differ; the device controller is the
    /// one that a container cannot leave.
    fn members(&self) -> Option<&Path> {
        let named = |name| self.directory(name);
        named("devices")
            .or_else(|| named("freezer"))
            .or_else(|| self.saved.directories.first().map(|entry| &*entry.path))
    }

    /// The processes of the container, those of its own sub-cgroups too.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match self.members() {
            Some(directory) if self.saved.made => files::pids(directory),
            _ => Ok(Vec::new()),
        }
    }

    /// How often the kernel killed one of its processes for lack of memory.
    pub fn oom_kill_count(&self) -> u64 {
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        let text = self.directory("memory").and_then(|directory| files::read(directory, file).ok());
        text.and_then(|text| files::value(&text, "oom_kill")).unwrap_or(0)
    }

    /// The memory limit as text for a person, if one of the container's processes was killed because of it.
    pub fn out_of_memory(&self) -> Option<String> {
        let file = if self.is_unified() { "memory.max" } else { "memory.limit_in_bytes" };
        let directory = self.directory("memory").filter(|_| self.oom_kill_count() > 0)?;
        let limit = files::read(directory, file).ok()?;
        Some(limit.trim().parse().map_or_else(|_| limit.trim().to_owned(), size))
    }

    /// Its unit, if systemd has made it.
    pub fn unit(&self) -> Option<&SavedUnit> {
        self.saved.unit.as_ref()
    }

    /// Quota and period in force, in microseconds; -1 is no quota.
    pub fn quota_and_period(&self) -> Option<(i64, u64)> {
        let directory = self.directory("cpu")?;
        if !self.is_unified() {
            let number = |file| files::read(directory, file).ok()?.trim().parse::<i64>().ok();
            return Some((number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?.try_into().ok()?));
        }
        let text = files::read(directory, "cpu.max").ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some((if quota == "max" { -1 } else { quota.parse().ok()? }, period.parse().ok()?))
    }

    /// Version 2: the limits of memory and of swap in force, in bytes; `None` is no limit.
    pub fn memory_and_swap_limits(&self) -> (Option<i64>, Option<i64>) {
        let limit = |file| self.directory("memory").and_then(|path| files::read(path, file).ok()?.trim().parse().ok());
        (limit("memory.max"), limit("memory.swap.max"))
    }

    /// Changes limits while the container runs: all of them, or none if one is refused.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let version = self.saved.version();
        let mut limits = limits(resources, version)?;
        let mut systemd = match &self.saved.unit {
            Some(unit) => {
                let properties = from_limits(&limits, version)?;
                drop_weight_of_idle(&mut limits);
                (!properties.is_empty()).then(|| Ok((unit, properties, Systemd::connect(unit.domain)?))).transpose()?
            }
            None => None,
        };
        // What cannot be done is found before the first write.
        let places: Vec<(&Path, &Limit)> = limits
            .iter()
            .map(|limit| match (self.directory(limit.controller), self.saved.version) {
                (Some(directory), _) => Ok((directory, limit)),
                (None, SavedVersion::None) => Err(Error::new(
                    Kind::State,
                    "the container has no cgroup, so its limits cannot be changed: create it with cgroups",
                )),
                (None, _) => Err(no_controller(limit)),
            })
            .collect::<Result<_>>()?;
        let mut undo = files::Undo::default();
        for (directory, limit) in &places {
            if let Err(error) = files::apply_noting(directory, &limit.writes, &mut undo) {
                undo.run();
                return Err(error);
            }
        }
        // Afterwards: what the kernel refuses must not become a property.
        if let Some((unit, properties, systemd)) = &mut systemd {
            if let Err(error) = systemd.set(unit, std::mem::take(properties)) {
                undo.run();
                return Err(error);
            }
            // It writes what it has kept, which for a quota are whole percents.
            for (directory, limit) in places.iter().filter(|(_, limit)| limit.controller == "cpu") {
                files::apply(directory, &limit.writes)?;
            }
        }
        Ok(())
    }
}

/// Puts a process that could not be started in a version 2 cgroup there afterwards. `pids.max` holds for new processes, but
/// not for ones that join: an exec into a container that has reached its limit works as on version 1.
pub fn join_later(cgroup: BorrowedFd<'_>, pid: i32) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(cgroup, "cgroup.procs", flags, nix::sys::stat::Mode::empty());
    file.and_then(|file| files::put(&file.into(), &pid.to_string())).on("put into its cgroup the process", pid)
}

/// A number of bytes for a person.
fn size(bytes: u64) -> String {
    match bytes {
        // The kernel counts whole ones.
        0 => "of less than a page".to_owned(),
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// What to do about a refused permission.
enum Verdict {
    /// Go on without.
    GoWithout,
    /// It is an error.
    Fail(Error),
}

/// Decides about a refused permission: an ordinary user's container may go without a cgroup it did not ask for.
fn judge(plan: &CgroupPlan, errno: Errno, error: Error) -> Verdict {
    let denied = matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS);
    if !denied || is_root(plan.privilege) {
        return Verdict::Fail(error);
    }
    match plan.on_denied {
        OnDenied::GoWithout => Verdict::GoWithout,
        OnDenied::Fail => Verdict::Fail(error),
        OnDenied::Explain => Verdict::Fail(Error::caused(
            Kind::System,
            error.to_string(),
            "limits need a cgroup this user may write: delegate one (systemd-run --user -p Delegate=yes) and name it in \
             linux.cgroupsPath, or leave the limits out",
        )),
    }
}

/// Whether the caller is root on the host. Asked only after a refusal.
fn is_root(privilege: Privilege) -> bool {
    match privilege {
        Privilege::Root => true,
        Privilege::Rootless => false,
        Privilege::Auto => nix::unistd::geteuid().is_root() && !in_user_namespace(),
    }
}

/// Whether this process is in a user namespace other than the host's: that one maps every id to itself.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    let identity = (fields.next(), fields.next(), fields.next()) == (Some("0"), Some("0"), Some("4294967295"));
    !map.is_empty() && !identity
}

/// Opens a directory of the cgroup file system.
fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())
}

#[cfg(test)]
mod tests;
