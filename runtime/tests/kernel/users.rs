//! Containers in a user namespace: what is bound because it cannot be made, and by whom it is opened.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::makedev;
use serde_json::{Value, json};

use crate::Case;
use crate::cgroups::{cgroup_mount, legacy_hierarchies};
use crate::filesystems::{default_mounts, without_mount_setattr};
use crate::world::{Node, World, bind, table};

pub(crate) const CASES: &[Case] = &[
    ("users::a_user_namespace_gets_bound_devices", a_user_namespace_gets_bound_devices),
    ("users::a_user_namespace_on_a_kernel_without_mount_setattr", a_user_namespace_on_an_old_kernel),
    ("users::without_privilege_init_opens_the_sources", without_privilege_init_opens_the_sources),
];

fn user_namespace() -> Value {
    json!({"namespaces": [{"type": "user"}, {"type": "mount"}],
        "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]})
}

/// Becomes root of a user namespace that has this one id, as a process with no privilege may.
fn enter_user_namespace(more: CloneFlags) {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | more).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", "0 0 1").unwrap();
    fs::write("/proc/self/gid_map", "0 0 1").unwrap();
}

fn a_user_namespace_gets_bound_devices() {
    user_namespace_gets_bound_devices(&World::new());
}

fn a_user_namespace_on_an_old_kernel() {
    let world = World::new();
    without_mount_setattr();
    user_namespace_gets_bound_devices(&world);
}

fn user_namespace_gets_bound_devices(world: &World) {
    // As systemd has it: a mount over a device of the container must not appear there.
    for path in ["/dev", "/sys"] {
        crate::world::change(path, MsFlags::MS_SHARED);
    }
    let _host = fs::File::open("/proc/self/ns/mnt").unwrap();
    world.host_tree(&[("data/file", Node::File("data"))]);
    let mut mounts = default_mounts();
    let list = mounts.as_array_mut().unwrap();
    list.remove(0);
    list.push(bind(world.host("data"), "/data", &["ro"]));
    list.push(bind("/proc", "/proc", &[]));
    world.tree(&[("secret", Node::File("secret")), ("hidden/file", Node::File("secret"))]);
    // The network namespace is the host's, so that a sysfs is refused and the host's is bound.
    let mut linux = user_namespace();
    linux["maskedPaths"] = json!(["/secret", "/hidden", "/proc/keys"]);
    linux["readonlyPaths"] = json!(["/proc/sys"]);
    let plan = world.plan(mounts, linux);
    let mut sources = plan.open().unwrap();
    enter_user_namespace(CloneFlags::CLONE_NEWIPC);
    let root = plan.set_up(&mut sources, || Ok(Vec::new())).unwrap();
    plan.finish(root).unwrap();
    let table = table();
    assert_eq!(table["/dev/null"].kind, "devtmpfs");
    let peers: Vec<_> = table.iter().filter(|(_, line)| line.optional.contains("shared:")).collect();
    assert!(peers.is_empty(), "peers of the host's mounts: {peers:?}");
    assert_eq!(fs::metadata("/dev/null").unwrap().rdev(), makedev(1, 3));
    fs::write("/dev/null", "x").unwrap();
    assert!(fs::read("/secret").unwrap().is_empty() && fs::read("/proc/keys").unwrap().is_empty());
    assert_eq!(fs::read_dir("/hidden").unwrap().count(), 0);
    assert!(table["/proc/sys"].has("ro"));
    assert_eq!(table["/dev/pts"].kind, "devpts", "though the namespace has no group 5");
    assert_eq!(table["/sys"].kind, "sysfs");
    assert!(table["/sys"].has("ro"));
    assert_eq!(fs::read_to_string("/data/file").unwrap(), "data");
    assert!(fs::write("/data/file", "").is_err());
}

fn without_privilege_init_opens_the_sources() {
    let world = World::new();
    world.host_tree(&[("data/file", Node::File("data"))]);
    world.tree(&[("proc", Node::Dir)]);
    let mut mounts = default_mounts();
    let list = mounts.as_array_mut().unwrap();
    list.remove(0);
    list.push(bind(world.host("data"), "/data", &["ro"]));
    list.push(bind("/proc", "/proc", &[]));
    list.push(cgroup_mount(&["ro"]));
    let mut plan = world.plan(mounts, user_namespace());
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap();
    let mut sources = plan.open().expect("the sources are left to init");
    enter_user_namespace(CloneFlags::CLONE_NEWIPC);
    plan.cgroups.hierarchies = legacy_hierarchies();
    let root = plan.set_up(&mut sources, || Ok(Vec::new())).unwrap();
    plan.finish(root).unwrap();
    assert_eq!(fs::read_to_string("/data/file").unwrap(), "data");
    assert!(fs::write("/data/file", "").is_err());
    assert_eq!(fs::metadata("/dev/zero").unwrap().rdev(), makedev(1, 5));
    assert!(table()["/sys/fs/cgroup"].has("ro"));
}
