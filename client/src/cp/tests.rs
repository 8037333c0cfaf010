use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A container's root, a directory here, and one that belongs to neither.
struct World {
    _dir: tempfile::TempDir,
    inside: PathBuf,
    here: PathBuf,
    outside: PathBuf,
    opened: Opened,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (inside, here, outside) = (at("inside"), at("here"), at("outside"));
        let record = Container { name: "c".to_owned(), ..Container::default() };
        let opened = Opened::of(File::open(&inside).unwrap().into(), record);
        Self { inside, here, outside, opened, _dir: dir }
    }

    fn here(&self, path: &str) -> String {
        format!("{}/{path}", self.here.display())
    }

    fn put(&self, from: &str, path: &str, options: &Options) -> Result<()> {
        into(&self.opened, &Side::Local(self.here(from)), path, options)
    }

    fn get(&self, path: &str, to: &str, options: &Options) -> Result<()> {
        out(&self.opened, path, &Side::Local(self.here(to)), options)
    }

    /// All paths below, sorted.
    fn list(path: &Path) -> Vec<String> {
        fn walk(path: &Path, base: &Path, all: &mut Vec<String>) {
            for entry in std::fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                all.push(path.strip_prefix(base).unwrap().display().to_string());
                if path.symlink_metadata().unwrap().is_dir() {
                    walk(&path, base, all);
                }
            }
        }
        let mut all = Vec::new();
        walk(path, path, &mut all);
        all.sort();
        all
    }
}

const PLAIN: Options = Options { follow_link: false };
const FOLLOW: Options = Options { follow_link: true };

fn source(base: &Path) {
    std::fs::create_dir_all(base.join("dir/sub")).unwrap();
    for (name, text) in [("file", "one"), ("dir/a", "two"), ("dir/sub/b", "three")] {
        std::fs::write(base.join(name), text).unwrap();
    }
    symlink("a", base.join("dir/link")).unwrap();
    for (name, target) in [("dlink", "dir"), ("flink", "file"), ("broken", "nowhere")] {
        symlink(target, base.join(name)).unwrap();
    }
}

#[test]
fn arguments_are_told_apart_as_docker_does() {
    let container = |name: &str, path: &str| Side::Container(name.to_owned(), path.to_owned());
    for (text, expected) in [
        ("web:/etc", container("web", "/etc")),
        ("web:etc", container("web", "etc")),
        ("web:/a:b", container("web", "/a:b")),
        ("./web:/etc", Side::Local("./web:/etc".to_owned())),
        ("/web:/etc", Side::Local("/web:/etc".to_owned())),
        ("../x:y", Side::Local("../x:y".to_owned())),
        ("file", Side::Local("file".to_owned())),
        ("-", Side::Stream),
    ] {
        assert_eq!(side(text, "source").unwrap(), expected, "{text}");
    }
    for wrong in ["", ":", "web:", ":/x"] {
        assert!(side(wrong, "source").is_err(), "{wrong:?}");
    }
}

/// What `docker cp` did with the same arguments.
#[test]
fn copies_into_a_container_land_where_dockers_do() {
    let world = World::new();
    source(&world.here);
    for (from, path) in [
        ("dir", "/d1"),
        ("dir", "/d1"),
        ("dir/.", "/d1"),
        ("dir", "/d2/"),
        ("file", "/d1"),
        ("file", "f1"),
        ("flink", "/l1"),
        ("dlink", "/l3"),
        ("dlink/", "/l5"),
        ("dlink/.", "/l6"),
        ("broken", "/l7"),
        ("file", "/d2/../f2"),
    ] {
        world.put(from, path, &PLAIN).unwrap_or_else(|error| panic!("{from} {path}: {error}"));
    }
    world.put("flink", "/l2", &FOLLOW).unwrap();
    world.put("dlink", "/l4", &FOLLOW).unwrap();
    let dir = ["a", "link", "sub", "sub/b"];
    let mut expected: Vec<String> = ["f1", "f2", "l1", "l2", "l3", "l7", "d1/file"].map(str::to_owned).to_vec();
    for base in ["d1", "d1/dir", "d2", "l4", "l5", "l6"] {
        expected.push(base.to_owned());
        expected.extend(dir.iter().map(|it| format!("{base}/{it}")));
    }
    expected.sort();
    assert_eq!(World::list(&world.inside), expected);
    let link = |name: &str| std::fs::read_link(world.inside.join(name)).unwrap();
    assert_eq!((link("l1"), link("l3"), link("l7")), ("file".into(), "dir".into(), "nowhere".into()));
    for (from, path, options, why) in [
        ("file", "/nope/", &PLAIN, "no such directory"),
        ("file", "/nope/x", &PLAIN, "could not find the file /nope in container c"),
        ("dir", "/nope/x", &PLAIN, "could not find the file /nope in container c"),
        ("dir", "/f1", &PLAIN, "cannot copy directory"),
        ("file", "/f1/", &PLAIN, "no such directory"),
        ("broken", "/l8", &FOLLOW, "lstat"),
        ("nothere", "/x", &PLAIN, "lstat"),
        ("file/", "/x", &PLAIN, "lstat"),
    ] {
        let error = world.put(from, path, options).expect_err(path);
        assert!(error.message.contains(why), "{from} {path}: {error}");
    }
}

