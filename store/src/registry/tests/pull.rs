use integration::registry::{Faults, Instead};

use super::*;
use crate::error::Kind;
use crate::registry::manifest::{Document, ImageConfig};

#[test]
fn names_lead_to_documents() {
    let served = Served::start();
    let (descriptor, bytes) = image(&served, "team/app", "1");
    run(async {
        let remote = remote(&served.host(), "team/app", Access::default()).await;
        let reference: Reference = format!("{}/team/app:1", served.host()).parse().unwrap();
        let found = remote.resolve(&reference).await.unwrap();
        assert_eq!((&found.descriptor, found.bytes), (&descriptor, None));
        // Hubs count what is fetched: a tag is only looked at.
        assert_eq!(served.seen("GET /v2/team/app").len(), 0);
        assert_eq!(remote.manifest(&descriptor).await.unwrap(), bytes);

        let found = remote.resolve(&reference.at(descriptor.digest.clone())).await.unwrap();
        assert_eq!((found.descriptor, found.bytes), (descriptor.clone(), Some(bytes.clone())));
        // Registries that say no digest with a HEAD.
        served.faults(|it| it.no_head_digest = true);
        let found = remote.resolve(&reference).await.unwrap();
        assert_eq!((found.descriptor, found.bytes), (descriptor.clone(), Some(bytes.clone())));

        let Document::Manifest(manifest) = Document::parse(media::MANIFEST, &bytes).unwrap() else { panic!() };
        let config = remote.document(&manifest.config, limit::CONFIG).await.unwrap();
        assert_eq!(ImageConfig::parse_for(&manifest, &config).unwrap().platform.to_string(), "linux/amd64");
    });
}

#[test]
fn what_is_not_there_is_said_so() {
    let served = Served::start();
    image(&served, "app", "1");
    run(async {
        let host = served.host();
        let remote = remote(&host, "app", Access::default()).await;
        let error = remote.resolve(&format!("{host}/app:2").parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        says(
            &error,
            &[&host, "fetch the manifest 2 of app", "404 Not Found: MANIFEST_UNKNOWN", "whether the name is right"],
        );
        let missing = Descriptor::new(media::LAYER, Digest::of(b"no"), 2);
        let error = fetch(&remote, &missing, 0).await.unwrap_err();
        says(&error, &[&host, &format!("fetch the blob {} of app", missing.digest), "BLOB_UNKNOWN"]);
    });
    // Nobody listens.
    let host = served.host();
    drop(served);
    run(async {
        let (access, heard) = noticing();
        let remote = remote(&host, "app", access).await;
        let error = remote.resolve(&format!("{host}/app:2").parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        says(&error, &[&host, "connect to 127.0.0.1", "Connection refused"]);
        assert_eq!(heard.lock().unwrap().len(), 2, "each further try is told");
    });
}

#[test]
fn documents_that_are_not_what_they_should_be_are_refused() {
    let served = Served::start();
    let (descriptor, _) = image(&served, "app", "1");
    let huge = served.manifest("app", Some("huge"), media::MANIFEST, vec![b' '; 5 << 20]);
    run(async {
        let host = served.host();
        let remote = remote(&host, "app", Access::default()).await;
        served.faults(|it| it.wrong_bytes = true);
        let error = remote.manifest(&descriptor).await.unwrap_err();
        assert_eq!(error.kind, Kind::DataLoss);
        says(&error, &[&host, "what came has the digest sha256:", &format!("and not {}", descriptor.digest)]);
        let by_digest: Reference = format!("{host}/app@{}", descriptor.digest).parse().unwrap();
        assert_eq!(remote.resolve(&by_digest).await.unwrap_err().kind, Kind::DataLoss);
        served.faults(|it| *it = Faults::default());
        // A manifest of another size than its descriptor says.
        let other = Descriptor { size: descriptor.size + 1, ..descriptor.clone() };
        assert_eq!(remote.manifest(&other).await.unwrap_err().kind, Kind::DataLoss);
        // A manifest of 2 GiB is not even asked for, and one that hides its size is not read to its end.
        let bomb = Descriptor { size: 2 << 30, ..descriptor.clone() };
        served.forget_seen();
        says(&remote.manifest(&bomb).await.unwrap_err(), &["2147483648 bytes; 4194304 is the most"]);
        assert!(served.seen("").is_empty());
        let hidden = Descriptor::new(media::MANIFEST, huge.parse().unwrap(), 1000);
        says(&remote.manifest(&hidden).await.unwrap_err(), &["larger than 4194304 bytes"]);
        let config = Descriptor::new(media::CONFIG, huge.parse().unwrap(), 100 << 20);
        says(&remote.document(&config, limit::CONFIG).await.unwrap_err(), &["104857600 bytes; 8388608 is the most"]);
    });
}

#[test]
fn a_blob_goes_on_after_each_cut() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 3 << 20);
    run(async {
        let (access, heard) = noticing();
        let remote = remote(&served.host(), "app", access).await;
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(fetch(&remote, &descriptor, 1 << 20).await.unwrap(), bytes[1 << 20..]);
        assert_eq!(fetch(&remote, &descriptor, 3 << 20).await.unwrap(), b"");
        served.forget_seen();
        served.faults(|it| it.cut = Some((700_000, 2)));
        assert_eq!(fetch(&remote, &descriptor, 10).await.unwrap(), bytes[10..]);
        let ranges: Vec<_> = served.seen("GET").into_iter().map(|it| it.range.unwrap_or_default()).collect();
        assert_eq!(ranges, ["bytes=10-", "bytes=700010-", "bytes=1400010-"]);
        says(&Error::internal(heard.lock().unwrap().join("\n")), &["it was cut off", "after 700010 of 3145728 bytes"]);
        // Cuts without end are given up; those with progress between them are not counted together.
        served.faults(|it| it.cut = Some((1, u32::MAX)));
        let error = fetch(&remote, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        served.faults(|it| it.cut = Some((1 << 19, u32::MAX)));
        assert!(fetch(&remote, &descriptor, 0).await.is_err());
        served.faults(|it| it.cut = Some((1 << 20, u32::MAX)));
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
    });
}

#[test]
fn a_registry_without_ranges_is_read_again_from_the_beginning() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1 << 20);
    served.faults(|it| (it.no_ranges, it.cut) = (true, Some((500_000, 1))));
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        assert_eq!(fetch(&remote, &descriptor, 300_000).await.unwrap(), bytes[300_000..]);
        assert_eq!(served.seen("GET").len(), 2);
    });
}

