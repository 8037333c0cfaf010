//! Spec → what is to be made and written in the cgroup hierarchies, in order. Pure.
//!
//! A [`CgroupPlan`] names each directory, each file below it and each value; the drivers in `crate::cgroup` carry it out
//! without looking at the specification again. What only the kernel knows (is a file there, is a value accepted now) is
//! told to the driver beforehand by [`Refused`], [`Missing`] and [`Write::instead`].

pub mod bpf;
pub mod devices;
mod limits;
mod path;
pub mod systemd;

use std::borrow::Cow;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};

use crate::cgroup::SavedCgroup;
use crate::cgroup::layout::{Layout, Version};
use crate::error::{Error, Kind, Result};

pub use limits::{Limit, limits};

/// Who makes the cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manager {
    /// This program, through the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd(systemd::Site),
    /// Nobody: the container stays in the cgroup of its creator.
    Disabled,
}

/// Whether a refused permission may be put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Root on the host: a refusal is an error.
    Root,
    /// An ordinary user: without limits and without a path of its own, a container goes without a cgroup.
    Rootless,
    /// To be found out when something is refused: root of the initial user namespace, or not.
    Auto,
}

impl From<crate::cli::Rootless> for Privilege {
    fn from(rootless: crate::cli::Rootless) -> Self {
        match rootless {
            crate::cli::Rootless::Auto => Self::Auto,
            crate::cli::Rootless::True => Self::Rootless,
            crate::cli::Rootless::False => Self::Root,
        }
    }
}

/// Everything that is to be done in cgroups for one container.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupPlan {
    /// Where.
    pub target: Target,
    /// The unit that systemd is to make there; without one the directories are made here.
    pub unit: Option<systemd::UnitPlan>,
    /// Which devices the container may use.
    pub devices: devices::Access,
    /// What a refused permission means, if `privilege` puts up with one.
    pub on_denied: OnDenied,
    /// Whether one is put up with.
    pub privilege: Privilege,
}

/// The directories of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// No cgroup.
    None,
    /// One directory in each version 1 hierarchy.
    V1(Vec<Place>),
    /// One directory in the unified hierarchy.
    V2(UnifiedPlace),
}

/// A directory in a version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The controllers of the hierarchy.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The directory below the mount point; empty for the mount point itself.
    pub path: String,
    /// What is written there, in this order.
    pub writes: Vec<Write>,
}

/// A directory in the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnifiedPlace {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The directory below the mount point; empty for the mount point itself.
    pub path: String,
    /// What is written there, in this order.
    pub writes: Vec<Write>,
    /// The host's user that becomes the directory's owner, where the container's root may manage it.
    pub owner: Option<u32>,
}

/// One value into one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The file's name in the cgroup's directory.
    pub file: Cow<'static, str>,
    /// The text written.
    pub value: String,
    /// The field of the configuration it comes from, for an error's text.
    pub field: Cow<'static, str>,
    /// Another file and value for a kernel that lacks `file`.
    pub instead: Option<(Cow<'static, str>, String)>,
    /// What a refusal of the value by the kernel means.
    pub refused: Refused,
    /// What it means that the kernel has no such file.
    pub missing: Missing,
    /// A file with a usage, and a limit that must be above it; else nothing is written and it is an error.
    pub more_than: Option<(&'static str, u64)>,
}

/// What it means when the kernel refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An error.
    Fail,
    /// The value may contradict one that is written later (a quota and its period): try once more at the end.
    TryLast,
}

/// What it means when the kernel has no such file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An error.
    Fail,
    /// Then there is nothing to limit.
    Ignore,
}

/// What a refused permission means for the container of an ordinary user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDenied {
    /// An error.
    Fail,
    /// The container goes without the cgroup.
    GoWithout,
    /// An error that says what a rootless container needs for limits.
    Explain,
}

impl Write {
    fn new(file: impl Into<Cow<'static, str>>, value: impl ToString, field: impl Into<Cow<'static, str>>) -> Self {
        let (file, field, value) = (file.into(), field.into(), value.to_string());
        Self { file, value, field, instead: None, refused: Refused::Fail, missing: Missing::Fail, more_than: None }
    }

    fn refused(self, refused: Refused) -> Self {
        Self { refused, ..self }
    }

