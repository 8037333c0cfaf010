//! From changes to an image that unpacks to them again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, Schedule};
use crate::snapshots::changes;
use crate::testing::skip;

fn store(root: &Path, snapshotter: &str) -> Store {
    let config = Config {
        root: root.join("root"),
        socket: root.join("socket"),
        hosts_dirs: Vec::new(),
        docker_config: None,
        transfers: 1,
        extractions: 1,
        snapshotter: Some(snapshotter.to_owned()),
        discard_blobs: false,
        stall: Duration::from_secs(1),
        collect: Schedule { after: None, every: None },
        idle: None,
    };
    Store::open(config).unwrap()
}

/// A snapshot on this parent, with these files: a path and its text.
fn change(store: &Store, ns: &Namespace, key: &str, parent: &str, files: &[(&str, &str)]) {
    let labels = Labels::new();
    store
        .snapshots
        .prepare(&changes::Request { ns, snapshotter: "", key, parent, labels: &labels, lease: None })
        .unwrap();
    let (upper, _) = store.snapshots.changes(ns, "", key).unwrap();
    let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&upper))).unwrap();
    for (name, text) in files {
        fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        fs::write(path.join(name), text).unwrap();
    }
}

fn json_of(store: &Store, ns: &Namespace, at: &Descriptor) -> Value {
    serde_json::from_reader(store.content.reader(ns, &at.digest).unwrap()).unwrap()
}

async fn two_layers(snapshotter: &str) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), snapshotter);
    let ns: Namespace = "default".parse().unwrap();
    let silent = Progress::silent();

    change(&store, &ns, "first", "", &[("etc/name", "one"), ("kept", "k")]);
    let request = Request {
        snapshot: "first".to_owned(),
        name: Some("example.org/first".to_owned()),
        source_date: Some(1_000_000_000),
        config: Some(br#"{"Env":["A=1"],"Own":{"b":2,"a":1}}"#.to_vec()),
        created_by: "a test".to_owned(),
        ..Request::default()
    };
    let first = commit(&store, &ns, request.clone(), &silent).await.unwrap();
    assert_eq!(first.name, "example.org/first:latest");
    let again = commit(&store, &ns, Request { name: None, ..request.clone() }, &silent).await.unwrap();
    assert_eq!(again.image, first.image, "a second commit has the first one's digest");
    assert_eq!(again.name, first.image.manifest.digest.to_string());
    let config = json_of(&store, &ns, &first.image.config);
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(config["config"], json!({"Env": ["A=1"], "Own": {"a": 1, "b": 2}}));
    assert_eq!(config["history"], json!([{"created": "2001-09-09T01:46:40Z", "created_by": "a test"}]));

    // What was committed can be stood upon at once.
    let chain = first.image.chain_id().unwrap().to_string();
    let inspected = images::inspect(&store, &ns, &first.name, None, "").await.unwrap();
    assert!(inspected.unpacked);
    change(&store, &ns, "second", &chain, &[("etc/name", "two"), ("new", "n")]);
    let request = Request {
        snapshot: "second".to_owned(),
        base: Some(first.name.clone()),
        name: Some("example.org/second:2".to_owned()),
        config: None,
        compression: Compression::Zstd,
        message: "more".to_owned(),
        author: "somebody".to_owned(),
        ..request
    };
    let second = commit(&store, &ns, request.clone(), &silent).await.unwrap();
    assert_eq!(second.image.layers.len(), 2);
    assert_eq!(second.image.layers[0], first.image.layers[0]);
    assert_eq!(second.image.layers[1].media_type, media::LAYER_ZSTD);
    let config = json_of(&store, &ns, &second.image.config);
    assert_eq!(config["config"]["Own"], json!({"a": 1, "b": 2}), "what nobody here knows of is kept");
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    assert_eq!(config["author"], "somebody");

    let chain = second.image.chain_id().unwrap().to_string();
    change(&store, &ns, "third", &chain, &[]);
    let (own, lowers) = store.snapshots.changes(&ns, "", "third").unwrap();
    // A full copy, or the layers top first.
    let text = |name: &str| {
        std::iter::once(&own).chain(&lowers).find_map(|fd| {
            let fd = std::os::fd::AsRawFd::as_raw_fd(fd);
            fs::read_to_string(format!("/proc/self/fd/{fd}/{name}")).ok()
        })
    };
    assert_eq!((text("etc/name"), text("kept"), text("new")), (Some("two".into()), Some("k".into()), Some("n".into())));

    let line = Request { empty_layer: true, name: None, ..request.clone() };
    let line = commit(&store, &ns, line, &silent).await.unwrap();
    assert_eq!(line.image.layers, first.image.layers);
    assert_eq!(json_of(&store, &ns, &line.image.config)["history"][1]["empty_layer"], true);

    for (wrong, kind) in [
        (Request { base: None, ..request.clone() }, ErrorKind::FailedPrecondition),
        (Request { base: Some(second.name.clone()), ..request.clone() }, ErrorKind::FailedPrecondition),
        (Request { base: Some("example.org/none".to_owned()), ..request.clone() }, ErrorKind::NotFound),
        (Request { snapshot: "none".to_owned(), ..request.clone() }, ErrorKind::NotFound),
        (Request { config: Some(b"[]".to_vec()), ..request.clone() }, ErrorKind::InvalidArgument),
        (Request { name: Some("a@b@c".to_owned()), ..request.clone() }, ErrorKind::InvalidArgument),
    ] {
        let error = commit(&store, &ns, wrong, &silent).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.starts_with("commit "), "{error}");
    }
}

#[tokio::test]
async fn changes_of_an_overlay_become_an_image() {
    if !geteuid().is_root() {
        return skip("trusted.overlay xattrs need root");
    }
    two_layers("overlayfs").await;
}

#[tokio::test]
async fn changes_of_a_copy_become_an_image() {
    if !geteuid().is_root() {
        return skip("owners need root");
    }
    two_layers("native").await;
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_ends_and_is_not_in_the_way_of_the_next() {
    if !geteuid().is_root() {
        return skip("trusted.overlay xattrs need root");
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), "overlayfs");
    let ns: Namespace = "default".parse().unwrap();
    change(&store, &ns, "big", "", &[("file", "")]);
    let (upper, _) = store.snapshots.changes(&ns, "", "big").unwrap();
    let file = format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&upper));
    // It takes minutes to compress this.
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(1 << 36).unwrap();

    let written = || fs::read_dir(dir.path().join("root/content/ingests")).unwrap().count();
    let until = async |wanted: usize| {
        while written() != wanted {
            tokio::task::yield_now().await;
        }
    };
    let request = Request { snapshot: "big".to_owned(), ..Request::default() };
    let silent = Progress::silent();
    tokio::select! {
        made = commit(&store, &ns, request.clone(), &silent) => panic!("{made:?}"),
        () = until(1) => {}
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), until(0)).await;
    file.set_len(1).unwrap();
    ended.expect("what it had written goes, and it ends");
    // It may still be about to let go of it.
    commit(&store, &ns, request, &silent).await.unwrap();
}
