use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::*;
use crate::error::Kind as Failure;
use crate::fault::fail_at;
use crate::metadata::Publication;
use crate::testing::{Parts, labels, request, skip};

fn ns() -> Namespace {
    Namespace::default()
}

fn it_is_empty(parts: &Parts) {
    parts.snapshots.trees().flush();
    assert_eq!(parts.list("snapshots"), Vec::<String>::new());
}

/// A committed snapshot of the default snapshotter, with one file.
fn committed(parts: &Parts, name: &str, parent: &str) {
    let (it, none) = (&parts.snapshots, labels(&[]));
    it.prepare(&request(&ns(), &format!("active-{name}"), parent, &none)).unwrap();
    let row = it.row(&ns(), Driver::Overlay, &format!("active-{name}")).unwrap();
    fs::write(it.trees().fs(row.tree).join(name), name).unwrap();
    it.commit(name, &request(&ns(), &format!("active-{name}"), "", &none)).unwrap();
}

#[test]
fn snapshots_behave_as_containerds() {
    let parts = Parts::new();
    let (it, none) = (&parts.snapshots, labels(&[]));
    let fails = |result: Result<Vec<Mount>>| result.unwrap_err().kind;
    committed(&parts, "base", "");
    committed(&parts, "top", "base");
    it.prepare(&request(&ns(), "a", "top", &labels(&[("k", "v")]))).unwrap();
    it.view(&request(&ns(), "v", "top", &none)).unwrap();
    // Keys and parents.
    assert_eq!(fails(it.prepare(&request(&ns(), "a", "top", &none))), Failure::AlreadyExists);
    assert_eq!(fails(it.view(&request(&ns(), "top", "", &none))), Failure::AlreadyExists);
    assert_eq!(fails(it.prepare(&request(&ns(), "b", "missing", &none))), Failure::NotFound);
    assert_eq!(fails(it.prepare(&request(&ns(), "b", "a", &none))), Failure::InvalidArgument);
    assert_eq!(fails(it.prepare(&request(&ns(), "", "", &none))), Failure::InvalidArgument);
    assert_eq!(fails(it.prepare(&request(&"other".parse().unwrap(), "b", "top", &none))), Failure::NotFound);
    assert_eq!(fails(it.mounts(&ns(), "", "top")), Failure::FailedPrecondition);
    assert_eq!(fails(it.mounts(&ns(), "", "missing")), Failure::NotFound);
    assert_eq!(fails(it.mounts(&ns(), "zfs", "a")), Failure::NotFound);
    // What it is.
    let info = it.stat(&ns(), OVERLAYFS, "a").unwrap();
    assert_eq!((info.kind, info.parent.as_deref(), info.labels), (Kind::Active, Some("top"), labels(&[("k", "v")])));
    let names = |filter: &str| -> Vec<String> {
        it.list(&ns(), "", &[filter.to_owned()]).unwrap().into_iter().map(|it| it.name).collect()
    };
    assert_eq!(names("kind==committed"), ["base", "top"]);
    assert_eq!(names("parent==top"), ["a", "v"]);
    assert_eq!(names("labels.k"), ["a"]);
    let changed = it.update(&ns(), "", "a", &labels(&[("k", "w")]), &["labels.k".into()]).unwrap();
    assert_eq!(changed.labels, labels(&[("k", "w")]));
    assert_eq!(it.update(&ns(), "", "a", &none, &["parent".into()]).unwrap_err().kind, Failure::InvalidArgument);
    // Commits.
    let commit =
        |name: &str, key: &str, parent: &str| it.commit(name, &request(&ns(), key, parent, &none)).unwrap_err().kind;
    assert_eq!(commit("top", "a", ""), Failure::AlreadyExists);
    assert_eq!(commit("new", "v", ""), Failure::FailedPrecondition);
    assert_eq!(commit("new", "missing", ""), Failure::NotFound);
    assert_eq!(commit("new", "a", "base"), Failure::InvalidArgument);
    let long = labels(&[("c", &"d".repeat(5000))]);
    assert_eq!(it.commit("new", &request(&ns(), "a", "top", &long)).unwrap_err().kind, Failure::InvalidArgument);
    it.commit("new", &request(&ns(), "a", "top", &labels(&[("c", "d")]))).unwrap();
    assert_eq!(it.stat(&ns(), "", "a").unwrap_err().kind, Failure::NotFound);
    assert_eq!(it.stat(&ns(), "", "new").unwrap().labels, labels(&[("c", "d")]));
    // A parent can be given at the end.
    it.prepare(&request(&ns(), "late", "", &none)).unwrap();
    it.commit("late-new", &request(&ns(), "late", "base", &none)).unwrap();
    assert_eq!(it.stat(&ns(), "", "late-new").unwrap().parent.as_deref(), Some("base"));
    // Removals.
    assert_eq!(it.remove(&ns(), "", "base").unwrap_err().kind, Failure::FailedPrecondition);
    assert_eq!(it.remove(&ns(), "", "missing").unwrap_err().kind, Failure::NotFound);
    for name in ["v", "new", "top", "late-new", "base"] {
        it.remove(&ns(), "", name).unwrap();
    }
    it_is_empty(&parts);
}

