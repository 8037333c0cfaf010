//! Blobs by digest, and what is still coming.
//!
//! ```text
//! content/blobs/sha256/<hex>    complete, verified, synced; a row of some namespace names it, or it is rubbish
//! content/ingests/<n>/data      row n of the ingests; its bytes so far
//! ```
//!
//! Bytes are shared by all namespaces, a row says who sees them. One rule keeps collection from racing with whoever publishes:
//! a blob's first row is written, and a blob without rows is unlinked, only under the lock of its digest.

pub mod digest;
mod ingest;
mod ingests;
mod reader;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, Transaction, params};

pub use ingest::{Committed, Ingest};
pub use ingests::Status;
pub use reader::Reader;

use crate::error::{Context, Error, Result};
use crate::fault;
use crate::fs::{Root, private_dir, remove_tree, sync_dir};
use crate::metadata::filter::{Filter, Matched, label};
use crate::metadata::{
    Labels, Metadata, Namespace, failed, from_json, kept, leases, lock, merge_labels, namespaces, time, to_json,
    validate,
};
use digest::{Algorithm, Digest};

/// The blobs; a clone is the same ones.
#[derive(Clone)]
pub struct Content {
    inner: Arc<Inner>,
}

struct Inner {
    metadata: Metadata,
    dir: PathBuf,
    /// By digest: held while a first row is written or a file without rows is unlinked.
    stripes: [Mutex<()>; 64],
    /// References that are being written.
    open: Mutex<HashSet<(Namespace, String)>>,
}

/// What a namespace knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Which it is.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What clients, and collection, know of it.
    pub labels: Labels,
    /// When this namespace got it.
    pub created: SystemTime,
    /// When its labels last changed.
    pub updated: SystemTime,
}

