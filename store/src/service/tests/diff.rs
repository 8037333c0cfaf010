use std::path::Path;

use tare_proto::MessageField;
use tare_proto::diff::{ApplyRequest, DiffRequest};
use tare_proto::diff_ttrpc::DiffClient;
use tare_proto::snapshots::{CommitSnapshotRequest, PrepareSnapshotRequest, ViewSnapshotRequest};
use tare_proto::snapshots_ttrpc::SnapshotsClient;
use tare_proto::types::{Descriptor, Mount};
use ttrpc::Code;

use super::*;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

async fn prepare(client: &Client, key: &str, parent: &str) -> Vec<Mount> {
    let mut request = PrepareSnapshotRequest::new();
    (request.key, request.parent, request.snapshotter) = (key.into(), parent.into(), "overlayfs".into());
    SnapshotsClient::new(client.clone()).prepare(plain(), &request).await.unwrap().mounts
}

async fn commit(client: &Client, key: &str, name: &str) {
    let mut request = CommitSnapshotRequest::new();
    (request.key, request.name, request.snapshotter) = (key.into(), name.into(), "overlayfs".into());
    SnapshotsClient::new(client.clone()).commit(plain(), &request).await.unwrap();
}

async fn view(client: &Client, key: &str, parent: &str) -> Vec<Mount> {
    let mut request = ViewSnapshotRequest::new();
    (request.key, request.parent, request.snapshotter) = (key.into(), parent.into(), "overlayfs".into());
    SnapshotsClient::new(client.clone()).view(plain(), &request).await.unwrap().mounts
}

async fn apply(client: &Client, digest: &str, mounts: Vec<Mount>) -> ttrpc::Result<Descriptor> {
    let mut layer = Descriptor::new();
    (layer.media_type, layer.digest) = (LAYER.into(), digest.into());
    let mut request = ApplyRequest::new();
    (request.diff, request.mounts, request.sync_fs) = (MessageField::some(layer), mounts, true);
    Ok(DiffClient::new(client.clone()).apply(plain(), &request).await?.applied.unwrap())
}

async fn diff(client: &Client, left: Vec<Mount>, right: Vec<Mount>) -> ttrpc::Result<Descriptor> {
    let mut request = DiffRequest::new();
    (request.left, request.right, request.media_type) = (left, right, LAYER.into());
    Ok(DiffClient::new(client.clone()).diff(plain(), &request).await?.diff.unwrap())
}

fn upper(mounts: &[Mount]) -> &Path {
    let option = mounts[0].options.iter().find_map(|it| it.strip_prefix("upperdir="));
    option.unwrap_or(&mounts[0].source).as_ref()
}

/// What is made of a snapshot, applied to another, is that snapshot again.
#[tokio::test]
async fn a_layer_goes_there_and_back() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let base = prepare(&client, "base-1", "").await;
    std::fs::write(upper(&base).join("one"), "1").unwrap();
    std::fs::create_dir(upper(&base).join("dir")).unwrap();
    let first = diff(&client, vec![], base).await.unwrap();
    commit(&client, "base-1", "base").await;
    let changed = prepare(&client, "changed-1", "base").await;
    std::fs::write(upper(&changed).join("two"), "2").unwrap();
    let second = diff(&client, view(&client, "base-view", "base").await, changed.clone()).await.unwrap();
    assert_ne!(first.digest, second.digest);
    assert_eq!(code(diff(&client, vec![], changed.clone()).await), Code::UNIMPLEMENTED, "two layers are not one");
    assert!(diff(&client, changed.clone(), changed.clone()).await.unwrap().size <= 1024, "nothing changed");

    let target = prepare(&client, "a-1", "").await;
    let applied = apply(&client, &first.digest, target.clone()).await.unwrap();
    assert_eq!(
        (applied.digest, applied.size),
        (first.digest.clone(), first.size),
        "an uncompressed layer is its own diff id"
    );
    assert_eq!(std::fs::read_to_string(upper(&target).join("one")).unwrap(), "1");
    commit(&client, "a-1", "a").await;
    let target = prepare(&client, "b-1", "a").await;
    apply(&client, &second.digest, target.clone()).await.unwrap();
    assert_eq!(std::fs::read_to_string(upper(&target).join("two")).unwrap(), "2");
    assert_eq!(code(apply(&client, &second.digest, target).await), Code::FAILED_PRECONDITION, "it has changes already");
    let again = diff(&client, view(&client, "a-view", "a").await, prepare(&client, "c-1", "a").await).await.unwrap();
    assert!(again.size <= 1024, "nothing was changed there");
    daemon.stop().await;
}

#[tokio::test]
async fn only_mounts_of_this_store_are_taken() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let layer = stored(&client, &[0; 1024]).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = prepare(&client, "k", "").await;
    let source = &ours[0].source;
    for path in [
        dir.path().display().to_string(),
        "/".into(),
        String::new(),
        format!("{source}/.."),
        format!("{source}/../../../content"),
        format!("{source}/below"),
        source.replace("/fs", "/work"),
        source.replace("/snapshots/", "/snapshots/0"),
    ] {
        let mut mount = ours[0].clone();
        mount.source.clone_from(&path);
        assert_eq!(code(apply(&client, &layer, vec![mount.clone()]).await), Code::INVALID_ARGUMENT, "{path}");
        assert_eq!(code(diff(&client, vec![], vec![mount]).await), Code::INVALID_ARGUMENT, "{path}");
    }
    assert_eq!(code(diff(&client, vec![], vec![]).await), Code::INVALID_ARGUMENT);
    let mut readonly = ours.clone();
    readonly[0].options = vec!["ro".into()];
    assert_eq!(code(apply(&client, &layer, readonly).await), Code::FAILED_PRECONDITION);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    daemon.stop().await;
}
