//! Layers: several are extracted at once, and shown together.
//!
//! Extractions begin in order from the base. One that needs to know what is below it (a hard link to a file of a lower layer, a
//! directory that it does not make itself) waits for the layers below, which began before it: so this always ends. How many compute
//! at once, of all calls together, is limited by their places ([`place`]), which nobody holds who waits; how many have
//! begun, and have threads and buffers, by room: of one call, and of all.
//!
//! A layer shows when the digest of its blob and that of its tar stream are verified, all layers below it are complete, and its
//! bytes are on the disk ([`publish`]).

pub(crate) mod changes;
mod extract;
mod flush;
mod place;
pub(crate) mod publish;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::extract::{Below, Job, Root, Stop};
use self::flush::Flush;
use self::publish::Ready;
use crate::documents::{Image, layer_name};
use crate::error::{Error, Result};
use crate::fetch::{Fetches, closing};
use crate::flights::{Key, Turn};
use crate::follow::Follow;
use crate::progress::{Item, Phase};
use crate::snapshots::Extracted;
use crate::store::{Away, Call, blocking};

/// Extracts what is not there yet of an image's layers. What comes back is complete and not shown; if one fails, those below it are
/// shown as layers before the failure is told.
pub(crate) async fn unpack(call: &Call, image: &Image, snapshotter: &str, fetches: &Fetches) -> Result<Ready> {
    let snapshotter = call.store.snapshots.driver(snapshotter)?.name();
    let mut ready = Ready::of(image, snapshotter);
    let Some(top) = image.chain_ids.len().checked_sub(1) else { return Ok(ready) };
    if is_there(call, image, snapshotter, top).await? {
        return Ok(ready);
    }
    let mut site = Site::new(call, image, snapshotter);
    for n in 0..=top {
        let item = call.progress.item(&image.layers[n].digest.to_string(), "layer", image.layers[n].size);
        // Held until the layer shows: who waits for it then finds it.
        let turn = call.store.flights.turn(Key::Chain(snapshotter, image.chain_ids[n].clone())).await;
        if is_there(call, image, snapshotter, n).await? {
            site.base = Some(n);
            continue;
        }
        let room = site.room().await?;
        if site.failed() {
            break;
        }
        site.begin(n, fetches.follow(&image.layers[n].digest), item, turn, room);
    }
    site.end(&mut ready).await?;
    Ok(ready)
}

/// How many layers are there, counted from the base.
pub(crate) async fn present(call: &Call, image: &Image, snapshotter: &str) -> Result<usize> {
    let snapshotter = call.store.snapshots.driver(snapshotter)?.name();
    for n in (0..image.chain_ids.len()).rev() {
        if is_there(call, image, snapshotter, n).await? {
            return Ok(n + 1);
        }
    }
    Ok(0)
}

/// Whether layer `n` is there; then the lease keeps it.
async fn is_there(call: &Call, image: &Image, snapshotter: &'static str, n: usize) -> Result<bool> {
    let (call, chain) = (call.clone(), image.chain_ids[n].to_string());
    blocking(move || call.store.snapshots.hold(&call.ns, snapshotter, &chain, Some(call.lease.id()))).await
}

/// Where the layers of one image are being extracted. Dropped, it stops them, and their trees are removed.
struct Site<'a> {
    call: &'a Call,
    image: &'a Image,
    snapshotter: &'static str,
    /// The highest layer that was there.
    base: Option<usize>,
    /// Roots of the extractions, lowest first, as they become complete.
    roots: Vec<Root>,
    running: JoinSet<(usize, Result<Away<Extracted>>)>,
    begun: Vec<Begun>,
    done: BTreeMap<usize, Away<Extracted>>,
    failure: Option<(usize, Error)>,
    stop: Stop,
    flush: Flush,
    /// For so many extractions at once.
    room: Arc<Semaphore>,
}

