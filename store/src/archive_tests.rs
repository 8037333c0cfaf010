//! Import, unpack, inspect, tag and export against archives made here. As root: layers have owners.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::Wanted;
use crate::error::Kind;
use crate::export::{self, Target};
use crate::import::{self, Imported, Source};
use crate::metadata::{Labels, Namespace};
use crate::progress::Progress;
use crate::registry::media;
use crate::snapshots::OVERLAYFS;
use crate::store::Store;
use crate::{images, unpack_image};

pub(crate) fn store(dir: &Path) -> Store {
    Store::open(Config::in_dir(dir)).unwrap()
}

pub(crate) fn ns() -> Namespace {
    Namespace::default()
}

/// A tar archive of these files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        // As bytes: the builder refuses names that readers have to refuse.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

pub(crate) fn config(layers: &[&[u8]], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|it| Digest::of(it)).collect();
    json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
           "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

/// The files of an OCI layout, as it grows.
#[derive(Default)]
struct Layout {
    files: BTreeMap<String, Vec<u8>>,
    manifests: Vec<Value>,
}

impl Layout {
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.files.insert(format!("blobs/sha256/{}", digest.hex()), bytes.to_vec());
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// An image of gzipped layers.
    fn image(&mut self, layers: &[&[u8]], architecture: &str) -> Descriptor {
        let config = self.blob(media::CONFIG, &config(layers, architecture));
        let layers: Vec<_> = layers.iter().map(|it| self.blob(media::LAYER_GZIP, &gzip(it))).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": layers});
        let mut at = self.blob(media::MANIFEST, manifest.to_string().as_bytes());
        at.platform = Some(format!("linux/{architecture}").parse().unwrap());
        at
    }

    fn name(&mut self, mut at: Descriptor, name: &str) {
        at.annotations.insert("org.opencontainers.image.ref.name".into(), name.into());
        self.manifests.push(json!(at));
    }

    fn tar(mut self) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": self.manifests}).to_string();
        self.files.insert("index.json".into(), index.into_bytes());
        self.files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let files: Vec<_> = self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        tar(&files)
    }
}

/// Sends an archive in small pieces.
pub(crate) async fn take(store: &Store, archive: &[u8], name: Option<&str>) -> crate::error::Result<Vec<Imported>> {
    let (to, from) = mpsc::channel(2);
    let archive = archive.to_vec();
    tokio::spawn(async move {
        for piece in archive.chunks(1000) {
            if to.send(Bytes::copy_from_slice(piece)).await.is_err() {
                break;
            }
        }
    });
    let request = import::Request {
        source: Source::Stream(from),
        name: name.map(str::to_owned),
        wanted: None,
        unpack: Some(String::new()),
        labels: Labels::from([("kept".into(), "yes".into())]),
    };
    import::import(store, &ns(), request, &Progress::silent()).await
}

async fn give(store: &Store, images: &[&str], oci_only: bool) -> crate::error::Result<Vec<u8>> {
    let (to, mut from) = mpsc::channel(2);
    let request = export::Request {
        images: images.iter().map(|it| (*it).to_owned()).collect(),
        wanted: None,
        oci_only,
        target: Target::Stream(to),
    };
    let reading = tokio::spawn(async move {
        let mut archive = Vec::new();
        while let Some(piece) = from.recv().await {
            archive.extend_from_slice(&piece);
        }
        archive
    });
    export::export(store, &ns(), request, &Progress::silent()).await?;
    Ok(reading.await.unwrap())
}

/// Names and bytes of an archive's files.
fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
    };
    archive.entries().unwrap().map(entry).collect()
}

/// What the topmost directory that has this file says.
pub(crate) fn read(store: &Store, chain: &Digest, name: &str) -> Option<String> {
    let lowers = store.snapshots.lowers(&ns(), OVERLAYFS, &chain.to_string()).unwrap();
    lowers.iter().find_map(|dir| {
        use std::os::fd::AsRawFd as _;
        std::fs::read_to_string(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())).ok()
    })
}

