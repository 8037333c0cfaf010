//! Root file systems in layers, as mounts to be done by whoever runs the container.
//!
//! ```text
//! snapshots/<n>/fs      overlayfs: the changes of one layer; native: all of it
//! snapshots/<n>/work    overlayfs' work directory, of an active snapshot
//! spare/                empty trees for those who come next, and trees on their way out (spares.rs)
//! ```
//!
//! ```text
//!            prepare                    commit
//! (nothing) ---------> Active snapshot ---------> Committed snapshot --- parent of ---> Active, View
//!            view                                       ^
//! (nothing) ---------> View                             '--- publish --- Extraction (a layer that the store unpacks)
//! ```
//!
//! A number is given to one tree and never again while this daemon runs. Rows name trees; several namespaces may name the same one, if the
//! store itself unpacked and verified it. A tree without a row belongs to a call that runs ([`Trees`](trees)), or is rubbish from a crash.

pub mod changes;
pub mod copy;
mod extraction;
mod ids;
mod mounts;
mod remover;
pub(crate) mod rows;
mod spares;
mod trees;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use extraction::{Extracted, Extraction, Layer};
pub use mounts::Mount;

use crate::error::{Error, Result};
use crate::fs::{Root, Usage, open_dir, open_tree, usage};
use crate::metadata::filter::{Filter, Matched, label};
use crate::metadata::{Labels, Metadata, Namespace, merge_labels, time, validate};
use rows::Row;
use trees::Trees;

/// Layers on top of each other, by the kernel.
pub const OVERLAYFS: &str = "overlayfs";
/// Full copies, where there is no overlayfs.
pub const NATIVE: &str = "native";

/// The snapshots; a clone is the same ones.
#[derive(Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    metadata: Metadata,
    trees: Trees,
    default: Driver,
    overlay: mounts::OverlayOptions,
}

/// How snapshots are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// As overlayfs' layers.
    Overlay,
    /// As full copies.
    Native,
}

impl Driver {
    /// Its name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overlay => OVERLAYFS,
            Self::Native => NATIVE,
        }
    }
}

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// To be read; never committed.
    View = 0,
    /// To be written, and perhaps committed.
    Active = 1,
    /// Never changed again; others stand on it.
    Committed = 2,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its key, or once committed its name: for an image's layers the chain id.
    pub name: String,
    /// What it stands on.
    pub parent: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// What clients, and collection, know of it.
    pub labels: Labels,
    /// When it was prepared, or committed.
    pub created: SystemTime,
    /// When its labels last changed.
    pub updated: SystemTime,
}