#[test]
fn a_blob_that_stalls_is_asked_for_again() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1 << 20);
    served.faults(|it| it.stall = Some((100_000, 1)));
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(served.seen("GET")[1].range.as_deref(), Some("bytes=100000-"));
        served.faults(|it| it.stall = Some((0, u32::MAX)));
        says(&fetch(&remote, &descriptor, 0).await.unwrap_err(), &["nothing came for 1s"]);
        // Slow is not stalled.
        served.faults(|it| (it.stall, it.slow) = (None, Some((300_000, 100))));
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
    });
}

#[test]
fn a_large_blob_comes_in_ranges_and_in_order() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", (18 << 20) + 7);
    run(async {
        let registry = Registry::new(RegistryConfig { ranges: 3, ..config() }).unwrap();
        let repository: Repository = format!("{}/app", served.host()).parse().unwrap();
        let (access, heard) = noticing();
        let remote = registry.remote(&repository, access).await.unwrap();
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        let asked = |served: &Served| {
            let mut ranges: Vec<_> = served.seen("GET").into_iter().map(|it| it.range.unwrap_or_default()).collect();
            ranges.sort();
            ranges
        };
        let all = ["0-4194303", "12582912-16777215", "16777216-", "4194304-8388607", "8388608-12582911"];
        assert_eq!(asked(&served), all.map(|it| format!("bytes={it}")));
        // Any of them may be cut off, and a blob may be gone on with.
        served.faults(|it| it.cut = Some((1 << 20, 5)));
        assert_eq!(fetch(&remote, &descriptor, 1000).await.unwrap(), bytes[1000..]);
        assert_eq!(heard.lock().unwrap().len(), 5);
        // Without ranges it is sent once, and not once for each.
        served.forget_seen();
        served.faults(|it| it.no_ranges = true);
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(served.seen("GET").len(), 1);
        // What fails for good fails in its turn; several blobs at once share what may wait.
        served.faults(|it| (it.no_ranges, it.cut) = (false, None));
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(remote.blob(&descriptor, 0).await.unwrap());
        }
        assert_eq!(registry.0.ahead.available_permits(), 0);
        for stream in streams {
            assert_eq!(super::all(stream).await.unwrap(), bytes);
        }
        assert_eq!(registry.0.ahead.available_permits(), 4);
        served.faults(|it| it.instead = [Instead::new("/blobs/", 200), Instead::new("/blobs/", 403)].into());
        assert!(fetch(&remote, &descriptor, 0).await.is_err());
    });
}

#[test]
fn a_blob_of_another_size_is_refused() {
    let served = Served::start();
    let (descriptor, _) = blob(&served, "app", 1000);
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        for (size, offset) in [(999, 0), (1001, 0), (999, 10), (1001, 10), (1 << 40, 10)] {
            let other = Descriptor { size, ..descriptor.clone() };
            let error = fetch(&remote, &other, offset).await.unwrap_err();
            assert_eq!(error.kind, Kind::DataLoss, "{error}");
            says(&error, &["it has 1000 bytes there, and not"]);
        }
        assert_eq!(remote.blob(&descriptor, 1001).await.err().unwrap().kind, Kind::InvalidArgument);
        // A document whose bytes are other ones.
        served.faults(|it| it.wrong_bytes = true);
        let error = remote.document(&descriptor, limit::CONFIG).await.unwrap_err();
        says(&error, &[&served.host(), "what came has the digest"]);
    });
}

