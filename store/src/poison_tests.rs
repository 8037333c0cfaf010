//! What an image says of itself: words to be shown, and never more. As root: layers have owners.

use integration::registry::Registry;
use serde_json::json;

use crate::archive_tests::{base, config, gzip, ns, store, take, tar, upper};
use crate::descriptor::Descriptor;
use crate::images;
use crate::metadata::Labels;
use crate::progress::Progress;
use crate::pull;
use crate::registry::{media, platform};
use crate::registry_tests::{image, pull, request};
use crate::unpack_image;

/// CVE-2026-53488 and CVE-2026-53492 of containerd: labels and annotations of an image that mean something to the host. The labels by
/// which collection, leases and snapshotters are steered are the store's own: an image has no say in them, nor in other names.
#[tokio::test]
async fn cve_2026_53488_and_2026_53492_an_image_configures_nothing() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let store = store(dir.path());
    let evil = json!({
        "containerd.io/gc.root": "1", "containerd.io/gc.expire": "2001-01-01T00:00:00Z", "containerd.io/gc.bref.image": "all",
        "containerd.io/gc.ref.content.evil": media::CONFIG, "containerd.io/snapshot.ref": "mine",
        "containerd.io/snapshot/uidmapping": "0:0:1", "containerd.io/distribution.source.evil.example": "evil",
        "io.containerd.image.name": "docker.io/library/debian:12", "org.opencontainers.image.ref.name": "other",
        "tare.store/call": "pull", "containerd.io/uncompressed": "evil",
    });
    let mut settings: serde_json::Value =
        serde_json::from_slice(&config(&[&base()], &platform::host().architecture)).unwrap();
    settings["config"]["Labels"] = evil.clone();
    let at = |media_type: &str, bytes: Vec<u8>| {
        let size = bytes.len() as u64;
        let mut at = json!(Descriptor::new(media_type, registry.blob("team/app", bytes).parse().unwrap(), size));
        at["annotations"] = evil.clone();
        at
    };
    let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "annotations": evil,
        "config": at(media::CONFIG, settings.to_string().into_bytes()), "layers": [at(media::LAYER_GZIP, gzip(&base()))]});
    registry.manifest("team/app", Some("1"), media::MANIFEST, manifest.to_string());
    let pulled = pull(&store, &registry, "1").await.unwrap();

    let ours = |labels: &Labels| {
        let known = |key: &str, value: &str| {
            let keeps =
                key.starts_with("containerd.io/gc.ref.content.") || key.starts_with("containerd.io/gc.ref.snapshot.");
            let came = key == format!("containerd.io/distribution.source.{}", registry.host());
            came || key == "containerd.io/uncompressed" && value.starts_with("sha256:")
                || keeps && value.starts_with("sha256:")
        };
        labels.iter().filter(|(key, value)| !known(key, value)).map(|it| format!("{it:?}")).collect::<Vec<_>>()
    };
    let named = store.metadata.images(&ns(), &[]).unwrap();
    assert_eq!(named.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), [pulled.name.as_str()]);
    assert_eq!(named[0].labels, Labels::new());
    for blob in store.content.list(&ns(), &[]).unwrap() {
        assert_eq!(ours(&blob.labels), [""; 0], "{}", blob.digest);
    }
    for snapshot in store.snapshots.list(&ns(), "", &[]).unwrap() {
        assert_eq!(ours(&snapshot.labels), [""; 0], "{}", snapshot.name);
    }
    assert!(store.metadata.leases(&ns(), &[]).unwrap().is_empty());
}

/// CVE-2026-50195 of containerd: a name that somebody gave is taken for something else.
#[tokio::test]
async fn cve_2026_50195_no_name_passes_for_another() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let store = store(dir.path());
    image(&registry, "1", &[&base()]);
    let good = pull(&store, &registry, "1").await.unwrap();
    let digest = good.target.digest.to_string();
    // An archive whose image is called as the digest of another one.
    let layer = tar(&[("other", b"other")]);
    let bad = config(&[&layer], &platform::host().architecture);
    let manifest = json!([{"Config": "config.json", "RepoTags": [digest], "Layers": ["layer.tar"]}]).to_string();
    let files: &[(&str, &[u8])] =
        &[("config.json", &bad), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())];
    let taken = take(&store, &tar(files), None).await.unwrap();
    assert_ne!(taken[0].target.digest, good.target.digest);
    let hex = good.target.digest.hex().to_string();
    for text in [digest.as_str(), &hex, &digest[..20]] {
        let found = images::inspect(&store, &ns(), text, None, "").await.unwrap();
        assert_eq!(found.image.target.digest, good.target.digest, "{text}");
        let unpacked = unpack_image::unpack(&store, &ns(), text, None, "", &Progress::silent()).await.unwrap();
        assert_eq!(unpacked.manifest.digest, good.target.digest, "{text}");
    }

    // A pull by digest moves no tag, whatever tag stands beside it.
    image(&registry, "1", &[&base(), &upper()]);
    let other = registry.kept_manifest("team/app", "1").unwrap().1;
    let other = crate::content::digest::Digest::of(&other);
    let reference = format!("{}/team/app:1@{other}", registry.host()).parse().unwrap();
    let request = pull::Request { reference, ..request(&registry, "1") };
    let pulled = pull::pull(&store, &ns(), request, &Progress::silent()).await.unwrap();
    assert_eq!(pulled.target.digest, other);
    let tag = store.metadata.image(&ns(), &good.name).unwrap();
    assert_eq!(tag.target.digest, good.target.digest);
}
