//! Leases: what a client, or a call that runs, wants to keep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Transaction, params};

use super::filter::{Filter, Matched, label};
use super::{Labels, Metadata, Namespace, failed, from_json, labels, lock, namespaces, time, to_json};
use crate::error::{Error, Result};

/// When a lease ends, as RFC 3339 text.
pub(crate) const EXPIRE: &str = "containerd.io/gc.expire";
/// How long the row of a call outlives a daemon that never started again to end it.
const CALL: Duration = Duration::from_hours(24);

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its name.
    pub id: String,
    /// `containerd.io/gc.expire` and `containerd.io/gc.flat` mean something to collection.
    pub labels: Labels,
    /// When it was made.
    pub created: SystemTime,
}

impl Matched for LeaseInfo {
    fn field(&self, path: &[String]) -> Option<String> {
        match path.first()?.as_str() {
            "id" => Some(self.id.clone()),
            "labels" => label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}

/// What a lease keeps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// `content`, `images`, `ingests` or `snapshots/<snapshotter>`.
    pub kind: String,
    /// A digest, a name, or a reference.
    pub id: String,
}

impl Resource {
    fn validate(&self) -> Result<()> {
        let known = match self.kind.split_once('/') {
            None if self.kind == "content" => return self.id.parse::<crate::content::digest::Digest>().map(drop),
            None => matches!(self.kind.as_str(), "images" | "ingests"),
            Some((kind, snapshotter)) => kind == "snapshots" && !snapshotter.is_empty() && !snapshotter.contains('/'),
        };
        if known && !self.id.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a lease cannot keep {:?} {:?}: write content, images, ingests or snapshots/<snapshotter>, and a name",
            self.kind, self.id
        )))
    }
}

/// The lease of a running call; it ends with this value.
pub struct Lease {
    metadata: Metadata,
    ns: Namespace,
    id: String,
}

impl Lease {
    /// Its name, for everything that wants one.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// In which namespace it holds.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The row first: while it is there, it must count as running.
        if let Err(error) = self.metadata.write(|transaction| remove(transaction, &self.ns, &self.id).map(drop)) {
            tracing::warn!(lease = self.id, "end the lease of a call: {error}");
        }
        lock(&self.metadata.inner.running).remove(&(self.ns.clone(), self.id.clone()));
    }
}

impl Metadata {
    /// Takes a lease for a call that runs now; `why` is a word for people. It ends when the value is dropped, at the latest when the
    /// next daemon starts, and until then no clock ends it.
    pub fn hold(&self, ns: &Namespace, why: &str) -> Result<Lease> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("tare-{why}-{}-{number}", std::process::id());
        let expire = rfc3339((self.inner.clock)() + CALL);
        let labels = Labels::from([(EXPIRE.to_owned(), expire), ("tare.store/call".to_owned(), why.to_owned())]);
        lock(&self.inner.running).insert((ns.clone(), id.clone()));
        // From here on a failure drops the guard, which takes the entry back.
        let lease = Lease { metadata: self.clone(), ns: ns.clone(), id };
        self.write(|transaction| insert(transaction, ns, &lease.id, &labels, self.now(), true))?;
        Ok(lease)
    }

    /// Makes a lease of a client; durable.
    pub fn create_lease(&self, ns: &Namespace, id: &str, labels: &Labels) -> Result<LeaseInfo> {
        if id.is_empty() {
            return Err(Error::invalid("a lease needs a name"));
        }
        labels::validate(labels)?;
        let now = self.now();
        self.durable(|transaction| {
            if exists(transaction, ns, id)? {
                return Err(Error::exists(format!("lease {id:?} is already there in namespace {ns}")));
            }
            insert(transaction, ns, id, labels, now, false)
        })?;
        Ok(LeaseInfo { id: id.to_owned(), labels: labels::kept(labels), created: time(now) })
    }

    /// Ends one. What it kept stays until the next collection.
    pub fn delete_lease(&self, ns: &Namespace, id: &str) -> Result<()> {
        if self.is_running(ns, id) {
            return Err(Error::precondition(format!("lease {id:?} is of a call that runs now, and ends with it")));
        }
        self.freeing(|transaction| match remove(transaction, ns, id)? {
            true => Ok(()),
            false => Err(missing(ns, id)),
        })
    }

    /// All that one of the filters matches.
    pub fn leases(&self, ns: &Namespace, filters: &[String]) -> Result<Vec<LeaseInfo>> {
        let filter = Filter::parse(filters)?;
        self.read(|transaction| {
            let mut statement = transaction
                .prepare_cached("SELECT id, labels, created FROM leases WHERE ns = ?1 ORDER BY id")
                .map_err(|it| failed("list leases", it))?;
            let rows = statement
                .query_map([ns.as_str()], |row| <(String, String, i64)>::try_from(row))
                .map_err(|it| failed("list leases", it))?;
            let mut leases = Vec::new();
            for row in rows {
                let (id, labels, created) = row.map_err(|it| failed("list leases", it))?;
                let lease = LeaseInfo { id, labels: from_json(&labels)?, created: time(created) };
                if filter.matches(&lease) {
                    leases.push(lease);
                }
            }
            Ok(leases)
        })
    }

    /// Keeps one more thing, whether or not it is there; durable.
    pub fn add_resource(&self, ns: &Namespace, lease: &str, resource: &Resource) -> Result<()> {
        resource.validate()?;
        self.durable(|transaction| keep(transaction, ns, Some(lease), &resource.kind, &resource.id))
    }

    /// Keeps it no longer.
    pub fn delete_resource(&self, ns: &Namespace, lease: &str, resource: &Resource) -> Result<()> {
        resource.validate()?;
        self.durable(|transaction| {
            if !exists(transaction, ns, lease)? {
                return Err(missing(ns, lease));
            }
            forget(transaction, ns, Some(lease), &resource.kind, &resource.id)
        })
    }

    /// What a lease keeps.
    pub fn resources(&self, ns: &Namespace, lease: &str) -> Result<Vec<Resource>> {
        self.read(|transaction| {
            if !exists(transaction, ns, lease)? {
                return Err(missing(ns, lease));
            }
            let reading = |it| failed("list what a lease keeps", it);
            let mut statement = transaction
                .prepare_cached("SELECT type, id FROM lease_resources WHERE ns = ?1 AND lease = ?2 ORDER BY type, id")
                .map_err(reading)?;
            let rows = statement
                .query_map([ns.as_str(), lease], |row| Ok(Resource { kind: row.get(0)?, id: row.get(1)? }))
                .map_err(reading)?;
            rows.collect::<rusqlite::Result<_>>().map_err(reading)
        })
    }

    pub(super) fn end_holds_of_earlier_daemons(&self) -> Result<()> {
        self.write(|transaction| {
            let text = "DELETE FROM lease_resources WHERE (ns, lease) IN (SELECT ns, id FROM leases WHERE hold = 1);
                        DELETE FROM leases WHERE hold = 1;";
            transaction.execute_batch(text).map_err(|it| failed("end the leases of earlier calls", it))
        })
    }
}