#[test]
fn copies_out_of_a_container_land_where_dockers_do() {
    let world = World::new();
    source(&world.inside);
    for (path, to, options) in [
        ("/dir", "out1", &PLAIN),
        ("/dir", "out1", &PLAIN),
        ("/dir/.", "out2", &PLAIN),
        ("/flink", "out3", &PLAIN),
        ("/flink", "out4", &FOLLOW),
        ("/dlink", "out5", &FOLLOW),
        ("/dir/a", "out6", &PLAIN),
        ("dir/a", "out1/", &PLAIN),
        ("/dlink/a", "out7", &PLAIN),
    ] {
        world.get(path, to, options).unwrap_or_else(|error| panic!("{path} {to}: {error}"));
    }
    let dir = ["a", "link", "sub", "sub/b"];
    let mut expected: Vec<String> = ["out3", "out4", "out6", "out7"].map(str::to_owned).to_vec();
    for base in ["out1", "out1/dir", "out2", "out5"] {
        expected.push(base.to_owned());
        expected.extend(dir.iter().map(|it| format!("{base}/{it}")));
    }
    expected.sort();
    assert_eq!(World::list(&world.here), expected);
    assert_eq!(std::fs::read_link(world.here.join("out3")).unwrap(), Path::new("file"));
    assert_eq!(std::fs::read_to_string(world.here.join("out4")).unwrap(), "one");
    for (path, to, options, why) in [
        ("/nope", "x", &PLAIN, "could not find the file /nope in container c"),
        ("/broken", "x", &FOLLOW, "could not find the file"),
        ("/dir/a", "no/", &PLAIN, "no such directory"),
        ("/dir/a", "no/x", &PLAIN, "open"),
        ("/dir", "out6", &PLAIN, "cannot copy directory"),
        ("/file/", "x", &PLAIN, "not"),
    ] {
        let error = world.get(path, to, options).expect_err(path);
        assert!(error.message.contains(why), "{path} {to}: {error}");
    }
}

#[test]
fn what_comes_out_is_the_callers_and_has_no_rights_of_its_own() {
    let world = World::new();
    let file = world.inside.join("tool");
    std::fs::write(&file, "tool").unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&file, Some(1000), Some(1001)).unwrap();
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).unwrap();
    world.get("/tool", "tool", &PLAIN).unwrap();
    let out = world.here.join("tool").metadata().unwrap();
    assert_eq!((out.mode() & 0o7777, out.uid()), (0o755, rustix::process::geteuid().as_raw()));
    // The other way they stay.
    if root {
        std::os::unix::fs::chown(world.here.join("tool"), Some(1000), Some(1001)).unwrap();
        std::fs::set_permissions(world.here.join("tool"), PermissionsExt::from_mode(0o6755)).unwrap();
        world.put("tool", "/again", &PLAIN).unwrap();
        let again = world.inside.join("again").metadata().unwrap();
        assert_eq!((again.mode() & 0o7777, again.uid(), again.gid()), (0o6755, 1000, 1001));
    }
}