pub(crate) fn base() -> Vec<u8> {
    tar(&[("etc/one", b"1"), ("etc/two", b"2")])
}

pub(crate) fn upper() -> Vec<u8> {
    // A hard link to a file of the layer below: its extraction has to wait for that.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_mode(0o644);
    header.set_size(0);
    builder.append_link(&mut header, "etc/three", "etc/one").unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn an_oci_archive_comes_in_is_unpacked_and_leaves_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut layout = Layout::default();
    let image = layout.image(&[&base(), &upper()], "amd64");
    layout.name(image.clone(), "1.0");
    layout.name(image.clone(), "registry.example/team/app:2");
    let imported = take(&store, &layout.tar(), Some("app")).await.unwrap();
    let names: Vec<_> = imported.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/app:1.0", "registry.example/team/app:2"]);
    let chain = imported[0].images[0].chain_id().unwrap().clone();
    assert_eq!(read(&store, &chain, "etc/three").as_deref(), Some("1"));

    let shown = images::inspect(&store, &ns(), "app:1.0", None, "").await.unwrap();
    assert!(shown.unpacked && shown.size > 0);
    assert_eq!(shown.names.len(), 2);
    assert_eq!(shown.image.labels["kept"], "yes");
    let info = store.content.info(&ns(), &shown.chosen.unwrap().config.digest).unwrap().unwrap();
    assert_eq!(info.labels["containerd.io/gc.ref.snapshot.overlayfs"], chain.to_string());
    let manifest = store.content.info(&ns(), &image.digest).unwrap().unwrap();
    assert_eq!(manifest.labels.len(), 3, "{:?}", manifest.labels);

    // Out and in again, into another store: the same, and twice the same bytes.
    let archive = give(&store, &["app:1.0", "registry.example/team/app:2"], false).await.unwrap();
    assert_eq!(archive, give(&store, &["app:1.0", "registry.example/team/app:2"], false).await.unwrap());
    let files = entries(&archive);
    let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(docker[0]["RepoTags"], json!(["docker.io/library/app:1.0", "registry.example/team/app:2"]));
    let layer = docker[0]["Layers"][1].as_str().unwrap();
    assert_eq!(files[layer], gzip(&upper()));
    let other = tempfile::tempdir().unwrap();
    let other = self::store(other.path());
    let again = take(&other, &gzip(&archive), None).await.unwrap();
    assert_eq!(again, imported);
    assert!(!entries(&give(&store, &["app:1.0"], true).await.unwrap()).contains_key("manifest.json"));
}

#[tokio::test]
async fn what_docker_saves_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (base, upper) = (base(), upper());
    let config = config(&[&base, &upper, &base], "amd64");
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["a/layer.tar", "b/layer.tar", "z/layer.tar"]}]);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("a/layer.tar", &base),
        ("b/layer.tar", &upper),
        ("c.json", &config),
        ("manifest.json", &manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "z/layer.tar", "../a/layer.tar").unwrap();
    let imported = take(&store, &builder.into_inner().unwrap(), None).await.unwrap();
    assert_eq!(imported[0].name, "docker.io/library/app:1");
    let chain = imported[0].images[0].chain_id().unwrap();
    assert_eq!(read(&store, chain, "etc/three").as_deref(), Some("1"));
    assert_eq!(imported[0].images[0].layers[2].digest, Digest::of(&base));
}

