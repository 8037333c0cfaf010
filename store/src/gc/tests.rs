use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::descriptor::Descriptor;
use crate::metadata::{NewImage, Publication, Resource};
use crate::testing::{Parts, clock_ahead, labels, request};

fn ns() -> Namespace {
    Namespace::default()
}

fn gc(parts: &Parts) -> Collected {
    collect(&parts.metadata, &parts.content, &parts.snapshots, &Options::default()).unwrap()
}

#[test]
fn an_image_keeps_what_it_refers_to_and_its_end_frees_it() {
    let parts = Parts::new();
    parts.image(&ns(), "a", b"layer", "chain").unwrap();
    parts.content.put(&ns(), b"nobody's", &labels(&[]), None).unwrap();
    let dry = Options { dry_run: true, prune: None };
    let would = collect(&parts.metadata, &parts.content, &parts.snapshots, &dry).unwrap();
    assert_eq!(parts.list("content/blobs/sha256").len(), 3);
    let did = gc(&parts);
    assert_eq!((&did, did.blobs, did.snapshots), (&would, 1, 0));
    assert!(did.bytes > 0);
    parts.metadata.delete_image(&ns(), "a", None).unwrap();
    let did = gc(&parts);
    assert_eq!((did.blobs, did.snapshots), (2, 1));
    assert!(parts.list("content/blobs/sha256").is_empty() && parts.list("snapshots").is_empty());
    assert_eq!(gc(&parts), Collected::default());
}

#[test]
fn what_is_in_use_is_kept_with_what_it_stands_on() {
    let parts = Parts::new();
    parts.image(&ns(), "a", b"layer", "chain").unwrap();
    parts.snapshots.prepare(&request(&ns(), "key", "chain", &labels(&[]))).unwrap();
    parts.metadata.delete_image(&ns(), "a", None).unwrap();
    assert_eq!((gc(&parts).snapshots, parts.list("snapshots").len()), (0, 2));
    parts.snapshots.remove(&ns(), "", "key").unwrap();
    assert_eq!(gc(&parts).snapshots, 1);
}

