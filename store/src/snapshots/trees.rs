//! The numbered directories below `snapshots/`, and which of them a running call is still making.

use std::collections::HashSet;
use std::fs::rename;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::remover::Remover;
use super::rows;
use super::spares::{Spares, skeleton};
use crate::error::{Context, Result};
use crate::fault;
use crate::fs::{private_dir, remove_tree};
use crate::metadata::{Metadata, lock};

/// All of them.
#[derive(Clone)]
pub(crate) struct Trees {
    dir: Arc<PathBuf>,
    next: Arc<AtomicU64>,
    /// Made by a call that runs, and named by no row yet.
    unnamed: Arc<Mutex<HashSet<u64>>>,
    remover: Arc<Remover>,
    spares: Arc<Spares>,
}

/// A tree that no row names yet. Dropped without [`Tree::keep`], it is removed.
pub(crate) struct Tree {
    trees: Trees,
    pub(crate) number: u64,
    kept: bool,
}

impl Trees {
    /// Sweeps, and finds the first free number.
    pub(super) fn open(root: &Path, metadata: &Metadata) -> Result<Self> {
        let dir = root.join("snapshots");
        private_dir(&dir)?;
        let (spares, old) = Spares::open(root)?;
        let spares = Arc::new(spares);
        let remover = Arc::new(Remover::start(Arc::clone(&spares))?);
        let trees = Self { dir: Arc::new(dir), next: Arc::default(), unnamed: Arc::default(), remover, spares };
        // A power cut can keep the row of a snapshot that was just prepared and lose its directory. Nothing was ever in it.
        let on_disk: HashSet<u64> = trees.listed()?.iter().filter_map(|it| it.parse().ok()).collect();
        metadata.write(|transaction| rows::drop_empty(transaction, &on_disk))?;
        for name in trees.listed()? {
            if name.parse::<u64>().is_err() {
                remove_tree(&trees.dir.join(name))?;
            }
        }
        trees.sweep(metadata)?;
        let (removed, spare): (Vec<_>, Vec<_>) = old.into_iter().partition(|it| Spares::was_removed(it));
        // These have names that the next removals need.
        removed.iter().try_for_each(|it| remove_tree(it))?;
        // Nobody waits for these.
        spare.into_iter().for_each(|it| trees.remover.remove(it));
        let last = metadata.read(rows::trees)?.into_iter().max().unwrap_or(0);
        trees.next.store(last + 1, Ordering::Relaxed);
        Ok(trees)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a tree is.
    pub(crate) fn fs(&self, number: u64) -> PathBuf {
        self.path(number).join("fs")
    }

    pub(super) fn work(&self, number: u64) -> PathBuf {
        self.path(number).join("work")
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// A new, empty one.
    pub(super) fn create(&self, work: bool) -> Result<Tree> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.unnamed).insert(number);
        let tree = Tree { trees: self.clone(), number, kept: false };
        let path = self.path(number);
        if !(work && self.spares.take(&path, number)?) {
            skeleton(&path, work)?;
        }
        fault::point("snapshots.prepare.taken")?;
        Ok(tree)
    }

    /// Begins to remove a tree that no row names any more; the removal of its last row must be durable, unless it never was a layer.
    pub(crate) fn remove(&self, number: u64) -> Result<()> {
        // First out of the way, in one step: of a half-removed tree nothing is ever found under its number.
        let path = self.path(number);
        let mut out = self.spares.way_out(number);
        let mut moved = rename(&path, &out);
        if moved.as_ref().is_err_and(|it| it.kind() == ErrorKind::CrossesDevices) {
            // Somebody gave the snapshots a disk of their own: then it has the way out too.
            out = self.dir.join(out.file_name().unwrap_or_default());
            moved = rename(path, &out);
        }
        match moved {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            done => done.context(|| format!("remove snapshot tree {number}"))?,
        }
        fault::point("snapshots.remove.renamed")?;
        self.remover.remove(out);
        Ok(())
    }

    /// Whether whoever removes one more may have to do it himself.
    pub(super) fn removes_much(&self) -> bool {
        self.remover.is_nearly_full()
    }

    /// Waits until all of which the removal began is gone.
    pub(crate) fn flush(&self) {
        self.remover.flush();
    }

    /// Removes what neither a row nor a running call names.
    pub(super) fn sweep(&self, metadata: &Metadata) -> Result<()> {
        // In this order: whoever is listed and is unnamed no more has its row by now, if it was kept.
        let listed = self.listed()?;
        let unnamed = lock(&self.unnamed).clone();
        let named = metadata.read(rows::trees)?;
        for name in listed {
            match name.parse::<u64>() {
                Ok(number) if named.contains(&number) || unnamed.contains(&number) => {}
                Ok(number) => self.remove(number)?,
                // Is on its way out.
                Err(_) => {}
            }
        }
        self.flush();
        Ok(())
    }

    fn listed(&self) -> Result<Vec<String>> {
        let listing = || format!("list {}", self.dir.display());
        let entries = std::fs::read_dir(&*self.dir).context(listing)?;
        entries.map(|entry| entry.map(|it| it.file_name().to_string_lossy().into_owned()).context(listing)).collect()
    }
}

impl Tree {
    /// A row names it.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    pub(super) fn fs(&self) -> PathBuf {
        self.trees.fs(self.number)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.trees.remove(self.number)
        {
            tracing::warn!(tree = self.number, "remove a tree that was not kept: {error}");
        }
        lock(&self.trees.unnamed).remove(&self.number);
    }
}