#[tokio::test]
async fn an_index_is_taken_whole_and_unpacked_for_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let host = crate::registry::platform::host();
    let mut layout = Layout::default();
    let ours = layout.image(&[&base()], &host.architecture);
    let other = layout.image(&[&upper()], "s390x");
    let gone = Descriptor {
        platform: Some("linux/ppc64le".parse().unwrap()),
        ..Descriptor::new(media::MANIFEST, Digest::of(b"gone"), 4)
    };
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [gone, other, ours]});
    let index = layout.blob(media::INDEX, index.to_string().as_bytes());
    layout.name(index.clone(), "app:1");
    let imported = take(&store, &layout.tar(), None).await.unwrap();
    assert_eq!(imported[0].target.digest, index.digest);
    assert_eq!(imported[0].images.len(), 1);
    assert_eq!(imported[0].images[0].platform.architecture, host.architecture);
    // Two of three are here: which of them shall leave, must be said.
    let error = give(&store, &["app:1"], false).await.unwrap_err();
    assert!(error.message.contains("linux/ppc64le is not"), "{error}");
    let machine = "linux/s390x".parse().unwrap();
    let error = images::inspect(&store, &ns(), "app:1", Some("linux/ppc64le".parse().unwrap()), "").await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    // A layer that stands on nothing and links to nothing: the error names the layer and the entry, and nothing shows.
    let error = unpack_image::unpack(&store, &ns(), "app:1", Some(machine), "", &Progress::silent()).await.unwrap_err();
    assert_eq!(error.kind, Kind::DataLoss, "{error}");
    assert!(error.message.starts_with("unpack app:1: layer 1 of 1 (sha256:"), "{error}");
    assert!(error.message.contains("etc/three"), "{error}");
    assert_eq!(store.snapshots.list(&ns(), "", &[]).unwrap().len(), 1);
}

fn wrong_checksum(archive: &[u8]) -> Vec<u8> {
    let mut packed = gzip(archive);
    let at = packed.len() - 8;
    packed[at] ^= 1;
    packed
}

#[tokio::test]
async fn what_is_broken_leaves_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let image = |change: &dyn Fn(&mut Layout)| {
        let mut layout = Layout::default();
        let at = layout.image(&[&base()], "amd64");
        layout.name(at, "app:1");
        change(&mut layout);
        layout.tar()
    };
    let whole = image(&|_| ());
    let first_layer = format!("blobs/sha256/{}", Digest::of(&gzip(&base())).hex());
    for (archive, said) in [
        (image(&|it| drop(it.files.remove(&first_layer))), "is not here"),
        (image(&|it| it.files.get_mut(&first_layer).unwrap()[20] ^= 1), "should be"),
        (image(&|it| drop(it.files.insert("blobs/sha256/short".into(), vec![]))), "is not a digest"),
        (image(&|it| it.manifests[0]["digest"] = json!(Digest::of(b"other"))), "not here"),
        (whole[..whole.len() / 2 + 100].to_vec(), "broken or cut off"),
        (wrong_checksum(&whole), "broken or cut off"),
        (tar(&[("some", b"file")]), "holds no images"),
        (tar(&[("../some", b"file")]), "holds no images"),
        (tar(&[("a/../../index.json", b"{}"), ("index.json", b"{}")]), "twice"),
        (tar(&[("index.json", b"{}"), ("./index.json", b"{}")]), "twice"),
        (b"neither tar nor anything else that is known".to_vec(), "broken or cut off"),
    ] {
        let error = take(&store, &archive, None).await.unwrap_err();
        assert!(error.message.contains(said), "{said}: {error}");
        assert!(matches!(error.kind, Kind::DataLoss | Kind::NotFound), "{error:?}");
    }
    assert!(store.metadata.images(&ns(), &[]).unwrap().is_empty());
    assert!(store.snapshots.list(&ns(), "", &[]).unwrap().is_empty());
    // A diff id that is another's: both digests are looked at.
    let mut layout = Layout::default();
    let wrong = config(&[&upper()], "amd64");
    let wrong = layout.blob(media::CONFIG, &wrong);
    let layer = layout.blob(media::LAYER_GZIP, &gzip(&base()));
    let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": wrong, "layers": [layer]});
    let manifest = layout.blob(media::MANIFEST, manifest.to_string().as_bytes());
    layout.name(manifest, "app:1");
    let error = take(&store, &layout.tar(), None).await.unwrap_err();
    assert!(error.message.contains("the image's configuration says that it holds"), "{error}");
    assert!(store.metadata.images(&ns(), &[]).unwrap().is_empty());
}

