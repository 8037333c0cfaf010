//! The store as a whole: collection, usage, check, what it is.

use std::time::SystemTime;

use serde_json::json;
use tare_proto::MessageField;
use tare_proto::store::{CheckRequest, CollectRequest, ImageUsage, InfoRequest, Problem, UsageRequest};

use super::args;
use super::output::{self, Done, Failure, bytes, table};
use super::transfer::without_result;
use super::watch::printable;
use super::{Session, credentials};
use crate::config::duration;
use crate::service::wire;

pub(super) async fn collect(session: &Session, args: args::Gc) -> Done {
    let mut request = CollectRequest::new();
    request.dry_run = args.dry_run;
    request.prune_images = args.prune;
    request.prune_dangling = args.prune_dangling;
    if let Some(age) = args.older_than {
        if !args.prune && !args.prune_dangling {
            return Err(Failure::usage("--older-than goes with --prune or --prune-dangling"));
        }
        let age = duration(&age).map_err(|error| Failure::usage(error.message))?;
        request.created_before = SystemTime::now().checked_sub(age).map_or_else(MessageField::none, wire::timestamp);
    }
    let response = session.client.store().collect(session.client.context(), &request).await;
    let it = response.map_err(|error| session.client.failed(error))?;
    if session.json {
        return output::document(&json!({
            "images": it.images,
            "blobs": it.blobs,
            "snapshots": it.snapshots,
            "ingests": it.ingests,
            "leases": it.leases,
            "bytes": it.bytes,
        }));
    }
    it.images.iter().try_for_each(|name| output::line(name))?;
    let done = if args.dry_run { "would be removed" } else { "removed" };
    output::line(&format!(
        "{} blobs, {} snapshots, {} ingests and {} leases {done}; {} freed",
        it.blobs,
        it.snapshots,
        it.ingests,
        it.leases,
        bytes(it.bytes)
    ))
}

pub(super) async fn usage(session: &Session, args: args::Df) -> Done {
    let mut request = UsageRequest::new();
    request.image = args.image.unwrap_or_default();
    let response = session.client.store().usage(session.client.context(), &request).await;
    let it = response.map_err(|error| session.client.failed(error))?;
    if session.json {
        let one = |it: &ImageUsage| {
            json!({
                "name": it.name,
                "digest": it.digest,
                "blobBytes": it.blob_bytes,
                "snapshotBytes": it.snapshot_bytes,
                "sharedBytes": it.shared_bytes,
            })
        };
        return output::document(&json!({
            "images": it.images.iter().map(one).collect::<Vec<_>>(),
            "blobBytes": it.blob_bytes,
            "snapshotBytes": it.snapshot_bytes,
            "ingestBytes": it.ingest_bytes,
            "reclaimableBytes": it.reclaimable_bytes,
            "blobs": it.blobs,
            "snapshots": it.snapshots,
            "activeSnapshots": it.active_snapshots,
        }));
    }
    let row =
        |it: &ImageUsage| [it.name.clone(), bytes(it.blob_bytes), bytes(it.snapshot_bytes), bytes(it.shared_bytes)];
    table(["IMAGE", "COMPRESSED", "UNPACKED", "SHARED"], &it.images.iter().map(row).collect::<Vec<_>>())?;
    if !request.image.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::line(&format!("{} in {} blobs", bytes(it.blob_bytes), it.blobs))?;
    let active = it.active_snapshots;
    output::line(&format!("{} in {} snapshots, {active} of them in use", bytes(it.snapshot_bytes), it.snapshots))?;
    output::line(&format!("{} still coming", bytes(it.ingest_bytes)))?;
    output::line(&format!("{} can be freed (tare-store gc)", bytes(it.reclaimable_bytes)))
}

pub(super) async fn check(session: &Session, args: args::Fsck) -> Done {
    let mut request = CheckRequest::new();
    request.registry = credentials::options(&args.registry, "").await?;
    (request.repair, request.quick) = (args.repair, args.quick);
    let stream = session.client.store().check(session.client.context(), &request).await;
    let mut stream = stream.map_err(|error| session.client.failed(error))?;
    let mut watch = session.watch();
    let (mut problems, mut ended) = (Vec::new(), None);
    let result: Done = loop {
        match session.client.next(&mut stream).await {
            Ok(Some(mut progress)) => {
                problems.append(&mut progress.problems);
                if let Err(failure) = watch.show(&progress) {
                    break Err(failure);
                }
                ended = progress.result.into_option().or(ended);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    watch.end();
    result?;
    let ended = ended.ok_or_else(without_result)?;
    let left = ended.problems.saturating_sub(ended.repaired);
    if session.json {
        let one = |it: &Problem| json!({ "kind": it.kind, "object": it.object, "message": it.message, "repaired": it.repaired });
        let problems: Vec<_> = problems.iter().map(one).collect();
        output::document(
            &json!({ "result": { "problems": problems, "found": ended.problems, "repaired": ended.repaired } }),
        )?;
    } else {
        for it in &problems {
            let done = if it.repaired { " (repaired)" } else { "" };
            output::line(&printable(&format!("{} {}: {}{done}", it.kind, it.object, it.message)))?;
        }
        output::line(&format!("{} problems, {} repaired", ended.problems, ended.repaired))?;
    }
    if left > 0 { Err(Failure::Found) } else { Ok(()) }
}

pub(super) async fn info(session: &Session) -> Done {
    let response = session.client.store().info(session.client.context(), &InfoRequest::new()).await;
    let it = response.map_err(|error| session.client.failed(error))?;
    if session.json {
        return output::document(&json!({
            "version": it.version,
            "root": it.root,
            "snapshotters": it.snapshotters,
            "defaultSnapshotter": it.default_snapshotter,
            "platform": it.platform,
            "pid": it.pid,
            "freeBytes": it.free_bytes,
        }));
    }
    output::line(&format!("version       {}", it.version))?;
    output::line(&format!("root          {}", it.root))?;
    output::line(&format!("snapshotters  {} (default: {})", it.snapshotters.join(", "), it.default_snapshotter))?;
    output::line(&format!("platform      {}", it.platform))?;
    output::line(&format!("process       {}", it.pid))?;
    output::line(&format!("free          {}", bytes(it.free_bytes)))
}
