//! The documents of an image, as a tree: index, manifests, configurations.
//!
//! ```text
//! index ──m.0──> manifest ──config──> configuration     (an image: it can be unpacked)
//!   │               └───────l.0 l.1─> layers
//!   ├────m.1──> manifest ──config, l.N──> blobs         (an artifact: it is stored as it is)
//!   └────m.2──> manifest of another machine             (not taken: a reference that leads nowhere)
//! ```
//!
//! The words at the arrows are those of containerd's labels `containerd.io/gc.ref.content.*`, by which collection finds what a
//! document keeps. They are set where the image becomes visible; until then the call's lease keeps everything.
//!
//! A document is verified against its digest before it is parsed, and parsed before it is stored.

mod referrers;

pub(crate) use referrers::SUBJECT;

use std::collections::HashSet;
use std::pin::Pin;

use crate::content::digest::Digest;
use crate::descriptor::{Descriptor, Platform};
use crate::error::{Error, Kind, Result};
use crate::fetch::Remote;
use crate::flights::Key;
use crate::metadata::Labels;
use crate::progress::Phase;
use crate::registry::manifest::{Document, ImageConfig, Index, Manifest};
use crate::registry::{limit, media, platform};
use crate::store::{Call, blocking};

/// Which manifests of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one that suits this machine best.
    One(Platform),
    /// All: also what is no image.
    All,
    /// All that are here.
    Present,
}

/// Where documents come from.
#[derive(Clone, Copy)]
pub(crate) enum From<'a> {
    /// The content store alone.
    Here,
    /// The content store, or else this registry.
    Registry(&'a Remote),
}

impl<'a> From<'a> {
    fn registry(self) -> Option<&'a Remote> {
        match self {
            Self::Here => None,
            Self::Registry(remote) => Some(remote),
        }
    }
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its manifest.
    pub manifest: Descriptor,
    /// How it runs.
    pub config: Descriptor,
    /// What for.
    pub platform: Platform,
    /// Compressed, the lowest first.
    pub layers: Vec<Descriptor>,
    /// Of the tar streams within; as many.
    pub diff_ids: Vec<Digest>,
    /// Of each layer and all below it; as many.
    pub chain_ids: Vec<Digest>,
}

impl Image {
    /// The snapshot to prepare a container's root on; an image without layers has none.
    #[must_use]
    pub fn chain_id(&self) -> Option<&Digest> {
        self.chain_ids.last()
    }
}

/// A blob that is to be moved.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub(crate) at: Descriptor,
    /// For messages: "layer 2 of 4 (sha256:…)".
    pub(crate) name: String,
    /// A word of store.proto's `Item`.
    pub(crate) kind: &'static str,
}

/// What a name leads to, as far as it was wanted.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// What the name means.
    pub(crate) root: Descriptor,
    /// All that can be unpacked.
    pub(crate) images: Vec<Image>,
    /// Documents, each after everything that it refers to, and what they keep.
    pub(crate) documents: Vec<(Descriptor, Labels)>,
    /// What an artifact consists of.
    pub(crate) blobs: Vec<Descriptor>,
    /// Of an index: what was wanted and is not here. Only with [`Wanted::Present`].
    pub(crate) absent: Vec<Descriptor>,
    seen: HashSet<Digest>,
}

impl Tree {
    /// Reads, and with a registry fetches, the documents below `root`.
    pub(crate) async fn read(call: &Call, from: From<'_>, root: Descriptor, wanted: &Wanted) -> Result<Self> {
        let mut tree = Self {
            root: root.clone(),
            images: Vec::new(),
            documents: Vec::new(),
            blobs: Vec::new(),
            absent: Vec::new(),
            seen: HashSet::new(),
        };
        let found = tree.visit(call, from, root.clone(), wanted, 0).await?;
        if let (Wanted::One(machine), false) = (wanted, found) {
            let has = tree.images.pop().map(|it| it.platform.to_string()).unwrap_or_default();
            return Err(Error::not_found(format!("the image is for {has}, not for {machine}: ask for that platform")));
        }
        Ok(tree)
    }