/// CVE-2018-15664, without a race: links in the container that lead out.
#[test]
fn cve_2018_15664_links_of_the_container_lead_nowhere_outside() {
    let world = World::new();
    std::fs::write(world.outside.join("secret"), "secret").unwrap();
    std::fs::write(world.here.join("file"), "file").unwrap();
    for (name, target) in [
        ("absolute", world.outside.display().to_string()),
        ("relative", "../outside".to_owned()),
        ("magic", "/proc/self/cwd".to_owned()),
        ("secret", world.outside.join("secret").display().to_string()),
    ] {
        symlink(target, world.inside.join(name)).unwrap();
    }
    for path in ["/absolute/secret", "/relative/secret", "/../outside/secret", "/magic/secret", "/secret"] {
        assert!(world.get(path, "stolen", &FOLLOW).is_err(), "{path}");
    }
    for path in ["/absolute/file", "/absolute/", "/relative/file", "/../outside/file", "/secret/", "/magic/file"] {
        let _ = world.put("file", path, &PLAIN);
    }
    assert_eq!(World::list(&world.outside), ["secret"]);
    assert_eq!(std::fs::read_to_string(world.outside.join("secret")).unwrap(), "secret");
    assert_eq!(World::list(&world.here), ["file"]);
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// CVE-2018-15664, CVE-2026-42306, CVE-2026-41567: a directory of the container is exchanged for a link out of it, again and again,
/// while it is copied from and to.
#[test]
fn cve_2018_15664_exchanged_directories_lead_nowhere_outside() {
    const ROUNDS: usize = 400;
    let world = World::new();
    std::fs::create_dir_all(world.inside.join("a/b/into")).unwrap();
    std::fs::write(world.inside.join("a/b/file"), "inside").unwrap();
    symlink(&world.outside, world.inside.join("trap")).unwrap();
    std::fs::create_dir_all(world.outside.join("b/into")).unwrap();
    std::fs::write(world.outside.join("b/file"), "outside").unwrap();
    std::fs::create_dir(world.here.join("dir")).unwrap();
    std::fs::write(world.here.join("dir/file"), "here").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also if a check fails: the attacker would go on for ever.
        let _ends = Ends(&done);
        let attacker = scope.spawn(|| {
            let (one, other) = (world.inside.join("a"), world.inside.join("trap"));
            let mut exchanged = 0;
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags).unwrap();
                exchanged += 1;
            }
            exchanged
        });
        for round in 0..ROUNDS {
            let to = format!("out{round}");
            // That a path is not there at the moment is as well; what comes out is never the other's.
            if world.get("/a/b/file", &to, &PLAIN).is_ok() {
                assert_eq!(std::fs::read_to_string(world.here.join(&to)).unwrap(), "inside");
            }
            // The link itself, if it is one at the moment, is a link here too.
            let tree = format!("tree{round}");
            let copied = world.here.join(&tree);
            if world.get("/a", &tree, &PLAIN).is_ok() && !copied.is_symlink() {
                assert_eq!(std::fs::read_to_string(copied.join("b/file")).unwrap(), "inside");
            }
            let _ = world.put("dir/.", "/a/b/into", &PLAIN);
            let _ = world.put("dir", "/a/b/new", &PLAIN);
        }
        done.store(true, Ordering::Relaxed);
        assert!(attacker.join().unwrap() > 10, "the attacker was at work");
    });
    assert_eq!(World::list(&world.outside), ["b", "b/file", "b/into"]);
    assert_eq!(std::fs::read_to_string(world.outside.join("b/file")).unwrap(), "outside");
}

/// CVE-2019-14271: what looked up names while files were copied loaded a library from the container's root.
#[test]
fn cve_2019_14271_nothing_of_the_container_is_loaded() {
    let world = World::new();
    std::fs::create_dir_all(world.inside.join("lib/x86_64-linux-gnu")).unwrap();
    std::fs::create_dir(world.inside.join("etc")).unwrap();
    std::fs::write(world.inside.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\n").unwrap();
    for library in ["lib/x86_64-linux-gnu/libnss_files.so.2", "lib/x86_64-linux-gnu/libc.so.6"] {
        std::fs::write(world.inside.join(library), "no library at all").unwrap();
    }
    world.get("/", "all", &PLAIN).unwrap();
    world.put("all/.", "/again", &PLAIN).unwrap();
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!mapped.contains(&world.inside.display().to_string()), "{mapped}");
    // Whose root it is does not change either.
    assert_eq!(std::fs::read_link("/proc/self/root").unwrap(), Path::new("/"));
}