    fn missing(self, missing: Missing) -> Self {
        Self { missing, ..self }
    }

    fn or(self, file: &'static str, value: impl ToString) -> Self {
        Self { instead: Some((file.into(), value.to_string())), ..self }
    }
}

impl CgroupPlan {
    /// The plan of a container without cgroups.
    fn nothing() -> Self {
        let (devices, on_denied) = (devices::Access::all(), OnDenied::Fail);
        Self { target: Target::None, unit: None, devices, on_denied, privilege: Privilege::Root }
    }

    /// Whether the container's first process starts in its cgroup: then that must be made before. systemd makes a scope
    /// for a process that is there.
    pub fn clones_into(&self) -> bool {
        matches!(self.target, Target::V2(_)) && self.unit.is_none()
    }

    /// What is kept of the plan until its cgroups are made, so that what an interrupted creation left can be removed.
    pub fn saved(&self) -> SavedCgroup {
        SavedCgroup::planned(self)
    }
}

/// Lowers the cgroup part of a specification.
pub fn lower(spec: &Spec, id: &str, manager: Manager, layout: &Layout, privilege: Privilege) -> Result<CgroupPlan> {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let given = linux.and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.as_path());
    let version = match manager {
        Manager::Cgroupfs | Manager::Systemd(_) => layout.version(),
        Manager::Disabled => Version::Missing,
    };
    let limits = match resources {
        Some(resources) => limits(resources, version)?,
        None => Vec::new(),
    };
    let devices = devices::lower(spec)?;
    if let Manager::Systemd(site) = &manager {
        return lower_unit(spec, id, site, layout, limits, devices, privilege);
    }
    let path = path::clean(given, id)?;
    let on_denied = match (privilege, given.is_some_and(|path| !path.as_os_str().is_empty()), limits.is_empty()) {
        (Privilege::Root, ..) | (_, true, _) => OnDenied::Fail,
        (Privilege::Rootless | Privilege::Auto, false, true) => OnDenied::GoWithout,
        (Privilege::Rootless | Privilege::Auto, false, false) => OnDenied::Explain,
    };
    let target = match (version, &manager) {
        (Version::Missing, _) => match (limits.first(), &manager, on_denied) {
            (Some(limit), Manager::Disabled, _) => {
                let field = limit.writes.first().map_or("linux.resources", |write| write.field.as_ref());
                return Err(Error::invalid(format!(
                    "{field} cannot be applied with --cgroup-manager disabled: leave the limit out, or choose cgroupfs"
                )));
            }
            (None, Manager::Disabled, _) | (None, _, OnDenied::GoWithout) => return Ok(CgroupPlan::nothing()),
            _ => {
                return Err(Error::unsupported(
                    "no cgroup hierarchy is mounted: mount /sys/fs/cgroup, or run with --cgroup-manager disabled",
                ));
            }
        },
        (Version::V1, _) => Target::V1(places(layout, &path, limits, on_denied)?),
        (Version::V2, _) => Target::V2(unified_place(spec, layout, &path, limits)?),
    };
    Ok(CgroupPlan { target, unit: None, devices, on_denied, privilege })
}

/// Lowers what systemd is to make, and what is written there afterwards.
fn lower_unit(
    spec: &Spec,
    id: &str,
    site: &systemd::Site,
    layout: &Layout,
    mut limits: Vec<Limit>,
    devices: devices::Access,
    privilege: Privilege,
) -> Result<CgroupPlan> {
    let version = layout.version();
    let given = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.as_path());
    let (unit, path) = systemd::lower(spec, id, site, given, &limits, version)?;
    let target = match (version, site.domain) {
        (Version::Missing, _) => {
            return Err(Error::unsupported(
                "no cgroup hierarchy is mounted, where the systemd cgroup manager needs one",
            ));
        }
        (Version::V1, systemd::Domain::User) => {
            return Err(Error::unsupported(
                "the user's systemd has no say over cgroup version 1, which this host has: boot it with version 2 \
                 (systemd.unified_cgroup_hierarchy=1), or use --cgroup-manager cgroupfs",
            ));
        }
        (Version::V1, systemd::Domain::System) => {
            let path = path::Path::Absolute(path);
            let mut places = places(layout, &path, limits, OnDenied::Fail)?;
            // On a hybrid host systemd finds the processes of a unit in the unified hierarchy.
            places.extend(layout.v2.iter().map(|hierarchy| Place {
                controllers: Vec::new(),
                mount: hierarchy.mount.clone(),
                path: path.below(""),
                writes: Vec::new(),
            }));
            Target::V1(places)
        }
        (Version::V2, _) => {
            systemd::drop_weight_of_idle(&mut limits);
            Target::V2(unified_place(spec, layout, &path::Path::Absolute(path), limits)?)
        }
    };
    Ok(CgroupPlan { target, unit: Some(unit), devices, on_denied: OnDenied::Fail, privilege })
}

