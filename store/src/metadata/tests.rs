use std::time::Duration;

use super::*;
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::testing::{Parts, clock_ahead, labels};

fn target(text: &str) -> Descriptor {
    Descriptor::new("application/vnd.oci.image.manifest.v1+json", Digest::of(text.as_bytes()), text.len() as u64)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind
}

#[test]
fn images_come_change_and_go_as_in_containerd() {
    let parts = Parts::new();
    let (it, ns) = (&parts.metadata, &Namespace::default());
    let made = it.create_image(ns, "a", &target("1"), &labels(&[("x", "1"), ("empty", "")])).unwrap();
    assert_eq!(made.labels, labels(&[("x", "1")]));
    assert_eq!(kind(it.create_image(ns, "a", &target("2"), &labels(&[]))), Kind::AlreadyExists);
    assert_eq!(kind(it.create_image(ns, "", &target("2"), &labels(&[]))), Kind::InvalidArgument);
    assert_eq!(kind(it.image(&"other".parse().unwrap(), "a")), Kind::NotFound);
    // One label, and nothing else.
    let new = labels(&[("x", "2"), ("y", "3")]);
    let changed = it.update_image(ns, "a", &target("2"), &new, &["labels.y".into()]).unwrap();
    assert_eq!((changed.labels, changed.target), (labels(&[("x", "1"), ("y", "3")]), target("1")));
    let changed = it.update_image(ns, "a", &target("2"), &new, &["target".into()]).unwrap();
    assert_eq!((changed.target, changed.created), (target("2"), made.created));
    assert_eq!(it.update_image(ns, "a", &target("3"), &labels(&[]), &[]).unwrap().labels, labels(&[]));
    assert_eq!(kind(it.update_image(ns, "a", &target("3"), &new, &["name".into()])), Kind::InvalidArgument);
    assert_eq!(kind(it.update_image(ns, "b", &target("3"), &new, &[])), Kind::NotFound);
    // By filter.
    it.create_image(ns, "b", &target("4"), &labels(&[("x", "9")])).unwrap();
    let names = |filter: &str| -> Vec<String> {
        it.images(ns, &[filter.to_owned()]).unwrap().into_iter().map(|it| it.name).collect()
    };
    assert_eq!(names("labels.x==9"), ["b"]);
    assert_eq!(names(&format!("target.digest=={}", target("3").digest)), ["a"]);
    assert_eq!(names("name~=[ab]"), ["a", "b"]);
    assert_eq!(kind(it.images(ns, &["=".into()])), Kind::InvalidArgument);
    // Only if it is still what the caller thinks.
    assert_eq!(kind(it.delete_image(ns, "a", Some(&target("1").digest))), Kind::NotFound);
    it.delete_image(ns, "a", Some(&target("3").digest)).unwrap();
    assert_eq!(kind(it.delete_image(ns, "a", None)), Kind::NotFound);
}

#[test]
fn leases_keep_what_may_not_be_there_yet() {
    let parts = Parts::new();
    let (it, ns) = (&parts.metadata, &Namespace::default());
    it.create_lease(ns, "l", &labels(&[("a", "b")])).unwrap();
    assert_eq!(kind(it.create_lease(ns, "l", &labels(&[]))), Kind::AlreadyExists);
    assert_eq!(it.leases(ns, &["labels.a==b".into()]).unwrap()[0].id, "l");
    let resource = |kind: &str, id: &str| Resource { kind: kind.into(), id: id.into() };
    let blob = resource("content", &Digest::of(b"x").to_string());
    for it_is in [&blob, &resource("snapshots/overlayfs", "s"), &resource("ingests", "i"), &resource("images", "n")] {
        it.add_resource(ns, "l", it_is).unwrap();
        it.add_resource(ns, "l", it_is).unwrap();
    }
    for wrong in
        [resource("content", "x"), resource("snapshots", "s"), resource("containers", "c"), resource("images", "")]
    {
        assert_eq!(kind(it.add_resource(ns, "l", &wrong)), Kind::InvalidArgument, "{wrong:?}");
    }
    assert_eq!(it.resources(ns, "l").unwrap().len(), 4);
    it.delete_resource(ns, "l", &blob).unwrap();
    assert_eq!(it.resources(ns, "l").unwrap().len(), 3);
    assert_eq!(kind(it.add_resource(ns, "none", &blob)), Kind::NotFound);
    it.delete_lease(ns, "l").unwrap();
    assert_eq!(kind(it.resources(ns, "l")), Kind::NotFound);
    assert_eq!(kind(it.delete_lease(ns, "l")), Kind::NotFound);
}

