//! New filesystems: the default bundle, options, and what old kernels make different.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::makedev;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{Node, Plan, World, bind, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("filesystems::the_default_bundle", the_default_bundle),
    ("filesystems::the_default_bundle_on_a_kernel_without_mount_setattr", the_default_bundle_on_an_old_kernel),
    ("filesystems::recursive_options_on_a_kernel_without_mount_setattr", recursive_options_on_an_old_kernel),
    ("filesystems::a_tmpfs_starts_as_a_copy", a_tmpfs_starts_as_a_copy),
    ("filesystems::a_tmpfs_has_the_mode_of_what_it_covers", a_tmpfs_has_the_mode_of_what_it_covers),
    ("filesystems::other_types_are_mounted_by_their_options", other_types_are_mounted_by_their_options),
    ("filesystems::remount_changes_what_is_there", remount_changes_what_is_there),
    ("filesystems::unknown_types_and_options_are_named", unknown_types_and_options_are_named),
];

/// What `tare spec` writes, without the cgroups.
pub(crate) fn default_mounts() -> Value {
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
pub(crate) fn without_mount_setattr() {
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
    world.host_tree(&[
        ("lower/file", Node::File("lower")),
        ("upper", Node::Dir),
        ("work", Node::Dir),
        ("probe", Node::Dir),
    ]);
    let shown = |path: &str| world.host(path).display().to_string();
    let options = [
        format!("lowerdir={}", shown("lower")),
        format!("upperdir={}", shown("upper")),
        format!("workdir={}", shown("work")),
        "nosuid".into(),
        "rprivate".into(),
    ];
    // The module is loaded at need, so that only a mount tells whether this kernel has it.
    let data = options[..3].join(",");
    match mount(Some("overlay"), &world.host("probe"), Some("overlay"), MsFlags::empty(), Some(data.as_str())) {
        Err(Errno::ENODEV) => crate::skip!("the kernel has no overlay"),
        probed => probed.expect("an overlay of the host"),
    }
    umount(&world.host("probe")).unwrap();
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
