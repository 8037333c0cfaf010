//! Where the cgroup of a process lies.
//!
//! `/proc/PID/cgroup` says which directory of each hierarchy, `/proc/self/mountinfo` where that hierarchy is. Both are as seen
//! from this process' cgroup namespace, so they fit together.
//!
//! ```text
//! 4:memory:/pod/a       31 … /pod /sys/fs/cgroup/memory … - cgroup cgroup rw,memory      -> /sys/fs/cgroup/memory/a
//! 0::/pod/a             29 … /    /sys/fs/cgroup        … - cgroup2 cgroup2 rw           -> /sys/fs/cgroup/pod/a
//! ```
//!
//! A host is of version 1 as soon as one controller is: that is where its memory and processors are counted, and what a hybrid
//! host has beside it (`/sys/fs/cgroup/unified`) only groups processes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::mountinfo::{self, Entry};

/// A cgroup, by the hierarchies that hold the host's controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// The directory of each controller of version 1, and of named hierarchies (`name=systemd`). Controllers that share a
    /// hierarchy share the directory.
    V1(Vec<(String, PathBuf)>),
    /// One directory, of version 2.
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroup the process `pid` is in. `NotFound` when there is no such process, or it is a dead one's and removed.
    pub fn of(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/cgroup");
        let memberships =
            fs::read_to_string(&file).context(|| format!("read the cgroup of process {pid} in {file}"))?;
        locate(&memberships, &hierarchies()?)
            .ok_or_else(|| Error::not_found(format!("find the cgroup of process {pid}: no mounted hierarchy has it")))
    }

    /// The cgroup `path` below the root of the hierarchies (the option shim_cgroup), in those that have it. `NotFound` when
    /// none does.
    pub fn load(path: &str) -> Result<Self> {
        // What leads up would name something that is no cgroup.
        let below = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !below || path.trim_matches('/').is_empty() {
            return Err(Error::invalid(format!(
                "find the cgroup {path:?}: it must be a path below the root of the cgroups"
            )));
        }
        let mut cgroup = rooted(path.trim_matches('/'))?;
        if let Some(Self::V1(directories)) = &mut cgroup {
            directories.retain(|(_, directory)| directory.is_dir());
        }
        cgroup
            .filter(Self::exists)
            .ok_or_else(|| Error::not_found(format!("find the cgroup {path:?}: no mounted hierarchy has it")))
    }

    /// Moves the process `pid` into it, in every hierarchy. The first failure is told, after all were tried.
    pub fn add(&self, pid: u32) -> Result<()> {
        let mut directories: Vec<&Path> = match self {
            Self::V1(directories) => directories.iter().map(|(_, directory)| directory.as_path()).collect(),
            Self::V2(directory) => vec![directory],
        };
        directories.sort_unstable();
        directories.dedup();
        let join = |directory: &Path| {
            let file = directory.join("cgroup.procs");
            OpenOptions::new()
                .write(true)
                .open(&file)
                .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
                .context(|| format!("move process {pid} into the cgroup {}", directory.display()))
        };
        directories.into_iter().map(join).fold(Ok(()), Result::and)
    }

    /// Whether it is still there.
    pub fn exists(&self) -> bool {
        match self {
            Self::V1(directories) => directories.iter().any(|(_, directory)| directory.is_dir()),
            Self::V2(directory) => directory.is_dir(),
        }
    }

    /// Its path for people: the directory of the memory controller (version 1, or else the first), or the one there is.
    pub fn display(&self) -> String {
        let directory = match self {
            Self::V1(directories) => self.controller("memory").or(directories.first().map(|(_, it)| it.as_path())),
            Self::V2(directory) => Some(directory.as_path()),
        };
        directory.map_or_else(|| "(none)".to_owned(), |directory| directory.display().to_string())
    }

    /// The root of the host's hierarchies.
    #[cfg(test)]
    pub(crate) fn root() -> Self {
        rooted("").unwrap().expect("mounted cgroups")
    }

    /// The directory in which `controller` keeps its files; with version 2 there is one for all.
    pub(crate) fn controller(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(directories) => {
                directories.iter().find(|(name, _)| name == controller).map(|(_, directory)| directory.as_path())
            }
            Self::V2(directory) => Some(directory),
        }
    }
}

fn hierarchies() -> Result<Vec<Entry>> {
    mountinfo::mounts(|entry| matches!(entry.kind.as_str(), "cgroup" | "cgroup2"))
}

/// The cgroup `path` below the root of every mounted hierarchy, whether or not it is there.
fn rooted(path: &str) -> Result<Option<Cgroup>> {
    let what = || "read the host's cgroup hierarchies in /proc/self/cgroup".to_owned();
    let memberships: String = fs::read_to_string("/proc/self/cgroup")
        .context(what)?
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .map(|controllers| format!("0:{controllers}:/{path}\n"))
        .collect();
    Ok(locate(&memberships, &hierarchies()?))
}

/// Brings the lines of `/proc/PID/cgroup` and the mounted hierarchies together.
fn locate(memberships: &str, hierarchies: &[Entry]) -> Option<Cgroup> {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            v2 = directory(path, hierarchies.iter().filter(|entry| entry.kind == "cgroup2"));
            continue;
        }
        for controller in controllers.split(',') {
            let holds = |entry: &&Entry| entry.kind == "cgroup" && entry.options.split(',').any(|it| it == controller);
            v1.extend(directory(path, hierarchies.iter().filter(holds)).map(|it| (controller.to_owned(), it)));
        }
    }
    let counts = |(name, _): &(String, PathBuf)| !name.starts_with("name=");
    // Named hierarchies alone, beside version 2, count nothing.
    if v1.iter().any(counts) || v2.is_none() { (!v1.is_empty()).then_some(Cgroup::V1(v1)) } else { v2.map(Cgroup::V2) }
}

/// Where `path` of a hierarchy is found: in the first of its mounts that shows it.
fn directory<'a>(path: &str, mut mounts: impl Iterator<Item = &'a Entry>) -> Option<PathBuf> {
    mounts.find_map(|mount| {
        let below = Path::new(path).strip_prefix(&mount.root).ok()?;
        // An empty remainder must not leave a slash at the end.
        Some(if below.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(below) })
    })
}

#[cfg(test)]
mod tests;
