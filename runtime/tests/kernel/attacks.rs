//! Hostile images and neighbours, played against the steps they attack. The names are those of the vulnerabilities.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use crate::Case;
use crate::world::{Node, World, bind, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("attacks::cve_2019_16884_a_mount_in_the_place_of_proc", cve_2019_16884),
    ("attacks::cve_2019_19921_proc_is_a_link", cve_2019_19921),
    ("attacks::cve_2019_18837_a_destination_that_leads_out", cve_2019_18837),
    ("attacks::cve_2021_30465_a_destination_that_is_swapped", cve_2021_30465),
    ("attacks::cve_2024_45310_a_directory_swapped_while_it_is_made", cve_2024_45310),
    ("attacks::cve_2025_31133_a_dev_null_that_is_not_one", cve_2025_31133),
    ("attacks::cve_2026_41579_dev_is_a_link", cve_2026_41579),
    ("attacks::a_dev_with_other_files_is_left_as_it_is", a_dev_with_other_files),
];

fn cve_2019_16884() {
    let world = World::new();
    world.host_tree(&[("fake/self/attr/exec", Node::File("")), ("one", Node::File("cpu"))]);
    world.tree(&[
        ("proc", Node::Dir),
        ("by-link", Node::Link("/proc")),
        ("by-file", Node::Link("proc/sys/kernel/panic")),
    ]);
    let refused = [
        (vec![bind(world.host("fake"), "/proc", &[])], "only a procfs may be mounted on /proc"),
        (vec![proc_mount(), bind(world.host("fake"), "/proc", &[])], "only a procfs may be mounted on /proc"),
        (vec![proc_mount(), bind(world.host("fake"), "/proc/self/attr", &[])], ""),
        (vec![proc_mount(), bind(world.host("fake"), "/proc/sys", &[])], "the destination is inside procfs"),
        (vec![proc_mount(), bind(world.host("fake"), "/by-link", &[])], "the destination is inside procfs"),
        (vec![proc_mount(), bind(world.host("fake"), "/by-link/sys", &[])], "the destination is inside procfs"),
        (vec![proc_mount(), bind(world.host("one"), "/by-file", &[])], "the destination is inside procfs"),
        (vec![json!({"destination": "/proc/sys", "type": "tmpfs"})], "the destination is inside procfs"),
        (vec![proc_mount(), json!({"destination": "/proc/sys", "type": "proc"})], "the destination is inside procfs"),
        (vec![proc_mount(), json!({"destination": "/by-link", "type": "cgroup"})], "the destination is inside procfs"),
        (vec![json!({"destination": "/proc", "type": "cgroup"})], "only a procfs may be mounted on /proc"),
        (vec![proc_mount(), json!({"destination": "/by-link", "type": "tmpfs"})], "the destination is inside procfs"),
    ];
    for (mounts, sentence) in refused {
        let error = world.plan(json!(mounts), json!({})).failure();
        assert!(error.contains(sentence), "{error}");
    }
    // What lxcfs covers is fine.
    let plan = world.plan(json!([proc_mount(), bind(world.host("one"), "/proc/cpuinfo", &[])]), json!({}));
    plan.enter().unwrap();
    assert_eq!(fs::read_to_string("/proc/cpuinfo").unwrap(), "cpu");
}

fn cve_2019_19921() {
    for (link, kind) in [("tmp", "proc"), ("/tmp", "proc"), ("nowhere", "proc"), ("tmp", "sysfs")] {
        let world = World::new();
        let path = if kind == "proc" { "proc" } else { "sys" };
        world.tree(&[("tmp", Node::Dir), (path, Node::Link(link))]);
        let plan = world.plan(json!([{"destination": format!("/{path}"), "type": kind, "source": kind}]), json!({}));
        let error = plan.failure();
        let sentence = "the image has a symbolic link there: must be mounted on ordinary directory";
        assert!(error.ends_with(sentence), "{kind} {link}: {error}");
        assert!(!world.root("nowhere").try_exists().unwrap());
    }
}

fn cve_2019_18837() {
    let world = World::new();
    world.host_tree(&[("data", Node::Dir), ("victim", Node::Dir), ("victim/file", Node::File("host's"))]);
    let out = format!("{}{}", "../".repeat(40), world.host("victim").strip_prefix("/").unwrap().display());
    let absolute = world.host("victim").display().to_string();
    world.tree(&[("up", Node::Link(&out)), ("absolute", Node::Link(&absolute))]);
    let plan = world.plan(
        json!([proc_mount(), bind(world.host("data"), "/up", &[]), bind(world.host("data"), "/absolute/new", &[])]),
        json!({}),
    );
    plan.enter().unwrap();
    // They exist inside now, as the same paths; the host's directory is what it was.
    let mounted: Vec<String> = table().into_keys().collect();
    assert!(mounted.contains(&absolute), "{mounted:?}");
    assert!(mounted.contains(&format!("{absolute}/new")), "{mounted:?}");
}

/// Swaps two names again and again until told to stop.
fn swapping(one: &Path, other: &Path) -> impl FnOnce() + use<> {
    let stop = Arc::new(AtomicBool::new(false));
    let (one, other, told) = (one.to_owned(), other.to_owned(), Arc::clone(&stop));
    #[allow(clippy::disallowed_methods)]
    let thread = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
        }
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}

