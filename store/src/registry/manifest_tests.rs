use serde_json::{Value, json};

use super::*;
use crate::error::Kind;

const HEX: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": HEX, "size": 3})
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2, "mediaType": media::MANIFEST, "config": descriptor(media::CONFIG),
        "layers": [descriptor(media::LAYER_GZIP), descriptor(media::LAYER_ZSTD)], "annotations": {"a": "b"}, "unknown": [1],
    })
}

fn index() -> Value {
    let mut entry = descriptor(media::MANIFEST);
    entry["platform"] = json!({"architecture": "arm64", "os": "linux", "variant": "v8"});
    json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [entry]})
}

fn with(mut document: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!() };
    for (key, value) in changes {
        document[&key] = value;
    }
    document
}

fn parse(media_type: &str, document: &Value) -> Result<Document> {
    Document::parse(media_type, document.to_string().as_bytes())
}

#[test]
fn documents_are_what_their_media_type_says() {
    let Document::Manifest(read) = parse(media::MANIFEST, &manifest()).unwrap() else { panic!() };
    assert!(read.is_image());
    assert_eq!((read.layers.len(), read.annotations["a"].as_str(), read.kind()), (2, "b", media::CONFIG));
    let Document::Index(read) = parse("application/vnd.oci.image.index.v1+json; charset=utf-8", &index()).unwrap()
    else {
        panic!()
    };
    assert_eq!(read.manifests[0].platform.as_ref().unwrap().to_string(), "linux/arm64/v8");

    // Docker's, and those that leave the media type to the transport or to their shape.
    let docker = with(manifest(), json!({"mediaType": media::DOCKER_MANIFEST}));
    assert_eq!(parse(media::DOCKER_MANIFEST, &docker).unwrap().media_type(), media::DOCKER_MANIFEST);
    assert_eq!(parse("application/json", &docker).unwrap().media_type(), media::DOCKER_MANIFEST);
    let bare = with(index(), json!({"mediaType": ""}));
    assert_eq!(parse("", &bare).unwrap().media_type(), media::INDEX);
    let empty = with(manifest(), json!({"mediaType": null, "layers": null, "annotations": null}));
    assert_eq!(parse("", &empty).unwrap().children().len(), 1);
}

/// CVE-2021-41190: one digest, two images.
#[test]
fn cve_2021_41190_nothing_is_a_manifest_and_an_index() {
    let both = with(manifest(), json!({"manifests": index()["manifests"]}));
    let layers = with(index(), json!({"layers": []}));
    for media_type in [media::MANIFEST, media::INDEX, media::DOCKER_LIST, ""] {
        for document in [&both, &layers] {
            let error = parse(media_type, &with(document.clone(), json!({"mediaType": media_type}))).unwrap_err();
            assert_eq!(error.kind, Kind::DataLoss);
            assert!(error.message.contains("two images under one digest"), "{error}");
        }
    }
    // Nor does it call itself other than the registry does.
    for (said, document) in
        [(media::INDEX, manifest()), (media::MANIFEST, index()), (media::DOCKER_MANIFEST, manifest())]
    {
        assert!(parse(said, &document).unwrap_err().message.contains("it calls itself"));
    }
    // Nor is it the other one in its form.
    for (said, document) in [(media::INDEX, manifest()), (media::MANIFEST, index())] {
        assert!(parse(said, &with(document, json!({"mediaType": said}))).is_err());
    }
    // Twice the same key is two documents to two readers.
    let twice =
        format!(r#"{{"schemaVersion": 2, "config": {c}, "config": {c}, "layers": []}}"#, c = descriptor(media::CONFIG));
    assert!(Document::parse(media::MANIFEST, twice.as_bytes()).unwrap_err().message.contains("duplicate field"));
}

/// CVE-2024-3727: what is no digest never becomes a path.
#[test]
fn cve_2024_3727_digests_in_documents_are_digests() {
    for digest in ["sha256:../../../../etc/passwd", "sha256:", "../x", "md5:abc", "sha256:BA7816BF"] {
        let bad = json!({"mediaType": media::LAYER, "digest": digest, "size": 1});
        for document in [
            with(manifest(), json!({"config": bad})),
            with(manifest(), json!({"layers": [bad]})),
            with(manifest(), json!({"subject": bad})),
        ] {
            let error = parse(media::MANIFEST, &document).unwrap_err();
            assert!(error.message.contains("is not a digest"), "{error}");
        }
        let config =
            json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest]}});
        assert!(ImageConfig::parse(config.to_string().as_bytes()).unwrap_err().message.contains("is not a digest"));
    }
}

