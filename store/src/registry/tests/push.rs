use std::io::{Cursor, Read, Seek, SeekFrom};

use integration::registry::{Auth, Bearer, Instead};

use super::*;
use crate::error::Kind;

fn opener(bytes: Vec<u8>) -> Open {
    Arc::new(move |offset| {
        let mut source = Cursor::new(bytes.clone());
        source.seek(SeekFrom::Start(offset)).unwrap();
        Ok(Box::new(source) as Box<dyn Read + Send>)
    })
}

fn made(size: usize) -> (Descriptor, Vec<u8>) {
    let bytes: Vec<u8> = (0..size).map(|at| (at * 17 % 253) as u8).collect();
    (Descriptor::new(media::LAYER_GZIP, Digest::of(&bytes), size as u64), bytes)
}

async fn send(remote: &Remote, size: usize) -> Result<(Descriptor, Vec<u8>)> {
    let (descriptor, bytes) = made(size);
    remote.upload(&descriptor, opener(bytes.clone()), &|_| {}).await?;
    Ok((descriptor, bytes))
}

#[test]
fn an_image_is_sent_and_only_what_is_missing() {
    let served = Served::start();
    run(async {
        let remote = remote(&served.host(), "team/app", Access::default()).await;
        let (layer, bytes) = made(3 << 20);
        assert!(!remote.blob_exists(&layer).await.unwrap());
        let reached = Mutex::new(Vec::new());
        remote.upload(&layer, opener(bytes.clone()), &|it| reached.lock().unwrap().push(it)).await.unwrap();
        assert_eq!(*reached.lock().unwrap(), [0, 3 << 20]);
        assert!(remote.blob_exists(&layer).await.unwrap());
        assert_eq!(served.kept_blob("team/app", &layer.digest.to_string()).unwrap(), bytes);
        let (empty, _) = send(&remote, 0).await.unwrap();
        let manifest =
            serde_json::json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": empty, "layers": [layer]});
        let manifest = manifest.to_string();
        let described = Descriptor::new(media::MANIFEST, Digest::of(manifest.as_bytes()), manifest.len() as u64);
        assert!(!remote.manifest_exists(&described).await.unwrap());
        let put = remote.put_manifest(Some("1"), media::MANIFEST, manifest.as_bytes()).await.unwrap();
        assert_eq!((put.digest.clone(), put.lists_referrers), (described.digest.clone(), false));
        assert!(remote.manifest_exists(&described).await.unwrap());
        assert_eq!(served.kept_manifest("team/app", "1").unwrap(), (media::MANIFEST.into(), manifest.clone().into()));
        assert_eq!(
            remote.put_manifest(None, media::MANIFEST, manifest.as_bytes()).await.unwrap().digest,
            described.digest
        );
        // A manifest whose blobs are not there.
        let lacking = manifest.replace(&layer.digest.to_string(), &Digest::of(b"no").to_string());
        let error = remote.put_manifest(Some("2"), media::MANIFEST, lacking.as_bytes()).await.unwrap_err();
        says(&error, &[&served.host(), "send the manifest 2 to team/app", "400 Bad Request: MANIFEST_BLOB_UNKNOWN"]);
        assert_eq!(
            remote.put_manifest(Some("a/b"), media::MANIFEST, b"{}").await.unwrap_err().kind,
            Kind::InvalidArgument
        );
    });
}

#[test]
fn a_subject_is_listed_by_the_registry_or_by_us() {
    let served = Served::start();
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        let (config, _) = send(&remote, 2).await.unwrap();
        let manifest =
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "subject": config}).to_string();
        assert!(remote.put_manifest(None, media::MANIFEST, manifest.as_bytes()).await.unwrap().lists_referrers);
        served.faults(|it| it.no_referrers = true);
        assert!(!remote.put_manifest(None, media::MANIFEST, manifest.as_bytes()).await.unwrap().lists_referrers);
    });
}

