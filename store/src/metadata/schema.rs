//! The tables, by version: a database is brought from any earlier one to this, and one that is newer is not touched.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use rusqlite::Connection;

use super::failed;
use crate::error::{Context, Error, Result};

/// What leads from version N to N + 1. A step that was released is never changed.
const STEPS: &[&str] = &[
    // 0 -> 1. `kind` of a snapshot: 0 view, 1 active, 2 committed. `tree` is the number of its directory below snapshots/; several
    // namespaces may name one. `verified`: the store itself unpacked it and its diff id was right, so others may share it.
    // `hold` of a lease: it belongs to a call of the daemon that wrote it.
    "CREATE TABLE state (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
     CREATE TABLE namespaces (name TEXT PRIMARY KEY, labels TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE images (ns TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, target TEXT NOT NULL, labels TEXT NOT NULL,
         created INTEGER NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY (ns, name)) WITHOUT ROWID;
     CREATE TABLE content (ns TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, labels TEXT NOT NULL,
         created INTEGER NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY (ns, digest)) WITHOUT ROWID;
     CREATE INDEX content_digest ON content (digest);
     CREATE TABLE ingests (id INTEGER PRIMARY KEY AUTOINCREMENT, ns TEXT NOT NULL, ref TEXT NOT NULL, total INTEGER, expected TEXT,
         started INTEGER NOT NULL, UNIQUE (ns, ref));
     CREATE TABLE snapshots (ns TEXT NOT NULL, snapshotter TEXT NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
         parent TEXT NOT NULL, tree INTEGER NOT NULL, verified INTEGER NOT NULL, diff_id TEXT NOT NULL,
         size INTEGER NOT NULL, inodes INTEGER NOT NULL, labels TEXT NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,
         PRIMARY KEY (ns, snapshotter, name)) WITHOUT ROWID;
     CREATE INDEX snapshots_tree ON snapshots (tree);
     CREATE INDEX snapshots_name ON snapshots (snapshotter, name);
     CREATE INDEX snapshots_parent ON snapshots (ns, snapshotter, parent);
     CREATE TABLE leases (ns TEXT NOT NULL, id TEXT NOT NULL, labels TEXT NOT NULL, created INTEGER NOT NULL, hold INTEGER NOT NULL,
         PRIMARY KEY (ns, id)) WITHOUT ROWID;
     CREATE TABLE lease_resources (ns TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
         PRIMARY KEY (ns, lease, type, id)) WITHOUT ROWID;",
    // 1 -> 2. Across namespaces only verified layers are looked for: what is prepared and removed is not in that index.
    "DROP INDEX snapshots_name;
     CREATE INDEX snapshots_verified ON snapshots (snapshotter, name) WHERE verified = 1;",
];

/// Opens the file and says how it is used.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let shown = path.display();
    // SQLite would make it by the umask; the log gets the same mode.
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    made.open(path).context(|| format!("open {shown}"))?;
    let connection = Connection::open(path).map_err(|it| failed(&format!("open {shown}"), it))?;
    // EXCLUSIVE before the first access: the log's index is then in memory, and a second daemon cannot get in even without our lock.
    // The log keeps the room of its usual 2000 pages when it begins anew, or the file system would give it out again each time.
    let settings = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                    PRAGMA wal_autocheckpoint = 2000; PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY;";
    connection.execute_batch(settings).map_err(|it| failed(&format!("open {shown}"), it))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings the tables to this version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    migrate_by(connection, path, STEPS)
}

fn migrate_by(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<()> {
    let shown = path.display();
    let reading = |it| failed(&format!("read the version of {shown}"), it);
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(reading)?;
    let version = version as usize;
    if version > steps.len() {
        return Err(Error::precondition(format!(
            "{shown} was written by a newer tare-store: its version is {version}, and this program knows them up to {}; \
             use that newer program, or another root",
            steps.len()
        )));
    }
    for (index, step) in steps.iter().enumerate().skip(version) {
        let next = index + 1;
        let migrating = |it| failed(&format!("bring {shown} to version {next}"), it);
        let transaction = connection.transaction().map_err(migrating)?;
        transaction.execute_batch(step).map_err(migrating)?;
        transaction.pragma_update(None, "user_version", next as u32).map_err(migrating)?;
        transaction.commit().map_err(migrating)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn version(path: &Path) -> u32 {
        open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_database_is_brought_up_and_keeps_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        let mut connection = open(&path).unwrap();
        migrate_by(&mut connection, &path, &["CREATE TABLE a (x)"]).unwrap();
        connection.execute("INSERT INTO a VALUES (7)", []).unwrap();
        drop(connection);
        let steps = ["never run again", "ALTER TABLE a ADD COLUMN y DEFAULT 8", "CREATE INDEX b ON a (y)"];
        let mut connection = open(&path).unwrap();
        migrate_by(&mut connection, &path, &steps).unwrap();
        let row: (i64, i64) =
            connection.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (7, 8));
        drop(connection);
        assert_eq!(version(&path), 3);
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        let mut connection = open(&path).unwrap();
        let error =
            migrate_by(&mut connection, &path, &["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"])
                .unwrap_err();
        assert!(error.message.contains("to version 2"), "{error}");
        assert_eq!(connection.pragma_query_value::<u32, _>(None, "user_version", |row| row.get(0)).unwrap(), 1);
        connection.execute("INSERT INTO b VALUES (1)", []).unwrap_err();
    }

    #[test]
    fn the_log_begins_anew_in_the_room_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        let connection = open(&path).unwrap();
        connection.execute_batch("CREATE TABLE a (x INTEGER PRIMARY KEY, y)").unwrap();
        let log = || std::fs::metadata(dir.path().join("metadata.db-wal")).unwrap().len();
        let mut longest = 0;
        for number in 0..6000 {
            connection.execute("INSERT OR REPLACE INTO a VALUES (?1, zeroblob(100))", [number % 7]).unwrap();
            assert!(log() >= longest, "after {number} changes the log had {longest} bytes, and now {}", log());
            longest = log();
        }
        assert!((8_000_000..9_000_000).contains(&longest), "the log has {longest} bytes");
    }

    #[test]
    fn layers_of_other_namespaces_are_found_by_an_index_that_has_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        let mut connection = open(&path).unwrap();
        migrate(&mut connection, &path).unwrap();
        let text = format!("EXPLAIN QUERY PLAN {}", crate::snapshots::rows::verified_anywhere_text());
        let plan: String = connection.query_row(&text, ["overlayfs", "x"], |row| row.get("detail")).unwrap();
        assert!(plan.contains("USING INDEX snapshots_verified"), "{plan}");
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        let mut connection = open(&path).unwrap();
        connection.pragma_update(None, "user_version", STEPS.len() as u32 + 1).unwrap();
        let error = migrate(&mut connection, &path).unwrap_err();
        assert_eq!(error.kind, Kind::FailedPrecondition);
        assert!(error.message.contains("written by a newer tare-store"), "{error}");
        drop(connection);
        assert_eq!(version(&path), STEPS.len() as u32 + 1);
    }
}
