//! Push: what a registry lacks of an image, the name last.
//!
//! ```text
//! name ─> documents here ─> is the name there, and means this? ─> nothing to do
//!                │ no
//!                ├─ each blob: there already? ─> mounted from another repository of the registry? ─> sent, in pieces
//!                └─ documents, each after what it refers to; under the name the last one
//! ```
//!
//! So a name at the registry never leads to something that is not all there. A blob that this store did not keep is sent if it
//! can be fetched again from where it came.

use std::collections::HashSet;
use std::io::{Read, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::{Transfer, Tree, Wanted, stored};
use crate::error::{Context as _, Error, Kind, Result};
use crate::fetch::{self, Remote, source_key};
use crate::images;
use crate::metadata::{Image as Named, Namespace};
use crate::progress::{Item, Phase, Progress};
use crate::registry::manifest::Document;
use crate::registry::{Access, Open, Reference, Repository, limit, media};
use crate::store::{Call, Store, blocking};

/// What to push, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image here, by name or digest.
    pub source: String,
    /// Its name there; without one, the source's.
    pub target: Option<Reference>,
    /// Which of an index: all that the index lists, the one for a platform, or (`None`) all, or if not all are here the one that is.
    pub wanted: Option<Wanted>,
    /// How the registry is reached, and as whom.
    pub access: Access,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The name at the registry.
    pub name: String,
    /// What it means now.
    pub target: Descriptor,
    /// Bytes of blobs and documents that were sent.
    pub sent: u64,
    /// The name meant this already.
    pub unchanged: bool,
}