/// A neighbour that shares the volume swaps a directory in it for a link to the host's root while it is mounted on.
fn cve_2021_30465() {
    let world = World::new();
    world.host_tree(&[("data/file", Node::File("data")), ("volume/dir/sub", Node::Dir), ("victim/sub", Node::Dir)]);
    symlink(world.host("victim"), world.host("volume/link")).unwrap();
    let stop = swapping(&world.host("volume/dir"), &world.host("volume/link"));
    let mut landed = 0;
    for _ in 0..200 {
        let mut mounts = vec![bind(world.host("volume"), "/volume", &[])];
        mounts.extend((0..10).map(|_| bind(world.host("data"), "/volume/dir/sub", &[])));
        let plan = world.plan(json!(mounts), json!({}));
        let host = fs::File::open("/proc/self/ns/mnt").unwrap();
        let mounted = plan.mounted();
        // Still in init's namespace and before the switch, where names lead to the copy of the host's tree.
        assert!(!world.host("victim/sub/file").try_exists().unwrap(), "a mount landed outside of the root");
        landed += usize::from(mounted.is_ok());
        drop(mounted);
        nix::sched::setns(&host, nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    }
    stop();
    println!("{landed} of 200 were set up");
}

/// As before, for directories that have yet to be made.
fn cve_2024_45310() {
    let world = World::new();
    world.host_tree(&[("data", Node::Dir), ("volume/dir", Node::Dir), ("victim", Node::Dir)]);
    let victim = world.host("victim");
    symlink(&victim, world.host("volume/link")).unwrap();
    let stop = swapping(&world.host("volume/dir"), &world.host("volume/link"));
    for round in 0..200 {
        let mut mounts = vec![bind(world.host("volume"), "/volume", &[])];
        mounts.extend((0..5).map(|n| bind(world.host("data"), &format!("/volume/dir/{round}-{n}/a/b"), &[])));
        let host = fs::File::open("/proc/self/ns/mnt").unwrap();
        // It may fail, for what it finds is not what it made; it must not make anything out there.
        let _ = world.plan(json!(mounts), json!({})).mounted();
        nix::sched::setns(&host, nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "a directory was made on the host");
    }
    stop();
}

fn cve_2025_31133() {
    // The container has a /dev from outside, so that no nodes are made; what its null is, a neighbour decides.
    for null in [Node::Link("/victim"), Node::Link("zero"), Node::File("x")] {
        let world = World::new();
        world.tree(&[("secret", Node::File("secret")), ("victim", Node::File("x"))]);
        world.host_tree(&[("dev/null", null)]);
        let plan = world.plan(
            json!([proc_mount(), bind(world.host("dev"), "/dev", &[])]),
            json!({"maskedPaths": ["/secret", "/proc/keys"]}),
        );
        let root = plan.mounted().unwrap();
        let error = plan.finish(root).unwrap_err().to_string();
        let sentence = "mask /secret: /dev/null is not the null device (1:3), so no file can be masked with it";
        assert_eq!(error, sentence);
    }
    // With nodes of its own, the container's /dev/null is the one that was made, whatever is at its name by then.
    let world = World::new();
    world.tree(&[("secret", Node::File("secret")), ("dev", Node::Dir)]);
    let plan = world.plan(json!([proc_mount()]), json!({"maskedPaths": ["/secret"]}));
    let root = plan.mounted().unwrap();
    fs::rename(world.root("dev/null"), world.root("dev/moved")).unwrap();
    symlink("/victim", world.root("dev/null")).unwrap();
    plan.finish(root).unwrap();
    assert!(fs::metadata("/secret").unwrap().file_type().is_char_device());
    assert!(fs::read("/secret").unwrap().is_empty());
}

fn cve_2026_41579() {
    for link in ["/volume", "volume", "/", "../../../../../../dev"] {
        let world = World::new();
        world.host_tree(&[("nodes/ptmx", Node::File("host's")), ("nodes/null", Node::File("host's"))]);
        world.tree(&[("dev", Node::Link(link)), ("ptmx", Node::File("image's"))]);
        let plan = world.plan(json!([bind(world.host("nodes"), "/volume", &[])]), json!({}));
        let error = plan.failure();
        assert!(error.contains("the image has a link or file there"), "{link}: {error}");
        assert_eq!(fs::read_to_string(world.host("nodes/ptmx")).unwrap(), "host's");
        assert_eq!(fs::read_dir(world.host("nodes")).unwrap().count(), 2);
        assert_eq!(fs::read_to_string(world.root("ptmx")).unwrap(), "image's");
    }
}

fn a_dev_with_other_files() {
    let world = World::new();
    world.tree(&[("dev/null", Node::File("not the device"))]);
    let error = world.plan(json!([]), json!({})).failure();
    let sentence = "make the device /dev/null: the image has something else there: remove it, or mount a tmpfs on /dev";
    assert_eq!(error, sentence);
    assert_eq!(fs::read_to_string(world.root("dev/null")).unwrap(), "not the device");
}