#[test]
fn an_upload_goes_on_after_each_cut() {
    let served = Served::start();
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        served.faults(|it| it.upload_cut = Some((1 << 20, 2)));
        let (descriptor, bytes) = send(&remote, 3 << 20).await.unwrap();
        assert_eq!(served.kept_blob("app", &descriptor.digest.to_string()).unwrap(), bytes);
        let patches = served.seen("PATCH");
        assert_eq!(patches.len(), 3);
        assert_eq!(patches[1].headers["content-range"], "1048576-3145727");
        assert_eq!(patches[2].headers["content-range"], "2097152-3145727");
        // It forgot all.
        served.faults(|it| (it.upload_cut, it.forgets_uploads) = (Some((1 << 20, 1)), true));
        send(&remote, (3 << 20) + 1).await.unwrap();
        // Cuts without end.
        served.faults(|it| it.upload_cut = Some((0, u32::MAX)));
        let error = send(&remote, (3 << 20) + 2).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        says(&error, &[&served.host(), "send the blob sha256:"]);
    });
}

#[test]
fn an_upload_that_stalls_is_gone_on_with() {
    let served = Served::start();
    run(async {
        let (access, heard) = noticing();
        let remote = remote(&served.host(), "app", access).await;
        // More than sockets hold.
        served.faults(|it| it.upload_stall = Some((1 << 20, 1)));
        let (descriptor, bytes) = send(&remote, 24 << 20).await.unwrap();
        assert_eq!(served.kept_blob("app", &descriptor.digest.to_string()).unwrap(), bytes);
        assert!(heard.lock().unwrap()[0].contains("nothing was taken for 1s"), "{:?}", heard.lock().unwrap());
    });
}

#[test]
fn uploads_come_in_pieces_where_that_is_wanted_or_needed() {
    let served = Served::start();
    run(async {
        let config = RegistryConfig { chunk: Some(1000), ..config() };
        let repository: Repository = format!("{}/app", served.host()).parse().unwrap();
        let remote = Registry::new(config).unwrap().remote(&repository, Access::default()).await.unwrap();
        let (descriptor, bytes) = send(&remote, 2500).await.unwrap();
        assert_eq!(served.kept_blob("app", &descriptor.digest.to_string()).unwrap(), bytes);
        let ranges: Vec<_> = served.seen("PATCH").iter().map(|it| it.headers["content-range"].clone()).collect();
        assert_eq!(ranges, ["0-999", "1000-1999", "2000-2499"]);

        let remote = super::remote(&served.host(), "app", Access::default()).await;
        served.forget_seen();
        served.faults(|it| it.largest_patch = Some(20 << 20));
        send(&remote, 40 << 20).await.unwrap();
        assert_eq!(served.seen("PATCH").len(), 4);
        served.faults(|it| it.largest_patch = Some(1 << 20));
        let error = send(&remote, 41 << 20).await.unwrap_err();
        assert_eq!(error.kind, Kind::ResourceExhausted);
        says(&error, &["413 Payload Too Large"]);
    });
}

#[test]
fn the_last_step_of_an_upload_may_fail() {
    let served = Served::start();
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        served.faults(|it| it.instead = [Instead::new("PUT /v2/app/blobs/uploads", 503)].into());
        let (descriptor, bytes) = send(&remote, 1000).await.unwrap();
        assert_eq!(served.kept_blob("app", &descriptor.digest.to_string()).unwrap(), bytes);
        // What is sent is not what it was said to be.
        let (descriptor, mut bytes) = made(2000);
        bytes[0] ^= 1;
        let error = remote.upload(&descriptor, opener(bytes), &|_| {}).await.unwrap_err();
        assert_eq!(error.kind, Kind::DataLoss);
        says(&error, &["DIGEST_INVALID"]);
    });
}

