//! Writing while computing: the disk is kept busy from the first bytes on, so that the last sync has little to wait for.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::error::{Context as _, Result};
use crate::fs::sync_file_system;
use crate::store::blocking;

/// Compressed bytes after whose extraction the disk is told to begin.
const EVERY: u64 = 16 << 20;

/// Flushes now and then while it lives.
pub(super) struct Flush {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

/// What extractions tell how far they are.
#[derive(Clone, Default)]
pub(super) struct Handle {
    total: Arc<AtomicU64>,
    wanted: Arc<Notify>,
    disk: Arc<OnceLock<OwnedFd>>,
}

impl Flush {
    pub(super) fn begin() -> Self {
        let handle = Handle::default();
        let flushing = handle.clone();
        let task = tokio::spawn(async move {
            loop {
                flushing.wanted.notified().await;
                let disk = Arc::clone(&flushing.disk);
                // What fails here fails again, and is told, in the last sync.
                let _ = blocking(move || {
                    disk.get().map_or(Ok(()), |disk| sync_file_system(disk, Path::new("the snapshots")))
                })
                .await;
            }
        });
        Self { handle, task }
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handle {
    /// A directory that is being extracted into.
    pub(super) fn on(&self, root: BorrowedFd<'_>) -> Result<()> {
        if self.disk.get().is_none() {
            let _ = self.disk.set(root.try_clone_to_owned().context(|| "keep the snapshots' directory".into())?);
        }
        Ok(())
    }

    /// So many bytes more were extracted.
    pub(super) fn extracted(&self, more: u64) {
        let before = self.total.fetch_add(more, Ordering::Relaxed);
        if before / EVERY != (before + more) / EVERY {
            self.wanted.notify_one();
        }
    }
}
