//! What exists: names, labels, leases, in one transactional database.
//!
//! `metadata.db` is SQLite with a write-ahead log, opened by this daemon alone (`locking_mode=EXCLUSIVE`). Its rows are the only
//! truth: a blob or a tree without a row is rubbish from a crash, and no row is written before what it names is on the disk.
//!
//! Two kinds of transactions. An *ordinary* one is atomic, and after a power cut a prefix of all of them is found: enough for what costs nothing
//! to do again (a snapshot prepared, a label set). A *durable* one is on the disk when it returns, and with it every earlier one: for what a
//! call reports done, and before anything is unlinked.
//!
//! Times are nanoseconds since 1970 by the wall clock. They are shown, and they end leases of clients; nothing that runs here depends on
//! them: the leases of running calls are known in memory too ([`Lease`]).

pub mod filter;
mod images;
mod labels;
pub(crate) mod leases;
pub(crate) mod namespaces;
mod publish;
mod reserve;
mod schema;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

pub use images::{Image, ImageField};
pub use labels::{Labels, Namespace, merge_labels};
pub(crate) use labels::{from_column, kept, validate};
pub use leases::{Lease, LeaseInfo, Resource};
pub use publish::{NewImage, Publication, Published};

use crate::error::{Error, Kind, MAKE_ROOM, Result};
use crate::fs::Root;
use reserve::Reserve;

/// The database; a clone is the same one.
#[derive(Clone)]
pub struct Metadata {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Connection>,
    /// Leases of running calls: namespace and id. No clock ends these.
    running: Mutex<HashSet<(Namespace, String)>>,
    reserve: Reserve,
    clock: fn() -> SystemTime,
}

impl Metadata {
    /// Opens the database of a root, makes it, or brings it up to this version; leases of calls that an earlier daemon ran end here.
    pub fn open(root: &Root) -> Result<Self> {
        Self::open_with(root.path(), crate::fault::now)
    }

    pub(crate) fn open_with(root: &Path, clock: fn() -> SystemTime) -> Result<Self> {
        let path = root.join("metadata.db");
        let mut connection = schema::open(&path)?;
        schema::migrate(&mut connection, &path)?;
        let inner =
            Inner { connection: Mutex::new(connection), running: Mutex::default(), reserve: Reserve::of(root), clock };
        let metadata = Self { inner: Arc::new(inner) };
        metadata.end_holds_of_earlier_daemons()?;
        Ok(metadata)
    }

    /// Reads, in one transaction.
    pub(crate) fn read<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = lock(&self.inner.connection);
        let transaction = connection.transaction().map_err(|it| failed("begin to read", it))?;
        body(&transaction)
    }

    /// Changes, all or nothing: an ordinary transaction. `body` runs a second time if there was no room at first.
    pub(crate) fn write<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.change(&mut lock(&self.inner.connection), body)
    }

    /// Changes, all or nothing, and on the disk when it returns: a durable transaction.
    pub(crate) fn durable<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = lock(&self.inner.connection);
        synchronous(&connection, "FULL")?;
        let result = self.change(&mut connection, body);
        synchronous(&connection, "NORMAL")?;
        result
    }

    /// On a full disk the log cannot grow; but once its pages are in the database it begins anew, in the room that it has. So calls that
    /// change next to nothing, and each one that holds what it reads does, go on.
    fn change<T>(&self, connection: &mut Connection, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        match run(connection, &body) {
            Err(error) if error.kind == Kind::ResourceExhausted => {
                self.inner.reserve.lend(|| checkpoint(connection)).map_or(Err(error), |()| run(connection, body))
            }
            done => done,
        }
    }

    /// Frees something: a durable transaction that a full disk does not stop. Even to delete a row the log must grow; so a small file is kept
    /// that can go for it, and comes back once there is room.
    pub(crate) fn freeing<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.with_reserve(|| self.durable(&body))
    }

    /// The same in an ordinary transaction.
    pub(crate) fn freeing_lazily<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.with_reserve(|| self.write(&body))
    }

    fn with_reserve<T>(&self, change: impl Fn() -> Result<T>) -> Result<T> {
        match change() {
            Err(error) if error.kind == Kind::ResourceExhausted && self.inner.reserve.give_up() => change(),
            done => {
                self.inner.reserve.take();
                done
            }
        }
    }

    /// Whether a transaction would begin at once.
    pub(crate) fn is_free(&self) -> bool {
        self.inner.connection.try_lock().is_ok()
    }

    /// Makes every earlier transaction durable.
    pub fn sync(&self) -> Result<()> {
        self.durable(|transaction| {
            let text = "INSERT INTO state (name, value) VALUES ('synced', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1";
            transaction.execute(text, []).map_err(|it| failed("sync", it)).map(drop)
        })
    }

    /// By the wall clock.
    pub(crate) fn now(&self) -> i64 {
        nanoseconds((self.inner.clock)())
    }

    /// Whether this lease is of a call that runs now.
    pub(crate) fn is_running(&self, namespace: &Namespace, lease: &str) -> bool {
        lock(&self.inner.running).contains(&(namespace.clone(), lease.to_owned()))
    }
}

/// Moves what the log holds into the database, and makes the log as short as it can be.
fn checkpoint(connection: &Connection) -> Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(|it| failed("empty the log", it))
}

fn run<T>(connection: &mut Connection, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|it| failed("begin", it))?;
    let value = body(&transaction)?;
    transaction.commit().map_err(|it| failed("commit", it))?;
    Ok(value)
}

fn synchronous(connection: &Connection, level: &str) -> Result<()> {
    connection.pragma_update(None, "synchronous", level).map_err(|it| failed("set how writes are synced", it))
}

/// A panic elsewhere left no half-done change behind: transactions roll back.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns what SQLite says into a kind and a sentence.
pub(crate) fn failed(what: &str, error: rusqlite::Error) -> Error {
    let (kind, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (Kind::ResourceExhausted, MAKE_ROOM),
        Some(ErrorCode::ReadOnly) => (Kind::FailedPrecondition, ""),
        Some(ErrorCode::PermissionDenied) => (Kind::PermissionDenied, ""),
        _ => (Kind::Internal, ""),
    };
    Error::new(kind, format!("the metadata database: {what}: {error}{remedy}"))
}

/// As rows keep times.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |it| -it),
    }
}

/// As callers want times.
pub(crate) fn time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// Text of a column that holds JSON of our own.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::internal(format!("the metadata database holds {text:?}, which is no record of ours: {error}"))
    })
}

/// For a column that holds JSON.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("write a record as JSON: {error}")))
}

#[cfg(test)]
mod tests;
