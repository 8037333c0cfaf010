//! How a further process (exec) gets into the cgroups of a container, or into sub-cgroups of them.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::{Cgroup, SavedVersion, files, open_directory};
use crate::error::{Context, Error, Kind, Result};

/// What a process needs to enter.
#[derive(Debug)]
pub struct Entry {
    /// Version 2: the directory for clone3(2).
    pub clone: Option<OwnedFd>,
    /// The files into which it writes `0` instead: always on version 1; on version 2 when clone3 refused (EAGAIN where
    /// `pids.max` is reached, which does not hold for a process that joins).
    pub join: Vec<OwnedFd>,
}

/// Opens the file by which a thread joins a directory.
pub(super) fn open_join(version: SavedVersion, directory: &Path) -> Result<OwnedFd> {
    let name = if version == SavedVersion::V2 { "cgroup.procs" } else { "tasks" };
    let path = directory.join(name);
    files::open_for_writing(&path).map(OwnedFd::from).on("open", path.display())
}

impl Cgroup {
    /// The way into the container's cgroups, or into the sub-cgroups `subs` of them: one path for all hierarchies, or
    /// `controller[,controller...]:path` for each that is not to be the container's own.
    pub fn entry(&self, subs: &[String]) -> Result<Entry> {
        let mut paths: Vec<PathBuf> = self.saved.directories.iter().map(|directory| directory.path.clone()).collect();
        let mut named: Vec<&str> = Vec::new();
        for sub in subs {
            let (controllers, path) = match sub.split_once(':') {
                Some((controllers, path)) => (Some(controllers), path),
                None => (None, sub.as_str()),
            };
            let path = relative(path).ok_or_else(|| {
                Error::invalid(format!("--cgroup {sub}: {path:?} leads out of the container's cgroup"))
            })?;
            match controllers {
                None if subs.len() > 1 => {
                    return Err(Error::invalid(format!(
                        "--cgroup {sub}: a path without a controller is for all of them and cannot be given with others"
                    )));
                }
                None => paths.iter_mut().for_each(|base| base.push(&path)),
                Some(_) if self.is_unified() => {
                    return Err(Error::invalid(format!(
                        "--cgroup {sub}: cgroup version 2 has one hierarchy; give the path without a controller"
                    )));
                }
                Some(controllers) => {
                    for controller in controllers.split(',') {
                        self.place(controller, &path, &mut paths, &named)
                            .map_err(|error| error.within(format!("--cgroup {sub}")))?;
                        named.push(controller);
                    }
                }
            }
        }
        self.open_entry(&paths, subs)
    }

    /// Puts `path` below the directory of a controller.
    fn place(&self, controller: &str, path: &Path, paths: &mut [PathBuf], named: &[&str]) -> Result<()> {
        let index = self.saved.directories.iter().position(|directory| {
            directory
                .controllers
                .iter()
                .any(|name| name == controller || name.strip_prefix("name=") == Some(controller))
        });
        let base = index.and_then(|index| paths.get_mut(index));
        let base = base
            .ok_or_else(|| Error::invalid(format!("the container has no cgroup of the controller {controller:?}")))?;
        if named.contains(&controller) {
            return Err(Error::invalid(format!("the controller {controller:?} is named twice")));
        }
        // Two controllers of one hierarchy have one directory.
        if !base.ends_with(path) || path.as_os_str().is_empty() {
            base.push(path);
        }
        Ok(())
    }

    fn open_entry(&self, paths: &[PathBuf], subs: &[String]) -> Result<Entry> {
        let explain = |error: Error| match error.errno() {
            Some(Errno::ENOENT | Errno::ENODEV) if !subs.is_empty() => {
                Error::new(Kind::Invalid, format!("--cgroup {}: the container has no such sub-cgroup", subs.join(" ")))
            }
            _ => error,
        };
        let join =
            paths.iter().map(|path| open_join(self.saved.version, path)).collect::<Result<_>>().map_err(explain)?;
        let clone = match paths.first().filter(|_| self.is_unified()) {
            Some(path) => Some(open_directory(path).on("open the cgroup", path.display()).map_err(explain)?),
            None => None,
        };
        Ok(Entry { clone, join })
    }

    /// Version 2: the way into the cgroup that the process `init` is in now. The container's own cgroup takes no process
    /// (EBUSY, EOPNOTSUPP) or is gone where the container moved its processes into sub-cgroups of its own.
    pub fn entry_beside(&self, init: i32) -> Result<Option<Entry>> {
        if !self.is_unified() {
            return Ok(None);
        }
        let path = format!("/proc/{init}/cgroup");
        let text = std::fs::read_to_string(&path).on("read", &path)?;
        let layout = super::Layout::detect()?;
        let inside = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let Some((inside, hierarchy)) = inside.zip(layout.v2) else { return Ok(None) };
        self.open_entry(&[hierarchy.mount.join(inside)], &[]).map(Some)
    }
}

/// A path that stays below where it starts; `None` if it does not.
fn relative(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => clean.pop().then_some(())?,
            Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}
