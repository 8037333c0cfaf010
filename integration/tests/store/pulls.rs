//! Pulls that are not the simple case: mirrors that fail, all platforms at once.

use std::fs;
use std::path::Path;

use integration::registry::Registry;
use integration::store::{Daemon, tempdir};
use serde_json::json;

use crate::harness::{layer, merged, noise, publish, publish_for};

/// `hosts.toml` of an image's registry: a mirror first, and where it is at home.
fn hosts(dir: &Path, name: &str, mirror: &str, origin: &Registry) {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    let text =
        format!("server = \"{}\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", origin.url());
    fs::write(dir.join("hosts.toml"), text).unwrap();
}

#[test]
fn a_mirror_that_fails_is_made_up_for_by_the_next() {
    let dir = tempdir();
    let hosts_dir = dir.join("hosts");
    let origin = Registry::start();
    let store = Daemon::start_in(&dir, &["--hosts-dir", hosts_dir.to_str().unwrap()]);
    let mirror = |name: &str, seed: u64| {
        let (mirror, layers) =
            (Registry::start(), [layer(&[("etc/name", name.as_bytes())]), layer(&[("data", &noise(seed, 300_000))])]);
        publish(&origin, name, "1", &layers);
        publish(&mirror, name, "1", &layers);
        hosts(&hosts_dir, &format!("{name}.example"), &mirror.url(), &origin);
        mirror
    };
    let pulled = |name: &str| {
        let image = format!("{name}.example/{name}:1");
        origin.forget_seen();
        let ran = store.run(&["pull", &image]).ok();
        let chain = store.json(&["inspect", &image])["chainId"].as_str().unwrap().to_owned();
        let tree = merged(&store.json(&["snapshot", "view", name, &chain]));
        assert!(tree.contains_key(Path::new("data")), "{tree:?}");
        ran.stderr
    };

    // One that works is all that is asked.
    let works = mirror("works", 1);
    pulled("works");
    assert!(origin.seen("").is_empty() && works.seen("/blobs/").len() == 3, "{:?}", origin.seen(""));

    // Cut off again and again: what came stays, and the rest is the next one's.
    let cut = mirror("cut", 2);
    cut.faults(|it| it.cut = Some((50_000, u32::MAX)));
    pulled("cut");
    let ranges: Vec<_> = origin.seen("GET /v2/cut/blobs/").into_iter().filter_map(|it| it.range).collect();
    assert!(ranges.iter().all(|it| it.starts_with("bytes=") && !it.starts_with("bytes=0-")), "{ranges:?}");
    assert_eq!(ranges.len(), 1);

    // Bytes that are not what they should be: all of them are the next one's.
    let wrong = mirror("wrong", 3);
    wrong.faults(|it| it.wrong_bytes = true);
    let said = pulled("wrong");
    assert!(origin.seen("GET /v2/wrong/").len() >= 3, "{:?}", origin.seen(""));
    assert!(said.contains("fetching it again") || said.contains("wrong"), "what was made up for is told: {said}");

    // Nobody there.
    let gone = mirror("gone", 4);
    drop(gone);
    pulled("gone");
    assert!(origin.seen("GET /v2/gone/blobs/").len() == 3);
    assert!(store.run(&["fsck"]).ok().stdout.contains("0 problems"));
    store.stop();
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn all_platforms_come_and_each_is_unpacked() {
    let (store, registry) = (Daemon::start(), Registry::start());
    let shared = layer(&[("etc/shared", b"shared"), ("data", &noise(5, 100_000))]);
    let machines = ["amd64", "arm64", "s390x"];
    let manifests: Vec<_> = machines
        .iter()
        .map(|it| publish_for(&registry, "app", it, it, &[shared.clone(), layer(&[("etc/machine", it.as_bytes())])]))
        .collect();
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": manifests}).to_string();
    registry.manifest("app", Some("all"), index_type, index);
    let image = format!("{}/app:all", registry.host());
    store.run(&["pull", &image, "--all-platforms"]).ok();
    let mut chains = std::collections::BTreeSet::new();
    for machine in machines {
        let platform = format!("linux/{machine}");
        let inspected = store.json(&["inspect", &image, "--platform", &platform]);
        assert_eq!(inspected["unpacked"], true, "{inspected}");
        let chain = inspected["chainId"].as_str().unwrap();
        let tree = merged(&store.json(&["snapshot", "view", machine, chain]));
        let expected = integration::registry::digest(machine.as_bytes());
        assert!(tree[Path::new("etc/machine")].starts_with(&expected), "{tree:?}");
        chains.insert(chain.to_owned());
    }
    assert_eq!(chains.len(), machines.len());
    // What they share was fetched once and lies here once: three machines are four layers.
    assert_eq!(registry.seen("GET /v2/app/blobs/").len(), machines.len() + machines.len() + 1);
    let committed = store.json(&["snapshot", "ls", "kind==committed"]);
    assert_eq!(committed.as_array().unwrap().len(), machines.len() + 1, "{committed}");
    assert!(store.run(&["fsck"]).ok().stdout.contains("0 problems"));
    store.stop();
}

/// By policy: what is unpacked is not kept compressed as well, and is gone when the pull says that it is done.
#[test]
fn discarded_blobs_are_gone_with_the_pulls_end() {
    discarded(&[], &["--discard-blobs"]);
    discarded(&["--discard-blobs"], &[]);
}

/// By a flag of the daemon, or of the pull.
fn discarded(of_daemon: &[&str], of_pull: &[&str]) {
    let (dir, registry) = (tempdir(), Registry::start());
    let store = Daemon::start_in(&dir, of_daemon);
    let layers = [layer(&[("a", &noise(6, 200_000))]), layer(&[("b", &noise(7, 200_000))])];
    let image = publish(&registry, "app", "1", &layers);
    store.run(&[&["pull"], of_pull, &[&image]].concat()).ok();
    let blobs = store.json(&["content", "ls"]);
    let large: Vec<_> = blobs.as_array().unwrap().iter().filter(|it| it["size"].as_u64() > Some(100_000)).collect();
    assert!(large.is_empty(), "{large:?}");
    let on_disk: u64 = fs::read_dir(store.dir.join("root/content/blobs/sha256"))
        .unwrap()
        .map(|it| it.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk < 100_000, "{on_disk}");
    assert_eq!(store.json(&["inspect", &image])["unpacked"], true);
    assert!(store.run(&["fsck"]).ok().stdout.contains("0 problems"), "what was discarded is not missing");
    // What needs them has them again.
    store.run(&["export", &image, "-o", store.dir.join("out.tar").to_str().unwrap()]).fails();
    store.run(&["push", &image, &image.replace("app:1", "copy:1")]).ok();
    store.run(&["pull", &image]).ok();
    let again = store.run(&["export", &image, "-o", store.dir.join("out.tar").to_str().unwrap()]);
    assert_eq!(again.code == Some(0), of_daemon.is_empty(), "the daemon's policy is for each pull: {}", again.stderr);
    store.stop();
    fs::remove_dir_all(dir).unwrap();
}
