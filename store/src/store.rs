//! The store as one thing: what the flows work with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::content::Content;
use crate::error::{Error, Result};
use crate::flights::Flights;
use crate::fs::Root;
use crate::metadata::{Lease, Metadata, Namespace};
use crate::progress::Progress;
use crate::registry::{Patience, Registry, RegistryConfig};
use crate::snapshots::{Driver, NATIVE, OVERLAYFS, Snapshots};

/// Extractions that have begun, of all calls. Each has two threads; the runtime has 512, and those that fetch need some too.
const ROOMS: usize = 64;

/// One store. Clones are the same one.
#[derive(Clone)]
pub struct Store {
    /// Flags and environment.
    pub config: Arc<Config>,
    /// Where all of it lies, and its lock.
    pub root: Root,
    /// What exists.
    pub metadata: Metadata,
    /// Blobs.
    pub content: Content,
    /// Layers and the snapshots on them.
    pub snapshots: Snapshots,
    /// Registries.
    pub registry: Registry,
    /// Who makes what now.
    pub flights: Flights,
    /// How many blobs move at once, of all calls together.
    pub(crate) transfers: Lanes,
    /// How many extractions have begun, those that wait for something included.
    pub(crate) rooms: Arc<Semaphore>,
    /// How many layers are extracted at once, of all calls together.
    pub(crate) extractions: Arc<Semaphore>,
}

impl Store {
    /// Opens the store in the configuration's root, or makes one; what a crash left half-made is removed. It may block for as long as that
    /// takes. Fails if another daemon has the root.
    pub fn open(config: Config) -> Result<Self> {
        let root = Root::open(&config.root)?;
        let metadata = Metadata::open(&root)?;
        let content = Content::open(&root, &metadata)?;
        let snapshotter = match config.snapshotter.as_deref() {
            None => None,
            Some(OVERLAYFS) => Some(Driver::Overlay),
            Some(NATIVE) => Some(Driver::Native),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "there is no snapshotter {other:?}: there are {OVERLAYFS} and {NATIVE}"
                )));
            }
        };
        let snapshots = Snapshots::open(&root, &metadata, snapshotter)?;
        let registry = Registry::new(RegistryConfig {
            hosts_dirs: config.hosts_dirs.clone(),
            docker_config: config.docker_config.clone(),
            patience: Patience { stall: config.stall, ..Patience::default() },
            ..RegistryConfig::default()
        })?;
        Ok(Self {
            transfers: Lanes::new(config.transfers.max(1)),
            rooms: Arc::new(Semaphore::new(ROOMS)),
            extractions: Arc::new(Semaphore::new(config.extractions.max(1))),
            config: Arc::new(config),
            root,
            metadata,
            content,
            snapshots,
            registry,
            flights: Flights::default(),
        })
    }
}

/// So many blobs at once with each registry: a slow one holds up nobody who wants something of another.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    each: usize,
    /// By registry; those that nobody uses are forgotten.
    lanes: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// The right to move one blob.
#[derive(Debug)]
pub(crate) struct Lane {
    _permit: OwnedSemaphorePermit,
    /// Others with this registry find it while one of them is here.
    _lane: Arc<Semaphore>,
}

impl Lanes {
    fn new(each: usize) -> Self {
        Self { each, lanes: Arc::default() }
    }

    /// Waits until a blob may move from or to this registry.
    pub(crate) async fn take(&self, registry: &str) -> Result<Lane> {
        let lane = self.lane(registry);
        let permit = Arc::clone(&lane).acquire_owned().await;
        let permit = permit.map_err(|_| Error::unavailable("the store is closing"))?;
        Ok(Lane { _permit: permit, _lane: lane })
    }

    fn lane(&self, registry: &str) -> Arc<Semaphore> {
        // Nothing that could panic runs under this lock.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(registry).and_then(Weak::upgrade) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Semaphore::new(self.each));
        lanes.insert(registry.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

/// What every step of one call needs: where it works, the lease that keeps what it has got, and who watches it.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) store: Store,
    pub(crate) ns: Namespace,
    /// Moves into threads too: it lasts until the last of them has ended.
    pub(crate) lease: Arc<Lease>,
    pub(crate) progress: Progress,
}

impl Call {
    /// Takes the lease. `why` is written beside it, for people.
    pub(crate) async fn begin(store: &Store, ns: &Namespace, why: &'static str, progress: &Progress) -> Result<Self> {
        let (metadata, name) = (store.metadata.clone(), ns.clone());
        let lease = blocking(move || metadata.hold(&name, why)).await?;
        Ok(Self { store: store.clone(), ns: ns.clone(), lease: Arc::new(lease), progress: progress.clone() })
    }
}

/// Runs what computes or waits for a disk on a thread of its own. If the caller goes away meanwhile, the work is done to its end.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("a thread of the store ended early: {error}"))),
    }
}

/// As [`blocking`], for work of which half is no use: it can ask whether its caller is still there.
pub(crate) async fn blocking_while_awaited<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Awaited) -> Result<T> + Send + 'static,
{
    // Goes with this future, wherever that is dropped.
    let caller = Arc::new(());
    let awaited = Awaited(Arc::downgrade(&caller));
    let result = blocking(move || work(&awaited)).await;
    drop(caller);
    result
}

/// Whether anybody still waits for what a thread does.
pub(crate) struct Awaited(Weak<()>);

impl Awaited {
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.strong_count() {
            0 => Err(Error::cancelled("nobody waits for it any more")),
            _ => Ok(()),
        }
    }
}

/// What must not be dropped on the runtime's thread, because that takes long: an extraction removes its tree.
pub(crate) struct Away<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Away<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Takes it out; whoever has it now drops it.
    pub(crate) fn take(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Drop for Away<T> {
    fn drop(&mut self) {
        if let (Some(value), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(move || drop(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn registries_do_not_wait_for_each_other() {
        let lanes = Lanes::new(2);
        let slow = [lanes.take("slow").await.unwrap(), lanes.take("slow").await.unwrap()];
        let _fast = lanes.take("fast").await.unwrap();
        let third = lanes.clone();
        let third = tokio::spawn(async move { third.take("slow").await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(slow);
        third.await.unwrap().unwrap();
        drop(lanes.take("other").await.unwrap());
        assert!(!lanes.lanes.lock().unwrap().contains_key("slow"), "who is done is forgotten");
    }
}
