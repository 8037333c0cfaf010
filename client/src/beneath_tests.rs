use std::os::unix::fs::symlink;

use super::*;

struct Tree {
    _dir: tempfile::TempDir,
    inside: PathBuf,
    outside: PathBuf,
    root: File,
}

fn tree() -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    std::fs::create_dir_all(inside.join("a/b")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let root = File::open(&inside).unwrap();
    Tree { inside, outside, root, _dir: dir }
}

#[test]
fn links_lead_nowhere_but_inside() {
    let Tree { inside, outside, root, _dir } = tree();
    symlink(&outside, inside.join("absolute")).unwrap();
    symlink("../outside", inside.join("relative")).unwrap();
    symlink("/proc/self/root", inside.join("magic")).unwrap();
    symlink("/a", inside.join("fine")).unwrap();
    for path in
        ["absolute/secret", "relative/secret", "../outside/secret", "/../outside/secret", "a/../../outside/secret"]
    {
        assert!(read(&root, Path::new(path), 100).unwrap().is_none(), "{path}");
    }
    assert!(open(&root, Path::new("/magic"), OFlags::PATH).is_err());
    std::fs::write(inside.join("a/file"), "here").unwrap();
    assert_eq!(read(&root, Path::new("/fine/file"), 100).unwrap().unwrap(), b"here");
    assert!(read(&root, Path::new("/fine/file"), 3).unwrap_err().message.contains("larger than 3 bytes"));
}

#[test]
fn directories_are_made_inside() {
    let Tree { inside, outside, root, _dir } = tree();
    symlink(&outside, inside.join("a/link")).unwrap();
    // What the link names is not there inside: it cannot be made through it.
    assert!(directory_made(&root, Path::new("/a/link/made")).is_err());
    assert!(!outside.join("made").try_exists().unwrap());
    directory_made(&root, Path::new("x/y/../z")).unwrap();
    assert!(inside.join("x/z").is_dir() && !inside.join("x/y").try_exists().unwrap());
    let place = place_made(&root, Path::new("/n/m/file")).unwrap();
    assert_eq!(place.name, Path::new("file"));
    assert!(inside.join("n/m").is_dir());
    assert_eq!(super::place(&root, Path::new("/")).unwrap().name, Path::new("."));
    assert!(super::place(&root, Path::new("/none/x")).is_err());
}

#[test]
fn only_regular_files_are_read() {
    let Tree { inside, root, _dir, .. } = tree();
    crate::testing::fifo(&inside.join("fifo"));
    for path in ["fifo", "a"] {
        assert!(read(&root, Path::new(path), 100).unwrap_err().message.contains("not a regular file"), "{path}");
    }
}

#[test]
fn paths_are_cleaned() {
    for (path, clean) in [("", "/"), ("a", "/a"), ("/a//b/./c", "/a/b/c"), ("../../a/..", "/"), ("/a/../b", "/b")] {
        assert_eq!(lexical(Path::new(path)), Path::new(clean), "{path}");
    }
}
