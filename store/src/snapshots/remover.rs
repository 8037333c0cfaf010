//! Removes trees in a thread of its own: whoever removes a snapshot does not wait until a file system has let go of its files.
//!
//! What is in the queue has been renamed out of the way, so a crash leaves it to the next start.

use std::ffi::OsString;
use std::fs::read_dir;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::spares::Spares;
use crate::error::{Context, Result};
use crate::fs::remove_tree;

/// Trees that may wait; who comes with one more removes it himself, so that nobody makes them faster than they go. Many, since a file system
/// that discards what it frees lets each directory wait for the disk.
const WAITING: usize = 4096;

/// The thread; when this is dropped it ends, once the queue is empty.
pub(super) struct Remover {
    spares: Arc<Spares>,
    waiting: Arc<AtomicUsize>,
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Remove(PathBuf),
    /// Answered when everything before it is gone.
    Flush(SyncSender<()>),
}

impl Remover {
    pub(super) fn start(spares: Arc<Spares>) -> Result<Self> {
        let (queue, jobs) = sync_channel(WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (taker, done) = (Arc::clone(&spares), Arc::clone(&waiting));
        let thread = Builder::new().name("remover".into()).spawn(move || work(jobs, &done, &taker));
        let thread = thread.context(|| "start the thread that removes snapshots".to_owned())?;
        Ok(Self { spares, waiting, queue: Some(queue), thread: Some(thread) })
    }

    pub(super) fn remove(&self, tree: PathBuf) {
        let Some(queue) = &self.queue else { return };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        match queue.try_send(Job::Remove(tree)) {
            Ok(()) => {}
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => settle(job, &self.waiting, &self.spares),
        }
    }

    /// Whether whoever comes with one more may have to remove it himself.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > WAITING / 2
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

fn work(jobs: Receiver<Job>, waiting: &AtomicUsize, spares: &Spares) {
    jobs.into_iter().for_each(|job| settle(job, waiting, spares));
}

fn settle(job: Job, waiting: &AtomicUsize, spares: &Spares) {
    match job {
        Job::Remove(tree) => {
            waiting.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = remove(&tree, spares) {
                // The next start tries again.
                tracing::warn!("{error}");
            }
        }
        Job::Flush(done) => {
            let _ = done.send(());
        }
    }
}

fn remove(tree: &Path, spares: &Spares) -> Result<()> {
    if spares.wants_back(tree) && strip(tree)? {
        spares.take_back(tree);
        return Ok(());
    }
    remove_tree(tree)
}

/// Removes what was in use of a tree; whether nothing else is in it.
fn strip(tree: &Path) -> Result<bool> {
    remove_tree(&tree.join("fs"))?;
    let mut left = list(tree)?;
    Ok(match (left.next(), left.next()) {
        (None, _) => true,
        (Some(work), None) if work == "work" => list(&tree.join("work"))?.next().is_none(),
        _ => false,
    })
}

fn list(dir: &Path) -> Result<impl Iterator<Item = OsString>> {
    let entries = read_dir(dir).context(|| format!("list {}", dir.display()))?;
    // What cannot be read counts as one more.
    Ok(entries.map(|it| it.map_or_else(|_| OsString::new(), |it| it.file_name())))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, write};

    use super::*;

    #[test]
    fn only_what_nobody_used_serves_again() {
        let root = tempfile::tempdir().unwrap();
        // What there is, and whether the rest serves again.
        let rows: [(&[&str], bool); 5] = [
            (&["fs/etc", "work"], true),
            (&["fs"], true),
            (&[], true),
            (&["fs", "work/work"], false),
            (&["fs", "work", "strange"], false),
        ];
        for (number, (directories, again)) in rows.into_iter().enumerate() {
            let tree = root.path().join(format!("rm-{number}"));
            create_dir(&tree).unwrap();
            directories.iter().for_each(|it| create_dir_all(tree.join(it)).unwrap());
            assert_eq!(strip(&tree).unwrap(), again, "{directories:?}");
            assert!(!tree.join("fs").try_exists().unwrap());
        }
        let tree = root.path().join("rm-file");
        create_dir(&tree).unwrap();
        write(tree.join("file"), "").unwrap();
        assert!(!strip(&tree).unwrap());
    }
}
