//! Export: images as one archive that everybody reads, or as an OCI layout's directory.
//!
//! ```text
//! oci-layout                  ─┐
//! index.json                   ├─ OCI layout: skopeo, podman, umoci, containerd
//! blobs/<algorithm>/<hex>     ─┤
//! manifest.json               ─┘  docker load: names its configuration and layers among the blobs
//! ```
//!
//! The same images give the same archive, byte for byte: nothing in it depends on when or where. All that it needs is looked for
//! before the first byte is sent.

mod output;

use std::collections::HashSet;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::output::{Directory, Output, Sending, TarFile};
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::{Image, Tree, Wanted};
use crate::error::{Error, Kind, Result};
use crate::images;
use crate::metadata::Namespace;
use crate::progress::{Phase, Progress};
use crate::registry::{Reference, platform};
use crate::store::{Call, Store, blocking};

/// Where the archive goes.
#[derive(Debug)]
pub enum Target {
    /// To a client, piece by piece.
    Stream(mpsc::Sender<Bytes>),
    /// Into a new file on this host, which shows when it is complete.
    File(PathBuf),
    /// Into a directory on this host: a new one, or an OCI layout that gets more images.
    Directory(PathBuf),
}

/// What to export.
#[derive(Debug)]
pub struct Request {
    /// By name or digest.
    pub images: Vec<String>,
    /// Which of an index; as for a push.
    pub wanted: Option<Wanted>,
    /// Leave out manifest.json.
    pub oci_only: bool,
    /// Where to.
    pub target: Target,
}

/// One image of the archive.
struct Item {
    /// By which it is known there; one that is only a digest has none.
    reference: Option<Reference>,
    tree: Tree,
}

/// Writes images into an archive. Says which, by the names that they have here.
pub async fn export(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Vec<String>> {
    steps(store, ns, request, progress).await.map_err(|error| error.within("export"))
}

async fn steps(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Vec<String>> {
    let Request { images: names, wanted, oci_only, target } = request;
    if names.is_empty() {
        return Err(Error::invalid("no image is named"));
    }
    let call = Call::begin(store, ns, "export", progress).await?;
    let (mut items, mut exported) = (Vec::new(), Vec::new());
    for name in &names {
        let item = find(&call, name, wanted.as_ref()).await.map_err(|error| error.within(name))?;
        exported.push(item.0);
        items.push(item.1);
    }
    let blobs = blobs(&items);
    let index = index(&items);
    let docker = (!oci_only).then(|| docker_manifest(&items));

    blocking(move || match target {
        Target::Stream(to) => write(&call, TarFile::new(Sending::new(to)), &index, docker.as_ref(), &blobs),
        Target::File(path) => {
            output::file(&path, |file| write(&call, TarFile::new(file), &index, docker.as_ref(), &blobs))
        }
        Target::Directory(path) => write(&call, Directory::open(&path)?, &index, None, &blobs),
    })
    .await?;
    Ok(exported)
}

/// An image and its documents, and that all of its blobs are here.
async fn find(call: &Call, name: &str, wanted: Option<&Wanted>) -> Result<(String, Item)> {
    let image = images::find(call, name).await?;
    let tree = images::tree(call, image.target, wanted).await?;
    tree.require_blobs(call).await.map_err(|error| match error.kind {
        Kind::NotFound => Error::precondition(format!("{error}: pull it again without discarding blobs")),
        _ => error,
    })?;
    let reference = image.name.parse::<Reference>().ok();
    Ok((image.name, Item { reference, tree }))
}

/// Everything, each once, in the order in which a reader wants it.
fn blobs(items: &[Item]) -> Vec<Descriptor> {
    let mut seen = HashSet::new();
    let documents = items.iter().flat_map(|it| it.tree.documents.iter().rev().map(|(at, _)| at.clone()));
    let layers = items.iter().flat_map(|it| it.tree.transfers().into_iter().map(|it| it.at));
    let foreign = |at: &Descriptor| crate::registry::media::is_foreign(&at.media_type);
    documents.chain(layers).filter(|at| !foreign(at) && seen.insert(at.digest.clone())).collect()
}

/// index.json: each image under its name.
fn index(items: &[Item]) -> Value {
    let manifests: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut at = item.tree.root.clone();
            at.annotations.clear();
            if let Some(reference) = &item.reference {
                at.annotations.insert("io.containerd.image.name".into(), reference.to_string());
                if let Some(tag) = reference.tag() {
                    at.annotations.insert("org.opencontainers.image.ref.name".into(), tag.to_owned());
                }
            }
            json!(at)
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": crate::registry::media::INDEX, "manifests": manifests})
}

/// manifest.json: of each image the one for this host, or else the first, since docker knows one only.
fn docker_manifest(items: &[Item]) -> Value {
    let mut entries: Vec<(Image, Vec<String>)> = Vec::new();
    for item in items {
        let images = &item.tree.images;
        let best = images.iter().filter_map(|it| Some((platform::rank(&platform::host(), &it.platform)?, it)));
        let Some(image) = best.min_by_key(|(rank, _)| *rank).map(|(_, it)| it).or(images.first()) else { continue };
        let name = item.reference.as_ref().filter(|it| it.tag().is_some() && it.digest().is_none());
        let names = name.map(ToString::to_string);
        match entries.iter_mut().find(|(other, _)| other.config.digest == image.config.digest) {
            Some((_, known)) => known.extend(names),
            None => entries.push((image.clone(), names.into_iter().collect())),
        }
    }
    let entry = |(image, names): &(Image, Vec<String>)| {
        let layers: Vec<String> = image.layers.iter().map(|it| blob_name(&it.digest)).collect();
        json!({"Config": blob_name(&image.config.digest), "RepoTags": names, "Layers": layers})
    };
    entries.iter().map(entry).collect()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn write(
    call: &Call,
    mut output: impl Output,
    index: &Value,
    docker: Option<&Value>,
    blobs: &[Descriptor],
) -> Result<()> {
    output.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    output.index(index)?;
    if let Some(docker) = docker {
        output.document("manifest.json", docker.to_string().as_bytes())?;
    }
    for at in blobs {
        let item = call.progress.item(&at.digest.to_string(), "blob", at.size);
        item.phase(Phase::Sending);
        let mut reader = call.store.content.reader(&call.ns, &at.digest)?;
        if reader.size() != at.size {
            return Err(Error::data_loss(format!("blob {} is not of the size that its image says", at.digest)));
        }
        output.blob(&at.digest, at.size, &mut reader)?;
        item.offset(at.size);
        item.phase(Phase::Done);
    }
    output.end()
}
