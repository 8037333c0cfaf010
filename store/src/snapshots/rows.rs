//! Snapshots as rows: what the transactions of several modules need of them.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Transaction, params};

use super::Kind;
use crate::error::{Error, Result};
use crate::fs::Usage;
use crate::metadata::{Labels, Namespace, failed, from_column, kept, leases, namespaces, to_json};

/// One snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) parent: Option<String>,
    pub(crate) tree: u64,
    /// The store itself unpacked it, and everything below it.
    pub(crate) verified: bool,
    pub(crate) diff_id: String,
    pub(crate) usage: Usage,
    pub(crate) labels: Labels,
    pub(crate) created: i64,
    pub(crate) updated: i64,
}

/// What [`from_row`] reads, in this order.
pub(crate) const COLUMNS: &str = "name, kind, parent, tree, verified, diff_id, size, inodes, labels, created, updated";

pub(crate) fn get(transaction: &Transaction<'_>, ns: &Namespace, snapshotter: &str, name: &str) -> Result<Option<Row>> {
    let text = format!("SELECT {COLUMNS} FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND name = ?3");
    let mut statement = transaction.prepare_cached(&text).map_err(|it| failed("look for a snapshot", it))?;
    let found = statement.query_row([ns.as_str(), snapshotter, name], |row| Ok(from_row(row))).optional();
    found.map_err(|it| failed("look for a snapshot", it))?.transpose()
}

pub(super) fn list(transaction: &Transaction<'_>, ns: &Namespace, snapshotter: &str) -> Result<Vec<Row>> {
    let listing = |it| failed("list snapshots", it);
    let text = format!("SELECT {COLUMNS} FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 ORDER BY name");
    let mut statement = transaction.prepare_cached(&text).map_err(listing)?;
    let mut rows = statement.query([ns.as_str(), snapshotter]).map_err(listing)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(listing)? {
        found.push(from_row(row)?);
    }
    Ok(found)
}

/// A snapshot and all that it stands on, the top one first.
pub(super) fn chain(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    snapshotter: &str,
    top: Option<&str>,
) -> Result<Vec<Row>> {
    let mut chain = Vec::new();
    let mut next = top.map(str::to_owned);
    while let Some(name) = next.take() {
        let row = get(transaction, ns, snapshotter, &name)?.ok_or_else(|| {
            Error::not_found(format!("there is no snapshot {name:?} of {snapshotter} in namespace {ns}"))
        })?;
        next = row.parent.clone();
        chain.push(row);
    }
    Ok(chain)
}

/// Makes the row, or changes it.
pub(crate) fn put(transaction: &Transaction<'_>, ns: &Namespace, snapshotter: &str, row: &Row) -> Result<()> {
    namespaces::ensure(transaction, ns)?;
    let text = "INSERT OR REPLACE INTO snapshots
                (ns, snapshotter, name, kind, parent, tree, verified, diff_id, size, inodes, labels, created, updated)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let values = params![
        ns.as_str(),
        snapshotter,
        row.name,
        row.kind as u8,
        row.parent.as_deref().unwrap_or_default(),
        row.tree.cast_signed(),
        row.verified,
        row.diff_id,
        row.usage.size.cast_signed(),
        row.usage.inodes.cast_signed(),
        to_json(&kept(&row.labels))?,
        row.created,
        row.updated
    ];
    let mut statement = transaction.prepare_cached(text).map_err(|it| failed("write a snapshot", it))?;
    statement.execute(values).map_err(|it| failed("write a snapshot", it)).map(drop)
}

pub(crate) fn delete(transaction: &Transaction<'_>, ns: &Namespace, snapshotter: &str, name: &str) -> Result<()> {
    let text = "DELETE FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND name = ?3";
    let mut statement = transaction.prepare_cached(text).map_err(|it| failed("delete a snapshot", it))?;
    statement.execute([ns.as_str(), snapshotter, name]).map_err(|it| failed("delete a snapshot", it)).map(drop)
}

/// One that stands on it.
pub(super) fn child(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    snapshotter: &str,
    name: &str,
) -> Result<Option<String>> {
    let text = "SELECT name FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND parent = ?3 LIMIT 1";
    let mut statement = transaction.prepare_cached(text).map_err(|it| failed("look for children", it))?;
    let found = statement.query_row([ns.as_str(), snapshotter, name], |row| row.get(0)).optional();
    found.map_err(|it| failed("look for children", it))
}

/// Whether a row names this tree.
pub(crate) fn names_tree(transaction: &Transaction<'_>, tree: u64) -> Result<bool> {
    let mut statement = transaction
        .prepare_cached("SELECT 1 FROM snapshots WHERE tree = ?1 LIMIT 1")
        .map_err(|it| failed("look for a tree's rows", it))?;
    statement.exists([tree.cast_signed()]).map_err(|it| failed("look for a tree's rows", it))
}

