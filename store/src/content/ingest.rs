//! One blob that is coming: written, resumed, verified, published.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::digest::{Algorithm, Digest, Hasher};
use super::ingests::{self, Alone, Status};
use super::{Content, add_labels, get};
use crate::error::{Context, Error, Result};
use crate::fault;
use crate::fs::{private_dir, sync_dir};
use crate::metadata::{Labels, Namespace, leases, validate};
use crate::sys::file::start_writeback;

/// Bytes after which writing back is begun, so that the last sync waits for no more than these.
const WRITEBACK: u64 = 8 << 20;

/// A blob that is coming. Dropped without [`Ingest::commit`] or [`Ingest::abort`], what came stays for whoever resumes it.
pub struct Ingest {
    content: Content,
    ns: Namespace,
    id: i64,
    status: Status,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    /// Up to here writing back has begun.
    written_back: u64,
    _alone: Alone,
}

/// What became of an ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Of all bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// The namespace had it before: its labels stay as they were.
    pub existed: bool,
}

impl Content {
    /// Begins an ingest, or resumes what has come of it. One writer at a time has a reference: for a second one it is unavailable.
    pub fn ingest(
        &self,
        ns: &Namespace,
        reference: &str,
        total: Option<u64>,
        expected: Option<&Digest>,
    ) -> Result<Ingest> {
        if reference.is_empty() {
            return Err(Error::invalid("an ingest needs a reference"));
        }
        let alone = self.alone(ns, reference)?;
        let now = self.inner.metadata.now();
        let row =
            self.inner.metadata.write(|transaction| ingests::put(transaction, ns, reference, total, expected, now))?;
        fault::point("content.ingest.row")?;
        let dir = self.ingest_dir(row.id);
        private_dir(&dir)?;
        let path = dir.join("data");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mut file = options.open(&path).context(|| format!("open the ingest of {reference:?}"))?;
        fault::point("content.ingest.made")?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let (hasher, offset) =
            hash(&mut file, algorithm, u64::MAX).context(|| format!("read what came of {reference:?}"))?;
        let status = Status { offset, ..row.status };
        Ok(Ingest {
            content: self.clone(),
            ns: ns.clone(),
            id: row.id,
            status,
            path,
            file,
            hasher,
            written_back: offset,
            _alone: alone,
        })
    }

    /// Stores a document; one that is there gets these labels in addition.
    pub fn put(&self, ns: &Namespace, bytes: &[u8], labels: &Labels, lease: Option<&str>) -> Result<Digest> {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let digest = Digest::of(bytes);
        if self.hold(ns, &digest, lease)?.is_none() {
            let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut ingest = self.ingest(ns, &format!("put-{digest}-{number}"), None, Some(&digest))?;
            let written = ingest.truncate(0).and_then(|()| ingest.write(bytes));
            match written {
                Ok(()) => drop(ingest.commit(Some(bytes.len() as u64), Some(&digest), labels, lease)?),
                Err(error) => return Err(ingest.abort().err().unwrap_or(error)),
            }
        }
        let metadata = &self.inner.metadata;
        metadata.durable(|transaction| add_labels(transaction, ns, &digest, labels, metadata.now()))?;
        Ok(digest)
    }
}