#[test]
fn bombs_and_nonsense_end_in_a_sentence() {
    let many = |count: usize, media_type: &str| Value::from(vec![descriptor(media_type); count]);
    for (document, says) in [
        (with(manifest(), json!({"layers": many(limit::LAYERS + 1, media::LAYER)})), "it has 501 layers"),
        (with(manifest(), json!({"schemaVersion": 3})), "schemaVersion is not 2"),
        (with(manifest(), json!({"config": null})), "it has no config"),
        (with(manifest(), json!({"config": {"mediaType": media::CONFIG, "digest": HEX, "size": -1}})), "is broken"),
        (with(manifest(), json!({"config": {"mediaType": media::CONFIG, "digest": HEX, "size": 1e30}})), "is broken"),
        (with(manifest(), json!({"layers": {}})), "is broken"),
        (json!([]), "is broken"),
    ] {
        let error = parse(media::MANIFEST, &document).unwrap_err();
        assert!(error.message.contains(says), "{error}");
        assert!(error.message.len() < 600);
    }
    let index = with(index(), json!({"manifests": many(limit::MANIFESTS + 1, media::MANIFEST)}));
    assert!(parse(media::INDEX, &index).unwrap_err().message.contains("it lists 1001 manifests"));
    let huge = format!("{{\"schemaVersion\": 2, \"x\": \"{}\"}}", "x".repeat(5 << 20));
    assert!(Document::parse(media::MANIFEST, huge.as_bytes()).unwrap_err().message.contains("too large"));
    let deep = format!("{{\"schemaVersion\": 2, \"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Document::parse(media::MANIFEST, deep.as_bytes()).is_err());
    for old in [json!({"schemaVersion": 1, "fsLayers": []}), json!({"schemaVersion": 2, "fsLayers": []})] {
        assert_eq!(parse("", &old).unwrap_err().kind, Kind::Unimplemented);
    }
    assert_eq!(
        parse("application/vnd.docker.distribution.manifest.v1+prettyjws", &manifest()).unwrap_err().kind,
        Kind::Unimplemented
    );
    assert!(parse("text/html", &manifest()).unwrap_err().message.contains("it calls itself"));
    assert!(
        parse("text/html", &json!({"schemaVersion": 2}))
            .unwrap_err()
            .message
            .contains("neither a manifest nor an index")
    );
}

#[test]
fn artifacts_are_no_images() {
    let artifact = with(
        manifest(),
        json!({"artifactType": "application/x", "config": descriptor(media::EMPTY), "layers": [descriptor("text/plain")],
               "subject": descriptor(media::MANIFEST)}),
    );
    let read = parse(media::MANIFEST, &artifact).unwrap();
    assert_eq!(read.subject().unwrap().media_type, media::MANIFEST);
    let Document::Manifest(read) = read else { panic!() };
    assert!(!read.is_image());
    assert_eq!(read.kind(), "application/x");
}

#[test]
fn configurations_belong_to_their_manifest() {
    let config = |count: usize| {
        json!({"os": "linux", "architecture": "arm", "variant": "v7", "config": {"Env": ["A=b"]},
               "rootfs": {"type": "layers", "diff_ids": vec![HEX; count]}})
    };
    let Document::Manifest(manifest) = parse(media::MANIFEST, &manifest()).unwrap() else { panic!() };
    let read = ImageConfig::parse_for(&manifest, config(2).to_string().as_bytes()).unwrap();
    assert_eq!((read.platform.to_string().as_str(), read.diff_ids.len()), ("linux/arm/v7", 2));
    let error = ImageConfig::parse_for(&manifest, config(3).to_string().as_bytes()).unwrap_err();
    assert!(error.message.contains("3 diff ids, the manifest has 2 layers"), "{error}");
    assert!(ImageConfig::parse(config(501).to_string().as_bytes()).is_err());
    for wrong in [
        json!({"os": "linux"}),
        json!({"os": "linux", "architecture": "arm", "rootfs": {"type": "windows", "diff_ids": []}}),
    ] {
        assert_eq!(ImageConfig::parse(wrong.to_string().as_bytes()).unwrap_err().kind, Kind::DataLoss);
    }
}