    /// Every layer of every image, and every other blob, once.
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        let mut seen = HashSet::new();
        let layers = self.images.iter().flat_map(|image| {
            let of = image.layers.len();
            let layer = move |(n, it): (usize, &Descriptor)| Transfer {
                at: it.clone(),
                name: layer_name(n, of, &it.digest),
                kind: "layer",
            };
            image.layers.iter().enumerate().map(layer)
        });
        let blobs =
            self.blobs.iter().map(|it| Transfer { at: it.clone(), name: format!("blob {}", it.digest), kind: "blob" });
        layers.chain(blobs).filter(|it| seen.insert(it.at.digest.clone())).collect()
    }

    /// Fails if a blob is missing that the documents name.
    pub(crate) async fn require_blobs(&self, call: &Call) -> Result<()> {
        for Transfer { at, name, .. } in self.transfers() {
            if !media::is_foreign(&at.media_type) && !stored(call, &at).await? {
                return Err(Error::not_found(format!("{name} of {} is not here", self.root.digest)));
            }
        }
        Ok(())
    }

    /// Goes into one document. `false`: it is an image, for another machine than the wanted one.
    fn visit<'a>(
        &'a mut self,
        call: &'a Call,
        from: From<'a>,
        at: Descriptor,
        wanted: &'a Wanted,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<bool>> + Send + 'a>> {
        Box::pin(async move {
            if self.seen.contains(&at.digest) {
                return Ok(true);
            }
            if depth > limit::NESTING {
                return Err(Error::data_loss(format!("indexes are nested more than {} deep", limit::NESTING)));
            }
            let bytes =
                document(call, from, &at, limit::DOCUMENT, &|bytes| Document::parse(&at.media_type, bytes).map(drop))
                    .await?;
            match Document::parse(&at.media_type, &bytes)? {
                Document::Index(index) => self.index(call, from, at, *index, wanted, depth).await,
                Document::Manifest(manifest) => self.manifest(call, from, at, *manifest, wanted).await,
            }
        })
    }

    async fn index(
        &mut self,
        call: &Call,
        from: From<'_>,
        at: Descriptor,
        index: Index,
        wanted: &Wanted,
        depth: usize,
    ) -> Result<bool> {
        match wanted {
            Wanted::One(machine) => {
                if !self.best(call, from, &index, machine, wanted, depth).await? {
                    return Err(no_such_platform(&index, machine, from));
                }
            }
            Wanted::All => {
                for child in &index.manifests {
                    self.visit(call, from, child.clone(), wanted, depth + 1).await?;
                }
            }
            Wanted::Present => {
                for child in &index.manifests {
                    if self.seen.contains(&child.digest) || stored(call, child).await? {
                        self.visit(call, from, child.clone(), wanted, depth + 1).await?;
                    } else {
                        self.absent.push(child.clone());
                    }
                }
            }
        }
        self.seen.insert(at.digest.clone());
        self.documents.push((at, kept_by_index(&index)));
        Ok(true)
    }

    /// Takes the first entry that is here or can be had, and suits.
    async fn best(
        &mut self,
        call: &Call,
        from: From<'_>,
        index: &Index,
        machine: &Platform,
        wanted: &Wanted,
        depth: usize,
    ) -> Result<bool> {
        for entry in platform::choose(index, machine) {
            if matches!(from, From::Here) && !stored(call, entry).await? {
                continue;
            }
            match self.visit(call, from, entry.clone(), wanted, depth + 1).await {
                Ok(true) => return Ok(true),
                // What it said of itself, or did not say, was wrong: the next one.
                Ok(false) => self.forget_last_image(),
                Err(error) if error.kind == Kind::NotFound && media::is_index(&entry.media_type) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn forget_last_image(&mut self) {
        if let Some(image) = self.images.pop() {
            self.documents.retain(|(it, _)| it.digest != image.manifest.digest && it.digest != image.config.digest);
        }
    }

    async fn manifest(
        &mut self,
        call: &Call,
        from: From<'_>,
        at: Descriptor,
        manifest: Manifest,
        wanted: &Wanted,
    ) -> Result<bool> {
        let labels = kept_by_manifest(&manifest);
        self.seen.insert(at.digest.clone());
        if !manifest.is_image() || platform::is_attestation(&at) {
            self.blobs.push(manifest.config);
            self.blobs.extend(manifest.layers);
            self.documents.push((at, labels));
            return Ok(true);
        }
        let check = |bytes: &[u8]| ImageConfig::parse_for(&manifest, bytes).map(drop);
        let bytes = document(call, from, &manifest.config, limit::CONFIG, &check).await?;
        let config = ImageConfig::parse_for(&manifest, &bytes)?;
        let suits = match wanted {
            // Nothing is said, so nothing is wrong: umoci's new images are such.
            Wanted::One(_) if config.platform.architecture.is_empty() => true,
            Wanted::One(machine) => platform::rank(machine, &config.platform).is_some(),
            Wanted::All | Wanted::Present => true,
        };
        if self.seen.insert(manifest.config.digest.clone()) {
            self.documents.push((manifest.config.clone(), Labels::new()));
        }
        self.images.push(Image {
            manifest: at.clone(),
            config: manifest.config,
            platform: config.platform,
            layers: manifest.layers,
            chain_ids: chain_ids(&config.diff_ids),
            diff_ids: config.diff_ids,
        });
        self.documents.push((at, labels));
        Ok(suits)
    }
}

/// Of each layer and all below it (OCI image specification, config.md, "Layer ChainID").
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        });
    }
    chain
}

