//! How snapshots come, are committed, and go.

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rusqlite::Transaction;

use super::rows::{self, Row};
use super::trees::Tree;
use super::{Driver, Kind, Mount, Snapshots, copy, ids, missing};
use crate::error::{Context, Error, Result};
use crate::fault;
use crate::fs::{Usage, open_dir, open_tree, sync_file_system, usage};
use crate::metadata::{Labels, Namespace, leases, validate};

/// A snapshot that is wanted.
pub struct Request<'a> {
    /// For whom.
    pub ns: &'a Namespace,
    /// Empty for the default one.
    pub snapshotter: &'a str,
    /// What it shall be called until it is committed.
    pub key: &'a str,
    /// What it stands on: a committed snapshot; empty for nothing.
    pub parent: &'a str,
    /// What is said of it.
    pub labels: &'a Labels,
    /// The request's lease, which then keeps it.
    pub lease: Option<&'a str>,
}

/// With this label a client asks for what already is there under that name, before it makes it.
const TARGET: &str = "containerd.io/snapshot.ref";

impl Snapshots {
    /// One to be written.
    pub fn prepare(&self, request: &Request<'_>) -> Result<Vec<Mount>> {
        self.create(Kind::Active, request)
    }

    /// One to be read.
    pub fn view(&self, request: &Request<'_>) -> Result<Vec<Mount>> {
        self.create(Kind::View, request)
    }

