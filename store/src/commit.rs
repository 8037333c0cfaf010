//! Commit: what was changed in a snapshot becomes an image.
//!
//! ```text
//! base (manifest, configuration) ─┐
//! snapshot ─> layer blob ─────────┼─> configuration ─> manifest ─> unpack the layer ─> publish
//! ```
//!
//! The same changes, base and source date give the same bytes, and so the same digests. Nothing is compared to a clock but the times that
//! are asked for.

use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::content::Ingest;
use crate::content::digest::Digest;
use crate::descriptor::{Descriptor, Platform};
use crate::documents::{From, Image, Tree, Wanted};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::fetch::Fetches;
use crate::images::{self, Inspected};
use crate::layers::{self, changes};
use crate::metadata::{Labels, Namespace, NewImage};
use crate::progress::Progress;
use crate::registry::reference::Reference;
use crate::registry::{media, platform};
use crate::snapshots::{Driver, Kind};
use crate::store::{Awaited, Call, Store, blocking_while_awaited};
use crate::unpack::compress::Compression;
use crate::unpack::diff::{DiffOptions, Source};

/// How long a commit whose caller has gone may take to end: as long as one piece takes to be compressed and written.
const LETTING_GO: Duration = Duration::from_secs(5);

/// What to make an image of.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The snapshot whose changes become a layer.
    pub snapshot: String,
    /// Where it is; "" is the default one.
    pub snapshotter: String,
    /// The image it came from; none: it stands on nothing.
    pub base: Option<String>,
    /// The new image's name; none: its digest.
    pub name: Option<String>,
    /// Who made it.
    pub author: String,
    /// For the history.
    pub message: String,
    /// What made the layer, for the history.
    pub created_by: String,
    /// In place of the base's: JSON of a configuration's `config`.
    pub config: Option<Vec<u8>>,
    /// For all times that are written, in seconds; no file's is later. None: now, and files keep theirs.
    pub source_date: Option<i64>,
    /// Of the layer's blob.
    pub compression: Compression,
    /// The image's.
    pub labels: Labels,
    /// Which of the base's, or what it is for; none: this host's.
    pub machine: Option<Platform>,
    /// A line of history and no layer.
    pub empty_layer: bool,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The image's name.
    pub name: String,
    /// What it consists of.
    pub image: Image,
}