#[test]
fn mounts_are_containerds() {
    let parts = Parts::new();
    let (it, none) = (&parts.snapshots, labels(&[]));
    let root = parts.path.join("snapshots");
    let root = root.to_str().unwrap();
    let bind = |number: u32, mode: &str| {
        let options = vec![mode.to_owned(), "rbind".to_owned()];
        vec![Mount { kind: "bind".into(), source: format!("{root}/{number}/fs"), target: String::new(), options }]
    };
    let words = |mounts: Vec<Mount>| mounts.into_iter().next().unwrap().options;
    assert_eq!(it.prepare(&request(&ns(), "one", "", &none)).unwrap(), bind(1, "rw"));
    assert_eq!(it.view(&request(&ns(), "empty", "", &none)).unwrap(), bind(2, "ro"));
    it.commit("base", &request(&ns(), "one", "", &none)).unwrap();
    assert_eq!(it.view(&request(&ns(), "view", "base", &none)).unwrap(), bind(1, "ro"));
    it.prepare(&request(&ns(), "two", "base", &none)).unwrap();
    let two = it.mounts(&ns(), "", "two").unwrap();
    assert_eq!((two[0].kind.as_str(), two[0].source.as_str()), ("overlay", "overlay"));
    let wanted = [format!("workdir={root}/4/work"), format!("upperdir={root}/4/fs"), format!("lowerdir={root}/1/fs")];
    assert_eq!(two[0].options[..3], wanted);
    it.commit("top", &request(&ns(), "two", "", &none)).unwrap();
    let view = words(it.view(&request(&ns(), "upper", "top", &none)).unwrap());
    assert_eq!(view[0], format!("lowerdir={root}/4/fs:{root}/1/fs"));
    let mapped = labels(&[(ids::UIDS, "0:100000:65536"), (ids::GIDS, "0:200000:65536")]);
    if !nix::unistd::geteuid().is_root() {
        return skip("giving a directory to another user needs root");
    }
    let options = words(it.prepare(&request(&ns(), "mapped", "top", &mapped)).unwrap());
    assert_eq!(options[..2], ["uidmap=0:100000:65536", "gidmap=0:200000:65536"]);
    let upper = fs::metadata(options[3].strip_prefix("upperdir=").unwrap()).unwrap();
    assert_eq!((upper.uid(), upper.gid()), (100_000, 200_000));
    // The layers below stay whose they are.
    assert_eq!(fs::metadata(format!("{root}/4/fs")).unwrap().uid(), 0);
}

#[test]
fn the_root_directory_of_a_snapshot_looks_as_the_one_below() {
    let parts = Parts::new();
    committed(&parts, "base", "");
    let it = &parts.snapshots;
    let below = it.trees().fs(it.row(&ns(), Driver::Overlay, "base").unwrap().tree);
    fs::set_permissions(&below, fs::Permissions::from_mode(0o1751)).unwrap();
    it.prepare(&request(&ns(), "a", "base", &labels(&[]))).unwrap();
    let own = it.trees().fs(it.row(&ns(), Driver::Overlay, "a").unwrap().tree);
    assert_eq!(fs::metadata(own).unwrap().mode() & 0o7777, 0o1751);
}