fn missing(ns: &Namespace, id: &str) -> Error {
    Error::not_found(format!("there is no lease {id:?} in namespace {ns}"))
}

fn exists(transaction: &Transaction<'_>, ns: &Namespace, id: &str) -> Result<bool> {
    let mut statement = transaction
        .prepare_cached("SELECT 1 FROM leases WHERE ns = ?1 AND id = ?2")
        .map_err(|it| failed("look for a lease", it))?;
    let found = statement.query_row([ns.as_str(), id], |_| Ok(())).optional();
    Ok(found.map_err(|it| failed("look for a lease", it))?.is_some())
}

fn insert(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    id: &str,
    labels: &Labels,
    now: i64,
    hold: bool,
) -> Result<()> {
    namespaces::ensure(transaction, ns)?;
    let text = "INSERT INTO leases (ns, id, labels, created, hold) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![ns.as_str(), id, to_json(&labels::kept(labels))?, now, hold];
    transaction.execute(text, row).map_err(|it| failed("write a lease", it)).map(drop)
}

pub(crate) fn remove(transaction: &Transaction<'_>, ns: &Namespace, id: &str) -> Result<bool> {
    let deleting = |it| failed("delete a lease", it);
    let key = [ns.as_str(), id];
    transaction.execute("DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2", key).map_err(deleting)?;
    Ok(transaction.execute("DELETE FROM leases WHERE ns = ?1 AND id = ?2", key).map_err(deleting)? > 0)
}

/// Adds a thing to the lease of the request, if it has one.
pub(crate) fn keep(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    lease: Option<&str>,
    kind: &str,
    id: &str,
) -> Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    if !exists(transaction, ns, lease)? {
        return Err(missing(ns, lease));
    }
    let mut statement = transaction
        .prepare_cached("INSERT OR IGNORE INTO lease_resources (ns, lease, type, id) VALUES (?1, ?2, ?3, ?4)")
        .map_err(|it| failed("add to a lease", it))?;
    statement.execute([ns.as_str(), lease, kind, id]).map_err(|it| failed("add to a lease", it)).map(drop)
}

/// Takes a thing out of the lease of the request, if it has one.
pub(crate) fn forget(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    lease: Option<&str>,
    kind: &str,
    id: &str,
) -> Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    let text = "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2 AND type = ?3 AND id = ?4";
    let mut statement = transaction.prepare_cached(text).map_err(|it| failed("take out of a lease", it))?;
    statement.execute([ns.as_str(), lease, kind, id]).map_err(|it| failed("take out of a lease", it)).map(drop)
}

/// A time as clients write it into labels, in whole seconds of UTC.
fn rfc3339(time: SystemTime) -> String {
    let seconds = super::nanoseconds(time).div_euclid(1_000_000_000);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |it| it.to_string())
}

/// When a label says that something ends, in nanoseconds; `None` for what is not a time, which containerd's collection passes over too.
pub(crate) fn expiry(labels: &Labels) -> Option<i64> {
    let time: jiff::Timestamp = labels.get(EXPIRE)?.parse().ok()?;
    Some(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}
