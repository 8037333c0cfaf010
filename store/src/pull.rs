//! Pull: from a registry to an image that can be run, all of it or nothing.
//!
//! ```text
//! resolve ─> documents: index ─> manifest ─> configuration          (each verified before it is parsed)
//!                                    │
//!            each layer:   fetch ─> sha256 ─> ingest file ─> [fsync, rename]  blob
//!                                                 │ read behind the writer
//!                                                 └─> inflate ─> sha256 (diff id) + extract ─> tree
//!                                    │
//!            sync ─> publish: the layers and the image in one durable transaction
//! ```
//!
//! Fetches begin in order from the base, several at once, and so do extractions; neither waits for the other but for bytes.
//! Until the last step nothing is visible, and what was fetched is kept by a lease. If a layer fails, what lies below it is
//! complete and is published as layers; blobs that are complete stay, and of one that is not the ingest stays: the next
//! pull goes on from there. Dropping the future cancels: threads notice at their next read, trees are removed, ingests stay.

use std::collections::HashSet;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::{From, Image, Transfer, Tree, Wanted};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::fetch::{self, Remote};
use crate::layers;
use crate::layers::publish::Ready;
use crate::metadata::{Labels, Namespace, NewImage};
use crate::progress::{Phase, Progress};
use crate::registry::{Access, Reference, media};
use crate::store::{Call, Store, blocking};

/// What to pull, and what to do with it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub reference: Reference,
    /// Which of an index.
    pub wanted: Wanted,
    /// Unpack it for this snapshotter ("" is the default one), or only fetch it.
    pub unpack: Option<String>,
    /// How its registry is reached, and as whom.
    pub access: Access,
    /// The image's labels.
    pub labels: Labels,
    /// Keep no blob whose layer is unpacked; where that is the store's policy, it is done anyway.
    pub discard_blobs: bool,
    /// Leave out layers that must not be distributed, instead of failing.
    pub skip_foreign: bool,
    /// Fetch also what refers to it.
    pub referrers: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image's name.
    pub name: String,
    /// What the name means.
    pub target: Descriptor,
    /// What can be run of it: one for each platform that was asked for.
    pub images: Vec<Image>,
    /// All of it was here.
    pub unchanged: bool,
    /// Bytes that came over the network.
    pub fetched: u64,
    /// Layers' blobs are kept by nothing: collection removes them.
    pub discarded: bool,
}

/// Fetches an image, verifies it, unpacks it, and makes it visible.
pub async fn pull(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Pulled> {
    let name = request.reference.to_string();
    steps(store, ns, request, &name, progress).await.map_err(|error| error.within(format_args!("pull {name}")))
}

async fn steps(store: &Store, ns: &Namespace, request: Request, name: &str, progress: &Progress) -> Result<Pulled> {
    let call = Call::begin(store, ns, "pull", progress).await?;
    let remote = Remote::open(&call, request.reference.repository(), request.access.clone()).await?;

    let root = remote.resolve(&request.reference).await?;
    let mut tree = Tree::read(&call, From::Registry(&remote), root, &request.wanted).await?;
    fault::point("pull.documents")?;
    if request.referrers {
        tree.add_referrers(&call, &remote).await?;
    }
    let whole = !leaves_out_foreign(&call, &tree, request.skip_foreign)?;
    let unpack = request.unpack.as_deref().filter(|_| whole);
    let discard = unpack.filter(|_| request.discard_blobs || store.config.discard_blobs);
    let transfers = needed(&call, &tree, discard).await?;

    let mut fetches = fetch::start(&call, &remote, transfers);
    let mut ready = Ready::default();
    if let Some(snapshotter) = unpack {
        for image in &tree.images {
            // Nobody holds the turns of two images.
            ready.publish_layers(&call).await?;
            ready = layers::unpack(&call, image, snapshotter, &fetches).await?;
        }
    }
    if let Err(error) = fetches.complete().await {
        ready.publish_layers(&call).await?;
        return Err(error);
    }

    fault::point("pull.complete")?;

    let target = tree.root.clone();
    let before = image_target(&call, name).await?;
    let unchanged = remote.fetched() == 0 && ready.is_empty() && before.is_some_and(|it| it == target.digest);
    let new = NewImage { name: name.to_owned(), target: target.clone(), labels: request.labels.clone() };
    let discarded = discard.is_some();
    ready.publish(&call, &tree, vec![new], !discarded).await?;
    fault::point("pull.published")?;
    Ok(Pulled { name: name.to_owned(), target, images: tree.images, unchanged, fetched: remote.fetched(), discarded })
}

/// Whether layers are left out that must not be distributed: an image that lacks some can't be unpacked. Fails, if it may not.
fn leaves_out_foreign(call: &Call, tree: &Tree, skip: bool) -> Result<bool> {
    let foreign: Vec<Transfer> =
        tree.transfers().into_iter().filter(|it| media::is_foreign(&it.at.media_type)).collect();
    let Some(first) = foreign.first() else { return Ok(false) };
    if !skip {
        return Err(Error::precondition(format!(
            "{} must not be distributed, so its registry need not have it: allow that such layers are left out, or pull a platform without them",
            first.name
        )));
    }
    for layer in &foreign {
        call.progress.item(&layer.at.digest.to_string(), layer.kind, layer.at.size).phase(Phase::Skipped);
    }
    call.progress.notice(format!(
        "{} layers that must not be distributed are left out, so the image is not unpacked",
        foreign.len()
    ));
    Ok(true)
}

/// What must be here in the end. That is no layer that `discard`, a snapshotter whose layers' blobs are not kept, has unpacked already.
async fn needed(call: &Call, tree: &Tree, discard: Option<&str>) -> Result<Vec<Transfer>> {
    let mut transfers = tree.transfers();
    transfers.retain(|it| !media::is_foreign(&it.at.media_type));
    let Some(snapshotter) = discard else { return Ok(transfers) };
    let mut wanted = HashSet::new();
    for image in &tree.images {
        let there = layers::present(call, image, snapshotter).await?;
        wanted.extend(image.layers[there..].iter().map(|it| it.digest.clone()));
    }
    transfers.retain(|it| it.kind != "layer" || wanted.contains(&it.at.digest));
    Ok(transfers)
}

async fn image_target(call: &Call, name: &str) -> Result<Option<Digest>> {
    let (call, name) = (call.clone(), name.to_owned());
    blocking(move || match call.store.metadata.image(&call.ns, &name) {
        Ok(image) => Ok(Some(image.target.digest)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .await
}
