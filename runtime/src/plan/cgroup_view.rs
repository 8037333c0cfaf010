//! What a mount of the type `cgroup` shows: from the layout of the host's cgroups, the container's place in them, and
//! whether it has a cgroup namespace. Pure.

use std::path::PathBuf;

use crate::cgroup::{Directory, Layout, layout};
use crate::plan::namespaces::Namespaces;

/// The cgroups of a container, for showing them in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupView {
    /// Which version is shown.
    pub version: Version,
    /// Whether the container has a cgroup namespace of its own.
    pub scope: Scope,
    /// Version 1: every hierarchy. Version 2: the one there is, for where it has to be bound.
    pub hierarchies: Vec<Hierarchy>,
}

/// The version of the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller; none at all where the host has no cgroups.
    Legacy,
    /// One for all.
    Unified,
}

/// Whose cgroup is the root of what is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The container's, by its cgroup namespace.
    Namespace,
    /// The host's; on version 1 the container's directory is bound.
    Host,
}

/// One hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The name of its mount point on the host, such as `cpu,cpuacct` or `systemd`.
    pub name: String,
    /// Its mount options, such as `cpu,cpuacct` or `name=systemd`. For version 2 what the host's mount was told, unless the
    /// container has a new cgroup namespace, whose mounts do not change it.
    pub options: Vec<String>,
    /// The directory that is bound where the hierarchy is not mounted anew, on the host.
    pub directory: PathBuf,
    /// What is bound if that does not exist, because the caller may not make cgroups: where the caller is, and so the
    /// container.
    pub callers: PathBuf,
}

/// Lowers the view. `directories` are the container's own, planned or made; without one in a hierarchy, the caller's is
/// shown, which is where the container then is.
pub fn lower(layout: &Layout, directories: &[Directory], namespaces: &Namespaces) -> CgroupView {
    let scope = if namespaces.cgroup.is_private() { Scope::Namespace } else { Scope::Host };
    let (version, shown) = match layout.version() {
        layout::Version::V2 => (Version::Unified, layout.v2.as_slice()),
        layout::Version::V1 => (Version::Legacy, layout.v1.as_slice()),
        layout::Version::Missing => (Version::Legacy, [].as_slice()),
    };
    let hierarchies = shown.iter().map(|hierarchy| one(hierarchy, version, namespaces, directories)).collect();
    CgroupView { version, scope, hierarchies }
}

fn one(
    hierarchy: &layout::Hierarchy,
    version: Version,
    namespaces: &Namespaces,
    directories: &[Directory],
) -> Hierarchy {
    let own = directories.iter().find(|directory| directory.path.starts_with(&hierarchy.mount));
    let callers = hierarchy.mount.join(hierarchy.own.trim_start_matches('/'));
    let directory = match own {
        // As runc: without a cgroup namespace the whole unified hierarchy is shown.
        _ if version == Version::Unified && !namespaces.cgroup.is_private() => hierarchy.mount.clone(),
        Some(own) => own.path.clone(),
        None => callers.clone(),
    };
    let name = hierarchy.mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let options = match version {
        Version::Legacy => hierarchy.controllers.clone(),
        Version::Unified if namespaces.cgroup.is_new() => Vec::new(),
        Version::Unified => hierarchy.flags.clone(),
    };
    Hierarchy { name, options, directory, callers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(v1: &[(&[&str], &str)], v2: Option<&str>) -> Layout {
        let hierarchy = |controllers: &[&str], mount: &str| layout::Hierarchy {
            controllers: controllers.iter().map(ToString::to_string).collect(),
            mount: mount.into(),
            own: "/caller".into(),
            flags: if controllers.is_empty() { vec!["nsdelegate".to_owned()] } else { Vec::new() },
        };
        Layout {
            v1: v1.iter().map(|(controllers, mount)| hierarchy(controllers, mount)).collect(),
            v2: v2.map(|mount| hierarchy(&[], mount)),
        }
    }

    fn private() -> Namespaces {
        Namespaces { cgroup: crate::plan::namespaces::Source::New, ..Namespaces::default() }
    }

    #[test]
    fn version_1_shows_the_container_s_directory_in_each_hierarchy() {
        let layout = host(
            &[(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct"), (&["freezer"], "/sys/fs/cgroup/freezer")],
            Some("/sys/fs/cgroup/unified"),
        );
        let own = [Directory { controllers: vec!["cpu".into()], path: "/sys/fs/cgroup/cpu,cpuacct/c1".into() }];
        let view = lower(&layout, &own, &Namespaces::default());
        assert_eq!((view.version, view.scope), (Version::Legacy, Scope::Host));
        let shown: Vec<_> = view
            .hierarchies
            .iter()
            .map(|one| (one.name.as_str(), one.options.join(","), one.directory.to_str().unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                ("cpu,cpuacct", "cpu,cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct/c1"),
                ("freezer", "freezer".to_owned(), "/sys/fs/cgroup/freezer/caller"),
            ]
        );
    }

    #[test]
    fn version_2_binds_the_container_s_own_only_for_a_namespace() {
        let layout = host(&[], Some("/sys/fs/cgroup"));
        let own = [Directory { controllers: Vec::new(), path: "/sys/fs/cgroup/c1".into() }];
        let directory = |namespaces| lower(&layout, &own, &namespaces).hierarchies[0].directory.clone();
        assert_eq!(directory(private()), PathBuf::from("/sys/fs/cgroup/c1"));
        assert_eq!(directory(Namespaces::default()), PathBuf::from("/sys/fs/cgroup"));
    }

    #[test]
    fn version_2_is_mounted_as_the_host_s_unless_in_a_namespace_of_its_own() {
        let layout = host(&[], Some("/sys/fs/cgroup"));
        let options = |namespaces| lower(&layout, &[], &namespaces).hierarchies[0].options.join(",");
        assert_eq!(options(private()), "");
        assert_eq!(options(Namespaces::default()), "nsdelegate");
        // It may be the host's.
        let joined = crate::plan::namespaces::Source::Join("/proc/1/ns/cgroup".into());
        assert_eq!(options(Namespaces { cgroup: joined, ..Namespaces::default() }), "nsdelegate");
    }

    #[test]
    fn a_host_without_cgroups_shows_none() {
        assert!(lower(&host(&[], None), &[], &private()).hierarchies.is_empty());
    }
}