/// Whose tree this is, if a snapshot of this namespace names it.
pub(super) fn snapshotter_of(transaction: &Transaction<'_>, ns: &Namespace, tree: u64) -> Result<Option<String>> {
    let text = "SELECT snapshotter FROM snapshots WHERE tree = ?1 AND ns = ?2 LIMIT 1";
    let found = transaction.query_row(text, params![tree.cast_signed(), ns.as_str()], |row| row.get(0)).optional();
    found.map_err(|it| failed("look for a tree's rows", it))
}

/// All trees that rows name.
pub(crate) fn trees(transaction: &Transaction<'_>) -> Result<HashSet<u64>> {
    let listing = |it| failed("list trees", it);
    let mut statement = transaction.prepare("SELECT DISTINCT tree FROM snapshots").map_err(listing)?;
    let rows = statement.query_map([], |row| row.get::<_, i64>(0)).map_err(listing)?;
    rows.map(|it| it.map(i64::cast_unsigned).map_err(listing)).collect()
}

/// Drops the rows of active snapshots and views whose trees are not on the disk.
pub(super) fn drop_empty(transaction: &Transaction<'_>, on_disk: &HashSet<u64>) -> Result<()> {
    let lost: Vec<u64> = trees(transaction)?.into_iter().filter(|it| !on_disk.contains(it)).collect();
    for tree in lost {
        let text = "DELETE FROM snapshots WHERE tree = ?1 AND kind < ?2";
        let row = params![tree.cast_signed(), Kind::Committed as u8];
        if transaction.execute(text, row).map_err(|it| failed("drop a lost snapshot", it))? > 0 {
            tracing::warn!(tree, "a snapshot that was prepared just before a power cut is gone");
        }
    }
    Ok(())
}

/// See [`Snapshots::hold`](super::Snapshots::hold).
pub(super) fn hold(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    snapshotter: &str,
    chain_id: &str,
    lease: Option<&str>,
    now: i64,
) -> Result<bool> {
    let mut missing = Vec::new();
    let mut next = Some(chain_id.to_owned());
    while let Some(name) = next.take() {
        match get(transaction, ns, snapshotter, &name)? {
            Some(row) if row.kind != Kind::Committed => return Ok(false),
            Some(_) => break,
            None => {}
        }
        let Some(row) = verified_anywhere(transaction, snapshotter, &name)? else { return Ok(false) };
        next = row.parent.clone();
        missing.push(row);
    }
    // From the bottom, so that no row ever stands on nothing.
    for row in missing.into_iter().rev() {
        let labels = Labels::new();
        put(transaction, ns, snapshotter, &Row { labels, created: now, updated: now, ..row })?;
    }
    leases::keep(transaction, ns, lease, &format!("snapshots/{snapshotter}"), chain_id)?;
    Ok(true)
}

/// SQLite takes its index for it only if `verified = 1` is written out.
pub(crate) fn verified_anywhere_text() -> String {
    format!("SELECT {COLUMNS} FROM snapshots WHERE snapshotter = ?1 AND name = ?2 AND verified = 1 LIMIT 1")
}

fn verified_anywhere(transaction: &Transaction<'_>, snapshotter: &str, name: &str) -> Result<Option<Row>> {
    let mut statement =
        transaction.prepare_cached(&verified_anywhere_text()).map_err(|it| failed("look for a layer", it))?;
    let found = statement.query_row([snapshotter, name], |row| Ok(from_row(row))).optional();
    found.map_err(|it| failed("look for a layer", it))?.transpose()
}

/// In the order of [`COLUMNS`].
pub(crate) fn from_row(row: &rusqlite::Row<'_>) -> Result<Row> {
    let reading = |it| failed("read a snapshot's row", it);
    let text = |column: usize| row.get_ref(column).and_then(|it| Ok(it.as_str()?)).map_err(reading);
    let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned).map_err(reading);
    let kind: u8 = row.get(1).map_err(reading)?;
    Ok(Row {
        name: text(0)?.to_owned(),
        kind: match kind {
            0 => Kind::View,
            1 => Kind::Active,
            _ => Kind::Committed,
        },
        parent: Some(text(2)?).filter(|it| !it.is_empty()).map(str::to_owned),
        tree: number(3)?,
        verified: row.get(4).map_err(reading)?,
        diff_id: text(5)?.to_owned(),
        usage: Usage { size: number(6)?, inodes: number(7)? },
        labels: from_column(text(8)?)?,
        created: row.get(9).map_err(reading)?,
        updated: row.get(10).map_err(reading)?,
    })
}
