//! Trees as others unpack them: the same layers come out of this store, of umoci and of containerd with every attribute the same.
//!
//! Two images: one made here, of what layers can hold, and the Debian image that `TARE_IMAGE` names (`integration/image-setup`
//! makes it). Each is unpacked as overlay layers, which the kernel merges, and as whole copies (`native`).

mod layers;
mod walk;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration::store::Daemon;
use integration::{in_path, skip};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use self::walk::{Entry, Tree, walk};

/// The name of the image in each layout.
const TAG: &str = "latest";

#[test]
fn what_layers_can_hold() {
    let store = Daemon::start();
    let layout = layers::layout(&store.dir, 3);
    compare(store, &layout, &[UMOCI, CONTAINERD]);
}

/// A hard link to a file of a lower layer, which containerd refuses: it looks for the file in this layer alone.
#[test]
fn a_hard_link_to_a_lower_layer() {
    let store = Daemon::start();
    let layout = layers::layout(&store.dir, 4);
    compare(store, &layout, &[UMOCI]);
}

#[test]
fn a_debian_image() {
    let Some(layout) = std::env::var_os("TARE_IMAGE").map(PathBuf::from) else {
        skip!("TARE_IMAGE does not name the layout of an image of Debian (integration/image-setup makes one)");
    };
    compare(Daemon::start(), &layout, &[UMOCI, CONTAINERD]);
}

/// Another program that unpacks, and in what it differs.
#[derive(Clone, Copy)]
struct Other {
    name: &'static str,
    programs: &'static [&'static str],
    /// Of an image, by its layout; what it makes lies below the directory.
    unpack: fn(&Path, &Path) -> Tree,
    known: &'static [Known],
}

/// A difference that is understood, by the path, ours and theirs. Why it is right so stands beside it.
type Known = fn(&Path, Option<&Entry>, Option<&Entry>) -> bool;

const UMOCI: Other =
    Other { name: "umoci", programs: &["umoci"], unpack: by_umoci, known: &[unlisted_directories_have_no_time_of_now] };

const CONTAINERD: Other = Other {
    name: "containerd",
    programs: &["containerd", "ctr"],
    unpack: by_containerd,
    known: &[
        unlisted_directories_have_no_time_of_now,
        trusted_attributes_are_kept,
        a_link_in_the_way_of_a_path_is_followed,
    ],
};

/// Layers 3 and 4 do not list the directories above what they hold. Others leave them the moment of unpacking, which no two
/// machines share; here they keep the time that a layer gave them, or have none (1970), as the same image is to be the same tree.
fn unlisted_directories_have_no_time_of_now(path: &Path, ours: Option<&Entry>, theirs: Option<&Entry>) -> bool {
    let unlisted = ["", "usr", "usr/share", "usr/share/new"].iter().any(|it| path == Path::new(it));
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    unlisted && *ours == Entry { modified: ours.modified, ..theirs.clone() }
}

/// containerd passes over all of `trusted.`; here only what overlayfs would take for its own is kept from it, by escaping it.
fn trusted_attributes_are_kept(_: &Path, ours: Option<&Entry>, theirs: Option<&Entry>) -> bool {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    let mut without = ours.clone();
    without.xattrs.retain(|name, _| !name.as_encoded_bytes().starts_with(b"trusted."));
    without.xattrs != ours.xattrs && without == *theirs
}

/// /lib is a link to usr/lib in layer 1, and layer 3 has lib/through. Applied to the whole tree, as the image's maker did and umoci
/// does, that lies in usr/lib. containerd 1.6 puts a directory in the link's place.
fn a_link_in_the_way_of_a_path_is_followed(path: &Path, ours: Option<&Entry>, theirs: Option<&Entry>) -> bool {
    match path.to_str() {
        Some("lib") => ours.is_some_and(|it| it.what == "link to usr/lib") && theirs.is_some(),
        Some("usr/lib/through") => ours.is_some() && theirs.is_none(),
        Some("lib/through") => ours.is_none() && theirs.is_some(),
        _ => false,
    }
}

fn compare(store: Daemon, layout: &Path, others: &[Other]) {
    let programs = others.iter().flat_map(|it| it.programs);
    if let Some(missing) = programs.into_iter().find(|it| in_path(it).is_none()) {
        skip!("{missing} is not installed");
    }
    let mut failures = Vec::new();
    in_own_mounts(|| {
        let ours = ours(&store, layout, "overlayfs");
        assert!(ours.len() > 20, "{ours:?}");
        let copies = self::ours(&store, layout, "native");
        failures.extend(differences("the copying snapshotter", &ours, &copies, &[]));
        drop(copies);
        for other in others {
            let theirs = (other.unpack)(&store.dir, layout);
            failures.extend(differences(other.name, &ours, &theirs, other.known));
        }
    });
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    store.stop();
}