impl Ingest {
    /// Bytes that have come.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.status.offset
    }

    /// As clients are told.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Another view of the same bytes, from their beginning: it can be read while more come, and after the ingest has ended.
    pub fn follow(&self) -> Result<File> {
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&self.path);
        opened.context(|| format!("open the ingest of {:?} once more", self.status.reference))
    }

    /// The digest of what has come.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let offset = self.status.offset;
        let total = self.status.total.unwrap_or(u64::MAX);
        if offset.saturating_add(bytes.len() as u64) > total {
            let reference = &self.status.reference;
            return Err(Error::data_loss(format!("{reference:?} has more than the {total} bytes that it should have")));
        }
        if let Err(error) = self.file.write_all(bytes) {
            // A part of it may be there; the next try goes on from what was hashed.
            self.file
                .set_len(offset)
                .and_then(|()| self.file.seek(SeekFrom::Start(offset)))
                .context(|| format!("take back what did not fit of {:?}", self.status.reference))?;
            return Err(error).context(|| format!("write {:?} at {offset}", self.status.reference));
        }
        self.hasher.update(bytes);
        self.status.offset += bytes.len() as u64;
        self.status.updated = crate::fault::now();
        if self.status.offset - self.written_back >= WRITEBACK {
            start_writeback(&self.file, self.written_back, self.status.offset - self.written_back);
            self.written_back = self.status.offset;
        }
        fault::point("content.ingest.wrote")
    }

    /// Throws away what came after `offset`.
    pub fn truncate(&mut self, offset: u64) -> Result<()> {
        let reference = &self.status.reference;
        if offset > self.status.offset {
            let have = self.status.offset;
            return Err(Error::invalid(format!("{reference:?} has {have} bytes: it cannot go on at {offset}")));
        }
        if offset < self.status.offset {
            let cutting = || format!("cut {reference:?} to {offset} bytes");
            let algorithm = self.algorithm();
            self.file.set_len(offset).context(cutting)?;
            (self.hasher, _) = hash(&mut self.file, algorithm, offset).context(cutting)?;
            self.status.offset = offset;
            self.written_back = self.written_back.min(offset);
        }
        Ok(())
    }

    /// Verifies, makes durable, and makes visible.
    ///
    /// The data stays for another try if it has too few bytes or the host failed, and is discarded if it is wrong: both of wrong
    /// size or digest are [`Kind::DataLoss`](crate::error::Kind). Success means that it is stored, not that this call stored it.
    pub fn commit(
        mut self,
        size: Option<u64>,
        expected: Option<&Digest>,
        labels: &Labels,
        lease: Option<&str>,
    ) -> Result<Committed> {
        validate(labels)?;
        let digest = self.verify(size, expected)?;
        fault::point("content.commit.verified")?;
        self.publish(&digest, labels, lease)
    }

    /// Throws all of it away.
    pub fn abort(self) -> Result<()> {
        // Its room first: on a full disk the row cannot go without some. Where that fails, the row's removal says why.
        let _ = self.file.set_len(0);
        self.content.forget_ingest(self.id)
    }

    fn algorithm(&self) -> Algorithm {
        match self.hasher {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    fn verify(&mut self, size: Option<u64>, expected: Option<&Digest>) -> Result<Digest> {
        let (reference, have) = (self.status.reference.clone(), self.status.offset);
        if let Some(size) = size.filter(|it| *it != have) {
            if size < have {
                self.discard();
            }
            return Err(Error::data_loss(format!("{reference:?} has {have} bytes and should have {size}")));
        }
        let expected = expected.or(self.status.expected.as_ref());
        if let Some(algorithm) = expected.map(Digest::algorithm).filter(|it| *it != self.algorithm()) {
            (self.hasher, _) = hash(&mut self.file, algorithm, have).context(|| format!("read {reference:?} again"))?;
        }
        let found = self.digest();
        if let Some(expected) = expected.filter(|it| **it != found) {
            let error =
                Error::data_loss(format!("{reference:?} should be {expected}, and its {have} bytes are {found}"));
            self.discard();
            return Err(error);
        }
        Ok(found)
    }

    /// What is wrong is not to be resumed.
    fn discard(&self) {
        if let Err(error) = self.content.forget_ingest(self.id) {
            tracing::warn!(reference = self.status.reference, "discard an ingest: {error}");
        }
    }

    fn publish(&self, digest: &Digest, labels: &Labels, lease: Option<&str>) -> Result<Committed> {
        let (content, metadata) = (&self.content, &self.content.inner.metadata);
        let committing = || format!("store blob {digest}");
        // The bytes, before a name says that they are there.
        self.file.set_permissions(Permissions::from_mode(0o400)).context(committing)?;
        self.file.sync_all().context(committing)?;
        fault::point("content.commit.synced")?;
        let exclusive = content.exclusive(digest);
        // Over what may be there: the same bytes, unless the disk has lost them.
        let to = content.path(digest);
        fs::rename(&self.path, &to).context(committing)?;
        let recorded = || {
            fault::point("content.commit.renamed")?;
            // The name, before a row says that it is there.
            sync_dir(&content.blobs(digest.algorithm()))?;
            fault::point("content.commit.directory_synced")?;
            metadata.durable(|transaction| {
                let existed = get(transaction, &self.ns, digest)?.is_some();
                if existed {
                    leases::keep(transaction, &self.ns, lease, "content", &digest.to_string())?;
                } else {
                    content.insert(transaction, &self.ns, digest, self.status.offset, labels, lease)?;
                }
                ingests::delete(transaction, self.id)?;
                Ok(existed)
            })
        };
        let existed = recorded().inspect_err(|_| self.take_back(digest, &to))?;
        drop(exclusive);
        fault::point("content.commit.row")?;
        let dir = content.ingest_dir(self.id);
        if let Err(error) = fs::remove_dir(&dir) {
            // It is stored all the same; the next start removes this.
            tracing::warn!("remove {}: {error}", dir.display());
        }
        Ok(Committed { digest: digest.clone(), size: self.status.offset, existed })
    }

    /// No row says that it is there: it is an ingest again, and nothing that was fetched is lost. Under the digest's lock.
    fn take_back(&self, digest: &Digest, blob: &std::path::Path) {
        let named = self.content.inner.metadata.read(|transaction| super::size_anywhere(transaction, digest));
        if let Ok(None) = named {
            let _ = fs::rename(blob, &self.path);
            let _ = self.file.set_permissions(Permissions::from_mode(0o600));
        }
    }
}

/// Hashes the first `length` bytes, and leaves the file there; says how many there were.
fn hash(file: &mut File, algorithm: Algorithm, length: u64) -> std::io::Result<(Hasher, u64)> {
    let mut hasher = algorithm.hasher();
    let mut buffer = vec![0; 256 << 10];
    file.rewind()?;
    let mut offset = 0;
    let mut limited = file.take(length);
    loop {
        let read = limited.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher, offset));
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
    }
}
