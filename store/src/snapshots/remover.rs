//! Removes trees in a thread of its own: whoever removes a snapshot does not wait until a file system has let go of its files.
//!
//! What is in the queue has been renamed out of the way, so a crash leaves it to the next start.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::error::{Context, Result};
use crate::fs::remove_tree;

/// Trees that may wait; who comes with one more removes it himself, so that nobody makes them faster than they go. Many, since a file system
/// that discards what it frees lets each directory wait for the disk.
const WAITING: usize = 4096;

/// The thread; when this is dropped it ends, once the queue is empty.
pub(super) struct Remover {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Remove(PathBuf),
    /// Answered when everything before it is gone.
    Flush(SyncSender<()>),
}

impl Remover {
    pub(super) fn start() -> Result<Self> {
        let (queue, jobs) = sync_channel(WAITING);
        let thread = Builder::new().name("remover".into()).spawn(|| work(jobs));
        let thread = thread.context(|| "start the thread that removes snapshots".to_owned())?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) fn remove(&self, tree: PathBuf) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Job::Remove(tree)) {
            Ok(()) => {}
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => perform(job),
        }
    }

    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.as_ref().is_some_and(|it| it.send(Job::Flush(done)).is_ok()) {
            let _ = wait.recv();
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(jobs: Receiver<Job>) {
    jobs.into_iter().for_each(perform);
}

fn perform(job: Job) {
    match job {
        Job::Remove(tree) => {
            if let Err(error) = remove_tree(&tree) {
                // The next start tries again.
                tracing::warn!("{error}");
            }
        }
        Job::Flush(done) => {
            let _ = done.send(());
        }
    }
}
