//! `/proc/thread-self/mountinfo`, read line by line: a busy host has thousands.
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! id parent    root mount point options  tags…      type  source    options of the super block
//! ```
//!
//! See proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Context, Result};

/// One mount of this process' mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which directory of its file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    /// The type of its file system.
    pub(crate) kind: String,
    /// Options of the file system, which for a version 1 cgroup name its controllers.
    pub(crate) options: String,
}

/// The mounts that `wanted` says yes to, in the order in which they were made.
pub(crate) fn mounts(mut wanted: impl FnMut(&Entry) -> bool) -> Result<Vec<Entry>> {
    let what = || "read /proc/thread-self/mountinfo".to_owned();
    let mut reader = BufReader::new(File::open("/proc/thread-self/mountinfo").context(what)?);
    let (mut line, mut found) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).context(what)? == 0 {
            return Ok(found);
        }
        found.extend(parse(&line).filter(&mut wanted));
    }
}

/// A line this cannot read is no mount anybody asks for.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.trim_ascii_end().split(|byte| *byte == b' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    fields.find(|field| field == b"-")?;
    let (kind, _source) = (fields.next()?, fields.next()?);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Entry {
        root: unescape(root),
        point: unescape(point),
        kind: text(kind),
        options: text(fields.next().unwrap_or_default()),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            b"36 35 98:0 /a\\040b /mnt\\134c\\011 rw,noatime master:1 shared:2 - ext3 /dev/r rw,errors=continue\n";
        let entry = Entry {
            root: "/a b".into(),
            point: "/mnt\\c\t".into(),
            kind: "ext3".into(),
            options: "rw,errors=continue".into(),
        };
        assert_eq!(parse(line), Some(entry));
        assert_eq!(parse(b"36 35 98:0 /a"), None);
        assert_eq!(unescape(b"/tail\\04"), PathBuf::from("/tail\\04"));
    }

    #[test]
    fn this_process_has_a_procfs() {
        let found = mounts(|entry| entry.kind == "proc").unwrap();
        assert!(found.iter().any(|entry| entry.point == std::path::Path::new("/proc")), "{found:?}");
    }
}