/// Sends what the registry lacks of an image.
pub async fn push(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Pushed> {
    let source = request.source.clone();
    steps(store, ns, request, progress).await.map_err(|error| error.within(format_args!("push {source}")))
}

async fn steps(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Pushed> {
    let call = Call::begin(store, ns, "push", progress).await?;
    let source = images::find(&call, &request.source).await?;
    let target = match &request.target {
        Some(target) => target.clone(),
        None => source
            .name
            .parse::<Reference>()
            .map_err(|error| error.within("it has no name that a registry knows: say where to"))?,
    };
    let tag = target.tag().map(str::to_owned);
    let remote = Remote::open(&call, target.repository(), request.access.clone()).await?;

    let tree = images::tree(&call, source.target.clone(), request.wanted.as_ref()).await?;
    check_digest(&target, &tree)?;
    let unchanged = means(&remote, &target, &tree.root).await?;
    let sent = Arc::new(AtomicU64::new(0));
    if !unchanged {
        send_blobs(&call, &source, &remote, &tree, &request.access, &sent).await?;
        send_documents(&call, &remote, &tree, tag.as_deref(), &sent).await?;
    }
    remember(&call, &remote, &tree).await?;
    Ok(Pushed { name: target.to_string(), target: tree.root, sent: sent.load(Ordering::Relaxed), unchanged })
}

/// A digest in the target must be what is sent.
fn check_digest(target: &Reference, tree: &Tree) -> Result<()> {
    match target.digest() {
        Some(digest) if *digest != tree.root.digest => {
            Err(Error::invalid(format!("{target} cannot become {}: name a tag", tree.root.digest)))
        }
        _ => Ok(()),
    }
}

/// Whether the name leads to this already.
async fn means(remote: &Remote, target: &Reference, root: &Descriptor) -> Result<bool> {
    match remote.registry.resolve(target).await {
        Ok(resolved) => Ok(resolved.descriptor.digest == root.digest),
        // Also where a repository may be written and not read.
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::PermissionDenied | Kind::Unauthenticated) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn send_blobs(
    call: &Call,
    source: &Named,
    remote: &Remote,
    tree: &Tree,
    access: &Access,
    sent: &Arc<AtomicU64>,
) -> Result<()> {
    let mut transfers = tree.transfers();
    transfers.retain(|it| !media::is_foreign(&it.at.media_type));
    let configs = tree.images.iter().map(|it| Transfer {
        at: it.config.clone(),
        name: format!("config {}", it.config.digest),
        kind: "config",
    });
    transfers.extend(configs);
    let mut seen = HashSet::new();
    transfers.retain(|it| seen.insert(it.at.digest.clone()));

    let mut running = JoinSet::new();
    for transfer in transfers {
        let job = Job {
            call: call.clone(),
            source: source.name.clone(),
            remote: remote.clone(),
            access: access.clone(),
            sent: Arc::clone(sent),
            transfer,
        };
        running.spawn(job.run());
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Error::internal(format!("an upload ended early: {error}")))??;
    }
    Ok(())
}

/// One blob that the registry is to have.
struct Job {
    call: Call,
    source: String,
    remote: Remote,
    access: Access,
    sent: Arc<AtomicU64>,
    transfer: Transfer,
}

impl Job {
    async fn run(self) -> Result<()> {
        let at = &self.transfer.at;
        let item = self.call.progress.item(&at.digest.to_string(), self.transfer.kind, at.size);
        let result = self.steps(&item).await;
        item.phase(*result.as_ref().unwrap_or(&Phase::Failed));
        result.map(drop).map_err(|error| error.within(&self.transfer.name))
    }

    /// How the registry came to have it.
    async fn steps(&self, item: &Item) -> Result<Phase> {
        let at = &self.transfer.at;
        let lanes = &self.call.store.transfers;
        let registry = self.remote.registry.repository().registry();
        let lane = lanes.take(registry).await?;
        if self.remote.registry.blob_exists(at).await? {
            return Ok(Phase::Exists);
        }
        for from in self.mounts().await? {
            if self.remote.registry.mount(at, &from).await? {
                return Ok(Phase::Mounted);
            }
        }
        if !stored(&self.call, at).await? {
            // The fetch waits for a lane of its own.
            drop(lane);
            self.fetch_again().await?;
            let _lane = lanes.take(registry).await?;
            return self.upload(item).await;
        }
        self.upload(item).await
    }

    async fn upload(&self, item: &Item) -> Result<Phase> {
        let at = &self.transfer.at;
        item.phase(Phase::Sending);
        let (call, digest) = (self.call.clone(), at.digest.clone());
        let open: Open = Arc::new(move |offset| {
            let mut reader = call.store.content.reader(&call.ns, &digest)?;
            reader.seek(SeekFrom::Start(offset)).context(|| format!("read blob {digest} from {offset}"))?;
            Ok(Box::new(reader) as Box<dyn Read + Send>)
        });
        self.remote.registry.upload(at, open, &|offset| item.offset(offset)).await?;
        self.sent.fetch_add(at.size, Ordering::Relaxed);
        Ok(Phase::Done)
    }

    /// Other repositories of the target's registry that had the blob when it came from there.
    async fn mounts(&self) -> Result<Vec<Repository>> {
        let to = self.remote.registry.repository();
        let known = sources(&self.call, &self.transfer.at.digest, to.registry()).await?;
        let others = known.into_iter().filter(|it| it != to.path());
        Ok(others.filter_map(|it| format!("{}/{it}", to.registry()).parse().ok()).collect())
    }

    /// Fetches a blob that was not kept from the repository of the image's name.
    async fn fetch_again(&self) -> Result<()> {
        let at = &self.transfer.at;
        let gone = |why: String| {
            Error::precondition(format!(
                "the blob {} was not kept here and cannot be had again: {why}; pull {} again without discarding blobs",
                at.digest, self.source
            ))
        };
        let reference: Reference =
            self.source.parse().map_err(|_| gone(format!("{:?} names no registry", self.source)))?;
        let from = Remote::open(&self.call, reference.repository(), self.access.clone()).await?;
        let mut fetches = fetch::start(&self.call, &from, vec![self.transfer.clone()]);
        fetches.complete().await.map_err(|error| gone(error.message))
    }
}

/// The repositories of a registry that a blob came from.
async fn sources(call: &Call, digest: &Digest, registry: &str) -> Result<Vec<String>> {
    let (call, digest, key) = (call.clone(), digest.clone(), source_key(registry));
    blocking(move || {
        let info = call.store.content.info(&call.ns, &digest)?;
        let known = info.and_then(|it| it.labels.get(&key).cloned()).unwrap_or_default();
        Ok(known.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect())
    })
    .await
}

/// Each after what it refers to; the root under its tag.
async fn send_documents(call: &Call, remote: &Remote, tree: &Tree, tag: Option<&str>, sent: &AtomicU64) -> Result<()> {
    for (at, _) in &tree.documents {
        if !media::is_manifest(&at.media_type) && !media::is_index(&at.media_type) {
            continue;
        }
        let is_root = at.digest == tree.root.digest;
        let kind = if media::is_index(&at.media_type) { "index" } else { "manifest" };
        let item = call.progress.item(&at.digest.to_string(), kind, at.size);
        if !is_root && remote.registry.manifest_exists(at).await? {
            item.phase(Phase::Exists);
            continue;
        }
        item.phase(Phase::Sending);
        let (from, document) = (call.clone(), at.clone());
        let bytes = blocking(move || from.store.content.read(&from.ns, &document, limit::DOCUMENT)).await?;
        let put = remote.registry.put_manifest(tag.filter(|_| is_root), &at.media_type, &bytes).await;
        let put = put.map_err(|error| error.within(format_args!("{kind} {}", at.digest)))?;
        if put.digest != at.digest {
            return Err(Error::data_loss(format!("the registry took {kind} {} for {}", at.digest, put.digest)));
        }
        let document = Document::parse(&at.media_type, &bytes)?;
        if let Some(subject) = document.subject().filter(|_| !put.lists_referrers) {
            remote.registry.list_referrer(&subject.digest, &document.as_referrer(at)).await?;
        }
        sent.fetch_add(at.size, Ordering::Relaxed);
        item.offset(at.size);
        item.phase(Phase::Done);
    }
    Ok(())
}

/// Notes that this repository has the blobs now: another push to the registry mounts them from there.
async fn remember(call: &Call, remote: &Remote, tree: &Tree) -> Result<()> {
    let blobs: Vec<Digest> = tree.transfers().into_iter().map(|it| it.at.digest).collect();
    let (call, source) = (call.clone(), remote.source_label());
    blocking(move || {
        for digest in blobs {
            let Some(info) = call.store.content.info(&call.ns, &digest)? else { continue };
            fetch::note_source(&call.store.content, &call.ns, &info, &source)?;
        }
        Ok(())
    })
    .await
}