/// Threads and buffers for one extraction: of so many of this call, and of so many of all.
struct Room {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// One extraction that has begun and is not ready.
struct Begun {
    n: usize,
    turn: Turn,
    item: Item,
    handle: AbortHandle,
}

impl<'a> Site<'a> {
    fn new(call: &'a Call, image: &'a Image, snapshotter: &'static str) -> Self {
        Self {
            call,
            image,
            snapshotter,
            base: None,
            roots: Vec::new(),
            running: JoinSet::new(),
            begun: Vec::new(),
            done: BTreeMap::new(),
            failure: None,
            stop: Stop::default(),
            flush: Flush::begin(),
            room: Arc::new(Semaphore::new(call.store.config.extractions.max(1))),
        }
    }

    /// Waits until one more extraction may begin. In the order from the base: the lowest that has begun waits for no layer.
    async fn room(&self) -> Result<Room> {
        let own = Arc::clone(&self.room).acquire_owned().await.map_err(|_| closing())?;
        let of_all = Arc::clone(&self.call.store.rooms).acquire_owned().await.map_err(|_| closing())?;
        Ok(Room { _own: own, _of_all: of_all })
    }

    fn begin(&mut self, n: usize, follow: Option<Follow>, item: Item, turn: Turn, room: Room) {
        let (root, complete) = watch::channel(None);
        let chain = |n: usize| self.image.chain_ids[n].to_string();
        let job = Job {
            call: self.call.clone(),
            n,
            name: layer_name(n, self.image.layers.len(), &self.image.layers[n].digest),
            blob: self.image.layers[n].clone(),
            diff_id: self.image.diff_ids[n].clone(),
            chain: chain(n),
            parent: n.checked_sub(1).map(chain),
            snapshotter: self.snapshotter,
            below: Below {
                call: self.call.clone(),
                snapshotter: self.snapshotter,
                base: self.base.map(chain),
                roots: self.roots.clone(),
                runtime: Handle::current(),
            },
            root,
            stop: self.stop.handle(),
            flush: self.flush.handle(),
            item: item.clone(),
            _room: room,
        };
        self.roots.push(complete);
        let handle = self.running.spawn(async move { (n, job.run(follow).await) });
        self.begun.push(Begun { n, turn, item, handle });
    }

    /// Whether one has failed by now.
    fn failed(&mut self) -> bool {
        while let Some(ended) = self.running.try_join_next() {
            self.note(ended);
        }
        self.failure.is_some()
    }

    /// Waits until all have ended. Hands over those that are complete down to the base, and tells the lowest failure.
    async fn end(&mut self, ready: &mut Ready) -> Result<()> {
        while let Some(ended) = self.running.join_next().await {
            self.note(ended);
        }
        for begun in self.begun.drain(..) {
            match self.done.remove(&begun.n) {
                Some(layer) => ready.push(layer, begun.turn, begun.item),
                // What stands on it can't show.
                None => break,
            }
        }
        let Some((_, error)) = self.failure.take() else { return Ok(()) };
        if let Err(second) = ready.publish_layers(self.call).await {
            self.call.progress.notice(format!("the layers below it are lost too: {second}"));
        }
        Err(error)
    }

    fn note(&mut self, ended: Result<(usize, Result<Away<Extracted>>), tokio::task::JoinError>) {
        match ended {
            Ok((n, Ok(layer))) => drop(self.done.insert(n, layer)),
            Ok((n, Err(error))) => self.fail(n, error),
            // We aborted it, for the failure of a lower one.
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(0, Error::internal(format!("an extraction ended early: {error}"))),
        }
    }

    /// Those above end too, those below go on.
    fn fail(&mut self, n: usize, error: Error) {
        self.stop.from(n);
        for above in self.begun.iter().filter(|it| it.n > n) {
            above.handle.abort();
        }
        if self.failure.as_ref().is_none_or(|(lowest, _)| n < *lowest) {
            if let Some(begun) = self.begun.iter().find(|it| it.n == n) {
                begun.item.phase(Phase::Failed);
            }
            self.failure = Some((n, error));
        }
    }
}