/// Makes an image and its name visible, or neither.
pub async fn commit(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Made> {
    let what = format!("commit {}", request.snapshot);
    steps(store, ns, request, progress).await.map_err(|error| error.within(what))
}

async fn steps(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Made> {
    let name = request.name.as_deref().map(new_name).transpose()?;
    let own_config = request.config.as_deref().map(object).transpose()?;
    let call = Call::begin(store, ns, "commit", progress).await?;
    let base = match &request.base {
        Some(base) => Some(images::inspect(store, ns, base, request.machine.clone(), &request.snapshotter).await?),
        None => None,
    };
    let (labels, snapshotter) = (request.labels.clone(), request.snapshotter.clone());
    let work = call.clone();
    let manifest = blocking_while_awaited(move |awaited| {
        let below = base.as_ref().map(|base| hold_base(&work, base)).transpose()?;
        let layer = match request.empty_layer {
            true => None,
            false => Some(write_layer(&work, &request, below.as_ref(), awaited)?),
        };
        let config = configuration(base.as_ref(), &request, own_config, layer.as_ref())?;
        let config = put(&work, media::CONFIG, &config)?;
        put(&work, media::MANIFEST, &manifest(below, config, layer))
    })
    .await?;

    let tree = Tree::read(&call, From::Here, manifest.clone(), &Wanted::Present).await?;
    let image = tree.images.first().cloned().ok_or_else(|| Error::internal("what was made is no image"))?;
    let name = name.unwrap_or_else(|| manifest.digest.to_string());
    let new = NewImage { name: name.clone(), target: manifest, labels };
    // A container of it needs no other unpacking; and what unpacks to other bytes than were written is no image.
    let ready = layers::unpack(&call, &image, &snapshotter, &Fetches::none()).await?;
    ready.publish(&call, &tree, vec![new], true).await?;
    Ok(Made { name, image })
}

fn new_name(text: &str) -> Result<String> {
    let name = text.parse::<Reference>()?;
    match name.digest() {
        Some(_) => Err(Error::invalid(format!("{text:?} has a digest: what a new image has is not known before"))),
        None => Ok(name.to_string()),
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("the configuration given is no JSON object: {error}")))
}

/// The base's layers have to be here, and to stay until the new image keeps them.
fn hold_base(call: &Call, base: &Inspected) -> Result<Image> {
    let image = base.chosen.clone().ok_or_else(|| Error::precondition(format!("{} is no image", base.image.name)))?;
    for layer in &image.layers {
        if call.store.content.hold(&call.ns, &layer.digest, Some(call.lease.id()))?.is_none() {
            return Err(Error::precondition(format!(
                "the blob of a layer of {} ({}) is not here: pull the image again, keeping its blobs",
                base.image.name, layer.digest
            )));
        }
    }
    Ok(image)
}

struct Layer {
    blob: Descriptor,
    diff_id: Digest,
}

fn write_layer(call: &Call, request: &Request, below: Option<&Image>, awaited: &Awaited) -> Result<Layer> {
    let snapshots = &call.store.snapshots;
    let (snapshotter, key) = (&*request.snapshotter, &*request.snapshot);
    let at = snapshots.stat(&call.ns, snapshotter, key)?;
    if at.kind == Kind::View {
        return Err(Error::precondition("it is a view: nothing can be changed in it"));
    }
    let chain = below.and_then(Image::chain_id).map(Digest::to_string);
    if at.parent != chain {
        let shown = |it: Option<String>| it.unwrap_or_else(|| "nothing".to_owned());
        return Err(Error::precondition(format!(
            "it stands on {}, and the base's last layer is {}: name the image that it was prepared from",
            shown(at.parent),
            shown(chain)
        )));
    }
    let (upper, lowers) = snapshots.changes(&call.ns, snapshotter, key)?;
    let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
    let source = match snapshots.driver(snapshotter)? {
        Driver::Overlay => Source::Overlay { upper: upper.as_fd(), lowers, userxattr: snapshots.userxattr() },
        Driver::Native => Source::Trees { lower: lowers.first().copied(), upper: upper.as_fd() },
    };
    let options = DiffOptions { latest_mtime: request.source_date, source: "the layer".to_owned() };
    let ingest = ingest(call, &format!("commit-{key}"), awaited)?;
    let lease = Some(call.lease.id());
    let made = changes::write(ingest, request.compression, (&source, &options), Labels::new(), lease, awaited)?;
    let blob = Descriptor::new(request.compression.media_type(), made.digest, made.size);
    Ok(Layer { blob, diff_id: made.diff_id })
}

/// Where the layer is written. A commit before this one that nobody waits for any more lets go of it in a moment.
fn ingest(call: &Call, reference: &str, awaited: &Awaited) -> Result<Ingest> {
    let began = Instant::now();
    loop {
        match call.store.content.ingest(&call.ns, reference, None, None) {
            Err(error) if error.kind == ErrorKind::Unavailable && began.elapsed() < LETTING_GO => {
                awaited.check()?;
                #[expect(clippy::disallowed_methods, reason = "who lets go of an ingest tells nobody")]
                std::thread::sleep(LETTING_GO / 500);
            }
            made => return made,
        }
    }
}

/// The base's configuration, whatever else is in it, with one more layer and one more line of history.
fn configuration(
    base: Option<&Inspected>,
    request: &Request,
    own: Option<Map<String, Value>>,
    layer: Option<&Layer>,
) -> Result<Vec<u8>> {
    let mut all = match base {
        Some(base) => object(&base.config)?,
        None => from_nothing(request.machine.clone().unwrap_or_else(platform::host)),
    };
    let created = time(request.source_date)?;
    all.insert("created".to_owned(), created.clone().into());
    if !request.author.is_empty() {
        all.insert("author".to_owned(), request.author.clone().into());
    }
    if let Some(own) = own {
        all.insert("config".to_owned(), own.into());
    }
    if let Some(layer) = layer {
        list(&mut all["rootfs"]["diff_ids"])?.push(layer.diff_id.to_string().into());
    }
    let mut line = json!({ "created": created });
    for (key, text) in [("author", &request.author), ("created_by", &request.created_by), ("comment", &request.message)]
    {
        if !text.is_empty() {
            line[key] = text.clone().into();
        }
    }
    if layer.is_none() {
        line["empty_layer"] = true.into();
    }
    list(all.entry("history").or_insert(Value::Null))?.push(line);
    Ok(Value::from(all).to_string().into_bytes())
}

fn from_nothing(machine: Platform) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("architecture".to_owned(), machine.architecture.into());
    all.insert("os".to_owned(), machine.os.into());
    if let Some(variant) = machine.variant {
        all.insert("variant".to_owned(), variant.into());
    }
    all.insert("config".to_owned(), Value::Object(Map::new()));
    all.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": [] }));
    all
}

/// A list; what is not there, or null, is an empty one.
fn list(value: &mut Value) -> Result<&mut Vec<Value>> {
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or_else(|| Error::data_loss("the base's configuration has a list that is none"))
}

fn time(source_date: Option<i64>) -> Result<String> {
    match source_date {
        Some(seconds) => match jiff::Timestamp::from_second(seconds) {
            Ok(time) => Ok(time.to_string()),
            Err(error) => Err(Error::invalid(format!("the source date {seconds} is none: {error}"))),
        },
        None => match jiff::Timestamp::try_from(SystemTime::now()) {
            Ok(time) => Ok(time.to_string()),
            Err(error) => Err(Error::internal(format!("this host's clock is wrong: {error}"))),
        },
    }
}

/// An OCI manifest, whatever the base's was: the layers are the same bytes under OCI's media types.
fn manifest(below: Option<Image>, config: Descriptor, layer: Option<Layer>) -> Vec<u8> {
    let mut layers = below.map(|image| image.layers).unwrap_or_default();
    for layer in &mut layers {
        let oci = match &*layer.media_type {
            media::DOCKER_LAYER => media::LAYER,
            media::DOCKER_LAYER_GZIP => media::LAYER_GZIP,
            media::DOCKER_LAYER_ZSTD => media::LAYER_ZSTD,
            _ => continue,
        };
        oci.clone_into(&mut layer.media_type);
    }
    layers.extend(layer.map(|it| it.blob));
    json!({ "schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": layers })
        .to_string()
        .into_bytes()
}

fn put(call: &Call, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
    let digest = call.store.content.put(&call.ns, bytes, &Labels::new(), Some(call.lease.id()))?;
    Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
}

#[cfg(test)]
mod tests;