/// What differs and is not known to, one line for each attribute.
fn differences(other: &str, ours: &Tree, theirs: &Tree, known: &[Known]) -> Vec<String> {
    let mut paths: Vec<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    paths.sort();
    paths.dedup();
    let mut lines = Vec::new();
    for path in paths {
        let (mine, other_one) = (ours.get(path), theirs.get(path));
        if mine == other_one || known.iter().any(|known| known(path, mine, other_one)) {
            continue;
        }
        lines.push(match (mine, other_one) {
            (Some(mine), Some(others)) => {
                format!("/{}: ours is {mine:?}\n    {other}'s is {others:?}", path.display())
            }
            (Some(mine), None) => format!("/{}: {other} has none, ours is {mine:?}", path.display()),
            (None, others) => format!("/{}: ours has none, {other}'s is {others:?}", path.display()),
        });
    }
    lines
}

/// Runs this with mounts that go with it.
fn in_own_mounts(work: impl FnOnce() + Send) {
    let own = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
        work();
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(own).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ours(store: &Daemon, layout: &Path, snapshotter: &str) -> Tree {
    let name = "example.org/tree";
    let words = ["import", layout.to_str().unwrap(), "--name", name, "--no-unpack"];
    store.run(&words).ok();
    let image = format!("{name}:{TAG}");
    store.run(&["unpack", &image, "--snapshotter", snapshotter]).ok();
    let inspected = store.json(&["inspect", &image]);
    let chain = inspected["chainId"].as_str().unwrap_or_else(|| panic!("{inspected}"));
    let target = store.dir.join(snapshotter);
    std::fs::create_dir(&target).unwrap();
    let view = ["snapshot", "view", "seen", chain, "--snapshotter", snapshotter, "--target", target.to_str().unwrap()];
    run("sh", &["-c", &store.run(&view).ok().stdout]);
    walk(&target)
}

fn by_umoci(dir: &Path, layout: &Path) -> Tree {
    let bundle = dir.join("umoci");
    run("umoci", &["unpack", "--image", &format!("{}:{TAG}", layout.display()), bundle.to_str().unwrap()]);
    walk(&bundle.join("rootfs"))
}

/// By a daemon of our own, in the mount namespace of this thread.
fn by_containerd(dir: &Path, layout: &Path) -> Tree {
    let root = dir.join("containerd");
    std::fs::create_dir(&root).unwrap();
    let text = format!(
        "version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{root}/c.sock\"\n[ttrpc]\naddress = \"{root}/t.sock\"\n",
        root = root.display()
    );
    let config = root.join("config.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // It has its own group, so that what ends the test from a terminal is the test's to pass on.
    command.process_group(0);
    let mut daemon = Ended(command.spawn().expect("start containerd"));
    let mut log = BufReader::new(daemon.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let ready = log.by_ref().inspect(|it| said.push(it.clone())).any(|it| it.contains("successfully booted"));
    assert!(ready, "containerd does not start: {}", said.join("\n"));
    std::thread::spawn(move || log.for_each(drop));

    let archive = root.join("image.tar");
    run("tar", &["-C", layout.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    let socket = root.join("c.sock");
    let ctr = |words: &[&str]| run("ctr", &[&["--address", socket.to_str().unwrap()], words].concat());
    ctr(&["images", "import", "--base-name", "example.org/tree", archive.to_str().unwrap()]);
    std::fs::remove_file(archive).unwrap();
    let snapshots = ctr(&["snapshots", "ls"]);
    // The one that nothing stands on.
    let rows: Vec<Vec<&str>> = snapshots.lines().skip(1).map(|it| it.split_whitespace().collect()).collect();
    let top = rows.iter().find(|it| rows.iter().all(|other| other.len() < 3 || other[1] != it[0])).expect("a snapshot");
    let target = root.join("seen");
    std::fs::create_dir(&target).unwrap();
    // Not a view: ctr keeps only what it prepares from containerd's collection.
    ctr(&["snapshots", "prepare", "seen", top[0]]);
    run("sh", &["-c", &ctr(&["snapshots", "mounts", target.to_str().unwrap(), "seen"])]);
    walk(&target)
}

/// A program that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program prints, when it succeeds.
fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