/// One place in each version 1 hierarchy, each with the writes of its controllers.
fn places(layout: &Layout, path: &path::Path, limits: Vec<Limit>, on_denied: OnDenied) -> Result<Vec<Place>> {
    if layout.hierarchy("devices").is_none() && on_denied != OnDenied::GoWithout {
        return Err(Error::unsupported(
            "the cgroup hierarchy of the devices controller is not mounted, and without it a container could use every device: \
             mount it, or run with --cgroup-manager disabled",
        ));
    }
    let mut places: Vec<Place> = layout
        .v1
        .iter()
        .map(|hierarchy| Place {
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            path: path.below(&hierarchy.own),
            writes: Vec::new(),
        })
        .collect();
    for limit in limits {
        let place = places.iter_mut().find(|place| place.controllers.iter().any(|name| name == limit.controller));
        match place {
            Some(place) => place.writes.extend(limit.writes),
            None => return Err(no_controller(&limit)),
        }
    }
    Ok(places)
}

/// A limit whose controller no version 1 hierarchy holds.
pub(crate) fn no_controller(limit: &Limit) -> Error {
    let field = limit.writes.first().map_or("linux.resources", |write| write.field.as_ref());
    Error::new(
        Kind::Unsupported,
        format!(
            "{field} cannot be applied: the cgroup controller {} is in none of this host's version 1 hierarchies",
            limit.controller
        ),
    )
}

fn unified_place(spec: &Spec, layout: &Layout, path: &path::Path, limits: Vec<Limit>) -> Result<UnifiedPlace> {
    let Some(hierarchy) = &layout.v2 else {
        return Err(Error::unsupported("the unified cgroup hierarchy is not mounted"));
    };
    // The own cgroup holds processes, so the kernel lets none of its children have controllers; its parent is what helps.
    let parent = hierarchy.own.rsplit_once('/').map_or("", |(parent, _)| parent);
    Ok(UnifiedPlace {
        mount: hierarchy.mount.clone(),
        path: path.below(parent),
        writes: limits.into_iter().flat_map(|limit| limit.writes).collect(),
        owner: owner(spec),
    })
}

/// The host's user behind the container's root, where the container is to manage its own cgroup: it has a user and a
/// cgroup namespace of its own and a writable mount of the hierarchy (runtime-spec, "cgroup ownership").
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let namespaces = linux.namespaces().as_ref()?;
    let fresh = |typ| namespaces.iter().any(|namespace| namespace.typ() == typ && namespace.path().is_none());
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let read_only = mount.options().iter().flatten().any(|option| option == "ro");
        matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) && !read_only
    });
    if !fresh(LinuxNamespaceType::User) || !fresh(LinuxNamespaceType::Cgroup) || !writable {
        return None;
    }
    let root = linux.uid_mappings().iter().flatten().find(|map| map.container_id() == 0 && map.size() > 0);
    root.map(|map| map.host_id()).filter(|&uid| uid != 0)
}

/// Drops a `pids` without a `limit`: it asks for nothing, but its type reads it as the limit 0, which forbids every fork.
/// `json` is the text the resources come from, `pids` the JSON pointer of the object in it.
pub fn forget_unset_pids(resources: &mut LinuxResources, json: &[u8], pids: &str) {
    if resources.pids().is_none_or(|pids| pids.limit() != 0) {
        return;
    }
    let root: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    if root.pointer(pids).and_then(|pids| pids.get("limit")).is_none() {
        resources.set_pids(None);
    }
}

#[cfg(test)]
mod tests;