#[test]
fn a_target_that_is_there_is_said_to_be_and_leased() {
    let parts = Parts::new();
    committed(&parts, "chain", "");
    let ns = ns();
    let wanted = labels(&[("containerd.io/snapshot.ref", "chain")]);
    parts.metadata.create_lease(&ns, "l", &labels(&[])).unwrap();
    let asked = changes::Request { lease: Some("l"), ..request(&ns, "extract", "", &wanted) };
    assert_eq!(parts.snapshots.prepare(&asked).unwrap_err().kind, Failure::AlreadyExists);
    assert_eq!(parts.metadata.resources(&ns, "l").unwrap()[0].id, "chain");
    let other = labels(&[("containerd.io/snapshot.ref", "elsewhere")]);
    parts.snapshots.prepare(&request(&ns, "extract", "", &other)).unwrap();
}

#[test]
fn verified_layers_are_shared_by_namespaces_and_others_are_not() {
    let parts = Parts::new();
    let other: Namespace = "other".parse().unwrap();
    let lease = parts.metadata.hold(&ns(), "pull").unwrap();
    let chain = vec![parts.extracted(&ns(), "one", None), parts.extracted(&ns(), "two", Some("one"))];
    assert!(!parts.snapshots.hold(&ns(), "", "one", None).unwrap());
    let layers = parts.snapshots.sync(chain).unwrap();
    let publication = Publication { ns: &ns(), lease: Some(&lease), layers, blobs: Vec::new(), images: Vec::new() };
    parts.metadata.publish(publication).unwrap();
    committed(&parts, "client", "two");
    let trees = parts.list("snapshots");
    assert!(parts.snapshots.hold(&other, "", "two", None).unwrap());
    assert!(!parts.snapshots.hold(&other, "", "client", None).unwrap());
    assert_eq!(parts.snapshots.stat(&other, "", "two").unwrap().parent.as_deref(), Some("one"));
    parts.snapshots.remove(&ns(), "", "client").unwrap();
    parts.snapshots.remove(&ns(), "", "two").unwrap();
    parts.snapshots.remove(&ns(), "", "one").unwrap();
    // The other namespace still has them.
    parts.snapshots.trees().flush();
    assert_eq!(parts.list("snapshots"), trees[..2]);
    parts.snapshots.prepare(&request(&other, "a", "two", &labels(&[]))).unwrap();
    let lowers = parts.snapshots.lowers(&other, "", "two").unwrap();
    assert_eq!(lowers.len(), 2);
    // The same layer twice: the second is dropped.
    let again = parts.snapshots.sync(vec![parts.extracted(&other, "one", None)]).unwrap();
    let publication = Publication { ns: &other, lease: None, layers: again, blobs: Vec::new(), images: Vec::new() };
    parts.metadata.publish(publication).unwrap();
    parts.snapshots.trees().flush();
    assert_eq!(parts.list("snapshots").len(), 3);
}

#[test]
fn what_is_not_published_is_removed_and_what_fails_leaves_nothing() {
    let parts = Parts::new();
    drop(parts.extracted(&ns(), "dropped", None));
    drop(parts.snapshots.sync(vec![parts.extracted(&ns(), "synced", None)]).unwrap());
    let layers = parts.snapshots.sync(vec![parts.extracted(&ns(), "orphan", Some("missing"))]).unwrap();
    let publish = |layers, point| {
        let armed = (!str::is_empty(point)).then(|| fail_at(point));
        let publication = Publication { ns: &ns(), lease: None, layers, blobs: Vec::new(), images: Vec::new() };
        let error = parts.metadata.publish(publication).unwrap_err();
        drop(armed);
        error.kind
    };
    assert_eq!(publish(layers, ""), Failure::NotFound);
    for point in ["publish.begin", "publish.before_commit"] {
        let layers = parts.snapshots.sync(vec![parts.extracted(&ns(), "unlucky", None)]).unwrap();
        publish(layers, point);
    }
    let armed = fail_at("snapshots.prepare.made");
    parts.snapshots.prepare(&request(&ns(), "a", "", &labels(&[]))).unwrap_err();
    drop(armed);
    it_is_empty(&parts);
    assert!(parts.snapshots.list(&ns(), "", &[]).unwrap().is_empty());
}

