//! Mounts that came into a container below a recursive bind mount. No configuration names them, so the mount table does.
//!
//! At a dump the container's table tells which there are. At a restore the host's tells what is below the source now: what
//! is bound at `/data` from `/srv` has, for a mount of the host on `/srv/a`, one on `/data/a`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::cgroup::layout::unescape;
use crate::error::{Context, Result};

/// A mount that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    /// Where it is in the container.
    pub(super) place: PathBuf,
    /// For a recursive bind mount, what it is of.
    pub(super) tree: Option<PathBuf>,
}

/// The mount points of a process' mount namespace, as it sees them.
pub(super) fn table(process: &str) -> Result<Vec<PathBuf>> {
    let path = format!("/proc/{process}/mountinfo");
    fs::read(&path).on("read", path).map(|table| parse(&table))
}

fn parse(table: &[u8]) -> Vec<PathBuf> {
    let place = |line: &[u8]| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(OsString::from_vec(unescape(field)).into())
    };
    table.split(|byte| *byte == b'\n').filter_map(place).collect()
}

/// Of the container's mount points those that came along with a bind mount.
pub(super) fn of_container(points: &[PathBuf], declared: &[Declared]) -> Vec<PathBuf> {
    let came_along = |point: &&PathBuf| {
        // What is mounted on or below something else that the configuration names is that one's.
        let nearest = declared.iter().filter(|one| point.starts_with(&one.place));
        nearest
            .max_by_key(|one| one.place.components().count())
            .is_some_and(|one| one.place != **point && one.tree.is_some())
    };
    let mut found: Vec<PathBuf> = points.iter().filter(came_along).cloned().collect();
    // Mounts that are stacked are one place.
    found.dedup();
    found
}

/// Where the host's mount points below the sources appear in the container, and the host's mount points.
pub(super) fn of_host(points: &[PathBuf], declared: &[Declared]) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for one in declared {
        let Some(source) = &one.tree else { continue };
        // The table has no links.
        let source = fs::canonicalize(source).unwrap_or_else(|_| source.clone());
        for point in points {
            if let Ok(rest) = point.strip_prefix(&source)
                && rest != Path::new("")
            {
                found.push((one.place.join(rest), point.clone()));
            }
        }
    }
    found.retain(|(place, _)| declared.iter().all(|one| one.place != *place));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(place: &str, tree: Option<&str>) -> Declared {
        Declared { place: place.into(), tree: tree.map(PathBuf::from) }
    }

    fn paths(texts: &[&str]) -> Vec<PathBuf> {
        texts.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_table_is_read_with_its_escapes() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/root rw\n31 22 0:28 / /a\\040b rw shared:9 - tmpfs tmpfs rw\n\n";
        assert_eq!(parse(table), paths(&["/", "/a b"]));
    }

    #[test]
    fn only_what_came_along_is_found_in_the_container() {
        let all = [
            declared("/proc", None),
            declared("/data", Some("/srv")),
            declared("/data/own", None),
            declared("/one", None),
        ];
        let points = paths(&[
            "/",
            "/proc",
            "/proc/sys",
            "/data",
            "/data/a",
            "/data/a/b",
            "/data/own",
            "/data/own/c",
            "/one/d",
            "/database",
        ]);
        assert_eq!(of_container(&points, &all), paths(&["/data/a", "/data/a/b"]));
    }

    #[test]
    fn what_is_below_the_source_is_found_on_the_host() {
        let all = [declared("/data", Some("/nowhere/srv")), declared("/data/own", None), declared("/one", None)];
        let points = paths(&["/", "/nowhere/srv", "/nowhere/srv/a", "/nowhere/srv/own", "/nowhere/srv2/x"]);
        assert_eq!(of_host(&points, &all), [("/data/a".into(), "/nowhere/srv/a".into())]);
    }
}
