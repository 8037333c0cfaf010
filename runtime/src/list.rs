//! `list`: the containers of a root, as a table or as JSON.
//!
//! A container that cannot be read (half made, or of another version) is left out with a warning: one bad directory must
//! not hide the others.

use std::fs::{self, DirEntry};
use std::path::Path;

use nix::errno::Errno;

use crate::bundle::read_limited;
use crate::cli::{Global, ListArgs, ListFormat};
use crate::error::{Context, Kind, Result};
use crate::log;
use crate::output::print;
use crate::state::{self, State, Status};
use crate::state_cmd::{Report, unprintable};

/// The least width of a column, and the least space between two.
const WIDTH: usize = 12;
const GAP: usize = 3;

/// Runs the command. Nothing is ever made by it, not even the root.
pub fn run(global: &Global, args: &ListArgs) -> Result<()> {
    let root = global.root();
    let ids = match ids(&root) {
        // Nobody has made a container yet. A root that was asked for by name should be there.
        Err(error) if error.errno() == Some(Errno::ENOENT) && !global.names_root() => Vec::new(),
        ids => ids?,
    };
    let containers: Vec<(State, Status)> = ids.iter().filter_map(|id| load(&root, id)).collect();
    if args.quiet {
        let lines: String = containers.iter().map(|(state, _)| format!("{}\n", state.id)).collect();
        return print(lines.as_bytes());
    }
    let passwd = read_limited(Path::new("/etc/passwd")).unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let reports: Vec<_> =
        containers.iter().map(|(state, status)| Report::of(state, *status, owner(&passwd, state.owner))).collect();
    match args.format {
        ListFormat::Table => print(table(&reports).as_bytes()),
        // No containers are null, not an empty list: what runc prints.
        ListFormat::Json if reports.is_empty() => print(b"null\n"),
        ListFormat::Json => {
            let mut text = serde_json::to_vec(&reports).map_err(|error| unprintable("", error))?;
            text.push(b'\n');
            print(&text)
        }
    }
}

/// The names of the containers, sorted.
fn ids(root: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(root).on("read the root directory", root.display())?;
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.on("read the root directory", root.display())?;
        if let Some(id) = id(&entry) {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(ids)
}

/// The name of a container, if the entry can be one.
fn id(entry: &DirEntry) -> Option<String> {
    let name = entry.file_name().into_string().ok()?;
    (state::check_id(&name).is_ok() && entry.file_type().ok()?.is_dir()).then_some(name)
}

fn load(root: &Path, id: &str) -> Option<(State, Status)> {
    let loaded = state::load(root, id).and_then(|state| {
        let status = state.status(root)?;
        Ok((state, status))
    });
    match loaded {
        Ok(loaded) => Some(loaded),
        // Deleted since the directory was read.
        Err(error) if error.kind() == Kind::NotFound => None,
        Err(error) => {
            log::warn(format_args!("leaving container {id:?} out: {error}"));
            None
        }
    }
}

/// The name of a user by a passwd file, or `#<uid>`. The C library would load code of the host to look it up.
fn owner(passwd: &str, uid: u32) -> String {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("#{uid}"), ToOwned::to_owned)
}

/// Aligned columns with a heading.
fn table(reports: &[Report<'_>]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(ToOwned::to_owned);
    let mut rows = vec![heading];
    rows.extend(reports.iter().map(|report| {
        let (id, status, created) = (report.id.to_owned(), report.status.to_owned(), report.created.to_owned());
        [id, report.pid.to_string(), status, report.bundle.display().to_string(), created, report.owner.clone()]
    }));
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count() + GAP).fold(WIDTH, usize::max)).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(5) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_a_name_or_a_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:\nalice:x:1000:1000::/:\nroot2:x:0:0::/:\n";
        for (uid, expected) in [(0, "root"), (1000, "alice"), (7, "#7"), (4_294_967_294, "#4294967294")] {
            assert_eq!(owner(passwd, uid), expected);
        }
    }

    #[test]
    fn an_empty_table_is_its_heading() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