#[tokio::test]
async fn a_layer_that_fails_leaves_those_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut layout = Layout::default();
    let broken: &[u8] = b"this is no tar archive, however long one looks at it";
    let at = layout.image(&[&base(), broken, &upper()], "amd64");
    layout.name(at, "app:1");
    let error = take(&store, &layout.tar(), None).await.unwrap_err();
    assert!(error.message.starts_with("import: docker.io/library/app:1: layer 2 of 3 (sha256:"), "{error}");
    let there = store.snapshots.list(&ns(), "", &[]).unwrap();
    let names: Vec<_> = there.iter().map(|it| it.name.clone()).collect();
    assert_eq!(names, [Digest::of(&base()).to_string()]);
    assert!(store.metadata.images(&ns(), &[]).unwrap().is_empty());
    // No tree of the others is left.
    assert_eq!(std::fs::read_dir(store.root.path().join("snapshots")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_directory_gets_more_images_and_gives_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let target = dir.path().join("layout");
    for (name, layer) in [("one:1", base()), ("two:1", tar(&[("etc/two", b"22")]))] {
        let mut layout = Layout::default();
        let at = layout.image(&[&layer], "amd64");
        layout.name(at, name);
        take(&store, &layout.tar(), None).await.unwrap();
        let request = export::Request {
            images: vec![name.into()],
            wanted: Some(Wanted::All),
            oci_only: false,
            target: Target::Directory(target.clone()),
        };
        export::export(&store, &ns(), request, &Progress::silent()).await.unwrap();
    }
    let other = tempfile::tempdir().unwrap();
    let other = self::store(other.path());
    let request = import::Request {
        source: Source::Path(target),
        name: None,
        wanted: Some(Wanted::All),
        unpack: Some("native".into()),
        labels: Labels::new(),
    };
    let imported = import::import(&other, &ns(), request, &Progress::silent()).await.unwrap();
    let names: Vec<_> = imported.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/one:1", "docker.io/library/two:1"]);
}

#[tokio::test]
async fn names_are_given_and_moved() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for (name, layer) in [("one", base()), ("two", tar(&[("x", b"x")]))] {
        let mut layout = Layout::default();
        let at = layout.image(&[&layer], "amd64");
        layout.name(at, &format!("{name}:1"));
        take(&store, &layout.tar(), None).await.unwrap();
    }
    let one = store.metadata.image(&ns(), "docker.io/library/one:1").unwrap().target.digest;
    let short = &one.hex()[..12];
    assert_eq!(images::tag(&store, &ns(), short, "three", false).await.unwrap(), "docker.io/library/three:latest");
    images::tag(&store, &ns(), "one:1", "three", false).await.unwrap();
    assert_eq!(images::tag(&store, &ns(), "two:1", "three", false).await.unwrap_err().kind, Kind::AlreadyExists);
    images::tag(&store, &ns(), "two:1", "three", true).await.unwrap();
    let two = store.metadata.image(&ns(), "docker.io/library/two:1").unwrap().target.digest;
    assert_eq!(store.metadata.image(&ns(), "docker.io/library/three:latest").unwrap().target.digest, two);
    for (source, target, kind) in [
        ("four", "five", Kind::NotFound),
        ("0", "five", Kind::NotFound),
        ("one:1", &format!("five@{one}"), Kind::InvalidArgument),
        ("one:1", "Five", Kind::InvalidArgument),
    ] {
        assert_eq!(
            images::tag(&store, &ns(), source, target, false).await.unwrap_err().kind,
            kind,
            "{source} {target}"
        );
    }
}
