//! Against the real protocol: Debian's docker-registry.

use std::io::{Cursor, Read, Seek, SeekFrom};

use integration::registry::Debian;
use integration::skip;

use super::*;
use crate::error::Kind;

fn opener(bytes: Vec<u8>) -> Open {
    Arc::new(move |offset| {
        let mut source = Cursor::new(bytes.clone());
        source.seek(SeekFrom::Start(offset)).unwrap();
        Ok(Box::new(source) as Box<dyn Read + Send>)
    })
}

async fn send(remote: &Remote, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    assert!(!remote.blob_exists(&descriptor).await.unwrap());
    remote.upload(&descriptor, opener(bytes), &|_| {}).await.unwrap();
    assert!(remote.blob_exists(&descriptor).await.unwrap());
    descriptor
}

#[test]
fn debians_registry_takes_and_gives_images() {
    let Some(served) = Debian::start() else { skip!("the package docker-registry is not installed") };
    run(async {
        for (name, chunk) in [("whole", None), ("team/pieces", Some(300_000))] {
            let registry = Registry::new(RegistryConfig { chunk, ..config() }).unwrap();
            let reference: Reference = format!("{}/{name}:1", served.host()).parse().unwrap();
            let remote = registry.remote(reference.repository(), Access::default()).await.unwrap();
            let layer_bytes: Vec<u8> = (0..1_000_000u32).flat_map(|it| it.to_le_bytes()).collect();
            let layer = send(&remote, media::LAYER, layer_bytes.clone()).await;
            let config = serde_json::json!({"os": "linux", "architecture": "amd64",
                "rootfs": {"type": "layers", "diff_ids": [layer.digest]}});
            let config = send(&remote, media::CONFIG, config.to_string().into_bytes()).await;
            let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": [layer]});
            let manifest = manifest.to_string().into_bytes();
            for tag in ["1", "2"] {
                remote.put_manifest(Some(tag), media::MANIFEST, &manifest).await.unwrap();
            }
            let found = remote.resolve(&reference).await.unwrap();
            assert_eq!(
                found.descriptor,
                Descriptor::new(media::MANIFEST, Digest::of(&manifest), manifest.len() as u64)
            );
            assert_eq!(remote.manifest(&found.descriptor).await.unwrap(), manifest);
            assert_eq!(fetch(&remote, &layer, 0).await.unwrap(), layer_bytes);
            assert_eq!(fetch(&remote, &layer, 999_999).await.unwrap(), layer_bytes[999_999..]);
            let mut tags = remote.tags().await.unwrap();
            tags.sort();
            assert_eq!(tags, ["1", "2"]);

            // It keeps no lists of referrers: we do.
            let mut artifact = Descriptor::new(media::MANIFEST, Digest::of(b"artifact"), 8);
            artifact.artifact_type = Some("application/x".into());
            assert!(remote.referrers(&found.descriptor.digest, None).await.unwrap().is_empty());
            let signature = serde_json::json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config,
                "layers": [], "subject": found.descriptor})
            .to_string();
            let put = remote.put_manifest(None, media::MANIFEST, signature.as_bytes()).await.unwrap();
            assert!(!put.lists_referrers);
            let mut entry = Descriptor::new(media::MANIFEST, put.digest, signature.len() as u64);
            entry.artifact_type = Some(media::CONFIG.into());
            remote.list_referrer(&found.descriptor.digest, &entry).await.unwrap();
            assert_eq!(remote.referrers(&found.descriptor.digest, Some(media::CONFIG)).await.unwrap(), [entry]);

            let other: Repository = format!("{}/{name}-copy", served.host()).parse().unwrap();
            let copy = registry.remote(&other, Access::default()).await.unwrap();
            assert!(copy.mount(&layer, reference.repository()).await.unwrap());
            assert!(copy.blob_exists(&layer).await.unwrap());
            let missing = Descriptor::new(media::LAYER, Digest::of(b"missing"), 7);
            assert!(!copy.mount(&missing, reference.repository()).await.unwrap());
            let error = remote.resolve(&reference.tagged("3").unwrap()).await.unwrap_err();
            says(&error, &[served.host(), "MANIFEST_UNKNOWN: manifest unknown"]);
        }
    });
}

#[test]
fn debians_registry_asks_who_we_are() {
    let Some(served) = Debian::start_with_password() else { skip!("the package docker-registry is not installed") };
    run(async {
        let registry = Registry::new(config()).unwrap();
        let repository: Repository = format!("{}/app", served.host()).parse().unwrap();
        let remote = registry.remote(&repository, user("me", "secret")).await.unwrap();
        send(&remote, media::LAYER, b"layer".to_vec()).await;
        let nobody = registry.remote(&repository, Access::default()).await.unwrap();
        let error = nobody.tags().await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        says(&error, &[served.host(), "tarectl login"]);
        assert_eq!(registry.login(served.host(), user("me", "secret")).await.unwrap(), None);
        let error = registry.login(served.host(), user("me", "other")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
    });
}
