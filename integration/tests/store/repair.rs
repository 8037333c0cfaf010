//! What is damaged is found, and had again: blobs from where they came, trees from their blobs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use integration::registry::Registry;
use integration::store::{Daemon, run};
use serde_json::Value;

use crate::harness::{Tree, layer, merged, noise, publish};

/// The tree of an image, by a view that goes again.
fn tree(store: &Daemon, image: &str) -> Tree {
    let chain = store.json(&["inspect", image])["chainId"].as_str().unwrap().to_owned();
    let mounts = store.json(&["snapshot", "view", "seen", &chain]);
    let tree = merged(&mounts);
    store.run(&["snapshot", "rm", "seen"]).ok();
    tree
}

/// The directories of its layers, top first. By its snapshots: an image whose documents are damaged cannot be asked.
fn layer_directories(store: &Daemon, chain: &str) -> Vec<PathBuf> {
    let mounts = store.json(&["snapshot", "view", "seen", chain]);
    store.run(&["snapshot", "rm", "seen"]).ok();
    let options = mounts[0]["options"].as_array().unwrap();
    let lowers = options.iter().filter_map(|it| it.as_str()?.strip_prefix("lowerdir=")).next().unwrap();
    lowers.split(':').map(PathBuf::from).collect()
}

fn blob(store: &Daemon, digest: &str) -> PathBuf {
    store.dir.join("root/content/blobs").join(digest.replacen(':', "/", 1))
}

fn scribble(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What a check that finds something says, and its exit status: by object, whether it was repaired.
fn check(store: &Daemon, words: &[&str]) -> (Option<i32>, BTreeMap<String, bool>, String) {
    let ran = run(store.command(&[&["fsck", "--json"], words].concat()), None);
    let last: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    let problems = last["result"]["problems"].as_array().unwrap();
    let found = problems.iter().map(|it| (it["object"].as_str().unwrap().to_owned(), it["repaired"] == true)).collect();
    (ran.code, found, ran.stdout)
}

#[test]
fn what_is_damaged_is_fetched_and_unpacked_again() {
    let (store, registry) = (Daemon::start(), Registry::start());
    let layers = [
        layer(&[("etc/one", b"1"), ("data", &noise(1, 300_000))]),
        layer(&[("etc/two", b"2"), ("bin/link", b"-> ../etc/one")]),
        layer(&[("etc/three", b"3")]),
    ];
    let image = publish(&registry, "app", "1", &layers);
    store.run(&["pull", &image]).ok();
    let whole = tree(&store, &image);
    let inspected = store.json(&["inspect", &image]);
    let manifest = store.json(&["inspect", &image, "--raw", "manifest"]);
    let digests: Vec<&str> =
        manifest["layers"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap()).collect();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let target = inspected["target"]["digest"].as_str().unwrap();

    // A blob's byte, a blob, the configuration, the manifest, and a file of the layer in the middle.
    scribble(&blob(&store, digests[0]));
    fs::remove_file(blob(&store, digests[1])).unwrap();
    fs::remove_file(blob(&store, config)).unwrap();
    scribble(&blob(&store, target));
    let directories = layer_directories(&store, inspected["chainId"].as_str().unwrap());
    fs::remove_file(directories[1].join("etc/two")).unwrap();
    let (code, found, said) = check(&store, &[]);
    assert_eq!(code, Some(1), "{said}");
    for damaged in [digests[0], digests[1], config, target] {
        assert_eq!(found.get(damaged), Some(&false), "{damaged}: {said}");
    }
    assert!(found.len() >= 5 && said.contains("its tree has"), "{said}");
    // Quickly only what is not there is found.
    assert!(!check(&store, &["--quick"]).1.contains_key(digests[0]));

    let (code, found, said) = check(&store, &["--repair"]);
    assert!(code == Some(0) && found.values().all(|it| *it), "{said}");
    assert!(store.run(&["fsck"]).ok().stdout.contains("0 problems"));
    assert_eq!(tree(&store, &image), whole);
    assert!(
        registry.seen(&format!("GET /v2/app/blobs/{}", digests[2])).len() == 1,
        "what is whole is not fetched again"
    );
    store.stop();
}

#[test]
fn what_cannot_be_repaired_is_said_and_left() {
    let (store, registry) = (Daemon::start(), Registry::start());
    let image = publish(&registry, "app", "1", &[layer(&[("a", &noise(2, 9000))]), layer(&[("b", b"b"), ("c", b"c")])]);
    store.run(&["pull", &image]).ok();
    let inspected = store.json(&["inspect", &image]);
    let chain = inspected["chainId"].as_str().unwrap();
    let directories = layer_directories(&store, chain);
    let manifest = store.json(&["inspect", &image, "--raw", "manifest"]);
    let first = manifest["layers"][0]["digest"].as_str().unwrap();
    // A container's file system stands on what is damaged: it is not taken away from under it.
    store.run(&["snapshot", "prepare", "container", chain]).ok();
    fs::remove_file(directories[0].join("b")).unwrap();
    let ran = store.run(&["fsck", "--repair"]).fails();
    assert!(ran.stdout.contains("1 problems, 0 repaired"), "{}", ran.stdout);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("\"container\" stands on it and is in use"), "{told}");
    store.run(&["snapshot", "rm", "container"]).ok();
    assert!(store.run(&["fsck", "--repair"]).ok().stdout.contains("1 problems, 1 repaired"));
    assert!(tree(&store, &image).contains_key(Path::new("b")));

    // Nobody has it any more.
    drop(registry);
    scribble(&blob(&store, first));
    let ran = store.run(&["fsck", "--repair"]).fails();
    assert!(ran.stdout.contains(first) && ran.stdout.contains("1 problems, 0 repaired"), "{}", ran.stdout);
    // What is unpacked serves on.
    tree(&store, &image);
    store.stop();
}
