//! How a further process (exec) gets into the cgroups of a container, or into sub-cgroups of them.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::{Cgroup, Directory, SavedVersion, files, open_directory};
use crate::error::{Context, Error, Kind, Result};

/// What a process needs to enter.
#[derive(Debug)]
pub struct Entry {
    /// Version 2: the directory that clone3(2) starts it in.
    pub clone: Option<OwnedFd>,
    /// Version 1: the files into which it writes `0`.
    pub join: Vec<OwnedFd>,
}

/// Opens the file by which a thread joins a directory.
pub(super) fn open_join(version: SavedVersion, directory: &Directory) -> Result<OwnedFd> {
    open_list(version == SavedVersion::V2 || directory.controllers.is_empty(), &directory.path)
}

/// The unified hierarchy, alone or beside others, has no list of threads that takes one from another cgroup.
fn open_list(unified: bool, directory: &Path) -> Result<OwnedFd> {
    let path = directory.join(if unified { "cgroup.procs" } else { "tasks" });
    files::open_for_writing(&path).map(OwnedFd::from).on("open", path.display())
}

impl Cgroup {
    /// The way into the container's cgroups, or into the sub-cgroups `subs` of them: one path for all hierarchies, or
    /// `controller[,controller...]:path` for each that is not to be the container's own.
    ///
    /// On version 2 a container may have moved its processes into sub-cgroups of its own, and its cgroup then takes none
    /// (cgroups(7), "no internal processes") or is gone: without `subs`, the way then is into the cgroup that `init` is in.
    pub fn for_exec(&self, subs: &[String], init: i32) -> Result<Entry> {
        let own = self.entry(subs);
        if !self.is_unified() || !subs.is_empty() || (own.is_ok() && !self.is_inner()) {
            return own;
        }
        match beside(init)? {
            Some(clone) => Ok(Entry { clone: Some(clone), join: Vec::new() }),
            None => own,
        }
    }

    /// Whether it passes controllers on to sub-cgroups, and so takes no process itself.
    fn is_inner(&self) -> bool {
        let passed = self.members().and_then(|directory| files::read(directory, "cgroup.subtree_control").ok());
        passed.is_some_and(|passed| !passed.trim().is_empty())
    }

    fn entry(&self, subs: &[String]) -> Result<Entry> {
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
        match paths.first().filter(|_| self.is_unified()) {
            Some(path) => {
                let clone = open_directory(path).on("open the cgroup", path.display()).map_err(explain)?;
                Ok(Entry { clone: Some(clone), join: Vec::new() })
            }
            None => {
                let unified = self.saved.directories.iter().map(|directory| directory.controllers.is_empty());
                let join =
                    paths.iter().zip(unified).map(|(path, unified)| open_list(unified, path)).collect::<Result<_>>();
                Ok(Entry { clone: None, join: join.map_err(explain)? })
            }
        }
    }
}

/// The cgroup in the unified hierarchy that a process is in now.
fn beside(pid: i32) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).on("read", &path)?;
    let inside = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some((inside, hierarchy)) = inside.zip(super::Layout::detect()?.v2) else { return Ok(None) };
    let directory = hierarchy.mount.join(inside);
    open_directory(&directory).on("open the cgroup", directory.display()).map(Some)
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
