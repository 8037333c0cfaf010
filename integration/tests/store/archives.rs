//! Images as archives: through pipes, by path, as directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::store::Daemon;

/// An OCI layout with one image of two layers, made by umoci.
pub(crate) fn layout(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let at = format!("{}:v1", layout.display());
    let umoci = |args: &[&str]| {
        let ran = Command::new("umoci").args(args).output().expect("run umoci");
        assert!(ran.status.success(), "umoci {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &at]);
    for n in 1..=2 {
        let tree = dir.join(format!("tree{n}"));
        std::fs::create_dir_all(tree.join("etc")).unwrap();
        std::fs::write(tree.join(format!("etc/file{n}")), format!("{n}")).unwrap();
        std::fs::write(tree.join("data"), noise(n, 3 << 20)).unwrap();
        umoci(&["insert", "--image", &at, tree.to_str().unwrap(), "/"]);
    }
    layout
}

/// The same as one tar archive.
pub(crate) fn archive(dir: &Path) -> PathBuf {
    let (layout, file) = (layout(dir), dir.join("layout.tar"));
    let status = Command::new("tar").arg("-C").arg(layout).arg("-cf").arg(&file).arg(".").status().expect("run tar");
    assert!(status.success());
    file
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[test]
fn a_layout_comes_in_is_unpacked_and_goes_out_as_it_was() {
    let store = Daemon::start();
    let layout = layout(&store.dir);
    let lines = store.json_lines(&["import", layout.to_str().unwrap(), "--name", "example/app"]);
    let imported = lines.last().unwrap()["result"]["images"][0].clone();
    assert_eq!(imported["name"], "docker.io/example/app:v1");
    assert!(lines.len() > 1 && lines[0]["items"].is_array(), "progress comes as objects: {lines:?}");
    let listed = store.json(&["images"]);
    assert_eq!(listed[0]["target"]["digest"], imported["target"]["digest"]);

    let seen = store.json(&["inspect", "example/app:v1"]);
    assert_eq!((seen["unpacked"].as_bool(), seen["diffIds"].as_array().unwrap().len()), (Some(true), 2));
    assert_eq!(seen["chainId"], imported["chainId"]);
    let raw = store.run(&["inspect", "example/app:v1", "--raw", "manifest"]).ok();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&raw.bytes).unwrap(), seen["manifest"]);
    let root = store.dir.join("mnt");
    std::fs::create_dir(&root).unwrap();
    let chain = seen["chainId"].as_str().unwrap();
    let printed = store.run(&["snapshot", "prepare", "c", chain, "--target", root.to_str().unwrap()]).ok().stdout;
    assert!(Command::new("/bin/sh").arg("-c").arg(&printed).status().unwrap().success(), "{printed}");
    let read = |name: &str| std::fs::read(root.join(name)).unwrap();
    assert_eq!((read("etc/file1"), read("etc/file2"), read("data")), (b"1".to_vec(), b"2".to_vec(), noise(2, 3 << 20)));
    assert!(Command::new("umount").arg(&root).status().unwrap().success());

    // Through a pipe, into a store that knows nothing.
    let archive = store.run(&["export", "example/app:v1", "-q"]).ok();
    assert_eq!(archive.stderr, "");
    let other = Daemon::start();
    let ran = other.fed(&["import"], &archive.bytes).ok();
    assert!(ran.stdout.contains("docker.io/example/app:v1") && ran.stdout.contains("(imported)"), "{}", ran.stdout);
    assert!(ran.stderr.lines().any(|line| line.starts_with("layer ")), "plain lines in a pipe: {}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b'), "{:?}", ran.stderr);
    let again = other.json(&["images"]);
    assert_eq!(again[0]["target"]["digest"], imported["target"]["digest"]);
    assert_eq!(
        other.run(&["export", "example/app:v1"]).ok().bytes,
        archive.bytes,
        "an archive depends on nothing but the image"
    );

    // By path.
    let (file, directory) = (store.dir.join("out.tar"), store.dir.join("out"));
    store.run(&["export", "example/app:v1", "-o", file.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read(&file).unwrap(), archive.bytes);
    store.run(&["export", "example/app:v1", "--directory", directory.to_str().unwrap()]).ok();
    assert_eq!(blobs(&directory).len(), 4);
    assert!(blobs(&directory).iter().all(|(name, bytes)| blobs(&layout).get(name) == Some(bytes)));

    for daemon in [&store, &other] {
        let peak = daemon.peak_kib();
        assert!(peak < 64 << 10, "{peak} KiB");
    }
    other.stop();
    store.stop();
}

fn blobs(layout: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|it| it.unwrap());
    entries.map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap())).collect()
}

#[test]
fn a_pipe_that_breaks_makes_no_image() {
    let store = Daemon::start();
    let layout = layout(&store.dir);
    store.run(&["import", layout.to_str().unwrap(), "--name", "a:b", "--no-unpack"]).ok();
    let archive = store.run(&["export", "a:v1", "-q"]).ok().bytes;
    let other = Daemon::start();
    for length in [0, 100, archive.len() / 2] {
        let ran = other.fed(&["import"], &archive[..length]).fails();
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.lines().last().unwrap().starts_with("tare-store: import:"), "{}", ran.stderr);
    }
    assert_eq!(other.json(&["images"]), serde_json::json!([]));
    let ran = store.run(&["import", "/no/such/file"]).fails();
    let told = "tare-store: open /no/such/file: No such file or directory (os error 2); name an archive or the directory of an OCI layout, \
                or pipe an archive to `tare-store import -`\n";
    assert_eq!(ran.stderr, told);
    store.run(&["export", "none"]).fails();
    assert_eq!(store.run(&["export", "a:v1", "--json"]).code, Some(2), "two things cannot be on standard output");
    other.stop();
    store.stop();
}

#[test]
fn names_are_given_moved_and_taken() {
    let store = Daemon::start();
    let layout = layout(&store.dir);
    store.run(&["import", layout.to_str().unwrap(), "--name", "a", "--no-unpack", "--label", "k=v"]).ok();
    assert_eq!(store.run(&["tag", "a:v1", "b:x"]).ok().stdout, "docker.io/library/b:x\n");
    assert!(store.run(&["tag", "a:v1", "b:x"]).ok().stdout.contains("b:x"), "it means the same");
    let seen = store.json(&["inspect", "b:x"]);
    assert_eq!((seen["unpacked"].as_bool(), seen["labels"]["k"].as_str()), (Some(false), Some("v")));
    assert_eq!(seen["names"].as_array().unwrap().len(), 2);
    assert_eq!(store.run(&["images", "--names", "name~=b:"]).ok().stdout, "docker.io/library/b:x\n");
    let table = store.run(&["ls"]).ok().stdout;
    assert!(table.starts_with("NAME") && table.lines().count() == 3, "{table}");
    let unpacked = store.json(&["unpack", "a:v1"])["result"]["images"][0]["chainId"].clone();
    assert_eq!(store.json(&["inspect", "b:x"])["chainId"], unpacked);
    assert_eq!(store.json(&["referrers", "a:v1"]), serde_json::json!([]));
    assert!(store.run(&["df"]).ok().stdout.contains("docker.io/library/a:v1"));
    store.run(&["rmi", "docker.io/library/a:v1", "docker.io/library/b:x", "--sync"]).ok();
    assert_eq!(store.json(&["content", "ls"]), serde_json::json!([]));
    assert!(store.run(&["rmi", "docker.io/library/a:v1"]).fails().stderr.contains("there is no image"));
    store.stop();
}