#[test]
fn what_a_crash_left_is_swept_at_the_start_and_by_cleanup() {
    let parts = Parts::new();
    committed(&parts, "base", "");
    parts.snapshots.prepare(&request(&ns(), "a", "base", &labels(&[]))).unwrap();
    parts.snapshots.prepare(&request(&ns(), "lost", "base", &labels(&[]))).unwrap();
    let running = parts.snapshots.extraction(&ns(), "", "x", None).unwrap();
    fs::create_dir_all(parts.path.join("snapshots/77/fs")).unwrap();
    parts.snapshots.cleanup().unwrap();
    assert_eq!(parts.list("snapshots"), ["1", "2", "3", "4"], "what runs stays");
    drop(running);
    for left in ["88/fs", "rm-5/fs", "new-1"] {
        fs::create_dir_all(parts.path.join("snapshots").join(left)).unwrap();
    }
    fs::create_dir_all(parts.path.join("spare/rm-2/fs/full")).unwrap();
    fs::create_dir_all(parts.path.join("spare/7/1/fs")).unwrap();
    // A power cut kept the row, and lost the directory.
    fs::remove_dir_all(parts.path.join("snapshots/3")).unwrap();
    let parts = parts.again();
    assert_eq!(parts.list("snapshots"), ["1", "2"]);
    assert_eq!(parts.snapshots.stat(&ns(), "", "lost").unwrap_err().kind, Failure::NotFound);
    // No number is given twice.
    parts.snapshots.prepare(&request(&ns(), "b", "", &labels(&[]))).unwrap();
    assert_eq!(parts.list("snapshots"), ["1", "2", "3"]);
    // Nothing stands in the way of a removal.
    parts.snapshots.remove(&ns(), "", "a").unwrap();
    parts.snapshots.cleanup().unwrap();
    assert_eq!(parts.list("snapshots"), ["1", "3"]);
    for left in ["spare/7", "spare/rm-2/fs/full"] {
        assert!(!parts.path.join(left).try_exists().unwrap(), "{left}");
    }
}

#[test]
fn what_comes_and_goes_leaves_no_more_than_waits_for_the_next() {
    let parts = Parts::new();
    for _ in 0..500 {
        parts.snapshots.prepare(&request(&ns(), "a", "", &labels(&[]))).unwrap();
        parts.snapshots.remove(&ns(), "", "a").unwrap();
    }
    parts.snapshots.cleanup().unwrap();
    let left = parts.list("spare").iter().filter(|it| it.starts_with("rm-")).count();
    assert!(left <= 130, "{left} trees");
}

#[test]
fn a_mount_that_comes_back_opens_only_what_its_namespace_sees() {
    let parts = Parts::new();
    committed(&parts, "base", "");
    let path = parts.path.join("snapshots/1/fs");
    assert_eq!(parts.snapshots.tree_at(&ns(), &path).unwrap().0, Driver::Overlay);
    let at = |ns: &Namespace, path: &Path| parts.snapshots.tree_at(ns, path).unwrap_err().kind;
    assert_eq!(at(&"other".parse().unwrap(), &path), Failure::InvalidArgument);
    for wrong in [
        "snapshots/1",
        "snapshots/1/work",
        "snapshots/01/fs",
        "snapshots/2/fs",
        "snapshots/1/fs/..",
        "snapshots/1/fs/",
        "content",
    ] {
        assert_eq!(at(&ns(), &parts.path.join(wrong)), Failure::InvalidArgument, "{wrong}");
    }
    assert_eq!(at(&ns(), Path::new("/etc")), Failure::InvalidArgument);
}