impl Matched for Info {
    fn field(&self, path: &[String]) -> Option<String> {
        match path.first()?.as_str() {
            "digest" => Some(self.digest.to_string()),
            "size" => Some(self.size.to_string()),
            "labels" => label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}

const COLUMNS: &str = "digest, size, labels, created, updated";

impl Content {
    /// Opens the blobs of a root, and removes what a crash left without a row.
    pub fn open(root: &Root, metadata: &Metadata) -> Result<Self> {
        let dir = root.path().join("content");
        private_dir(&dir)?;
        for below in ["blobs", "blobs/sha256", "blobs/sha512", "ingests"] {
            private_dir(&dir.join(below))?;
        }
        for made in [root.path(), &dir, &dir.join("blobs")] {
            sync_dir(made)?;
        }
        let stripes = std::array::from_fn(|_| Mutex::default());
        let inner = Inner { metadata: metadata.clone(), dir, stripes, open: Mutex::default() };
        let content = Self { inner: Arc::new(inner) };
        content.sweep_blobs()?;
        content.sweep_ingests()?;
        Ok(content)
    }

    /// What this namespace knows of the blob, if it sees it.
    pub fn info(&self, ns: &Namespace, digest: &Digest) -> Result<Option<Info>> {
        self.inner.metadata.read(|transaction| get(transaction, ns, digest))
    }

    /// If any namespace has the blob, this one has it too from here on, and the lease keeps it.
    pub fn hold(&self, ns: &Namespace, digest: &Digest, lease: Option<&str>) -> Result<Option<Info>> {
        self.inner.metadata.write(|transaction| {
            if let Some(info) = get(transaction, ns, digest)? {
                leases::keep(transaction, ns, lease, "content", &digest.to_string())?;
                return Ok(Some(info));
            }
            let Some(size) = size_anywhere(transaction, digest)? else { return Ok(None) };
            self.insert(transaction, ns, digest, size, &Labels::new(), lease)?;
            get(transaction, ns, digest)
        })
    }

    /// All that one of the filters matches, by digest.
    pub fn list(&self, ns: &Namespace, filters: &[String]) -> Result<Vec<Info>> {
        let filter = Filter::parse(filters)?;
        self.inner.metadata.read(|transaction| {
            let text = format!("SELECT {COLUMNS} FROM content WHERE ns = ?1 ORDER BY digest");
            let mut statement = transaction.prepare_cached(&text).map_err(|it| failed("list blobs", it))?;
            let mut rows = statement.query([ns.as_str()]).map_err(|it| failed("list blobs", it))?;
            let mut infos = Vec::new();
            while let Some(row) = rows.next().map_err(|it| failed("list blobs", it))? {
                let info = from_row(row)?;
                if filter.matches(&info) {
                    infos.push(info);
                }
            }
            Ok(infos)
        })
    }

    /// Changes labels, by `paths` as for every object.
    pub fn update(&self, ns: &Namespace, digest: &Digest, new: &Labels, paths: &[String]) -> Result<Info> {
        self.inner.metadata.durable(|transaction| {
            let mut info = get(transaction, ns, digest)?.ok_or_else(|| missing(ns, digest))?;
            if let Some(path) = merge_labels(&mut info.labels, new, paths).first() {
                return Err(Error::invalid(format!("{path:?} of blob {digest} cannot be updated")));
            }
            put_labels(transaction, ns, digest, &info.labels, self.inner.metadata.now())?;
            get(transaction, ns, digest)?.ok_or_else(|| missing(ns, digest))
        })
    }

    /// Adds labels, and removes those that are empty.
    pub fn update_labels(&self, ns: &Namespace, digest: &Digest, more: &Labels) -> Result<()> {
        let metadata = &self.inner.metadata;
        metadata.write(|transaction| add_labels(transaction, ns, digest, more, metadata.now()))
    }

    /// This namespace sees it no longer; the file goes if none does.
    pub fn delete(&self, ns: &Namespace, digest: &Digest) -> Result<()> {
        // Durable: after a power cut there must be no row whose file was unlinked.
        self.inner.metadata.freeing(|transaction| {
            let text = "DELETE FROM content WHERE ns = ?1 AND digest = ?2";
            let key = [ns.as_str(), &digest.to_string()];
            match transaction.execute(text, key).map_err(|it| failed("delete a blob", it))? {
                0 => Err(missing(ns, digest)),
                _ => Ok(()),
            }
        })?;
        fault::point("content.delete.row")?;
        self.unlink_unnamed(digest).map(drop)
    }

    /// Reads it from any position.
    pub fn reader(&self, ns: &Namespace, digest: &Digest) -> Result<Reader> {
        let info = self.info(ns, digest)?.ok_or_else(|| missing(ns, digest))?;
        Reader::open(&self.path(digest), digest, info.size)
    }

    /// Unlinks the file unless a namespace sees it; says how many bytes on disk that was, if it did. The deletion of its last row must be durable.
    pub(crate) fn unlink_unnamed(&self, digest: &Digest) -> Result<Option<u64>> {
        let _exclusive = self.exclusive(digest);
        if self.inner.metadata.read(|transaction| size_anywhere(transaction, digest))?.is_some() {
            return Ok(None);
        }
        let (path, bytes) = (self.path(digest), self.bytes_on_disk(digest));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            done => done.map(|()| bytes).context(|| format!("remove {}", path.display())),
        }
    }

    /// What its file takes, if it is there.
    pub(crate) fn bytes_on_disk(&self, digest: &Digest) -> Option<u64> {
        Some(fs::symlink_metadata(self.path(digest)).ok()?.blocks() * 512)
    }

    /// Where a blob is, or would be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.inner.dir.join("blobs").join(algorithm.name())
    }

    fn exclusive(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let first = u8::from_str_radix(&digest.hex()[..2], 16).unwrap_or(0);
        lock(&self.inner.stripes[usize::from(first) % self.inner.stripes.len()])
    }

