//! Namespaces: they exist from the first thing in them, and can have labels.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Labels, Metadata, Namespace, failed, from_json, labels, merge_labels, to_json};
use crate::error::{Error, Result};

impl Metadata {
    /// Names and labels of all.
    pub fn namespaces(&self) -> Result<Vec<(Namespace, Labels)>> {
        self.read(|transaction| {
            let mut statement = transaction
                .prepare_cached("SELECT name, labels FROM namespaces ORDER BY name")
                .map_err(|it| failed("list namespaces", it))?;
            let rows = statement
                .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
                .map_err(|it| failed("list namespaces", it))?;
            rows.map(|row| {
                let (name, labels) = row.map_err(|it| failed("list namespaces", it))?;
                Ok((name.parse()?, from_json(&labels)?))
            })
            .collect()
        })
    }

    /// Makes one that is not there.
    pub fn create_namespace(&self, ns: &Namespace, new: &Labels) -> Result<()> {
        labels::validate(new)?;
        self.durable(|transaction| {
            if ensure(transaction, ns)? {
                return put(transaction, ns, new);
            }
            Err(Error::exists(format!("namespace {ns} is already there")))
        })
    }

    /// Changes labels, by `paths` as for every object; gives them as they are then.
    pub fn update_namespace(&self, ns: &Namespace, new: &Labels, paths: &[String]) -> Result<Labels> {
        self.durable(|transaction| {
            let text = "SELECT labels FROM namespaces WHERE name = ?1";
            let found = transaction.query_row(text, [ns.as_str()], |row| row.get::<_, String>(0)).optional();
            let found = found.map_err(|it| failed("read a namespace", it))?.ok_or_else(|| missing(ns))?;
            let mut labels: Labels = from_json(&found)?;
            if let Some(path) = merge_labels(&mut labels, new, paths).first() {
                return Err(Error::invalid(format!("{path:?} of namespace {ns} cannot be updated")));
            }
            labels::validate(&labels)?;
            put(transaction, ns, &labels)?;
            Ok(labels)
        })
    }

    /// Takes an empty one away.
    pub fn delete_namespace(&self, ns: &Namespace) -> Result<()> {
        self.durable(|transaction| {
            for table in ["images", "content", "snapshots", "leases", "ingests"] {
                let text = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE ns = ?1)");
                let used: bool = transaction
                    .query_row(&text, [ns.as_str()], |row| row.get(0))
                    .map_err(|it| failed("look into a namespace", it))?;
                if used {
                    return Err(Error::precondition(format!("namespace {ns} is not empty: it still has {table}")));
                }
            }
            let text = "DELETE FROM namespaces WHERE name = ?1";
            match transaction.execute(text, [ns.as_str()]).map_err(|it| failed("delete a namespace", it))? {
                0 => Err(missing(ns)),
                _ => Ok(()),
            }
        })
    }
}

fn missing(ns: &Namespace) -> Error {
    Error::not_found(format!("there is no namespace {ns}"))
}

fn put(transaction: &Transaction<'_>, ns: &Namespace, new: &Labels) -> Result<()> {
    let text = "UPDATE namespaces SET labels = ?2 WHERE name = ?1";
    let row = params![ns.as_str(), to_json(&labels::kept(new))?];
    transaction.execute(text, row).map_err(|it| failed("write a namespace", it)).map(drop)
}

/// Makes it if it is not there; says whether it was made.
pub(crate) fn ensure(transaction: &Transaction<'_>, ns: &Namespace) -> Result<bool> {
    let mut statement = transaction
        .prepare_cached("INSERT INTO namespaces (name, labels) VALUES (?1, '{}') ON CONFLICT (name) DO NOTHING")
        .map_err(|it| failed("make a namespace", it))?;
    Ok(statement.execute([ns.as_str()]).map_err(|it| failed("make a namespace", it))? > 0)
}
