//! What is still coming: a row for each reference, and the bytes so far.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::digest::Digest;
use super::{Content, list};
use crate::error::{Error, Result};
use crate::fs::remove_tree;
use crate::metadata::filter::{Filter, Matched};
use crate::metadata::{Namespace, failed, lock, namespaces, time};

/// So long after its last byte an ingest that nobody resumes is rubbish: as in containerd.
const STALE: Duration = Duration::from_hours(24);

/// How far an ingest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What its writer calls it.
    pub reference: String,
    /// Bytes so far.
    pub offset: u64,
    /// Bytes in the end, if that is known.
    pub total: Option<u64>,
    /// What it shall be, if that is known.
    pub expected: Option<Digest>,
    /// When it began.
    pub started: SystemTime,
    /// When the last byte came.
    pub updated: SystemTime,
}

impl Matched for Status {
    fn field(&self, path: &[String]) -> Option<String> {
        (path.first()?.as_str() == "ref").then(|| self.reference.clone())
    }
}

/// One row.
pub(super) struct IngestRow {
    pub(super) id: i64,
    pub(super) ns: Namespace,
    pub(super) status: Status,
}

impl Content {
    /// One that has begun.
    pub fn status(&self, ns: &Namespace, reference: &str) -> Result<Status> {
        let row = self.inner.metadata.read(|transaction| find(transaction, ns, reference))?;
        row.map(|it| self.with_file(it).status).ok_or_else(|| missing(ns, reference))
    }

    /// All that one of the filters matches.
    pub fn statuses(&self, ns: &Namespace, filters: &[String]) -> Result<Vec<Status>> {
        let filter = Filter::parse(filters)?;
        let rows = self.ingest_rows()?.into_iter().filter(|it| it.ns == *ns);
        Ok(rows.map(|it| self.with_file(it).status).filter(|it| filter.matches(it)).collect())
    }

    /// Throws away what has come.
    pub fn abort(&self, ns: &Namespace, reference: &str) -> Result<()> {
        let _alone = self.alone(ns, reference)?;
        let row = self.inner.metadata.read(|transaction| find(transaction, ns, reference))?;
        self.forget_ingest(row.ok_or_else(|| missing(ns, reference))?.id)
    }

    /// Removes what nobody resumed for a day; says how many and how many bytes on disk. With `dry`, removes nothing.
    pub(crate) fn expire_ingests(
        &self,
        now: SystemTime,
        kept: &HashSet<(Namespace, String)>,
        dry: bool,
    ) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for row in self.ingest_rows()? {
            let row = self.with_file(row);
            let stale = now.duration_since(row.status.updated).is_ok_and(|age| age > STALE)
                && !kept.contains(&(row.ns.clone(), row.status.reference.clone()));
            // One that is being written is not stale, whatever the clock says.
            let Some(_alone) = stale.then(|| self.alone(&row.ns, &row.status.reference).ok()).flatten() else {
                continue;
            };
            count += 1;
            bytes += row.status.offset;
            if !dry {
                self.forget_ingest(row.id)?;
            }
        }
        Ok((count, bytes))
    }

    /// Of all that has come, whoever's it is.
    pub(crate) fn ingest_bytes(&self) -> Result<u64> {
        Ok(self.ingest_rows()?.into_iter().map(|it| self.with_file(it).status.offset).sum())
    }

    /// References whose bytes are not there, and that nobody is writing.
    pub(crate) fn lost_ingests(&self) -> Result<Vec<String>> {
        let rows = self.ingest_rows()?.into_iter();
        let lost = |it: &IngestRow| {
            self.alone(&it.ns, &it.status.reference).is_ok() && !self.ingest_dir(it.id).try_exists().unwrap_or(false)
        };
        Ok(rows.filter(lost).map(|it| it.status.reference).collect())
    }

    pub(super) fn forget_ingest(&self, id: i64) -> Result<()> {
        self.inner.metadata.write(|transaction| delete(transaction, id))?;
        remove_tree(&self.ingest_dir(id))
    }

    /// Claims a reference, which one writer at a time has.
    pub(super) fn alone(&self, ns: &Namespace, reference: &str) -> Result<Alone> {
        let key = (ns.clone(), reference.to_owned());
        if !lock(&self.inner.open).insert(key.clone()) {
            return Err(Error::unavailable(format!(
                "{reference:?} in namespace {ns} is being written by another call"
            )));
        }
        Ok(Alone { content: self.clone(), key })
    }

    pub(super) fn ingest_dir(&self, id: i64) -> PathBuf {
        self.inner.dir.join("ingests").join(id.to_string())
    }

    fn ingest_rows(&self) -> Result<Vec<IngestRow>> {
        self.inner.metadata.read(|transaction| {
            let listing = |it| failed("list ingests", it);
            let text = format!("SELECT {COLUMNS} FROM ingests ORDER BY ns, ref");
            let mut statement = transaction.prepare_cached(&text).map_err(listing)?;
            let mut rows = statement.query([]).map_err(listing)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().map_err(listing)? {
                found.push(from_row(row)?);
            }
            Ok(found)
        })
    }

    /// The file knows how far it is.
    fn with_file(&self, mut row: IngestRow) -> IngestRow {
        if let Ok(found) = fs::symlink_metadata(self.ingest_dir(row.id).join("data")) {
            row.status.offset = found.len();
            row.status.updated = found.modified().unwrap_or(row.status.started);
        }
        row
    }

    /// At the start: directories without a row, rows without a directory.
    pub(super) fn sweep_ingests(&self) -> Result<()> {
        let mut rows: HashSet<String> = self.ingest_rows()?.iter().map(|it| it.id.to_string()).collect();
        let dir = self.inner.dir.join("ingests");
        for name in list(&dir)? {
            if !rows.remove(&name) {
                remove_tree(&dir.join(name))?;
            }
        }
        self.inner.metadata.write(|transaction| {
            rows.iter().filter_map(|it| it.parse().ok()).try_for_each(|id| delete(transaction, id))
        })
    }
}

