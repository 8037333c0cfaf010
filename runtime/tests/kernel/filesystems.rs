//! New filesystems, devices, masks: the default bundle, and what user namespaces and old kernels make different.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::makedev;
use serde_json::{Value, json};
use tare::plan::cgroup_view::{CgroupView, Hierarchy, Scope, Version};

use crate::Case;
use crate::world::{Node, Plan, World, bind, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("filesystems::the_default_bundle", the_default_bundle),
    ("filesystems::the_default_bundle_on_a_kernel_without_mount_setattr", the_default_bundle_on_an_old_kernel),
    ("filesystems::recursive_options_on_a_kernel_without_mount_setattr", recursive_options_on_an_old_kernel),
    ("filesystems::cgroup_hierarchies_are_bound_or_mounted", cgroup_hierarchies_are_bound),
    ("filesystems::cgroup_hierarchies_on_a_kernel_without_mount_setattr", cgroup_hierarchies_on_an_old_kernel),
    ("filesystems::cgroup_hierarchies_in_a_namespace", cgroup_hierarchies_in_a_namespace),
    ("filesystems::the_unified_hierarchy", the_unified_hierarchy),
    ("filesystems::a_user_namespace_gets_bound_devices", a_user_namespace_gets_bound_devices),
    ("filesystems::a_user_namespace_on_a_kernel_without_mount_setattr", a_user_namespace_on_an_old_kernel),
    ("filesystems::without_privilege_init_opens_the_sources", without_privilege_init_opens_the_sources),
    ("filesystems::a_tmpfs_starts_as_a_copy", a_tmpfs_starts_as_a_copy),
    ("filesystems::a_tmpfs_has_the_mode_of_what_it_covers", a_tmpfs_has_the_mode_of_what_it_covers),
    ("filesystems::other_types_are_mounted_by_their_options", other_types_are_mounted_by_their_options),
    ("filesystems::remount_changes_what_is_there", remount_changes_what_is_there),
    ("filesystems::unknown_types_and_options_are_named", unknown_types_and_options_are_named),
    ("filesystems::nodes_have_number_mode_and_owner", nodes_have_number_mode_and_owner),
    ("filesystems::standard_input_is_the_container_s_null", standard_input_is_the_container_s_null),
    ("filesystems::masks_hide_and_close", masks_hide_and_close),
    ("filesystems::sysctls_are_written_in_the_container_s_namespaces", sysctls_are_written),
];

/// What `tare spec` writes, without the cgroups.
fn default_mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ])
}