#[test]
fn usage_is_measured_while_it_changes_and_kept_once_it_does_not() {
    let parts = Parts::new();
    let it = &parts.snapshots;
    it.prepare(&request(&ns(), "a", "", &labels(&[]))).unwrap();
    let before = it.usage(&ns(), "", "a").unwrap();
    fs::write(parts.path.join("snapshots/1/fs/file"), vec![1; 40_000]).unwrap();
    let after = it.usage(&ns(), "", "a").unwrap();
    assert_eq!(after.inodes, before.inodes + 1);
    assert!(after.size >= before.size + 40_000);
    it.commit("c", &request(&ns(), "a", "", &labels(&[]))).unwrap();
    fs::remove_file(parts.path.join("snapshots/1/fs/file")).unwrap();
    assert_eq!(it.usage(&ns(), "", "c").unwrap(), after);
}

#[test]
fn native_snapshots_are_copies_with_everything() {
    let parts = Parts::new();
    let (it, none) = (&parts.snapshots, labels(&[]));
    let native = |key, parent| changes::Request { snapshotter: NATIVE, ..request(&DEFAULT, key, parent, &none) };
    let one = it.prepare(&native("one", "")).unwrap();
    let source = Path::new(&one[0].source).to_owned();
    fill(&source);
    it.commit("base", &native("one", "")).unwrap();
    let two = it.prepare(&native("two", "base")).unwrap();
    let copied = Path::new(&two[0].source);
    assert_eq!((two[0].kind.as_str(), &two[0].options[0]), ("bind", &"rw".to_owned()));
    assert_ne!(copied, source);
    assert_eq!(listing(copied), listing(&source));
    assert_eq!(
        fs::metadata(copied.join("hard1")).unwrap().ino(),
        fs::metadata(copied.join("dir/hard2")).unwrap().ino()
    );
    assert!(fs::metadata(copied.join("sparse")).unwrap().blocks() < 1000);
    // A view needs no copy.
    assert_eq!(it.view(&native("view", "base")).unwrap()[0].source, one[0].source);
    // The two snapshotters do not see each other's.
    assert_eq!(it.stat(&ns(), OVERLAYFS, "base").unwrap_err().kind, Failure::NotFound);
    // Each extraction begins with a copy.
    let extraction = it.extraction(&ns(), NATIVE, "chain", Some("base")).unwrap();
    use std::os::fd::AsFd;
    let lowers = it.lowers(&ns(), NATIVE, "base").unwrap();
    extraction.fill(lowers[0].as_fd()).unwrap();
    assert_eq!(listing(&extraction.path()), listing(&source));
}

static DEFAULT: std::sync::LazyLock<Namespace> = std::sync::LazyLock::new(Namespace::default);

/// Files of every kind that this user may make.
fn fill(root: &Path) {
    use nix::sys::stat::{Mode, SFlag, mknod};
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("hard1"), "linked").unwrap();
    fs::hard_link(root.join("hard1"), root.join("dir/hard2")).unwrap();
    std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
    let sparse = fs::OpenOptions::new().write(true).create_new(true).open(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 5 << 20).unwrap();
    sparse.set_len(10 << 20).unwrap();
    mknod(&root.join("fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    if nix::unistd::geteuid().is_root() {
        mknod(&root.join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, nix::sys::stat::makedev(1, 3)).unwrap();
        chown(root.join("dir"), Some(1000), Some(1001)).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.join("hard1"), "trusted.overlay.opaque", b"y", flags).unwrap();
        rustix::fs::lsetxattr(root.join("link"), "trusted.of-a-link", b"z", flags).unwrap();
    }
    fs::set_permissions(root.join("hard1"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
}

/// All that a tree is, one line a file.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let stat = path.symlink_metadata().unwrap();
        let mut names = vec![0_u8; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names).unwrap();
        let content = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let target = fs::read_link(&path).ok();
        let line = format!(
            "{:?} {:o} {} {} {} {} {} {}.{} {:?} {:?} {}",
            path.strip_prefix(root).unwrap(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.rdev(),
            stat.nlink(),
            if stat.is_dir() { 0 } else { stat.size() },
            stat.mtime(),
            stat.mtime_nsec(),
            String::from_utf8_lossy(&names[..length]),
            target,
            crate::content::digest::Digest::of(&content),
        );
        lines.push(line);
        if stat.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
        }
    }
    lines.sort();
    lines
}