/// "layer 2 of 4 (sha256:…)".
pub(crate) fn layer_name(n: usize, of: usize, digest: &Digest) -> String {
    format!("layer {} of {of} ({digest})", n + 1)
}

/// A document's bytes; fetched and stored if they are not here. `check` judges them before they are stored.
pub(crate) async fn document(
    call: &Call,
    from: From<'_>,
    at: &Descriptor,
    limit: u64,
    check: &(dyn Fn(&[u8]) -> Result<()> + Sync),
) -> Result<Vec<u8>> {
    let kind = if media::is_index(&at.media_type) {
        "index"
    } else if media::is_manifest(&at.media_type) {
        "manifest"
    } else {
        "config"
    };
    if at.size > limit {
        return Err(Error::data_loss(format!(
            "{kind} {} is too large: {} bytes; {limit} is the most",
            at.digest, at.size
        )));
    }
    let item = call.progress.item(&at.digest.to_string(), kind, at.size);
    let Some(remote) = from.registry() else {
        let gone = || Error::not_found(format!("{kind} {} is not here: pull the image again", at.digest));
        item.phase(Phase::Exists);
        return stored_bytes(call, at, limit).await?.ok_or_else(gone);
    };
    let _turn = call.store.flights.turn(Key::Blob(at.digest.clone())).await;
    let damaged = match stored_bytes(call, at, limit).await {
        Ok(Some(bytes)) => {
            item.phase(Phase::Exists);
            return Ok(bytes);
        }
        Ok(None) => false,
        Err(error) if error.kind == Kind::DataLoss => true,
        Err(error) => return Err(error),
    };
    item.phase(Phase::Fetching);
    let bytes = remote.document(at, limit).await?;
    check(&bytes).map_err(|error| error.within(format_args!("{kind} {}", at.digest)))?;
    let (here, source, at_) = (call.clone(), remote.source_label(), at.clone());
    let bytes = blocking(move || {
        if damaged {
            replace(&here, &at_, &bytes, &source)?;
        } else {
            here.store.content.put(&here.ns, &bytes, &source, Some(here.lease.id()))?;
        }
        Ok(bytes)
    })
    .await?;
    item.offset(at.size);
    item.phase(Phase::Done);
    Ok(bytes)
}

/// Puts a document in the place of one that is damaged.
pub(crate) fn replace(call: &Call, at: &Descriptor, bytes: &[u8], labels: &Labels) -> Result<()> {
    let mut ingest =
        call.store.content.ingest(&call.ns, &format!("replace-{}", at.digest), Some(at.size), Some(&at.digest))?;
    ingest.truncate(0)?;
    ingest.write(bytes)?;
    ingest.commit(Some(at.size), Some(&at.digest), labels, Some(call.lease.id())).map(drop)
}

/// Whether this blob is here; from now on the lease keeps it.
pub(crate) async fn stored(call: &Call, at: &Descriptor) -> Result<bool> {
    let (call, digest) = (call.clone(), at.digest.clone());
    blocking(move || Ok(call.store.content.hold(&call.ns, &digest, Some(call.lease.id()))?.is_some())).await
}

async fn stored_bytes(call: &Call, at: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>> {
    let (call, at) = (call.clone(), at.clone());
    blocking(move || match call.store.content.hold(&call.ns, &at.digest, Some(call.lease.id()))? {
        Some(_) => call.store.content.read(&call.ns, &at, limit).map(Some),
        None => Ok(None),
    })
    .await
}

const REFERS: &str = "containerd.io/gc.ref.content.";

fn kept_by_index(index: &Index) -> Labels {
    let children = index.manifests.iter().enumerate();
    children.map(|(n, it)| (format!("{REFERS}m.{n}"), it.digest.to_string())).collect()
}

fn kept_by_manifest(manifest: &Manifest) -> Labels {
    let layers = manifest.layers.iter().enumerate();
    let layers = layers.map(|(n, it)| (format!("{REFERS}l.{n}"), it.digest.to_string()));
    layers.chain([(format!("{REFERS}config"), manifest.config.digest.to_string())]).collect()
}

fn no_such_platform(index: &Index, machine: &Platform, from: From<'_>) -> Error {
    let mut has: Vec<String> = index
        .manifests
        .iter()
        .filter(|it| !platform::is_attestation(it))
        .filter_map(|it| it.platform.as_ref().map(ToString::to_string))
        .collect();
    has.dedup();
    let here = match from {
        From::Here => " here: pull it for that platform; its index lists ",
        From::Registry(_) => ": its index lists ",
    };
    let has = if has.is_empty() { "no platforms".to_owned() } else { has.join(", ") };
    Error::not_found(format!("there is no image for {machine}{here}{has}"))
}