#[test]
fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    run(async {
        let (access, heard) = noticing();
        let remote = remote(&served.host(), "app", access).await;
        let after = |status, seconds: &str| Instead {
            headers: vec![("retry-after", seconds.into())],
            body: r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.into(),
            ..Instead::new("/blobs/", status)
        };
        for status in [408, 429, 500, 502, 503, 504] {
            served.faults(|it| it.instead = [after(status, "0"), Instead::new("/blobs/", status)].into());
            assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes, "{status}");
        }
        // It is waited for as long as the registry wants.
        served.faults(|it| it.instead = [after(429, "1")].into());
        let start = std::time::Instant::now();
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert!(start.elapsed() >= Duration::from_secs(1));
        says(
            &Error::internal(heard.lock().unwrap().last().unwrap()),
            &["429 Too Many Requests: TOOMANYREQUESTS: slow down", "1.0 s"],
        );
        // Unless that is too long.
        served.faults(|it| it.instead = [after(429, "3600")].into());
        let error = fetch(&remote, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        says(&error, &["slow down", "after 3600 seconds"]);
        for (status, kind) in [
            (403, Kind::PermissionDenied),
            (404, Kind::NotFound),
            (400, Kind::FailedPrecondition),
            (501, Kind::Unavailable),
            (204, Kind::DataLoss),
            (304, Kind::FailedPrecondition),
        ] {
            served.forget_seen();
            served.faults(|it| it.instead = [Instead::new("/blobs/", status)].into());
            assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap_err().kind, kind, "{status}");
            assert_eq!(served.seen("").len(), 1, "{status}");
        }
    });
}

#[test]
fn redirects_are_followed_and_end() {
    let served = Served::start();
    let elsewhere = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1 << 20);
    blob(&elsewhere, "app", 1 << 20);
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        served.faults(|it| it.redirect = Some(elsewhere.url()));
        elsewhere.faults(|it| it.cut = Some((1000, 1)));
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(elsewhere.seen("GET")[1].range.as_deref(), Some("bytes=1000-"));
        // In circles.
        served.faults(|it| it.redirect = Some(served.url()));
        says(&fetch(&remote, &descriptor, 0).await.unwrap_err(), &["round in circles"]);
        for (location, says_so) in [("ftp://a.example/", "which is no address"), ("", "which is no address")] {
            let headers = vec![("location", location.to_owned())];
            served.faults(|it| it.instead = [Instead { headers, ..Instead::new("/blobs/", 302) }].into());
            says(&fetch(&remote, &descriptor, 0).await.unwrap_err(), &[says_so]);
        }
    });
}

#[test]
fn lists_come_in_pages() {
    let served = Served::start();
    let (subject, _) = image(&served, "app", "a");
    for tag in ["b", "c", "d", "e"] {
        image(&served, "app", tag);
    }
    let artifact = |kind: &str| {
        serde_json::json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": kind, "subject": subject,
            "config": Descriptor::new(media::EMPTY, Digest::of(b"{}"), 2), "layers": []})
        .to_string()
    };
    let signature = served.manifest("app", None, media::MANIFEST, artifact("application/signature"));
    let bill = served.manifest("app", None, media::MANIFEST, artifact("application/bill"));
    let found = |found: Vec<Descriptor>| {
        let mut found: Vec<_> = found.iter().map(|it| it.digest.to_string()).collect();
        found.sort();
        found
    };
    let mut both = vec![signature.clone(), bill.clone()];
    both.sort();
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        served.faults(|it| it.page = 2);
        assert_eq!(remote.tags().await.unwrap(), ["a", "b", "c", "d", "e"]);
        assert_eq!(served.seen("/tags/list").len(), 3);
        assert_eq!(found(remote.referrers(&subject.digest, None).await.unwrap()), both);
        let signatures = remote.referrers(&subject.digest, Some("application/signature")).await.unwrap();
        assert_eq!(found(signatures), [signature]);
        assert!(remote.referrers(&Digest::of(b"other"), None).await.unwrap().is_empty());

        // Without the list, a tag has it, if anything has.
        served.faults(|it| it.no_referrers = true);
        assert!(remote.referrers(&subject.digest, None).await.unwrap().is_empty());
        let mut entry =
            Descriptor::new(media::MANIFEST, bill.parse().unwrap(), artifact("application/bill").len() as u64);
        entry.artifact_type = Some("application/bill".into());
        remote.list_referrer(&subject.digest, &entry).await.unwrap();
        remote.list_referrer(&subject.digest, &entry).await.unwrap();
        assert_eq!(found(remote.referrers(&subject.digest, Some("application/bill")).await.unwrap()), [bill]);
        assert!(remote.referrers(&subject.digest, Some("application/signature")).await.unwrap().is_empty());
    });
}

/// A list's next page at another host is not asked for.
#[test]
fn pages_stay_at_their_host() {
    let served = Served::start();
    let evil = Served::start();
    image(&served, "app", "a");
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        let headers = vec![("link", format!("<{}/v2/app/tags/list>; rel=\"next\"", evil.url()))];
        let page = Instead { headers, body: r#"{"tags": ["a"]}"#.into(), ..Instead::new("/tags/list", 200) };
        served.faults(|it| it.instead = [page].into());
        assert_eq!(remote.tags().await.unwrap(), ["a"]);
        assert!(evil.seen("").is_empty());
    });
}