#[test]
fn labels_root_refer_and_refer_back() {
    let parts = Parts::new();
    let put =
        |text: &str, with: &[(&str, &str)]| parts.content.put(&ns(), text.as_bytes(), &labels(with), None).unwrap();
    let child = put("child", &[]);
    let root = put("root", &[("containerd.io/gc.root", "1"), ("containerd.io/gc.ref.content.0", &child.to_string())]);
    let back = put("back", &[("containerd.io/gc.bref.content.x", &root.to_string())]);
    let later = put("later", &[("containerd.io/gc.expire", "2999-01-01T00:00:00Z")]);
    put("dead", &[("containerd.io/gc.bref.content.x", &Digest::of(b"none").to_string())]);
    put("past", &[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")]);
    assert_eq!(gc(&parts).blobs, 2);
    let left: BTreeSet<Digest> = parts.content.list(&ns(), &[]).unwrap().into_iter().map(|it| it.digest).collect();
    assert_eq!(left, BTreeSet::from([child, root, back, later]));
}

#[test]
fn an_image_can_expire_and_a_namespace_can_be_somebody_elses() {
    let parts = Parts::new();
    let (ours, theirs): (Namespace, Namespace) = (ns(), "containerd".parse().unwrap());
    let target = parts.image(&ours, "a", b"layer", "chain").unwrap();
    let past = labels(&[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")]);
    parts.metadata.update_image(&ours, "a", &target, &past, &[]).unwrap();
    parts.content.hold(&theirs, &target.digest, None).unwrap().unwrap();
    parts.metadata.update_namespace(&theirs, &labels(&[("containerd.io/gc.root", "1")]), &[]).unwrap();
    let did = gc(&parts);
    assert_eq!((did.images, did.blobs, did.snapshots), (vec!["a".to_owned()], 1, 1));
    assert!(parts.content.info(&theirs, &target.digest).unwrap().is_some());
}

#[test]
fn a_lease_keeps_all_of_it_and_a_flat_one_only_what_it_names() {
    let parts = Parts::new();
    let target = parts.image(&ns(), "a", b"layer", "chain").unwrap();
    let lease = |id: &str, with: &[(&str, &str)]| {
        parts.metadata.create_lease(&ns(), id, &labels(with)).unwrap();
        let resource = Resource { kind: "content".into(), id: target.digest.to_string() };
        parts.metadata.add_resource(&ns(), id, &resource).unwrap();
    };
    lease("full", &[]);
    lease("flat", &[("containerd.io/gc.flat", "1")]);
    parts.metadata.delete_image(&ns(), "a", None).unwrap();
    assert_eq!(gc(&parts), Collected::default());
    parts.metadata.delete_lease(&ns(), "full").unwrap();
    let did = gc(&parts);
    assert_eq!((did.blobs, did.snapshots, parts.list("content/blobs/sha256").len()), (1, 1, 1));
}

#[test]
fn a_clock_that_jumps_ends_no_call() {
    let parts = Parts::new();
    let lease = parts.metadata.hold(&ns(), "pull").unwrap();
    let digest = parts.content.put(&ns(), b"fetched", &labels(&[]), Some(lease.id())).unwrap();
    parts
        .metadata
        .create_lease(&ns(), "client", &labels(&[("containerd.io/gc.expire", "2999-01-01T00:00:00Z")]))
        .unwrap();
    clock_ahead(Duration::from_secs(2000 * 366 * 86_400));
    let did = gc(&parts);
    clock_ahead(Duration::ZERO);
    assert_eq!((did.leases, did.blobs), (1, 0));
    assert!(parts.content.info(&ns(), &digest).unwrap().is_some());
    drop(lease);
    assert_eq!(gc(&parts).blobs, 1);
}

#[test]
fn a_prune_spares_what_is_labelled_used_or_newer() {
    let parts = Parts::new();
    for name in ["free", "used", "kept"] {
        parts.image(&ns(), name, name.as_bytes(), &format!("chain-{name}")).unwrap();
    }
    let dangling = Digest::of(b"x").to_string();
    parts.image(&ns(), &dangling, b"x", "chain-x").unwrap();
    let kept = labels(&[("containerd.io/gc.root", "1")]);
    parts
        .metadata
        .update_image(&ns(), "kept", &Descriptor::new("x", Digest::of(b""), 0), &kept, &["labels".into()])
        .unwrap();
    parts.snapshots.prepare(&request(&ns(), "key", "chain-used", &labels(&[]))).unwrap();
    let prune = |dangling_only, before, dry_run| {
        let prune = Some(Prune { ns: ns(), dangling_only, before });
        collect(&parts.metadata, &parts.content, &parts.snapshots, &Options { dry_run, prune }).unwrap().images
    };
    assert!(prune(false, Some(SystemTime::UNIX_EPOCH), false).is_empty());
    assert_eq!(prune(true, None, true), std::slice::from_ref(&dangling));
    assert_eq!(prune(true, None, false), [dangling]);
    assert_eq!(prune(false, None, false), ["free"]);
    assert_eq!(parts.metadata.images(&ns(), &[]).unwrap().len(), 2);
}

#[test]
fn a_failure_in_the_middle_is_made_good_by_the_next_collection_or_start() {
    for point in ["gc.marked", "gc.swept", "gc.unlinked_one"] {
        let parts = Parts::new();
        parts.image(&ns(), "a", b"layer", "chain").unwrap();
        parts.metadata.delete_image(&ns(), "a", None).unwrap();
        let armed = crate::fault::fail_at(point);
        collect(&parts.metadata, &parts.content, &parts.snapshots, &Options::default()).unwrap_err();
        drop(armed);
        let parts = parts.again();
        gc(&parts);
        assert!(parts.list("content/blobs/sha256").is_empty() && parts.list("snapshots").is_empty(), "{point}");
    }
}

/// Collection runs without a pause, while others publish, share, and take away the same few blobs and layers. Whatever an image or a lease
/// refers to must be there, whenever it is looked at.
#[test]
fn collection_never_races_with_whoever_publishes() {
    let parts = Parts::new();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    let until = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut removed = Collected::default();
            while !stop.load(Ordering::Relaxed) {
                let did = gc(&parts);
                removed.blobs += did.blobs;
                removed.snapshots += did.snapshots;
            }
            removed
        });
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (parts, rounds) = (&parts, &rounds);
                scope.spawn(move || {
                    // Each in two namespaces, so that bytes are shared and rows are not.
                    let ns: Namespace = if worker == 0 { "other".parse().unwrap() } else { ns() };
                    for round in 0_u32.. {
                        if Instant::now() > until {
                            break;
                        }
                        publish_and_look(parts, &ns, worker, round);
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let removed = collector.join().unwrap();
        assert!(removed.blobs > 0 && removed.snapshots > 0, "the collector had something to do: {removed:?}");
    });
    assert!(rounds.load(Ordering::Relaxed) > 10);
    gc(&parts);
    parts.snapshots.trees().flush();
    assert!(parts.list("content/blobs/sha256").is_empty(), "nothing is left behind");
    assert!(parts.list("snapshots").is_empty(), "nothing is left behind");
    assert!(parts.list("content/ingests").is_empty(), "nothing is left behind");
}

fn publish_and_look(parts: &Parts, ns: &Namespace, worker: u32, round: u32) {
    // Layers are the same ones for all workers, now and then.
    let (layer, chain, name) =
        (format!("layer {}", round % 3), format!("chain-{}", round % 3), format!("image-{worker}"));
    let lease = parts.metadata.hold(ns, "stress").unwrap();
    let keep = Some(lease.id());
    let digest = match parts.content.hold(ns, &Digest::of(layer.as_bytes()), keep).unwrap() {
        Some(info) => info.digest,
        None => {
            let mut ingest = parts.content.ingest(ns, &format!("{worker}"), None, None).unwrap();
            ingest.truncate(0).unwrap();
            ingest.write(layer.as_bytes()).unwrap();
            ingest.commit(None, None, &labels(&[]), keep).unwrap().digest
        }
    };
    read(parts, ns, &digest, &layer);
    let mut layers = Vec::new();
    if !parts.snapshots.hold(ns, "", &chain, keep).unwrap() {
        layers = parts.snapshots.sync(vec![parts.extracted(ns, &chain, None)]).unwrap();
    }
    let text = format!("manifest {worker} {round}");
    let refers = labels(&[
        ("containerd.io/gc.ref.content.l.0", &digest.to_string()),
        ("containerd.io/gc.ref.snapshot.overlayfs", &chain),
    ]);
    let manifest = parts.content.put(ns, text.as_bytes(), &refers, keep).unwrap();
    let target = Descriptor::new("m", manifest, text.len() as u64);
    let images = vec![NewImage { name: name.clone(), target: target.clone(), labels: labels(&[]) }];
    let publication = Publication { ns, lease: Some(&lease), layers, blobs: Vec::new(), images };
    parts.metadata.publish(publication).unwrap();
    drop(lease);
    // From here on the image alone keeps it.
    assert_eq!(parts.content.read(ns, &target, 100).unwrap(), text.as_bytes());
    read(parts, ns, &digest, &layer);
    let key = format!("key-{worker}");
    parts.snapshots.prepare(&request(ns, &key, &chain, &labels(&[]))).unwrap();
    parts.metadata.delete_image(ns, &name, None).unwrap();
    // And now the snapshot in use its layer.
    let (own, lowers) = parts.snapshots.changes(ns, "", &key).unwrap();
    let file =
        nix::fcntl::openat(&lowers[0], chain.as_str(), nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty());
    file.expect("the layer's file");
    drop(own);
    parts.snapshots.remove(ns, "", &key).unwrap();
}

fn read(parts: &Parts, ns: &Namespace, digest: &Digest, wanted: &str) {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut parts.content.reader(ns, digest).unwrap(), &mut text).unwrap();
    assert_eq!(text, wanted);
}
