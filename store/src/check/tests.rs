use std::fs;
use std::sync::Mutex;

use super::*;
use crate::descriptor::Descriptor;
use crate::metadata::{NewImage, Publication};
use crate::testing::{Parts, labels, request};

#[derive(Default)]
struct Told(Mutex<Vec<Problem>>);

impl Listener for Told {
    fn problem(&self, problem: Problem) {
        lock(&self.0).push(problem);
    }

    fn read(&self, _: &Digest, _: u64, _: u64) -> bool {
        true
    }
}

fn problems(parts: &Parts, quick: bool) -> Vec<Problem> {
    let told = Told::default();
    check(&parts.metadata, &parts.content, &parts.snapshots, quick, &told).unwrap();
    let mut told = told.0.into_inner().unwrap();
    told.sort_by(|one, other| (one.kind, &one.object).cmp(&(other.kind, &other.object)));
    told
}

struct Image {
    parts: Parts,
    ns: Namespace,
    manifest: Digest,
    config: Digest,
    layer: Digest,
}

/// An image with real documents, unpacked.
fn image() -> Image {
    let (parts, ns) = (Parts::new(), Namespace::default());
    let from = ("containerd.io/distribution.source.registry.example", "team/app,team/base");
    let put = |bytes: &[u8], with: &[(&str, &str)]| {
        let all: Vec<_> = with.iter().copied().chain([from]).collect();
        parts.content.put(&ns, bytes, &labels(&all), None).unwrap()
    };
    let config_text = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config = put(config_text, &[("containerd.io/gc.ref.snapshot.overlayfs", "chain")]);
    let layer = put(b"compressed", &[]);
    let manifest_text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{}}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":10}}]}}"#,
        config_text.len()
    );
    let manifest = put(
        manifest_text.as_bytes(),
        &[
            ("containerd.io/gc.ref.content.config", &config.to_string()),
            ("containerd.io/gc.ref.content.l.0", &layer.to_string()),
        ],
    );
    let target =
        Descriptor::new("application/vnd.oci.image.manifest.v1+json", manifest.clone(), manifest_text.len() as u64);
    let layers = parts.snapshots.sync(vec![parts.extracted(&ns, "chain", None)]).unwrap();
    let images = vec![NewImage { name: "app".into(), target, labels: labels(&[]) }];
    parts.metadata.publish(Publication { ns: &ns, lease: None, layers, blobs: Vec::new(), images }).unwrap();
    Image { parts, ns, manifest, config, layer }
}

#[test]
fn a_sound_store_has_no_problems() {
    let Image { parts, ns, layer, .. } = image();
    parts.snapshots.prepare(&request(&ns, "key", "chain", &labels(&[]))).unwrap();
    parts.content.ingest(&ns, "coming", None, None).unwrap().write(b"x").unwrap();
    assert_eq!(problems(&parts, false), []);
    // Discarded by policy: its layer is unpacked.
    parts.content.delete(&ns, &layer).unwrap();
    assert_eq!(problems(&parts, false), []);
}

#[test]
fn a_damaged_blob_is_found_with_where_it_came_from() {
    let Image { parts, ns, layer, manifest, .. } = image();
    let damage = |digest: &Digest, bytes: &[u8]| {
        fs::remove_file(parts.content.path(digest)).unwrap();
        fs::write(parts.content.path(digest), bytes).unwrap();
    };
    damage(&layer, b"compresseD");
    assert_eq!(problems(&parts, true), [], "a quick check reads no blob");
    let sources = ["team/app", "team/base"].map(|it| ("registry.example".to_owned(), it.to_owned())).to_vec();
    let found = problems(&parts, false);
    let repair = Repair::Fetch { ns, digest: layer.clone(), size: 10, sources };
    assert_eq!((found.len(), found[0].kind, &found[0].object), (1, "blob", &layer.to_string()));
    assert_eq!(found[0].repair, Some(repair));
    damage(&layer, b"comp");
    fs::remove_file(parts.content.path(&manifest)).unwrap();
    assert_eq!(problems(&parts, true).len(), 2);
}

#[test]
fn an_image_without_its_parts_is_found() {
    let missing = |digest: fn(&Image) -> &Digest, unpacked: bool| {
        let image = image();
        if !unpacked {
            image.parts.snapshots.remove(&image.ns, "", "chain").unwrap();
        }
        image.parts.content.delete(&image.ns, digest(&image)).unwrap();
        let found = problems(&image.parts, true);
        assert_eq!((found.len(), found[0].kind, found[0].object.as_str()), (1, "image", "app"), "{found:?}");
        found[0].message.clone()
    };
    assert!(missing(|it| &it.manifest, true).starts_with("what it stands for, "));
    assert!(missing(|it| &it.config, true).starts_with("its configuration, "));
    assert!(missing(|it| &it.layer, false).starts_with("its layer, "));
}

#[test]
fn a_lost_tree_and_a_lost_file_are_found() {
    let Image { parts, ns, .. } = image();
    parts.snapshots.prepare(&request(&ns, "key", "chain", &labels(&[]))).unwrap();
    fs::remove_file(parts.path.join("snapshots/1/fs/chain")).unwrap();
    fs::remove_dir(parts.path.join("snapshots/2/work")).unwrap();
    let found = problems(&parts, false);
    let objects: Vec<&str> = found.iter().map(|it| it.object.as_str()).collect();
    assert_eq!(objects, ["chain", "key"], "{found:?}");
    assert!(matches!(&found[0].repair, Some(Repair::Unpack { name, .. }) if name == "chain"));
    fs::remove_dir_all(parts.path.join("snapshots/1")).unwrap();
    assert_eq!(problems(&parts, true).len(), 2);
}

#[test]
fn an_ingest_whose_bytes_are_gone_is_found() {
    let Image { parts, ns, .. } = image();
    drop(parts.content.ingest(&ns, "lost", None, None).unwrap());
    let dir = parts.list("content/ingests");
    fs::remove_dir_all(parts.path.join("content/ingests").join(&dir[0])).unwrap();
    let found = problems(&parts, true);
    assert_eq!((found[0].kind, found[0].object.as_str()), ("ingest", "lost"));
}
