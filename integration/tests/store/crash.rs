//! The daemon killed at every point between two steps: nothing that was reported done is lost, nothing half-made is seen, and the
//! next call goes on.

use std::path::Path;

use integration::registry::Registry;

use crate::harness::{Store, Tree, layer, noise, publish};

/// What a run goes through, step by step; each is done again until it is reported done.
struct Scenario {
    _registry: Registry,
    first: String,
    second: String,
    archive: String,
    _work: tempfile::TempDir,
}

/// One step: what is called, and what holds once it was reported done.
type Step = (&'static str, fn(&Scenario, &Store) -> Result<(), String>);

/// The digest of nothing.
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const STEPS: &[Step] = &[
    ("pull", |it, store| store.try_run(&["pull", &it.first]).map(drop)),
    ("pull without unpacking", |it, store| store.try_run(&["pull", "--no-unpack", &it.second]).map(drop)),
    ("unpack", |it, store| store.try_run(&["unpack", &it.second]).map(drop)),
    ("prepare", |it, store| {
        // Left by a try that was killed after it was done and before it could say so.
        let _ = store.try_run(&["snapshot", "rm", "work"]);
        let chain = store.json(&["inspect", &it.first])["chainId"].as_str().unwrap().to_owned();
        let out = store.try_run(&["--json", "snapshot", "prepare", "work", &chain])?;
        let mounts: serde_json::Value = serde_json::from_str(&out).unwrap();
        let options = mounts[0]["options"].as_array().unwrap();
        let upper = options.iter().find_map(|it| it.as_str()?.strip_prefix("upperdir=")).unwrap();
        std::fs::write(Path::new(upper).join("made"), "in a container").map_err(|it| it.to_string())
    }),
    ("commit", |it, store| store.try_run(&["commit", "--base", &it.first, "work", "committed"]).map(drop)),
    ("snapshot commit", |_, store| {
        let _ = store.try_run(&["snapshot", "rm", "kept"]);
        // The first that a daemon prepares has another made ahead for who comes next.
        let _ = store.try_run(&["snapshot", "rm", "ahead"]);
        store.try_run(&["snapshot", "prepare", "ahead"])?;
        integration::wait::until("an empty snapshot was made ahead", || spares(store) > 0);
        store.try_run(&["snapshot", "rm", "ahead"]).or_else(gone)?;
        store.try_run(&["snapshot", "prepare", "other"]).or_else(exists)?;
        store.try_run(&["snapshot", "commit", "other", "kept"]).map(drop)
    }),
    ("native", |it, store| store.try_run(&["unpack", "--snapshotter", "native", &it.first]).map(drop)),
    ("export", |it, store| store.try_run(&["export", "--output", &it.archive, &it.first]).map(drop)),
    ("remove", |it, store| store.try_run(&["rmi", &it.first]).or_else(gone).map(drop)),
    ("remove snapshots", |_, store| {
        store.try_run(&["snapshot", "rm", "work"]).or_else(gone)?;
        store.try_run(&["snapshot", "rm", "kept"]).or_else(gone).map(drop)
    }),
    ("remove a blob", |_, store| {
        // Nothing on standard input: the blob without bytes.
        store.try_run(&["content", "put", "empty"]).or_else(exists)?;
        store.try_run(&["content", "rm", EMPTY]).or_else(gone).map(drop)
    }),
    ("collect", |_, store| store.try_run(&["gc"]).map(drop)),
    ("import", |it, store| store.try_run(&["import", &it.archive]).map(drop)),
];

/// Empty snapshots that wait for who prepares one.
fn spares(store: &Store) -> usize {
    let batches = std::fs::read_dir(store.root.join("spare")).into_iter().flatten();
    batches.filter_map(|it| std::fs::read_dir(it.unwrap().path()).ok()).map(Iterator::count).sum()
}

fn exists(error: String) -> Result<String, String> {
    if error.contains("already") || error.contains("exists") { Ok(String::new()) } else { Err(error) }
}

fn gone(error: String) -> Result<String, String> {
    if error.contains("not found")
        || error.contains("no image")
        || error.contains("no snapshot")
        || error.contains("there is no")
    {
        Ok(String::new())
    } else {
        Err(error)
    }
}

impl Scenario {
    fn new() -> Self {
        let registry = Registry::start();
        let base = layer(&[
            ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
            ("usr/bin/tool", &noise(1, 300_000)),
            ("usr/lib/old", b"old"),
            ("bin", b"-> usr/bin"),
        ]);
        let middle =
            layer(&[("usr/lib/.wh.old", b""), ("usr/lib/new", &noise(2, 200_000)), ("etc/passwd", b"other\n")]);
        let top = layer(&[("srv/.wh..wh..opq", b""), ("srv/data", &noise(3, 400_000))]);
        let first = publish(&registry, "app", "1", &[base.clone(), middle.clone()]);
        let second = publish(&registry, "app", "2", &[base, middle, top]);
        let work = tempfile::tempdir().unwrap();
        let archive = work.path().join("archive.tar").to_str().unwrap().to_owned();
        Self { _registry: registry, first, second, archive, _work: work }
    }

    /// What must be there when these steps were done and another was under way.
    fn holds(&self, done: &[&str], under_way: &str, expected: &Expected, store: &Store) {
        let has = |step: &str| done.contains(&step);
        let images = store.images();
        let image = |name: &str| images.iter().any(|it| it.contains(name));
        if has("pull") && !has("remove") && under_way != "remove" || has("import") {
            assert!(image(&self.first), "{} is lost after {done:?}: {images:?}", self.first);
            assert_eq!(store.tree(&self.first), expected.first, "after {done:?}");
        }
        if has("remove") && !has("import") && under_way != "import" {
            assert!(!image(&self.first), "{} is back after {done:?}", self.first);
        }
        if has("unpack") {
            assert_eq!(store.tree(&self.second), expected.second, "after {done:?}");
        }
        if has("commit") {
            let tree = store.tree("committed");
            assert!(tree.contains_key(Path::new("made")), "the committed file is lost after {done:?}");
        }
    }
}

/// What the images hold, as a store tells that was never killed.
struct Expected {
    first: Tree,
    second: Tree,
}

/// How often a point may be passed before the kill.
const NTH: [usize; 2] = [1, 3];

#[test]
fn a_kill_at_any_point_loses_nothing_that_was_done() {
    let scenario = Scenario::new();
    let store = Store::running();
    for (name, step) in STEPS {
        step(&scenario, &store).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let expected = Expected { first: store.tree(&scenario.first), second: store.tree(&scenario.second) };
    assert!(
        expected.first.contains_key(Path::new("usr/lib/new")) && !expected.first.contains_key(Path::new("usr/lib/old"))
    );
    drop(store);

    let mut missed = Vec::new();
    for point in tare_store::fault::POINTS {
        for nth in NTH {
            let hit = killed_at(&scenario, &expected, point, nth);
            if !hit && nth == 1 {
                missed.push(point);
            }
        }
    }
    assert!(missed.is_empty(), "no step comes to these points: {missed:?}");
}

/// Goes through all steps; at the point the daemon is killed and started again. Whether the point was reached.
fn killed_at(scenario: &Scenario, expected: &Expected, point: &str, nth: usize) -> bool {
    let mut store = Store::new();
    store.start_with(&[("TARE_STORE_FAULT", &format!("{point}:{nth}"))]).unwrap();
    let (mut done, mut hit) = (Vec::new(), false);
    for (name, step) in STEPS {
        let result = step(scenario, &store);
        if store.was_killed(result.is_err()) {
            hit = true;
            store.start();
            store.is_sound().unwrap_or_else(|error| panic!("killed at {point} ({nth}) in {name}: {error}"));
            scenario.holds(&done, name, expected, &store);
            // What a client would do: the same call again.
            step(scenario, &store).unwrap_or_else(|error| panic!("{name} again after {point} ({nth}): {error}"));
        } else {
            result.unwrap_or_else(|error| panic!("{name} with {point} ({nth}) to come: {error}"));
        }
        done.push(*name);
    }
    if !hit {
        // What follows would come to the point.
        store.kill();
        store.start();
    }
    scenario.holds(&done, "", expected, &store);
    store.is_sound().unwrap_or_else(|error| panic!("at the end, after {point} ({nth}): {error}"));
    leaves_nothing(&store, &format!("after {point} ({nth})"));
    hit
}

/// What others pass first, in the run above: each time that they pass a point, whichever it is, is played here.
const THROUGHOUT: &[&str] = &["unpack", "commit", "collect"];

#[test]
fn a_kill_at_any_moment_of_a_call_is_recovered_by_the_next() {
    let scenario = Scenario::new();
    let mut store = Store::running();
    let saved = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    let mut expected = Expected { first: Tree::new(), second: Tree::new() };
    let mut done = Vec::new();
    for (name, step) in STEPS {
        if THROUGHOUT.contains(name) {
            store.kill();
            copy(&store.root, &saved.path().join("root"));
            let mut killed = 0;
            loop {
                copy(&saved.path().join("root"), &store.root);
                let nth = format!("*:{}", killed + 1);
                let begun = store.start_with(&[("TARE_STORE_FAULT", &nth)]);
                let result = begun.and_then(|()| step(&scenario, &store));
                if !store.was_killed(result.is_err()) {
                    result.unwrap_or_else(|error| panic!("{name} without a kill: {error}"));
                    break;
                }
                killed += 1;
                store.start();
                store.is_sound().unwrap_or_else(|error| panic!("{name}, killed at {nth}: {error}"));
                scenario.holds(&done, name, &expected, &store);
                step(&scenario, &store).unwrap_or_else(|error| panic!("{name} again after {nth}: {error}"));
                store.is_sound().unwrap_or_else(|error| panic!("{name} again after {nth}: {error}"));
                store.kill();
            }
            assert!(killed > 3, "{name} passes only {killed} points");
            // The last daemon may still be killed by what it comes to.
            store.kill();
            store.start();
        } else {
            step(&scenario, &store).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        match *name {
            "pull" => expected.first = store.tree(&scenario.first),
            "unpack" => expected.second = store.tree(&scenario.second),
            _ => {}
        }
        done.push(*name);
        scenario.holds(&done, "", &expected, &store);
    }
}

/// When everything is removed, no byte is left.
fn leaves_nothing(store: &Store, when: &str) {
    for image in store.images() {
        store.run(&["rmi", &image]);
    }
    for snapshot in store.json(&["snapshot", "ls"]).as_array().unwrap() {
        if snapshot["kind"] != "committed" {
            store.run(&["snapshot", "rm", snapshot["name"].as_str().unwrap()]);
        }
    }
    for lease in store.json(&["lease", "ls"]).as_array().unwrap() {
        store.run(&["lease", "rm", lease["id"].as_str().unwrap()]);
    }
    store.run(&["gc"]);
    for (directory, depth) in [("content/blobs/sha256", 0), ("content/ingests", 0), ("snapshots", 0)] {
        let left: Vec<_> = std::fs::read_dir(store.root.join(directory))
            .into_iter()
            .flatten()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert!(left.len() <= depth, "{when}, {directory} still holds {left:?}");
    }
}

#[test]
fn a_pull_goes_on_where_it_was_killed() {
    let registry = Registry::start();
    let reference = publish(&registry, "big", "1", &[layer(&[("data", &noise(9, 6_000_000))])]);
    let mut store = Store::new();
    registry.faults(|it| it.slow = Some((10_000, 40)));
    store.start();
    let mut client = store.command(&["pull", &reference]).stderr(std::process::Stdio::null()).spawn().unwrap();
    integration::wait::until("some bytes have come", || {
        store.json(&["content", "ingests"]).as_array().unwrap().iter().any(|it| it["offset"].as_u64() >= Some(300_000))
    });
    store.kill();
    client.wait().unwrap();
    registry.faults(|it| it.slow = None);
    registry.forget_seen();
    store.start();
    store.run(&["pull", &reference]);
    let blobs = registry.seen("GET /v2/big/blobs");
    let begins =
        |range: &str| range.trim_start_matches("bytes=").split('-').next().and_then(|it| it.parse::<u64>().ok());
    let layer = blobs.iter().filter_map(|it| begins(it.range.as_deref()?)).min();
    assert!(layer >= Some(300_000), "{:?}", blobs.iter().map(|it| &it.range).collect::<Vec<_>>());
    store.is_sound().unwrap();
}
