//! Hosts that are not as they should be, and callers that come all at once.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::registry::Registry;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Store, layer, noise, publish};

/// A small file system for one test.
struct Small(tempfile::TempDir);

impl Small {
    fn of_megabytes(size: u32) -> Self {
        Self::on(tempfile::tempdir().unwrap(), size)
    }

    fn on(directory: tempfile::TempDir, size: u32) -> Self {
        let options = format!("size={size}m");
        mount(Some("small"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, flags: MsFlags, options: Option<&str>) {
        mount(None::<&str>, self.path(), None::<&str>, MsFlags::MS_REMOUNT | flags, options).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

/// What to do about a full disk.
const REMEDY: &str =
    "make room on that disk (the store's own: `tare-store rmi` images, then `tare-store gc`) and try again";

fn small_image(registry: &Registry) -> String {
    publish(registry, "small", "1", &[layer(&[("etc/small", b"small")])])
}

/// A store on a disk of 12 megabytes with one image (its name, and what its snapshots stand on) and the snapshot `work`, that is written to there.
fn with_work() -> (Small, Store, [String; 2], PathBuf) {
    let registry = Registry::start();
    let small = small_image(&registry);
    let disk = Small::of_megabytes(12);
    let mut store = Store::at(&disk.path().join("root"));
    store.start();
    store.run(&["pull", &small]);
    let chain = store.json(&["inspect", &small])["chainId"].as_str().unwrap().to_owned();
    let upper = integration::store::upper(&store.json(&["snapshot", "prepare", "work", &chain]));
    (disk, store, [small, chain], upper)
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let registry = Registry::start();
    let small = small_image(&registry);
    let big = publish(
        &registry,
        "big",
        "1",
        &[layer(&[("first", &noise(1, 3 << 20))]), layer(&[("data", &noise(5, 9 << 20))])],
    );
    let disk = Small::of_megabytes(12);
    let mut store = Store::at(&disk.path().join("root"));
    store.start();
    store.run(&["pull", &small]);
    let error = store.fails(&["pull", "--quiet", &big]);
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    assert!(error.contains("No space left on device") && error.contains("big"), "{error}");
    assert_eq!(error.matches(REMEDY).count(), 1, "{error}");
    assert!(store.images().iter().all(|it| !it.contains("big")));
    store.is_sound().unwrap();
    store.tree(&small);
    // Collection must work on a full disk, and more room must be enough.
    store.run(&["gc"]);
    disk.remount(MsFlags::empty(), Some("size=64m"));
    store.run(&["pull", &big]);
    store.is_sound().unwrap();
}

/// A container's files can fill the disk on which their own snapshot is recorded, to the last byte, and for as many calls as anybody makes.
#[test]
fn on_a_full_disk_everything_is_read_and_removed() {
    let (_disk, mut store, [small, chain], upper) = with_work();
    let mut file = File::create(upper.join("data")).unwrap();
    while file.write(&[b'x'; 1000]).is_ok() {}
    drop(file);
    // Each one writes a little, as it holds what it reads.
    for _ in 0..200 {
        store.run(&["inspect", &small]);
    }
    store.kill();
    store.start();
    store.run(&["inspect", &small]);
    store.run(&["snapshot", "rm", "work"]);
    assert!(!upper.exists());
    store.run(&["snapshot", "prepare", "work", &chain]);
    store.is_sound().unwrap();
}

/// What is made here needs room as well: a commit that finds none says so, and half a layer is not in the way of anything.
#[test]
fn a_commit_on_a_full_disk_says_so_and_leaves_nothing() {
    let (disk, store, [small, chain], upper) = with_work();
    store.run(&["snapshot", "view", "below", &chain]);
    fs::write(upper.join("data"), noise(11, 6 << 20)).unwrap();
    let used = || fs::read_dir(store.root.join("content/ingests")).unwrap().count();
    for words in [&["commit", "work", "example.org/made", "--base", &small][..], &["diff", "create", "work", "below"]] {
        let ran = integration::store::run(store.command(words), None);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("No space left on device") && ran.stderr.contains(REMEDY), "{}", ran.stderr);
        assert_eq!(used(), 0, "what was written of it is gone");
    }
    assert_eq!(store.images(), std::slice::from_ref(&small));
    store.is_sound().unwrap();
    disk.remount(MsFlags::empty(), Some("size=64m"));
    store.run(&["commit", "work", "example.org/made", "--base", &small]);
    assert!(store.tree("example.org/made").contains_key(Path::new("data")));
    store.is_sound().unwrap();
}

/// Empty trees that wait, and what is on its way out, have the root's own disk else.
#[test]
fn snapshots_may_have_a_disk_of_their_own() {
    let registry = Registry::start();
    let small = small_image(&registry);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let snapshots = tempfile::Builder::new().prefix("snapshots").rand_bytes(0).tempdir_in(&root).unwrap();
    let _disk = Small::on(snapshots, 32);
    let mut store = Store::at(&root);
    store.start();
    for _ in 0..3 {
        store.run(&["pull", &small]);
        let chain = store.json(&["inspect", &small])["chainId"].as_str().unwrap().to_owned();
        let upper = integration::store::upper(&store.json(&["snapshot", "prepare", "work", &chain]));
        fs::write(upper.join("made"), "made").unwrap();
        store.is_sound().unwrap();
        store.run(&["snapshot", "rm", "work"]);
        store.run(&["rmi", "--sync", &small]);
        store.run(&["snapshot", "cleanup"]);
        assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_said() {
    let registry = Registry::start();
    let small = small_image(&registry);
    let disk = Small::of_megabytes(32);
    let mut store = Store::at(&disk.path().join("root"));
    store.start();
    store.run(&["pull", &small]);
    store.stop();
    disk.remount(MsFlags::MS_RDONLY, None);
    let error = store.start_with(&[]).unwrap_err();
    assert!(error.to_lowercase().contains("read-only file system"), "{error}");
    disk.remount(MsFlags::empty(), None);
    store.start();
    store.is_sound().unwrap();
    assert_eq!(store.images().len(), 1);
}

#[test]
fn what_may_not_be_entered_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::at(&file.join("root")).start_with(&[]).unwrap_err();
    assert!(error.contains("Not a directory") && error.contains("root"), "{error}");
}

#[test]
fn a_second_daemon_on_one_root_is_refused() {
    let mut first = Store::running();
    let error = Store::at(&first.root).start_with(&[]).unwrap_err();
    assert!(error.contains(&first.pid().to_string()) && error.contains("in use"), "{error}");
    first.run(&["images"]);
    assert!(first.stop().success());
    // The end of one is the beginning of another.
    let mut second = Store::at(&first.root);
    second.start();
}

/// CVE-2021-41091 of moby, CVE-2024-25621 of containerd: directories that others could enter.
#[test]
fn cve_2021_41091_and_2024_25621_nobody_else_gets_in() {
    let store = Store::running();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.root), 0o700);
    assert_eq!(mode(store.socket().parent().unwrap()), 0o700);
    assert_eq!(mode(&store.socket()), 0o600);
    for entry in walk(&store.root) {
        assert_eq!(fs::symlink_metadata(&entry).unwrap().uid(), 0, "{}", entry.display());
    }
}

fn walk(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while next < found.len() {
        if fs::symlink_metadata(&found[next]).unwrap().is_dir() {
            found.extend(fs::read_dir(&found[next]).unwrap().map(|it| it.unwrap().path()));
        }
        next += 1;
    }
    found
}

#[test]
fn a_hundred_pulls_of_one_image_are_one_fetch() {
    let registry = Registry::start();
    let image =
        publish(&registry, "app", "1", &[layer(&[("a", &noise(1, 400_000))]), layer(&[("b", &noise(2, 400_000))])]);
    registry.faults(|it| it.slow = Some((40_000, 5)));
    let store = Store::running();
    let pulls: Vec<_> = (0..100)
        .map(|_| {
            store.command(&["pull", "--quiet", &image]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    // Collection must not take from them what they have.
    for _ in 0..10 {
        store.run(&["gc"]);
    }
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let fetched: Vec<_> = registry.seen("GET /v2/app/blobs/").into_iter().map(|it| it.path).collect();
    let distinct: std::collections::BTreeSet<_> = fetched.iter().collect();
    assert_eq!(fetched.len(), distinct.len(), "a blob was fetched twice: {fetched:?}");
    store.is_sound().unwrap();
    assert_eq!(store.images().len(), 1);
}

#[test]
fn a_client_that_goes_away_leaves_a_pull_that_resumes() {
    let registry = Registry::start();
    let image = publish(&registry, "app", "1", &[layer(&[("data", &noise(3, 5_000_000))])]);
    registry.faults(|it| it.slow = Some((10_000, 40)));
    let store = Store::running();
    let mut client = store.command(&["pull", &image]).stderr(Stdio::null()).spawn().unwrap();
    let offset = || {
        let ingests = store.json(&["content", "ingests"]);
        ingests.as_array().unwrap().iter().filter_map(|it| it["offset"].as_u64()).max().unwrap_or(0)
    };
    integration::wait::until("some bytes have come", || offset() >= 300_000);
    client.kill().unwrap();
    client.wait().unwrap();
    // Its bytes stay, its tree does not.
    integration::wait::until("the extraction is gone", || {
        fs::read_dir(store.root.join("snapshots")).unwrap().count() == 0
    });
    let kept = offset();
    assert!((300_000..4_000_000).contains(&kept), "{kept}");
    registry.faults(|it| it.slow = None);
    registry.forget_seen();
    store.run(&["pull", &image]);
    let blobs = registry.seen("GET /v2/app/blobs/");
    let begins =
        |range: &str| range.trim_start_matches("bytes=").split('-').next().and_then(|it| it.parse::<u64>().ok());
    let first = blobs.iter().filter_map(|it| begins(it.range.as_deref()?)).min();
    assert_eq!(first, Some(kept), "{:?}", blobs.iter().map(|it| &it.range).collect::<Vec<_>>());
    store.is_sound().unwrap();
}

#[test]
fn the_daemon_ends_when_it_is_asked_and_goes_on_after() {
    let registry = Registry::start();
    let image = small_image(&registry);
    let mut store = Store::running();
    store.run(&["pull", &image]);
    assert!(store.stop().success());
    let error = store.fails(&["images"]);
    assert!(error.contains("tare-store serve"), "the remedy is missing: {error}");
    store.start();
    assert_eq!(store.images().len(), 1);
}

#[test]
fn memory_stays_bounded_whatever_is_pulled() {
    let registry = Registry::start();
    // Much that compresses to nothing, and many small files.
    let zeros = layer(&[("zeros", &vec![0; 256 << 20])]);
    let names: Vec<String> = (0..20_000).map(|it| format!("d{}/f{it}", it % 100)).collect();
    let many = layer(&names.iter().map(|it| (it.as_str(), b"x" as &[u8])).collect::<Vec<_>>());
    let image = publish(&registry, "large", "1", &[zeros, many, layer(&[("noise", &noise(4, 48 << 20))])]);
    let peak = |store: &Store| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", store.pid())).unwrap();
        let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let store = Store::running();
    store.run(&["pull", "--quiet", &image]);
    assert!(peak(&store) < 64 << 10, "the peak was {} KiB", peak(&store));
    // Archives stream as well, in both directions.
    let archive = store.root.with_file_name("archive.tar");
    store.run(&["export", "--quiet", "--output", archive.to_str().unwrap(), &image]);
    assert!(fs::metadata(&archive).unwrap().len() > 48 << 20);
    let other = Store::running();
    let mut import = other.command(&["import", "--quiet", "--no-unpack", "-"]);
    let output = import.stdin(File::open(archive).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for store in [&store, &other] {
        assert!(peak(store) < 64 << 10, "the peak was {} KiB", peak(store));
    }
}

#[test]
fn usage_is_counted_once_and_freed() {
    let registry = Registry::start();
    let shared = layer(&[("shared", &noise(6, 1 << 20))]);
    let one = publish(&registry, "app", "1", &[shared.clone(), layer(&[("one", &noise(7, 1 << 20))])]);
    let two = publish(&registry, "app", "2", &[shared, layer(&[("two", &noise(8, 1 << 20))])]);
    let store = Store::running();
    store.run(&["pull", &one]);
    store.run(&["pull", &two]);
    let usage = store.json(&["df"]);
    let bytes = |name: &str| usage[name].as_u64().unwrap();
    assert!((3 << 20..4 << 20).contains(&bytes("blobBytes")), "{usage}");
    assert!(usage["images"].as_array().unwrap().iter().all(|it| it["sharedBytes"].as_u64() > Some(1 << 20)), "{usage}");
    store.run(&["rmi", &one]);
    let freed = store.json(&["gc"]);
    assert!((2 << 20..3 << 20).contains(&freed["bytes"].as_u64().unwrap()), "{freed}");
    let du = Command::new("du").args(["-s", "--block-size=1"]).arg(store.root.join("content/blobs")).output().unwrap();
    let on_disk: u64 = String::from_utf8_lossy(&du.stdout).split_whitespace().next().unwrap().parse().unwrap();
    assert!(on_disk < 3 << 20, "{on_disk}");
    store.tree(&two);
}

/// A clock that is set right, or wrong, while a pull runs: it loses nothing, and what has its time has it again.
#[test]
fn a_clock_that_jumps_takes_nothing_away() {
    const YEAR: i64 = 365 * 24 * 3600;
    let registry = Registry::start();
    let image =
        publish(&registry, "app", "1", &[layer(&[("a", &noise(9, 400_000))]), layer(&[("b", &noise(10, 600_000))])]);
    let small = small_image(&registry);
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    let wrong = |by: i64| {
        // At once: it is read at any time.
        fs::write(directory.path().join("new"), by.to_string()).unwrap();
        fs::rename(directory.path().join("new"), &clock).unwrap();
    };
    wrong(0);
    let mut store = Store::new();
    store.start_with(&[("TARE_STORE_CLOCK", clock.to_str().unwrap())]).unwrap();
    let created = |store: &Store, name: &str| {
        let images = store.json(&["images", &format!("name=={name}")]);
        images[0]["createdAt"].as_str().unwrap_or_else(|| panic!("{images}"))[..4].parse::<i64>().unwrap()
    };
    for by in [30 * YEAR, -20 * YEAR] {
        registry.faults(|it| it.slow = Some((20_000, 20)));
        let pull = store.command(&["pull", "--quiet", &image]).stderr(Stdio::piped()).spawn().unwrap();
        let offset = || {
            let ingests = store.json(&["content", "ingests"]);
            ingests.as_array().unwrap().iter().filter_map(|it| it["offset"].as_u64()).max().unwrap_or(0)
        };
        integration::wait::until("some bytes have come", || offset() >= 60_000);
        wrong(by);
        store.run(&["gc"]);
        let other = store.run(&["pull", "--quiet", &small]);
        assert!(other.contains("small"), "{other}");
        registry.faults(|it| it.slow = None);
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        store.run(&["gc"]);
        store.is_sound().unwrap();
        assert!(store.tree(&image).len() >= 2);
        let now = created(&store, &small);
        wrong(0);
        store.run(&["gc"]);
        // The jump was one: what was made then says so.
        assert_eq!((created(&store, &small), !(2015..=2045).contains(&now)), (now, true));
        store.run(&["rmi", "--sync", &image, &small]);
    }
    // And a start in the past.
    store.run(&["pull", "--quiet", &small]);
    wrong(-20 * YEAR);
    assert!(store.stop().success());
    store.start_with(&[("TARE_STORE_CLOCK", clock.to_str().unwrap())]).unwrap();
    store.is_sound().unwrap();
    assert_eq!(store.images().len(), 1);
}