#[test]
fn the_lease_of_a_call_ends_with_it_or_with_its_daemon() {
    let parts = Parts::new();
    let ns = Namespace::default();
    let lease = parts.metadata.hold(&ns, "pull").unwrap();
    assert_eq!(parts.metadata.leases(&ns, &[]).unwrap()[0].id, lease.id());
    assert_eq!(kind(parts.metadata.delete_lease(&ns, lease.id())), Kind::FailedPrecondition);
    drop(lease);
    assert!(parts.metadata.leases(&ns, &[]).unwrap().is_empty());
    // Killed: nothing is dropped.
    std::mem::forget(parts.metadata.hold(&ns, "pull").unwrap());
    parts.metadata.create_lease(&ns, "client", &labels(&[])).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["metadata.db", "metadata.db-wal"] {
        std::fs::copy(parts.path.join(name), copy.path().join(name)).unwrap();
    }
    let again = Parts::at(copy.path()).unwrap();
    let left: Vec<String> = again.metadata.leases(&ns, &[]).unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(left, ["client"]);
}

#[test]
fn times_before_1970_and_after_are_kept() {
    for seconds in [-5_000_000_000_i64, -1, 0, 1, 1_800_000_000] {
        let nanos = seconds * 1_000_000_000 + 123;
        assert_eq!(nanoseconds(time(nanos)), nanos);
    }
}

#[test]
fn a_lease_of_a_client_ends_by_its_label_in_any_zone() {
    let parts = Parts::new();
    let (it, ns) = (&parts.metadata, &Namespace::default());
    it.create_lease(ns, "zone", &labels(&[("containerd.io/gc.expire", "2999-01-01T00:00:00+02:00")])).unwrap();
    it.create_lease(ns, "past", &labels(&[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")])).unwrap();
    it.create_lease(ns, "no-time", &labels(&[("containerd.io/gc.expire", "soon")])).unwrap();
    let collect = || {
        crate::gc::collect(it, &parts.content, &parts.snapshots, &crate::gc::Options::default()).unwrap();
        it.leases(ns, &[]).unwrap().into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(collect(), ["no-time", "zone"]);
    clock_ahead(Duration::from_secs(1000 * 366 * 86_400));
    assert_eq!(collect(), ["no-time"]);
    clock_ahead(Duration::ZERO);
}

#[test]
fn namespaces_come_with_what_is_in_them_and_go_empty() {
    let parts = Parts::new();
    let (it, ns) = (&parts.metadata, &"moby".parse::<Namespace>().unwrap());
    it.create_image(ns, "a", &target("1"), &labels(&[])).unwrap();
    assert_eq!(it.namespaces().unwrap(), [(ns.clone(), labels(&[]))]);
    assert_eq!(kind(it.create_namespace(ns, &labels(&[]))), Kind::AlreadyExists);
    assert_eq!(it.update_namespace(ns, &labels(&[("k", "v")]), &[]).unwrap(), labels(&[("k", "v")]));
    assert_eq!(kind(it.delete_namespace(ns)), Kind::FailedPrecondition);
    it.delete_image(ns, "a", None).unwrap();
    it.delete_namespace(ns).unwrap();
    assert_eq!(kind(it.delete_namespace(ns)), Kind::NotFound);
    assert_eq!(kind(it.update_namespace(ns, &labels(&[]), &[])), Kind::NotFound);
}
