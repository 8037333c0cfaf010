//! When collection runs by itself: some time after something was removed, and now and then.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::config::Schedule;
use crate::error::Result;
use crate::gc::{self, Collected, Options};
use crate::store::Store;

/// Collects one store. Clones are the same one.
#[derive(Clone)]
pub struct Collector(Arc<Inner>);

struct Inner {
    store: Store,
    removed: Notify,
    /// Two at once would only wait for each other.
    one: Mutex<()>,
}

impl Collector {
    /// Starts what collects by the store's schedule. It ends with the runtime.
    #[must_use]
    pub fn start(store: &Store) -> Self {
        let this = Self(Arc::new(Inner { store: store.clone(), removed: Notify::new(), one: Mutex::new(()) }));
        tokio::spawn(by_schedule(this.clone(), store.config.collect.clone()));
        this
    }

    /// Something was removed.
    pub fn soon(&self) {
        self.0.removed.notify_one();
    }

    /// Collects, and returns when it is done. It waits for the disk.
    pub fn collect(&self, options: &Options) -> Result<Collected> {
        // A collection that panicked left nothing half-done: it is one transaction.
        let _one = self.0.one.lock().unwrap_or_else(PoisonError::into_inner);
        let store = &self.0.store;
        gc::collect(&store.metadata, &store.content, &store.snapshots, options)
    }
}

async fn by_schedule(this: Collector, schedule: Schedule) {
    loop {
        let due = async {
            match schedule.every {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        let removed = async {
            match schedule.after {
                Some(after) => {
                    this.0.removed.notified().await;
                    // What is removed in the meantime goes along.
                    tokio::time::sleep(after).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = removed => {}
        }
        let collector = this.clone();
        match crate::store::blocking(move || collector.collect(&Options::default())).await {
            Ok(done) => tracing::info!(?done, "collected"),
            Err(error) => tracing::warn!(%error, "collect"),
        }
    }
}