impl Matched for Info {
    fn field(&self, path: &[String]) -> Option<String> {
        match path.first()?.as_str() {
            "name" => Some(self.name.clone()),
            "parent" => Some(self.parent.clone().unwrap_or_default()),
            "kind" => Some(
                match self.kind {
                    Kind::View => "view",
                    Kind::Active => "active",
                    Kind::Committed => "committed",
                }
                .to_owned(),
            ),
            "labels" => label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}

impl Snapshots {
    /// Opens the snapshots of a root, and removes what a crash left without a row. `default` names the snapshotter for requests that name
    /// none; without it, it is overlayfs where that can be used.
    pub fn open(root: &Root, metadata: &Metadata, default: Option<Driver>) -> Result<Self> {
        let trees = Trees::open(root.path(), metadata)?;
        // First of all, for what its module is asked for below.
        let has_overlay = mounts::has_overlay();
        let default = default.unwrap_or_else(|| mounts::best(trees.dir(), has_overlay));
        let inner =
            Inner { metadata: metadata.clone(), trees, default, overlay: mounts::OverlayOptions::of_this_kernel() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// All there are, the default one first.
    #[must_use]
    pub fn names(&self) -> [&'static str; 2] {
        match self.inner.default {
            Driver::Overlay => [OVERLAYFS, NATIVE],
            Driver::Native => [NATIVE, OVERLAYFS],
        }
    }

    /// The one of this name; of an empty name the default one.
    pub fn driver(&self, name: &str) -> Result<Driver> {
        match name {
            "" => Ok(self.inner.default),
            OVERLAYFS => Ok(Driver::Overlay),
            NATIVE => Ok(Driver::Native),
            _ => Err(Error::not_found(format!("there is no snapshotter {name:?}: there are {OVERLAYFS} and {NATIVE}"))),
        }
    }

    /// Whether overlayfs' attributes are in the `user.` name space here, as they are without privileges.
    #[must_use]
    pub fn userxattr(&self) -> bool {
        self.inner.overlay.userxattr
    }

    /// What is known of a snapshot.
    pub fn stat(&self, ns: &Namespace, snapshotter: &str, name: &str) -> Result<Info> {
        Ok(self.row(ns, self.driver(snapshotter)?, name)?.into_info())
    }

    /// All that one of the filters matches, by name.
    pub fn list(&self, ns: &Namespace, snapshotter: &str, filters: &[String]) -> Result<Vec<Info>> {
        let (driver, filter) = (self.driver(snapshotter)?, Filter::parse(filters)?);
        let rows = self.inner.metadata.read(|transaction| rows::list(transaction, ns, driver.name()))?;
        Ok(rows.into_iter().map(Row::into_info).filter(|it| filter.matches(it)).collect())
    }

    /// Changes labels, by `paths` as for every object.
    pub fn update(
        &self,
        ns: &Namespace,
        snapshotter: &str,
        name: &str,
        new: &Labels,
        paths: &[String],
    ) -> Result<Info> {
        let driver = self.driver(snapshotter)?;
        let metadata = &self.inner.metadata;
        metadata.write(|transaction| {
            let mut row = rows::get(transaction, ns, driver.name(), name)?.ok_or_else(|| missing(ns, driver, name))?;
            if let Some(path) = merge_labels(&mut row.labels, new, paths).first() {
                return Err(Error::invalid(format!("{path:?} of snapshot {name:?} cannot be updated")));
            }
            validate(&row.labels)?;
            row.updated = metadata.now();
            rows::put(transaction, ns, driver.name(), &row)?;
            Ok(row.into_info())
        })
    }

    /// What it takes on disk beyond its parent (native: in all).
    pub fn usage(&self, ns: &Namespace, snapshotter: &str, name: &str) -> Result<Usage> {
        let row = self.row(ns, self.driver(snapshotter)?, name)?;
        match row.kind {
            Kind::Active => usage(&self.inner.trees.fs(row.tree)),
            Kind::View | Kind::Committed => Ok(row.usage),
        }
    }

    /// How to mount an active snapshot or a view.
    pub fn mounts(&self, ns: &Namespace, snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
        let driver = self.driver(snapshotter)?;
        let (row, parents) = self.inner.metadata.read(|transaction| {
            let row = rows::get(transaction, ns, driver.name(), key)?.ok_or_else(|| missing(ns, driver, key))?;
            let parents = rows::chain(transaction, ns, driver.name(), row.parent.as_deref())?;
            Ok((row, parents))
        })?;
        if row.kind == Kind::Committed {
            return Err(Error::precondition(format!("snapshot {key:?} is committed: prepare one on it, or view it")));
        }
        Ok(self.mounts_of(driver, &row, &parents))
    }

    /// Directories whose merge is this committed snapshot, the top one first: one for native.
    pub fn lowers(&self, ns: &Namespace, snapshotter: &str, name: &str) -> Result<Vec<OwnedFd>> {
        let mut paths = self.lower_paths(ns, snapshotter, name)?;
        if self.driver(snapshotter)? == Driver::Native {
            paths.truncate(1);
        }
        paths.iter().map(|path| open_tree(path)).collect()
    }

    /// The trees of an active snapshot: its own, and those of what it stands on, the top one first.
    pub fn changes(&self, ns: &Namespace, snapshotter: &str, key: &str) -> Result<(OwnedFd, Vec<OwnedFd>)> {
        let row = self.row(ns, self.driver(snapshotter)?, key)?;
        let own = open_tree(&self.inner.trees.fs(row.tree))?;
        let lowers = row.parent.map_or_else(|| Ok(Vec::new()), |parent| self.lowers(ns, snapshotter, &parent))?;
        Ok((own, lowers))
    }

    /// The directory that a mount of ours names, for a client that hands the mount back. It must be exactly such a path, of a tree that this
    /// namespace sees: a client cannot have us open anything else.
    pub fn tree_at(&self, ns: &Namespace, path: &Path) -> Result<(Driver, OwnedFd)> {
        let shown = path.display();
        let wrong = || Error::invalid(format!("{shown} is not the directory of a snapshot of namespace {ns}"));
        let below = path.strip_prefix(self.inner.trees.dir()).map_err(|_| wrong())?;
        let number = below.parent().and_then(Path::to_str).and_then(|it| it.parse::<u64>().ok()).ok_or_else(wrong)?;
        let exact = self.inner.trees.fs(number);
        let snapshotter = self.inner.metadata.read(|transaction| rows::snapshotter_of(transaction, ns, number))?;
        let driver = self.driver(&snapshotter.filter(|_| exact.as_os_str() == path.as_os_str()).ok_or_else(wrong)?)?;
        Ok((driver, open_tree(&exact)?))
    }

    fn lower_paths(&self, ns: &Namespace, snapshotter: &str, name: &str) -> Result<Vec<PathBuf>> {
        let driver = self.driver(snapshotter)?;
        let chain = self.inner.metadata.read(|transaction| rows::chain(transaction, ns, driver.name(), Some(name)))?;
        Ok(chain.iter().map(|row| self.inner.trees.fs(row.tree)).collect())
    }

    /// Removes trees that neither a row nor a running call names.
    pub fn cleanup(&self) -> Result<()> {
        self.inner.trees.sweep(&self.inner.metadata)
    }

    /// Whether so many trees are on their way out that a removal may have to do its work itself.
    pub(crate) fn removes_much(&self) -> bool {
        self.inner.trees.removes_much()
    }

    /// If this chain is there, or another namespace's was unpacked by the store itself, then it is there for this namespace from here on
    /// and the lease keeps it.
    pub fn hold(&self, ns: &Namespace, snapshotter: &str, chain_id: &str, lease: Option<&str>) -> Result<bool> {
        let driver = self.driver(snapshotter)?;
        let metadata = &self.inner.metadata;
        metadata.write(|transaction| rows::hold(transaction, ns, driver.name(), chain_id, lease, metadata.now()))
    }

    fn row(&self, ns: &Namespace, driver: Driver, name: &str) -> Result<Row> {
        let row = self.inner.metadata.read(|transaction| rows::get(transaction, ns, driver.name(), name))?;
        row.ok_or_else(|| missing(ns, driver, name))
    }

    /// What a tree takes.
    pub(crate) fn measure(&self, tree: u64) -> Result<Usage> {
        usage(&self.inner.trees.fs(tree))
    }

    /// Whether a tree has the directories that it must have.
    pub(crate) fn look(&self, tree: u64, kind: Kind, snapshotter: &str) -> Result<()> {
        open_tree(&self.inner.trees.fs(tree))?;
        if kind == Kind::Active && snapshotter == OVERLAYFS {
            open_dir(&self.inner.trees.work(tree))?;
        }
        Ok(())
    }

    /// Trees that rows name, for collection and checks.
    pub(crate) fn trees(&self) -> &Trees {
        &self.inner.trees
    }
}

fn missing(ns: &Namespace, driver: Driver, name: &str) -> Error {
    Error::not_found(format!("there is no snapshot {name:?} of {} in namespace {ns}", driver.name()))
}

impl Row {
    fn into_info(self) -> Info {
        Info {
            name: self.name,
            parent: self.parent,
            kind: self.kind,
            labels: self.labels,
            created: time(self.created),
            updated: time(self.updated),
        }
    }
}

#[cfg(test)]
mod tests;
