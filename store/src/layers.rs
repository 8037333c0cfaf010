//! Layers: several are extracted at once, and shown together.
//!
//! Extractions begin in order from the base. One that needs to know what is below it (a hard link to a file of a lower layer, a
//! directory that it does not make itself) waits for the layers below, which began before it: so this always ends.
//!
//! A layer shows when the digest of its blob and that of its tar stream are verified, all layers below it are complete, and its
//! bytes are on the disk ([`crate::publish`]).

use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::{Image, layer_name};
use crate::error::{Error, Result};
use crate::fetch::{Fetches, closing};
use crate::flights::Key;
use crate::flush::Flush;
use crate::follow::{Begun, Follow};
use crate::metadata::Labels;
use crate::progress::{Item, Phase};
use crate::publish::{Ready, ReadyLayer};
use crate::snapshots::{Layer, Usage};
use crate::store::{Away, Call, blocking};
use crate::unpack::{self, Form, Options};

/// Extracts what is not there yet of an image's layers. What comes back is complete and not shown; if one fails, those below it are
/// shown as layers before the failure is told.
pub(crate) async fn unpack(call: &Call, image: &Image, snapshotter: &str, fetches: &Fetches) -> Result<Ready> {
    let snapshotter = call.store.snapshots.resolve(snapshotter)?.to_owned();
    let mut ready = Ready::of(image, &snapshotter);
    if image.chain_ids.is_empty() || is_there(call, image, &snapshotter, image.chain_ids.len() - 1).await? {
        return Ok(ready);
    }
    let mut site = Site::new(call, image, &snapshotter);
    for n in 0..image.layers.len() {
        let item = call.progress.item(&image.layers[n].digest.to_string(), "layer", image.layers[n].size);
        // Held until the layer shows: who waits for it then finds it.
        let turn = call.store.flights.turn(Key::Chain(snapshotter.clone(), image.chain_ids[n].clone())).await;
        if is_there(call, image, &snapshotter, n).await? {
            site.base = Some(n);
            item.phase(Phase::Exists);
            continue;
        }
        let slot = Arc::clone(&call.store.extractions).acquire_owned().await.map_err(|_| closing())?;
        if site.failed() {
            break;
        }
        let follow = fetches.follow(&image.layers[n].digest);
        site.begin(n, follow, item.clone(), slot);
        ready.expect(turn, item);
        if !call.store.snapshots.is_layered(&snapshotter) {
            // A copy of what is below is made first, so that must be there.
            site.end(&mut ready).await?;
            ready.publish_layers(call).await?;
            site.base = Some(n);
        }
    }
    site.end(&mut ready).await?;
    Ok(ready)
}

/// Whether layer `n` is there; then the lease keeps it.
async fn is_there(call: &Call, image: &Image, snapshotter: &str, n: usize) -> Result<bool> {
    let (call, snapshotter, chain) = (call.clone(), snapshotter.to_owned(), image.chain_ids[n].to_string());
    let diff_id = image.diff_ids[n].clone();
    let parent = n.checked_sub(1).map(|below| image.chain_ids[below].to_string());
    blocking(move || {
        call.store.snapshots.hold(&call.ns, &snapshotter, &chain, &diff_id, parent.as_deref(), call.lease.id())
    })
    .await
}

/// Where the layers of one image are being extracted.
struct Site<'a> {
    call: &'a Call,
    image: &'a Image,
    snapshotter: &'a str,
    /// The highest layer that was there.
    base: Option<usize>,
    /// Roots of the extractions, lowest first, as they become complete.
    roots: Vec<watch::Receiver<Option<Arc<OwnedFd>>>>,
    running: JoinSet<(usize, Result<Away<Layer>>)>,
    handles: Vec<(usize, AbortHandle)>,
    stop: Stop,
    flush: Flush,
    failure: Option<(usize, Error)>,
}

impl<'a> Site<'a> {
    fn new(call: &'a Call, image: &'a Image, snapshotter: &'a str) -> Self {
        Self {
            call,
            image,
            snapshotter,
            base: None,
            roots: Vec::new(),
            running: JoinSet::new(),
            handles: Vec::new(),
            stop: Stop::default(),
            flush: Flush::begin(&call.store.snapshots),
            failure: None,
        }
    }

    fn begin(&mut self, n: usize, follow: Option<Follow>, item: Item, slot: OwnedSemaphorePermit) {
        let (root, below) = watch::channel(None);
        let job = Job {
            call: self.call.clone(),
            blob: self.image.layers[n].clone(),
            name: layer_name(n, self.image.layers.len(), &self.image.layers[n].digest),
            chain: self.image.chain_ids[n].to_string(),
            parent: n.checked_sub(1).map(|below| self.image.chain_ids[below].to_string()),
            diff_id: self.image.diff_ids[n].clone(),
            snapshotter: self.snapshotter.to_owned(),
            below: Below {
                call: self.call.clone(),
                snapshotter: self.snapshotter.to_owned(),
                base: self.base.map(|n| self.image.chain_ids[n].to_string()),
                roots: self.roots.clone(),
                runtime: Handle::current(),
            },
            root,
            n,
            stop: self.stop.clone(),
            flush: self.flush.clone(),
            item,
            _slot: slot,
        };
        self.roots.push(below);
        self.handles.push((n, self.running.spawn(async move { (n, job.run(follow).await) })));
    }

    /// Notes what has ended; whether one has failed.
    fn failed(&mut self) -> bool {
        while let Some(ended) = self.running.try_join_next() {
            self.note(ended, &mut Vec::new());
        }
        self.failure.is_some()
    }
}