#[test]
fn what_cannot_be_read_here_is_not_the_registrys_fault() {
    let served = Served::start();
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        let (descriptor, bytes) = made(1 << 20);
        let error = remote.upload(&descriptor, opener(bytes[..1000].to_vec()), &|_| {}).await.unwrap_err();
        assert_eq!(error.kind, Kind::DataLoss);
        says(&error, &["the blob here ends before its size"]);
        let gone: Open = Arc::new(|_| Err(Error::not_found("the blob is gone")));
        let error = remote.upload(&descriptor, gone, &|_| {}).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(served.seen("PATCH").len().min(2), served.seen("PATCH").len(), "it is not tried again");
    });
}

#[test]
fn blobs_are_taken_over_from_other_repositories() {
    let served = Served::start();
    let (descriptor, _) = blob(&served, "base", 1000);
    run(async {
        let bearer = Bearer { user: Some(("me".into(), "secret".into())), ..Bearer::default() };
        served.faults(|it| it.auth = Auth::Bearer(bearer));
        let remote = remote(&served.host(), "app", user("me", "secret")).await;
        let from: Repository = format!("{}/base", served.host()).parse().unwrap();
        assert!(remote.mount(&descriptor, &from).await.unwrap());
        assert!(served.kept_blob("app", &descriptor.digest.to_string()).is_some());
        let asked = served.seen("/token").remove(0);
        assert!(
            asked.path.contains("scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull"),
            "{}",
            asked.path
        );
        assert!(served.seen("PATCH").is_empty());
        // What is not there, or cannot be mounted, must be sent; nothing is left half-begun.
        let other = Descriptor::new(media::LAYER, Digest::of(b"other"), 5);
        assert!(!remote.mount(&other, &from).await.unwrap());
        served.faults(|it| it.no_mount = true);
        assert!(!remote.mount(&descriptor, &from).await.unwrap());
        assert_eq!(served.seen("DELETE").len(), 2);
        for status in [403, 404, 405] {
            served.faults(|it| it.instead = [Instead::new("mount=", status)].into());
            assert!(!remote.mount(&descriptor, &from).await.unwrap(), "{status}");
        }
        // Of another registry's nothing is asked.
        served.forget_seen();
        assert!(!remote.mount(&descriptor, &"debian".parse().unwrap()).await.unwrap());
        assert!(served.seen("").is_empty());
    });
}

/// The place to send to is what the registry says; credentials go to the registry alone.
#[test]
fn cve_2020_15157_an_upload_elsewhere_takes_no_credentials_along() {
    let served = Served::start();
    let evil = Served::start();
    run(async {
        served.faults(|it| it.auth = Auth::Basic("me".into(), "secret".into()));
        served.faults(|it| it.upload_elsewhere = Some(evil.url()));
        let remote = remote(&served.host(), "app", user("me", "secret")).await;
        assert!(send(&remote, 1000).await.is_err());
        assert!(!evil.seen("PATCH").is_empty());
        assert!(evil.seen("").iter().all(|it| it.authorization.is_none()));
        assert!(served.seen("POST").iter().any(|it| it.authorization.is_some()));
    });
}

#[test]
fn a_token_that_runs_out_in_between_is_renewed() {
    let served = Served::start();
    run(async {
        served.faults(|it| it.auth = Auth::Bearer(Bearer::default()));
        let config = RegistryConfig { chunk: Some(1000), ..config() };
        let repository: Repository = format!("{}/app", served.host()).parse().unwrap();
        let remote = Registry::new(config).unwrap().remote(&repository, Access::default()).await.unwrap();
        let (descriptor, bytes) = made(5000);
        let reached = Mutex::new(std::collections::HashSet::new());
        let expire = |it: u64| {
            // Once between two pieces, and once before the end.
            if matches!(it, 2000 | 5000) && reached.lock().unwrap().insert(it) {
                served.expire_tokens();
            }
        };
        remote.upload(&descriptor, opener(bytes), &expire).await.unwrap();
        assert_eq!(served.seen("/token").len(), 3);
        assert_eq!(served.seen("POST").len(), 2, "nothing is begun anew: {:?}", served.seen("POST"));
    });
}
