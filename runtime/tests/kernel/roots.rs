//! The root itself: where it is attached, how it is switched, what is left of the host.

use std::fs;

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;
use tare::plan::mounts::RootChange;

use crate::Case;
use crate::world::{Node, World, parse, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("roots::nothing_of_the_host_is_left_after_the_switch", nothing_of_the_host_is_left),
    ("roots::nothing_of_the_container_appears_on_the_host", nothing_of_the_container_appears_on_the_host),
    ("roots::hooks_find_the_root_at_its_path", hooks_find_the_root_at_its_path),
    ("roots::without_pivot_the_root_is_moved", without_pivot_the_root_is_moved),
    ("roots::without_pivot_and_at_its_path", without_pivot_and_at_its_path),
    ("roots::a_shared_mount_namespace_is_left_clean", a_shared_mount_namespace_is_left_clean),
    ("roots::a_private_procfs_is_one", a_private_procfs_is_one),
];

fn nothing_of_the_host_is_left() {
    let world = World::new();
    world.tree(&[("file", Node::File("image's"))]);
    world.plan(json!([proc_mount()]), json!({})).enter().unwrap();
    assert_eq!(fs::read_to_string("/file").unwrap(), "image's");
    assert_eq!(fs::read_to_string("../../file").unwrap(), "image's", "the working directory is the root");
    let paths: Vec<String> = table().into_keys().collect();
    assert_eq!(paths, ["/", "/proc"]);
}

fn nothing_of_the_container_appears_on_the_host() {
    let world = World::new();
    crate::world::change("/", nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SHARED);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let host = fs::File::open("/proc/self/ns/mnt").unwrap();
    let plan =
        world.plan(json!([proc_mount(), {"destination": "/t", "type": "tmpfs"}]), json!({"maskedPaths": ["/t"]}));
    plan.enter().unwrap();
    setns(&host, CloneFlags::CLONE_NEWNS).unwrap();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

fn hooks_find_the_root_at_its_path() {
    let world = World::new();
    world.tree(&[("inside", Node::Dir)]);
    let plan = world.plan_with(json!({
        "root": {"path": "root"}, "mounts": [proc_mount()], "hooks": {"prestart": [{"path": "/bin/true"}]}
    }));
    let root = plan.mounted().unwrap();
    // What a hook in this namespace does, by the path it knows.
    let inside = world.root("inside");
    nix::mount::mount(Some("hook"), &inside, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    plan.finish(root).unwrap();
    assert_eq!(table()["/inside"].source, "hook");
}

fn without_pivot_the_root_is_moved() {
    let world = World::new();
    world.tree(&[("file", Node::File("image's"))]);
    let mut plan = world.plan(json!([proc_mount()]), json!({}));
    plan.rootfs.change = RootChange::MoveAndChroot;
    let root = plan.mounted().unwrap();
    // In init's namespace, before the change: what one who leaves the chroot would see.
    let host = fs::File::open("/").unwrap();
    plan.finish(root).unwrap();
    assert_eq!(fs::read_to_string("/file").unwrap(), "image's");
    assert_eq!(table()["/proc"].kind, "proc");
    nix::unistd::fchdir(&host).unwrap();
    for path in ["proc/self", "sys/kernel"] {
        assert!(!std::path::Path::new(path).try_exists().unwrap(), "the host's {path} is in reach");
    }
}

fn without_pivot_and_at_its_path() {
    let world = World::new();
    let mut plan = world.plan_with(json!({
        "root": {"path": "root"}, "mounts": [proc_mount()], "hooks": {"createRuntime": [{"path": "/bin/true"}]}
    }));
    plan.rootfs.change = RootChange::MoveAndChroot;
    let root = plan.mounted().unwrap();
    plan.finish(root).unwrap();
    assert_eq!(table()["/proc"].kind, "proc");
}

fn a_private_procfs_is_one() {
    let world = World::new();
    let procfs = tare::procfs::Procfs::private().unwrap();
    let read = || {
        let file = procfs.open("self/mountinfo", nix::fcntl::OFlag::O_RDONLY).unwrap();
        std::io::read_to_string(fs::File::from(file)).unwrap()
    };
    assert!(parse(&read()).contains_key(world.place.to_str().unwrap()));
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    assert!(procfs.open("self/root/etc", nix::fcntl::OFlag::O_RDONLY).is_err(), "no magic link");
    assert!(procfs.open("../etc", nix::fcntl::OFlag::O_RDONLY).is_err(), "nothing above");
}

fn a_shared_mount_namespace_is_left_clean() {
    let world = World::new();
    world.tree(&[("file", Node::File("image's"))]);
    let before = table();
    let plan = world.plan_with(json!({
        "root": {"path": "root"}, "mounts": [proc_mount()], "linux": {"namespaces": [{"type": "pid"}]}
    }));
    assert_eq!(plan.rootfs.change, RootChange::Chroot);
    let host = fs::File::open("/").unwrap();
    let mut sources = plan.open().unwrap();
    let root = plan.set_up(&mut sources, || Ok(Vec::new())).unwrap();
    plan.finish(root).unwrap();
    assert_eq!(fs::read_to_string("/file").unwrap(), "image's");
    // What `delete` does, on the host.
    nix::unistd::fchdir(&host).unwrap();
    nix::unistd::chroot(".").unwrap();
    assert!(table().len() > before.len());
    tare::init::rootfs::release(&plan.rootfs.path).unwrap();
    assert_eq!(table().into_keys().collect::<Vec<_>>(), before.into_keys().collect::<Vec<_>>());
}
