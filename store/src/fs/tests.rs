use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn who_comes_while_another_is_ending_waits_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    let first = Root::open(&path).unwrap();
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| Root::open(&path));
        let open = || {
            let links = fs::read_dir("/proc/self/fd").unwrap();
            links.flatten().filter(|it| fs::read_link(it.path()).is_ok_and(|to| to == path.join("lock"))).count()
        };
        // It tries the lock at once, and tries on.
        while open() < 2 {}
        drop(first);
        second.join().unwrap()
    });
    second.unwrap();
}

#[test]
fn a_second_daemon_is_refused_by_the_number_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Root::open(dir.path()).unwrap();
    let error = Root::open(dir.path()).err().unwrap();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(error.message.contains(&format!("in use by process {}:", std::process::id())), "{error}");
    let clone = first.clone();
    drop(first);
    Root::open(dir.path()).err().unwrap();
    drop(clone);
    Root::open(dir.path()).unwrap();
}

#[test]
fn cve_2021_41103_nobody_else_can_enter_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let parts = crate::testing::Parts::at(&path).unwrap();
    let ns = crate::metadata::Namespace::default();
    parts.image(&ns, "a", b"layer", "chain").unwrap();
    let none = crate::testing::labels(&[]);
    parts.snapshots.prepare(&crate::testing::request(&ns, "key", "chain", &none)).unwrap();
    for below in [
        "",
        "content",
        "content/blobs",
        "content/blobs/sha256",
        "content/ingests",
        "snapshots",
        "snapshots/1",
        "snapshots/2",
    ] {
        assert_eq!(path.join(below).metadata().unwrap().mode() & 0o7777, 0o700, "{below}");
    }
    for below in ["lock", "metadata.db"] {
        assert_eq!(path.join(below).metadata().unwrap().mode() & 0o077, 0, "{below}");
    }
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return crate::testing::skip("giving a directory away needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
    assert_eq!(Root::open(dir.path()).err().unwrap().kind, Kind::PermissionDenied);
}

#[test]
fn a_tree_is_removed_whatever_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("stays"), "").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    fs::write(tree.join(".deep-1"), "taken").unwrap();
    // Deeper than a path can be long, and than descriptors may be open.
    let mut deep = open_dir(&tree).unwrap();
    for _ in 0..1500 {
        let (mode, flags) = (nix::sys::stat::Mode::S_IRWXU, OFlag::O_DIRECTORY);
        nix::sys::stat::mkdirat(&deep, "down", mode).unwrap();
        deep = nix::fcntl::openat(&deep, "down", flags, nix::sys::stat::Mode::empty()).unwrap().into();
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.try_exists().unwrap());
    assert!(outside.join("stays").try_exists().unwrap());
    remove_tree(&tree).unwrap();
    symlink(&outside, &tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(outside.join("stays").try_exists().unwrap());
}

#[test]
fn usage_counts_what_has_several_names_once_and_follows_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let empty = usage(&tree).unwrap();
    assert_eq!(empty.inodes, 1);
    fs::write(tree.join("a"), vec![1; 100_000]).unwrap();
    symlink("/usr", tree.join("link")).unwrap();
    let one = usage(&tree).unwrap();
    assert_eq!(one.inodes, 3);
    assert!((100_000..120_000).contains(&(one.size - empty.size)), "{one:?}");
    fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
    assert_eq!(usage(&tree).unwrap(), one);
}

/// By the system calls that publishing an image makes: a file before its name, a name before its row, trees before theirs, and rows before
/// anything is removed.
#[test]
fn everything_is_synced_before_what_says_that_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("calls");
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-y", "-s", "300", "-e", "trace=fsync,fdatasync,syncfs,rename", "-o"]).arg(&log);
    strace.arg(std::env::current_exe().unwrap());
    let test = "gc::tests::an_image_keeps_what_it_refers_to_and_its_end_frees_it";
    match strace.args([test, "--exact"]).stdout(std::process::Stdio::null()).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => return crate::testing::skip(&format!("strace: {error}")),
    }
    let log = fs::read_to_string(log).unwrap();
    let calls: Vec<&str> = log
        .lines()
        .filter_map(|line| {
            let found = |words: &[&str]| words.iter().all(|it| line.contains(it));
            Some(match () {
                () if found(&["rename(", "/data\", ", "content/blobs/sha256/"]) => "name",
                () if found(&["rename(", "/spare/rm-"]) => "remove",
                () if found(&["sync(", "/data>"]) => "bytes",
                () if found(&["sync(", "content/blobs/sha256>"]) => "directory",
                () if found(&["syncfs("]) => "trees",
                () if found(&["sync(", "metadata.db-wal>"]) => "rows",
                () => return None,
            })
        })
        .collect();
    // Before the first blob, the database is made; a row's sync may be followed by others.
    let first = calls.iter().position(|it| *it == "bytes").expect("a blob");
    let mut calls = calls[first..].to_vec();
    calls.dedup();
    let blob = ["bytes", "name", "directory", "rows"];
    let wanted = [&blob[..], &blob, &["trees", "rows"], &blob, &["remove", "rows"]].concat();
    assert_eq!(calls, wanted, "{log}");
}