    /// Makes the row of a blob whose file is there.
    fn insert(
        &self,
        transaction: &Transaction<'_>,
        ns: &Namespace,
        digest: &Digest,
        size: u64,
        labels: &Labels,
        lease: Option<&str>,
    ) -> Result<()> {
        validate(labels)?;
        namespaces::ensure(transaction, ns)?;
        let (text, now) = (digest.to_string(), self.inner.metadata.now());
        leases::keep(transaction, ns, lease, "content", &text)?;
        let row = params![ns.as_str(), text, size.cast_signed(), to_json(&kept(labels))?, now];
        let mut statement = transaction
            .prepare_cached(
                "INSERT INTO content (ns, digest, size, labels, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            )
            .map_err(|it| failed("write a blob's row", it))?;
        statement.execute(row).map_err(|it| failed("write a blob's row", it)).map(drop)
    }

    fn sweep_blobs(&self) -> Result<()> {
        let named: BTreeSet<String> = self.inner.metadata.read(|transaction| {
            let listing = |it| failed("list blobs", it);
            let mut statement = transaction.prepare("SELECT DISTINCT digest FROM content").map_err(listing)?;
            let rows = statement.query_map([], |row| row.get(0)).map_err(listing)?;
            rows.collect::<rusqlite::Result<_>>().map_err(listing)
        })?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.blobs(algorithm);
            for name in list(&dir)? {
                if !named.contains(&format!("{}:{name}", algorithm.name())) {
                    tracing::info!(name, "remove a blob that an earlier daemon did not publish");
                    remove_tree(&dir.join(&name))?;
                }
            }
        }
        Ok(())
    }
}

/// The names in a directory of ours.
fn list(dir: &std::path::Path) -> Result<Vec<String>> {
    let listing = || format!("list {}", dir.display());
    let entries = fs::read_dir(dir).context(listing)?;
    entries.map(|entry| entry.map(|it| it.file_name().to_string_lossy().into_owned()).context(listing)).collect()
}

/// Adds labels to a blob that this namespace sees.
pub(crate) fn add_labels(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    digest: &Digest,
    more: &Labels,
    now: i64,
) -> Result<()> {
    let mut info = get(transaction, ns, digest)?.ok_or_else(|| missing(ns, digest))?;
    if more.iter().all(|(key, value)| info.labels.get(key) == Some(value)) {
        return Ok(());
    }
    info.labels.extend(more.clone());
    put_labels(transaction, ns, digest, &info.labels, now)
}

fn put_labels(transaction: &Transaction<'_>, ns: &Namespace, digest: &Digest, labels: &Labels, now: i64) -> Result<()> {
    validate(labels)?;
    let text = "UPDATE content SET labels = ?3, updated = ?4 WHERE ns = ?1 AND digest = ?2";
    let row = params![ns.as_str(), digest.to_string(), to_json(&kept(labels))?, now];
    transaction.execute(text, row).map_err(|it| failed("write a blob's labels", it)).map(drop)
}

fn missing(ns: &Namespace, digest: &Digest) -> Error {
    Error::not_found(format!("there is no blob {digest} in namespace {ns}"))
}

fn get(transaction: &Transaction<'_>, ns: &Namespace, digest: &Digest) -> Result<Option<Info>> {
    let text = format!("SELECT {COLUMNS} FROM content WHERE ns = ?1 AND digest = ?2");
    let mut statement = transaction.prepare_cached(&text).map_err(|it| failed("look for a blob", it))?;
    let found = statement.query_row([ns.as_str(), &digest.to_string()], |row| Ok(from_row(row))).optional();
    found.map_err(|it| failed("look for a blob", it))?.transpose()
}

/// The size of a blob that some namespace sees.
fn size_anywhere(transaction: &Transaction<'_>, digest: &Digest) -> Result<Option<u64>> {
    let mut statement = transaction
        .prepare_cached("SELECT size FROM content WHERE digest = ?1 LIMIT 1")
        .map_err(|it| failed("look for a blob", it))?;
    let found = statement.query_row([digest.to_string()], |row| row.get::<_, i64>(0)).optional();
    Ok(found.map_err(|it| failed("look for a blob", it))?.map(i64::cast_unsigned))
}

fn from_row(row: &Row<'_>) -> Result<Info> {
    let (digest, size, labels, created, updated): (String, i64, String, i64, i64) =
        row.try_into().map_err(|it| failed("read a blob's row", it))?;
    Ok(Info {
        digest: digest.parse()?,
        size: size.cast_unsigned(),
        labels: from_json(&labels)?,
        created: time(created),
        updated: time(updated),
    })
}

#[cfg(test)]
mod tests;
