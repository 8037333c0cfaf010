use tare_proto::snapshots::*;
use tare_proto::snapshots_ttrpc::SnapshotsClient;
use tare_proto::{FieldMask, MessageField};
use ttrpc::Code;

use super::*;

fn prepare(key: &str, parent: &str) -> PrepareSnapshotRequest {
    let mut request = PrepareSnapshotRequest::new();
    (request.key, request.parent) = (key.into(), parent.into());
    request
}

async fn commit(snapshots: &SnapshotsClient, key: &str, name: &str) -> ttrpc::Result<tare_proto::Empty> {
    let mut request = CommitSnapshotRequest::new();
    (request.key, request.name) = (key.into(), name.into());
    snapshots.commit(plain(), &request).await
}

async fn remove(snapshots: &SnapshotsClient, key: &str) -> ttrpc::Result<tare_proto::Empty> {
    let mut request = RemoveSnapshotRequest::new();
    request.key = key.into();
    snapshots.remove(plain(), &request).await
}

#[tokio::test]
async fn a_life_with_the_codes_that_containerds_clients_know() {
    let daemon = Daemon::start().await;
    let snapshots = SnapshotsClient::new(daemon.client().await);
    let mounts = snapshots.prepare(plain(), &prepare("a", "")).await.unwrap().mounts;
    assert_eq!((mounts.len(), mounts[0].type_.as_str()), (1, "bind"));
    std::fs::write(std::path::Path::new(&mounts[0].source).join("file"), "x").unwrap();
    assert_eq!(code(snapshots.prepare(plain(), &prepare("a", "")).await), Code::ALREADY_EXISTS);
    assert_eq!(code(snapshots.prepare(plain(), &prepare("b", "none")).await), Code::NOT_FOUND);
    commit(&snapshots, "a", "base").await.unwrap();
    assert_eq!(code(commit(&snapshots, "a", "base").await), Code::NOT_FOUND);

    let mut view = ViewSnapshotRequest::new();
    (view.key, view.parent) = ("v".into(), "base".into());
    let seen = snapshots.view(plain(), &view).await.unwrap().mounts;
    assert!(seen[0].options.contains(&"ro".to_owned()), "{seen:?}");
    snapshots.prepare(plain(), &prepare("b", "base")).await.unwrap();
    assert_eq!(code(remove(&snapshots, "base").await), Code::FAILED_PRECONDITION);

    let mut of = MountsRequest::new();
    of.key = "v".into();
    assert_eq!(snapshots.mounts(plain(), &of).await.unwrap().mounts, seen);
    of.key = "base".into();
    assert!(matches!(code(snapshots.mounts(plain(), &of).await), Code::FAILED_PRECONDITION));

    let mut stat = StatSnapshotRequest::new();
    stat.key = "b".into();
    let info = snapshots.stat(plain(), &stat).await.unwrap().info.unwrap();
    assert_eq!((info.kind.enum_value().unwrap(), info.parent.as_str()), (Kind::ACTIVE, "base"));
    stat.snapshotter = "zfs".into();
    assert!(refused(snapshots.stat(plain(), &stat).await).1.contains("zfs"));

    let mut usage = UsageRequest::new();
    usage.key = "base".into();
    let used = snapshots.usage(plain(), &usage).await.unwrap();
    assert!(used.size > 0 && used.inodes >= 1, "{used:?}");
    for key in ["v", "b", "base"] {
        remove(&snapshots, key).await.unwrap();
    }
    assert_eq!(code(remove(&snapshots, "base").await), Code::NOT_FOUND);
    snapshots.cleanup(plain(), &CleanupRequest::new()).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn lists_labels_and_leases() {
    let daemon = Daemon::start().await;
    let snapshots = SnapshotsClient::new(daemon.client().await);
    for n in 0..120 {
        snapshots.prepare(plain(), &prepare(&format!("{n:03}"), "")).await.unwrap();
    }
    let mut stream = snapshots.list(plain(), &ListSnapshotsRequest::new()).await.unwrap();
    let mut all = Vec::new();
    while let Some(batch) = stream.recv().await.unwrap() {
        assert!(batch.info.len() <= 100);
        all.extend(batch.info.into_iter().map(|it| it.name));
    }
    assert_eq!(all, (0..120).map(|n| format!("{n:03}")).collect::<Vec<_>>());

    let mut new = Info::new();
    (new.name, new.labels) = ("007".into(), HashMap::from([("a".into(), "b".into()), ("c".into(), "d".into())]));
    let mut update = UpdateSnapshotRequest::new();
    update.info = MessageField::some(new);
    let mut mask = FieldMask::new();
    mask.paths = vec!["labels.a".into()];
    update.update_mask = MessageField::some(mask);
    let info = snapshots.update(plain(), &update).await.unwrap().info.unwrap();
    assert_eq!(info.labels, HashMap::from([("a".into(), "b".into())]));
    let mut request = ListSnapshotsRequest::new();
    request.filters = vec!["labels.a==b,kind==active".into()];
    let mut stream = snapshots.list(plain(), &request).await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap().info.len(), 1);

    let ns = "default".parse().unwrap();
    daemon.store.metadata.create_lease(&ns, "l", &<_>::default()).unwrap();
    snapshots.prepare(with_lease("l"), &prepare("leased", "")).await.unwrap();
    let kept = daemon.store.metadata.resources(&ns, "l").unwrap();
    assert!(kept.iter().any(|it| it.kind.starts_with("snapshots/") && it.id == "leased"), "{kept:?}");
    assert_eq!(code(snapshots.prepare(with_lease("none"), &prepare("x", "")).await), Code::NOT_FOUND);
    daemon.stop().await;
}