fn default_masks() -> Value {
    json!({
        "maskedPaths": ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/nothing"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    })
}

fn check_default_bundle() {
    let table = table();
    let expected = [
        ("/", "tmpfs", "ro"),
        ("/proc", "proc", "rw"),
        ("/dev", "tmpfs", "nosuid"),
        ("/dev/pts", "devpts", "noexec"),
        ("/dev/shm", "tmpfs", "nodev"),
        ("/dev/mqueue", "mqueue", "nosuid"),
        ("/sys", "sysfs", "ro"),
        ("/proc/keys", "tmpfs", "rw"),
        ("/proc/sys", "proc", "ro"),
    ];
    for (path, kind, option) in expected {
        let line = table.get(path).unwrap_or_else(|| panic!("{path} is not mounted: {table:#?}"));
        assert_eq!(line.kind, kind, "{path}");
        assert!(line.has(option), "{path}: {line:?}");
    }
    assert!(!table["/dev"].has("relatime"), "strictatime: {:?}", table["/dev"]);
    assert_eq!(table["/dev/shm"].source, "shm");
    for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("tty", 5, 0)] {
        let node = fs::metadata(format!("/dev/{name}")).unwrap();
        assert_eq!(node.rdev(), makedev(major, minor), "{name}");
        assert_eq!(node.mode() & 0o777, 0o666, "{name}");
    }
    assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
    assert_eq!(fs::read_link("/dev/fd").unwrap(), Path::new("/proc/self/fd"));
    assert_eq!(fs::metadata("/dev/shm").unwrap().mode() & 0o7777, 0o1777);
    assert!(fs::write("/new", "").is_err(), "the root is read-only");
    assert!(fs::write("/dev/new", "").is_ok());
    assert!(fs::read("/proc/keys").unwrap().is_empty());
    if Path::new("/sys/firmware").try_exists().unwrap() {
        assert_eq!(fs::read_dir("/sys/firmware").unwrap().count(), 0);
    }
    assert!(fs::write("/proc/sys/kernel/panic", "0").is_err());
}

fn default_plan(world: &World) -> Plan {
    let mut linux = default_masks();
    linux["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "network"}]);
    world.plan_with(json!({"mounts": default_mounts(), "linux": linux, "root": {"path": "root", "readonly": true}}))
}

fn enter_default(world: &World) {
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET).unwrap();
    default_plan(world).enter().unwrap();
    check_default_bundle();
}

fn the_default_bundle() {
    enter_default(&World::new());
}

/// Makes mount_setattr(2) what it is before Linux 5.12: unknown.
fn without_mount_setattr() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    let arch: TargetArch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(libc::SYS_mount_setattr, Vec::new())].into_iter().collect();
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn the_default_bundle_on_an_old_kernel() {
    let world = World::new();
    crate::world::change(&world.place, MsFlags::MS_SHARED);
    world.host_tree(&[("data/below", Node::Dir)]);
    // The host's namespace lives on with this, and so do the peers.
    let _host = fs::File::open("/proc/self/ns/mnt").unwrap();
    without_mount_setattr();
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET).unwrap();
    let mut mounts = default_mounts();
    mounts.as_array_mut().unwrap().push(bind(world.host("data"), "/data", &["ro", "nosuid", "noatime", "rprivate"]));
    let plan = world
        .plan_with(json!({"mounts": mounts, "linux": default_masks(), "root": {"path": "root", "readonly": true}}));
    plan.enter().unwrap();
    check_default_bundle();
    let data = &table()["/data"];
    assert!(data.has("ro") && data.has("nosuid") && data.has("noatime") && data.optional.is_empty(), "{data:?}");
    let root = &table()["/"];
    assert!(root.optional.starts_with("master:"), "the root hears the host, and is no peer: {root:?}");
}

fn recursive_options_on_an_old_kernel() {
    let world = World::new();
    world.host_tree(&[("data/below", Node::Dir)]);
    without_mount_setattr();
    let plan = world.plan(json!([bind(world.host("data"), "/data", &["rro"])]), json!({}));
    let error = plan.failure();
    assert!(error.ends_with("an option for all mounts below it (rro, rnosuid, ...) needs Linux 5.12"), "{error}");
}

fn cgroup_mount(options: &[&str]) -> Value {
    json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
}

/// The hierarchies of version 1 that this host has, as a directory name, options and the mount point.
fn legacy_hierarchies() -> Vec<Hierarchy> {
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

fn a_tmpfs_starts_as_a_copy() {
    let world = World::new();
    world.tree(&[
        ("var/a/b/file", Node::File("text")),
        ("var/link", Node::Link("a/b/file")),
        ("var/set-id", Node::File("")),
        ("var/empty", Node::Dir),
    ]);
    std::os::unix::fs::chown(world.root("var/set-id"), Some(7), Some(8)).unwrap();
    fs::set_permissions(world.root("var/set-id"), fs::Permissions::from_mode(0o4711)).unwrap();
    nix::unistd::mkfifo(&world.root("var/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    let tmpfs = json!({"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]});
    world.plan(json!([proc_mount(), tmpfs]), json!({})).enter().unwrap();
    assert_eq!(table()["/var"].kind, "tmpfs");
    assert!(table()["/var"].has("ro"));
    assert_eq!(fs::read_to_string("/var/a/b/file").unwrap(), "text");
    assert_eq!(fs::read_link("/var/link").unwrap(), Path::new("a/b/file"));
    let file = fs::metadata("/var/set-id").unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (7, 8, 0o4711));
    assert!(fs::metadata("/var/pipe").unwrap().file_type().is_fifo());
    assert!(fs::metadata("/var/empty").unwrap().is_dir());
}

fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let world = World::new();
    world.tree(&[("tmp", Node::Dir), ("other", Node::Dir)]);
    fs::set_permissions(world.root("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(world.root("other"), fs::Permissions::from_mode(0o1777)).unwrap();
    let tmpfs = |path: &str, options: &[&str]| json!({"destination": path, "type": "tmpfs", "options": options});
    let plan = world.plan(json!([tmpfs("/tmp", &[]), tmpfs("/other", &["mode=700"]), tmpfs("/new", &[])]), json!({}));
    plan.enter().unwrap();
    let mode = |path: &str| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!([mode("/tmp"), mode("/other"), mode("/new")], [0o1777, 0o700, 0o755]);
}

fn other_types_are_mounted_by_their_options() {
    let world = World::new();
    world.host_tree(&[("lower/file", Node::File("lower")), ("upper", Node::Dir), ("work", Node::Dir)]);
    let shown = |path: &str| world.host(path).display().to_string();
    let options = [
        format!("lowerdir={}", shown("lower")),
        format!("upperdir={}", shown("upper")),
        format!("workdir={}", shown("work")),
        "nosuid".into(),
        "rprivate".into(),
    ];
    let overlay = json!({"destination": "/merged", "type": "overlay", "source": "overlay", "options": options});
    world.plan(json!([proc_mount(), overlay]), json!({})).enter().unwrap();
    assert_eq!(fs::read_to_string("/merged/file").unwrap(), "lower");
    assert!(table()["/merged"].has("nosuid"));
}

fn remount_changes_what_is_there() {
    let world = World::new();
    let plan = world.plan(
        json!([
            proc_mount(),
            {"destination": "/t", "type": "tmpfs", "options": ["size=64k"]},
            {"destination": "/t", "type": "tmpfs", "options": ["remount", "ro", "noexec"]},
        ]),
        json!({}),
    );
    plan.enter().unwrap();
    let line = &table()["/t"];
    assert!(line.has("ro") && line.has("noexec"), "{line:?}");
}

fn unknown_types_and_options_are_named() {
    let world = World::new();
    let table = [
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["sise=1"]}),
            "mount tmpfs on /x: tmpfs refuses one of its options (sise=1)",
        ),
        (
            json!({"destination": "/x", "type": "nofs"}),
            "mount nofs on /x: the kernel has no filesystem of the type \"nofs\"",
        ),
        (
            json!({"destination": "/proc", "type": "tmpfs"}),
            "mount tmpfs on /proc: only a procfs may be mounted on /proc, not tmpfs",
        ),
    ];
    for (mount, sentence) in table {
        assert_eq!(world.plan(json!([mount]), json!({})).failure(), sentence);
    }
}

fn nodes_have_number_mode_and_owner() {
    let world = World::new();
    let devices = json!([
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/dev/block", "type": "b", "major": 7, "minor": 0},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o640},
    ]);
    let dev = json!({"destination": "/dev", "type": "tmpfs", "options": ["mode=755", "ro"]});
    world.plan(json!([proc_mount(), dev]), json!({"devices": devices})).enter().unwrap();
    let tun = fs::metadata("/dev/net/tun").unwrap();
    assert_eq!((tun.rdev(), tun.mode() & 0o7777, tun.uid(), tun.gid()), (makedev(10, 200), 0o600, 3, 4));
    assert!(fs::metadata("/dev/block").unwrap().file_type().is_block_device());
    assert_eq!(fs::metadata("/dev/pipe").unwrap().mode() & 0o7777, 0o640);
    // A read-only /dev is closed last.
    assert!(table()["/dev"].has("ro"));
}

