//! Devices, masks and kernel parameters.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::makedev;
use serde_json::json;

use crate::Case;
use crate::world::{Node, World, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("devices::nodes_have_number_mode_and_owner", nodes_have_number_mode_and_owner),
    ("devices::standard_input_is_the_container_s_null", standard_input_is_the_container_s_null),
    ("devices::masks_hide_and_close", masks_hide_and_close),
    ("devices::sysctls_are_written_in_the_container_s_namespaces", sysctls_are_written),
];

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
