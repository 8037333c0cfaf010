//! The cgroup hierarchies as a container sees them, on kernels old and new.

use std::fs;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tare::plan::cgroup_view::{CgroupView, Hierarchy, Scope, Version};

use crate::Case;
use crate::filesystems::without_mount_setattr;
use crate::world::{World, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("cgroups::cgroup_hierarchies_are_bound_or_mounted", cgroup_hierarchies_are_bound),
    ("cgroups::cgroup_hierarchies_on_a_kernel_without_mount_setattr", cgroup_hierarchies_on_an_old_kernel),
    ("cgroups::cgroup_hierarchies_in_a_namespace", cgroup_hierarchies_in_a_namespace),
    ("cgroups::the_unified_hierarchy", the_unified_hierarchy),
];

pub(crate) fn cgroup_mount(options: &[&str]) -> Value {
    json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
}

/// The hierarchies of version 1 that this host has, as a directory name, options and the mount point.
pub(crate) fn legacy_hierarchies() -> Vec<Hierarchy> {
    table()
        .into_iter()
        .filter(|(_, line)| line.kind == "cgroup")
        .map(|(path, line)| {
            let name = Path::new(&path).file_name().unwrap().to_str().unwrap().to_owned();
            let options = if name == "systemd" { "name=systemd".to_owned() } else { name.clone() };
            assert_eq!(line.kind, "cgroup");
            Hierarchy {
                name,
                options: vec![options],
                directory: Path::new(&path).join("not-made"),
                callers: path.into(),
            }
        })
        .collect()
}

fn check_hierarchies(names: &[String]) {
    let table = table();
    assert_eq!(table["/sys/fs/cgroup"].kind, "tmpfs");
    assert!(table["/sys/fs/cgroup"].has("ro"));
    for name in names {
        let line = &table[&format!("/sys/fs/cgroup/{name}")];
        assert_eq!(line.kind, "cgroup", "{name}");
        assert!(line.has("ro") && line.has("nosuid") && line.has("nodev") && line.has("noexec"), "{name}: {line:?}");
    }
}

fn cgroup_hierarchies_are_bound() {
    let world = World::new();
    let mut hierarchies = legacy_hierarchies();
    if hierarchies.is_empty() {
        crate::skip!("this host has no cgroups of version 1");
    }
    let names: Vec<String> = hierarchies.iter().map(|hierarchy| hierarchy.name.clone()).collect();
    let mut plan = world.plan(json!([proc_mount(), cgroup_mount(&["ro"])]), json!({}));
    // A hierarchy of two controllers, whatever this host has: the links go by the name alone.
    hierarchies[0].name = "first,second".into();
    let names: Vec<String> = ["first,second".to_owned()].into_iter().chain(names.into_iter().skip(1)).collect();
    plan.cgroups = CgroupView { version: Version::Legacy, scope: Scope::Host, hierarchies };
    let trees = tare::parent::mount_source::open_cgroups(&plan.cgroups, &plan.mounts).unwrap();
    assert_eq!(trees.len(), names.len());
    let mut trees = Some(trees);
    let root = plan.mounted_with(plan.open().unwrap(), || Ok(trees.take().unwrap())).unwrap();
    plan.finish(root).unwrap();
    check_hierarchies(&names);
    assert_eq!(fs::read_link("/sys/fs/cgroup/second").unwrap(), Path::new("first,second"));
}

fn cgroup_hierarchies_on_an_old_kernel() {
    let world = World::new();
    without_mount_setattr();
    let mut plan = world.plan(json!([proc_mount(), cgroup_mount(&["ro"])]), json!({}));
    plan.cgroups.hierarchies = legacy_hierarchies();
    if plan.cgroups.hierarchies.is_empty() {
        crate::skip!("this host has no cgroups of version 1");
    }
    let names: Vec<String> = plan.cgroups.hierarchies.iter().map(|hierarchy| hierarchy.name.clone()).collect();
    let mut trees = Some(tare::parent::mount_source::open_cgroups(&plan.cgroups, &plan.mounts).unwrap());
    let root = plan.mounted_with(plan.open().unwrap(), || Ok(trees.take().unwrap())).unwrap();
    plan.finish(root).unwrap();
    check_hierarchies(&names);
}

fn cgroup_hierarchies_in_a_namespace() {
    let world = World::new();
    let hierarchies = legacy_hierarchies();
    if hierarchies.is_empty() {
        crate::skip!("this host has no cgroups of version 1");
    }
    let names: Vec<String> = hierarchies.iter().map(|hierarchy| hierarchy.name.clone()).collect();
    let mut plan = world.plan(json!([proc_mount(), cgroup_mount(&["ro", "nosuid"])]), json!({}));
    plan.cgroups = CgroupView { version: Version::Legacy, scope: Scope::Namespace, hierarchies };
    let root = plan
        .mounted_with(plan.open().unwrap(), || {
            unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
            Ok(Vec::new())
        })
        .unwrap();
    plan.finish(root).unwrap();
    check_hierarchies(&names);
}

fn the_unified_hierarchy() {
    let world = World::new();
    let mut plan = world.plan(json!([proc_mount(), cgroup_mount(&["ro", "nosuid"])]), json!({}));
    plan.cgroups.version = Version::Unified;
    let root = plan.mounted().unwrap();
    plan.finish(root).unwrap();
    assert_eq!(table()["/sys/fs/cgroup"].kind, "cgroup2");
    assert!(table()["/sys/fs/cgroup"].has("ro"));
}