fn standard_input_is_the_container_s_null() {
    use std::os::fd::AsFd;
    let world = World::new();
    let file = fs::OpenOptions::new().write(true).create_new(true).open(world.host("output")).unwrap();
    nix::unistd::dup2_stdout(&file).unwrap();
    let host = fs::File::open("/dev/null").unwrap();
    nix::unistd::dup2_stdin(&host).unwrap();
    world.plan(json!([]), json!({})).enter().unwrap();
    let device = |fd: std::os::fd::BorrowedFd<'_>| nix::sys::stat::fstat(fd).unwrap().st_dev;
    assert_eq!(device(std::io::stdin().as_fd()), fs::metadata("/dev/null").unwrap().dev());
    assert_ne!(device(host.as_fd()), fs::metadata("/dev/null").unwrap().dev());
    assert_eq!(device(std::io::stdout().as_fd()), device(file.as_fd()), "anything else is left as it is");
}

fn masks_hide_and_close() {
    let world = World::new();
    world.tree(&[
        ("secret/file", Node::File("x")),
        ("second/file", Node::File("x")),
        ("file", Node::File("secret")),
        ("closed/below", Node::Dir),
        ("closed/masked", Node::File("secret")),
        ("link", Node::Link("file-behind")),
        ("file-behind", Node::File("secret")),
    ]);
    let plan = world.plan(
        json!([proc_mount()]),
        json!({
            "maskedPaths": ["/secret", "/second", "/file", "/closed/masked", "/link", "/not/there"],
            "readonlyPaths": ["/closed", "/neither/there"],
        }),
    );
    plan.enter().unwrap();
    let table = table();
    assert_eq!(fs::read_dir("/secret").unwrap().count(), 0);
    assert_eq!(fs::read_dir("/second").unwrap().count(), 0);
    assert!(fs::write("/secret/new", "").is_err());
    assert!(table["/second"].has("ro") && table["/second"].has("noexec"));
    for path in ["/file", "/closed/masked", "/file-behind"] {
        assert!(fs::read(path).unwrap().is_empty(), "{path}");
    }
    assert!(table["/closed"].has("ro"));
    assert!(fs::create_dir("/closed/new").is_err());
    // Who may mount still cannot make the covers writable: the filesystem itself is read-only.
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(None::<&str>, "/secret", None::<&str>, again, None::<&str>).unwrap();
    let refused = fs::write("/secret/new", "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
}

fn sysctls_are_written() {
    let world = World::new();
    let spec = serde_json::from_value(json!({"ociVersion": "1.3.0", "linux": {
        "namespaces": [{"type": "ipc"}, {"type": "network"}, {"type": "uts"}],
        "sysctl": {"kernel.shmmni": "123", "net.ipv4.ip_forward": "1", "kernel.domainname": "example",
                   "net.ipv4.conf.lo/0.x": "1"},
    }}))
    .unwrap();
    let namespaces = tare::plan::namespaces::lower(&spec).unwrap();
    let sysctls = tare::plan::sysctl::lower(&spec, &namespaces).unwrap();
    let before = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    // A fake procfs in the image changes nothing: the writes go to the real one.
    world.tree(&[("proc/sys/kernel/shmmni", Node::File("fake")), ("proc/sys/net/ipv4/ip_forward", Node::File("fake"))]);
    let plan = world.plan(json!([]), json!({}));
    let procfs = tare::procfs::Procfs::host().unwrap();
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS).unwrap();
    plan.enter().unwrap();
    let (unknown, known): (Vec<_>, Vec<_>) = sysctls.into_iter().partition(|sysctl| sysctl.name.ends_with(".x"));
    tare::init::sysctl::apply(&procfs, &known).unwrap();
    let read = |path: &str| {
        let file = procfs.open(path, nix::fcntl::OFlag::O_RDONLY).unwrap();
        std::io::read_to_string(fs::File::from(file)).unwrap()
    };
    assert_eq!(read("sys/kernel/shmmni"), "123\n");
    assert_ne!(before, "123\n");
    assert_eq!(read("sys/net/ipv4/ip_forward"), "1\n");
    assert_eq!(read("sys/kernel/domainname"), "example\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), "fake");
    let error = tare::init::sysctl::apply(&procfs, &unknown).unwrap_err().to_string();
    assert_eq!(error, "set the sysctl net.ipv4.conf.lo/0.x to \"1\": the kernel has none of this name");
}