    fn create(&self, kind: Kind, request: &Request<'_>) -> Result<Vec<Mount>> {
        let Request { ns, snapshotter, key, parent, labels, lease } = *request;
        let driver = self.driver(snapshotter)?;
        if key.is_empty() {
            return Err(Error::invalid("a snapshot needs a key"));
        }
        validate(labels)?;
        let owner = ids::root(labels)?;
        if let Some(target) = labels.get(TARGET)
            && self.hold(ns, snapshotter, target, lease)?
        {
            return Err(Error::exists(format!(
                "snapshot {target:?}, for which {key:?} was to be made, is already there"
            )));
        }
        let metadata = &self.inner.metadata;
        let make = |parents: &[Row]| {
            let tree = self.inner.trees.create(kind == Kind::Active && driver == Driver::Overlay)?;
            let filled = self.fill(&tree, kind, driver, parents, owner);
            filled.map_err(|error| error.within(format!("prepare snapshot {key:?}")))?;
            fault::point("snapshots.prepare.made")?;
            Ok(tree)
        };
        let record = |transaction: &Transaction<'_>, tree: &Tree| {
            let row = self.new_row(kind, request, tree.number);
            rows::put(transaction, ns, driver.name(), &row)?;
            leases::keep(transaction, ns, lease, &format!("snapshots/{}", driver.name()), key)?;
            Ok(row)
        };
        let (row, parents, tree) = if driver == Driver::Native && kind == Kind::Active {
            // A copy takes long: it is made between two transactions, and what was true in the first must be in the second.
            let parents = metadata.read(|transaction| self.check(transaction, driver, request))?;
            let unchanged = |transaction: &Transaction<'_>| {
                let again = self.check(transaction, driver, request)?;
                if again.iter().map(|it| it.tree).eq(parents.iter().map(|it| it.tree)) {
                    return Ok(again);
                }
                Err(Error::unavailable(format!("parent {parent:?} changed while {key:?} was prepared on it")))
            };
            let tree = make(&parents).or_else(|error| metadata.read(unchanged).and(Err(error)))?;
            let (row, again) = metadata.write(|transaction| {
                let again = unchanged(transaction)?;
                Ok((record(transaction, &tree)?, again))
            })?;
            (row, again, tree)
        } else {
            metadata.write(|transaction| {
                let parents = self.check(transaction, driver, request)?;
                let tree = make(&parents)?;
                Ok((record(transaction, &tree)?, parents, tree))
            })?
        };
        tree.keep();
        fault::point("snapshots.prepare.row")?;
        Ok(self.mounts_of(driver, &row, &parents))
    }

    fn new_row(&self, kind: Kind, request: &Request<'_>, tree: u64) -> Row {
        let now = self.inner.metadata.now();
        Row {
            name: request.key.to_owned(),
            kind,
            parent: Some(request.parent.to_owned()).filter(|it| !it.is_empty()),
            tree,
            verified: false,
            diff_id: String::new(),
            usage: Usage::default(),
            labels: request.labels.clone(),
            created: now,
            updated: now,
        }
    }

    /// What it shall stand on, the top one first; fails if the key is taken or the parent cannot be one.
    fn check(&self, transaction: &Transaction<'_>, driver: Driver, request: &Request<'_>) -> Result<Vec<Row>> {
        let Request { ns, key, parent, .. } = *request;
        if rows::get(transaction, ns, driver.name(), key)?.is_some() {
            return Err(Error::exists(format!("snapshot {key:?} is already there in namespace {ns}")));
        }
        let parents = rows::chain(transaction, ns, driver.name(), Some(parent).filter(|it| !it.is_empty()))?;
        match parents.first() {
            Some(top) if top.kind != Kind::Committed => {
                Err(Error::invalid(format!("{parent:?} is not committed: nothing can stand on it")))
            }
            _ => Ok(parents),
        }
    }

    /// Makes the new tree what it is before anything is written into it.
    fn fill(&self, tree: &Tree, kind: Kind, driver: Driver, parents: &[Row], owner: Option<(u32, u32)>) -> Result<()> {
        let own = tree.fs();
        if let Some(top) = parents.first() {
            let below = self.inner.trees.fs(top.tree);
            if driver == Driver::Native && kind == Kind::Active {
                copy::tree(open_tree(&below)?.as_fd(), open_dir(&own)?.as_fd())?;
            } else {
                // The root directory of a mount is the upper one: it must look as the one below does.
                like(&own, &below)?;
            }
        }
        match owner {
            Some((uid, gid)) => {
                chown(&own, Some(uid), Some(gid)).context(|| format!("give {} to {uid}:{gid}", own.display()))
            }
            None => Ok(()),
        }
    }

    /// Makes the active snapshot `key` a committed one: it gets this name and the request's labels, and never changes again. Durable, with all
    /// that was written into it. A parent can be given if it had none.
    pub fn commit(&self, name: &str, request: &Request<'_>) -> Result<()> {
        let Request { ns, snapshotter, key, parent, labels, lease } = *request;
        let driver = self.driver(snapshotter)?;
        validate(labels)?;
        if name.is_empty() {
            return Err(Error::invalid("a committed snapshot needs a name"));
        }
        let active = self.row(ns, driver, key)?;
        let dir = open_tree(&self.inner.trees.fs(active.tree))?;
        let usage = usage(&self.inner.trees.fs(active.tree))?;
        sync_file_system(&dir, &self.inner.trees.fs(active.tree))?;
        fault::point("snapshots.commit.synced")?;
        let metadata = &self.inner.metadata;
        metadata.durable(|transaction| {
            if rows::get(transaction, ns, driver.name(), name)?.is_some() {
                return Err(Error::exists(format!("snapshot {name:?} is already there in namespace {ns}")));
            }
            let mut row = rows::get(transaction, ns, driver.name(), key)?.ok_or_else(|| missing(ns, driver, key))?;
            if row.kind != Kind::Active {
                return Err(Error::precondition(format!("snapshot {key:?} is not active: it cannot be committed")));
            }
            row.parent = rebased(key, row.parent, parent)?;
            if let Some(parent) = &row.parent
                && rows::get(transaction, ns, driver.name(), parent)?.is_none_or(|it| it.kind != Kind::Committed)
            {
                return Err(Error::precondition(format!(
                    "{parent:?}, on which {key:?} is to stand, is not a committed snapshot"
                )));
            }
            rows::delete(transaction, ns, driver.name(), key)?;
            let now = metadata.now();
            row = Row {
                name: name.to_owned(),
                kind: Kind::Committed,
                usage,
                labels: labels.clone(),
                created: now,
                updated: now,
                ..row
            };
            rows::put(transaction, ns, driver.name(), &row)?;
            let resource = format!("snapshots/{}", driver.name());
            leases::forget(transaction, ns, lease, &resource, key)?;
            leases::keep(transaction, ns, lease, &resource, name)
        })?;
        fault::point("snapshots.commit.row")
    }

    /// Takes it away, on whom nothing stands.
    pub fn remove(&self, ns: &Namespace, snapshotter: &str, key: &str) -> Result<()> {
        let driver = self.driver(snapshotter)?;
        // What goes by this transaction; a layer is left to a durable one.
        let body = |transaction: &Transaction<'_>, layers: bool| {
            let row = rows::get(transaction, ns, driver.name(), key)?.ok_or_else(|| missing(ns, driver, key))?;
            if row.kind == Kind::Committed && !layers {
                return Ok(None);
            }
            if let Some(child) = rows::child(transaction, ns, driver.name(), key)? {
                return Err(Error::precondition(format!("snapshot {key:?} cannot be removed: {child:?} stands on it")));
            }
            rows::delete(transaction, ns, driver.name(), key)?;
            // Namespaces share layers, and nothing else.
            let shared = row.kind == Kind::Committed && rows::names_tree(transaction, row.tree)?;
            Ok(Some((!shared).then_some(row.tree)))
        };
        // A layer's row must be gone for good before its tree is: one that was only prepared has nothing that a power cut could miss.
        let metadata = &self.inner.metadata;
        let unnamed = match metadata.freeing_lazily(|transaction| body(transaction, false))? {
            Some(unnamed) => unnamed,
            None => metadata.freeing(|transaction| body(transaction, true))?.flatten(),
        };
        fault::point("snapshots.remove.row")?;
        unnamed.map_or(Ok(()), |tree| self.inner.trees.remove(tree))
    }
}

/// What a snapshot stands on once it is committed.
fn rebased(key: &str, old: Option<String>, new: &str) -> Result<Option<String>> {
    match old {
        None => Ok(Some(new.to_owned()).filter(|it| !it.is_empty())),
        Some(old) if new.is_empty() || new == old => Ok(Some(old)),
        Some(old) => {
            Err(Error::invalid(format!("snapshot {key:?} stands on {old:?}: it cannot be committed on {new:?}")))
        }
    }
}

/// Owner and mode of the directory below.
fn like(own: &Path, below: &Path) -> Result<()> {
    let copying = || format!("make {} look as {}", own.display(), below.display());
    let (have, want) = (own.symlink_metadata().context(copying)?, below.symlink_metadata().context(copying)?);
    if (have.uid(), have.gid()) != (want.uid(), want.gid()) {
        chown(own, Some(want.uid()), Some(want.gid())).context(copying)?;
    }
    if have.mode() != want.mode() {
        let mode = std::fs::Permissions::from_mode(want.mode() & 0o7777);
        std::fs::set_permissions(own, mode).context(copying)?;
    }
    Ok(())
}