/// A claim to a reference; it ends with the value.
pub(super) struct Alone {
    content: Content,
    key: (Namespace, String),
}

impl Drop for Alone {
    fn drop(&mut self) {
        lock(&self.content.inner.open).remove(&self.key);
    }
}

const COLUMNS: &str = "id, ns, ref, total, expected, started";

fn missing(ns: &Namespace, reference: &str) -> Error {
    Error::not_found(format!("nothing is being ingested as {reference:?} in namespace {ns}"))
}

pub(super) fn find(transaction: &Transaction<'_>, ns: &Namespace, reference: &str) -> Result<Option<IngestRow>> {
    let text = format!("SELECT {COLUMNS} FROM ingests WHERE ns = ?1 AND ref = ?2");
    let mut statement = transaction.prepare_cached(&text).map_err(|it| failed("look for an ingest", it))?;
    let found = statement.query_row([ns.as_str(), reference], |row| Ok(from_row(row))).optional();
    found.map_err(|it| failed("look for an ingest", it))?.transpose()
}

/// Makes the row, or notes what is known better now.
pub(super) fn put(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    reference: &str,
    total: Option<u64>,
    expected: Option<&Digest>,
    now: i64,
) -> Result<IngestRow> {
    namespaces::ensure(transaction, ns)?;
    let text = "INSERT INTO ingests (ns, ref, total, expected, started) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (ns, ref) DO UPDATE SET total = COALESCE(?3, total), expected = COALESCE(?4, expected)";
    let row = params![ns.as_str(), reference, total.map(u64::cast_signed), expected.map(ToString::to_string), now];
    transaction.execute(text, row).map_err(|it| failed("write an ingest", it))?;
    find(transaction, ns, reference)?.ok_or_else(|| missing(ns, reference))
}

pub(super) fn delete(transaction: &Transaction<'_>, id: i64) -> Result<()> {
    transaction
        .execute("DELETE FROM ingests WHERE id = ?1", [id])
        .map_err(|it| failed("delete an ingest", it))
        .map(drop)
}

fn from_row(row: &Row<'_>) -> Result<IngestRow> {
    let (id, ns, reference, total, expected, started): (i64, String, String, Option<i64>, Option<String>, i64) =
        row.try_into().map_err(|it| failed("read an ingest", it))?;
    let status = Status {
        reference,
        offset: 0,
        total: total.map(i64::cast_unsigned),
        expected: expected.map(|it| it.parse()).transpose()?,
        started: time(started),
        updated: time(started),
    };
    Ok(IngestRow { id, ns: ns.parse()?, status })
}
