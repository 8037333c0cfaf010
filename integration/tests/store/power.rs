//! Power cuts at any moment, on a disk that may lose whatever was not flushed (`integration::recorded_disk`).

use integration::recorded_disk::RecordedDisk;
use integration::registry::Registry;
use integration::skip;

use crate::harness::{Store, Tree, layer, noise, publish};

/// Cuts that are played, beside those right after each report; `TARE_POWER_CUTS` asks for more.
const CUTS: usize = 24;

#[test]
fn what_was_reported_done_survives_a_power_cut() {
    let directory = tempfile::tempdir().unwrap();
    let disk = match RecordedDisk::make(directory.path(), 192) {
        Ok(disk) => disk,
        Err(reason) => skip!("no disk that records: {reason}"),
    };
    let registry = Registry::start();
    let files = |seed: u64| -> Vec<(String, Vec<u8>)> {
        (0..60)
            .map(|it| (format!("dir{}/file{it}", it % 7), noise(seed * 1000 + it, 20_000 + 500 * it as usize)))
            .collect()
    };
    let tar = |seed: u64| {
        let files = files(seed);
        layer(&files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect::<Vec<_>>())
    };
    let first = publish(&registry, "app", "1", &[tar(1), tar(2)]);
    let second = publish(&registry, "app", "2", &[tar(1), tar(2), tar(3)]);

    // What was done, and from which moment on it must be there.
    let mut store = Store::at(&disk.mounted().join("root"));
    store.start();
    let mut reports: Vec<(usize, Vec<String>)> = Vec::new();
    let mut report = |store: &Store, disk: &RecordedDisk| {
        let moment = disk.moment();
        reports.push((moment, store.images()));
    };
    report(&store, &disk);
    store.run(&["pull", &first]);
    report(&store, &disk);
    store.run(&["pull", &second]);
    report(&store, &disk);
    let chain = store.json(&["inspect", &first])["chainId"].as_str().unwrap().to_owned();
    store.run(&["snapshot", "prepare", "work", &chain]);
    store.run(&["commit", "--base", &first, "work", "committed"]);
    report(&store, &disk);
    let trees: Vec<(String, Tree)> =
        [first.clone(), second.clone(), "committed".to_owned()].map(|it| (it.clone(), store.tree(&it))).into();
    store.run(&["rmi", &first]);
    store.run(&["gc"]);
    report(&store, &disk);
    store.kill();
    let last = disk.moment();
    let recording = disk.close();

    let mut cuts: Vec<usize> = reports.iter().map(|(moment, _)| *moment).filter(|it| *it > 0).collect();
    let flushes = recording.flushes();
    let wanted = std::env::var("TARE_POWER_CUTS").ok().and_then(|it| it.parse().ok()).unwrap_or(CUTS);
    // Right after flushes, and somewhere between them.
    cuts.extend((0..wanted).map(|it| flushes[it * flushes.len() / wanted]));
    cuts.extend((1..=wanted).map(|it| it * last / wanted));
    for (number, moment) in cuts.into_iter().enumerate() {
        let seed = number as u64;
        let cut = recording.cut(moment, seed);
        let what = format!("cut at {moment} of {} (seed {seed})", recording.moments());
        let mut store = Store::at(&cut.path().join("root"));
        if let Err(error) = store.start_with(&[]) {
            panic!("{what}: the store does not start: {error}");
        }
        holds(&store, &what, moment, &reports, &trees);
        // And it goes on as if nothing had been.
        store.run(&["pull", &second]);
        store.is_sound().unwrap_or_else(|error| panic!("{what}, after the next pull: {error}"));
        let (_, tree) = &trees[1];
        assert_eq!(store.tree(&second), *tree, "{what}, after the next pull");
        store.run(&["gc"]);
        store.stop();
    }
}

fn holds(store: &Store, what: &str, moment: usize, reports: &[(usize, Vec<String>)], trees: &[(String, Tree)]) {
    store.is_sound().unwrap_or_else(|error| panic!("{what}: {error}"));
    let images = store.images();
    let before = reports.iter().rev().find(|(reported, _)| *reported <= moment);
    let after = reports.iter().find(|(reported, _)| *reported > moment);
    for name in before.into_iter().flat_map(|(_, names)| names) {
        // Only what was being removed at that time may be gone.
        let removing = after.is_some_and(|(_, names)| !names.contains(name));
        assert!(removing || images.contains(name), "{what}: {name} was done and is lost; there are {images:?}");
    }
    for (image, tree) in trees {
        if images.iter().any(|it| it.contains(image.as_str())) {
            assert_eq!(store.tree(image), *tree, "{what}: the tree of {image}");
        }
    }
}
