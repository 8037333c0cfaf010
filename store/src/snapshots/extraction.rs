//! A layer that the store unpacks itself: invisible until it is whole, verified and synced.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use super::trees::Tree;
use super::{Driver, Snapshots, copy};
use crate::content::digest::Digest;
use crate::error::{Error, Result};
use crate::fault;
use crate::fs::{Usage, open_dir, sync_file_system, usage};
use crate::metadata::{Labels, Namespace};

/// A tree to extract into. Dropped, it is removed.
pub struct Extraction {
    tree: Tree,
    root: File,
    ns: Namespace,
    driver: Driver,
    chain_id: String,
    parent: Option<String>,
}

/// An extraction that ended well, not yet synced. Dropped, it is removed.
pub struct Extracted {
    extraction: Extraction,
    diff_id: Digest,
    labels: Labels,
}

/// A layer on the disk, ready for a [`Publication`](crate::metadata::Publication). Dropped without one, it is removed.
pub struct Layer {
    pub(crate) snapshotter: &'static str,
    pub(crate) chain_id: String,
    pub(crate) parent: Option<String>,
    pub(crate) tree: u64,
    pub(crate) diff_id: Digest,
    pub(crate) usage: Usage,
    pub(crate) labels: Labels,
    guard: Tree,
}

impl Snapshots {
    /// A new tree for the layer `chain_id` upon `parent`. For native it must be [filled](Extraction::fill) with what is below.
    pub fn extraction(
        &self,
        ns: &Namespace,
        snapshotter: &str,
        chain_id: &str,
        parent: Option<&str>,
    ) -> Result<Extraction> {
        let driver = self.driver(snapshotter)?;
        let tree = self.inner.trees.create(false)?;
        let root = open_dir(&tree.fs())?;
        fault::point("extraction.made")?;
        let (chain_id, parent) = (chain_id.to_owned(), parent.map(str::to_owned));
        Ok(Extraction { tree, root, ns: ns.clone(), driver, chain_id, parent })
    }

    /// Makes layers durable, all of them by one syncfs(2): before any row names them. Meanwhile it measures them.
    pub fn sync(&self, layers: Vec<Extracted>) -> Result<Vec<Layer>> {
        let Some(first) = layers.first() else { return Ok(Vec::new()) };
        let usages = std::thread::scope(|scope| {
            // Opened before anything was written there, so that a write that failed later is told.
            let sync = scope.spawn(|| sync_file_system(&first.extraction.root, self.inner.trees.dir()));
            let usages = layers.iter().map(|it| usage(&it.extraction.path())).collect::<Result<Vec<_>>>();
            sync.join().unwrap_or_else(|_| Err(Error::internal("the thread that synced layers has panicked")))?;
            usages
        })?;
        fault::point("extraction.synced")?;
        Ok(layers.into_iter().zip(usages).map(|(layer, usage)| layer.into_layer(usage)).collect())
    }
}

impl Extraction {
    /// The directory to extract into.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.tree.fs()
    }

    /// Which layer it is to become.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// How it is to be filled: native wants a full copy of what is below first.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// In which namespace it is to become visible.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

    /// Copies what is below, for native.
    pub fn fill(&self, below: BorrowedFd<'_>) -> Result<()> {
        if self.driver == Driver::Overlay {
            return Err(Error::internal("a layer of overlayfs has its own changes only"));
        }
        copy::tree(below, self.root.as_fd())
            .map_err(|error| error.within(format!("copy below layer {}", self.chain_id)))
    }

    /// It is whole, and its bytes are those of `diff_id`.
    #[must_use]
    pub fn finish(self, diff_id: Digest, labels: Labels) -> Extracted {
        Extracted { extraction: self, diff_id, labels }
    }
}

impl Extracted {
    /// Its tree, for layers above it.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.extraction.root.as_fd()
    }

    fn into_layer(self, usage: Usage) -> Layer {
        let Extraction { tree, driver, chain_id, parent, .. } = self.extraction;
        Layer {
            snapshotter: driver.name(),
            chain_id,
            parent,
            tree: tree.number,
            diff_id: self.diff_id,
            usage,
            labels: self.labels,
            guard: tree,
        }
    }
}

impl Layer {
    /// A row names it.
    pub(crate) fn keep(self) {
        self.guard.keep();
    }
}
