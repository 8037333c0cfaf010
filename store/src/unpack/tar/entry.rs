//! What an archive has: one entry, and its parts as they stand in it.

use super::corrupt;
use super::sparse::Segment;
use crate::error::Result;

/// An instant, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// And these.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A regular file.
    #[default]
    File,
    /// Another name of an earlier entry.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry. Its buffers are used again for the next.
#[derive(Debug, Default)]
pub struct Entry {
    /// Its path below the root: no leading slash, no empty name, no `.` and no `..` in it; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Of a symbolic link: its target as it stands. Of a hard link: the path of the target, in the form of `path`.
    pub link: Vec<u8>,
    /// Permissions, set-user-id, set-group-id and sticky bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was modified.
    pub mtime: Time,
    /// When it was read, where that is said.
    pub atime: Option<Time>,
    /// A file's bytes, holes included.
    pub size: u64,
    /// A device's number.
    pub device: (u32, u32),
    /// Name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a sparse file: where the pieces that follow each other in the archive go.
    pub map: Option<Vec<Segment>>,
}

impl Entry {
    /// The path, as messages have it.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// A path as messages have it: quoted, and not longer than a line or two.
pub(in crate::unpack) fn shown(path: &[u8]) -> String {
    let text = format!("/{}", String::from_utf8_lossy(&path[..path.len().min(300)]));
    format!("{text:?}{}", if path.len() > 300 { "…" } else { "" })
}

/// What a header's flag stands for. `slash`: its name ends with one.
pub(super) fn kind(flag: u8, slash: bool) -> Result<Kind> {
    Ok(match flag {
        // Before there were directories in archives, the slash said it.
        b'0' | 0 if slash => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::Hardlink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return Err(corrupt(format!("type {:?} is none that a layer may have", char::from(flag)))),
    })
}

/// The path below the root: `.` and empty names go, `..` takes the name before it and nothing above the root, as in a path of an own root.
pub(super) fn clean(raw: &[u8], into: &mut Vec<u8>) {
    into.clear();
    for name in raw.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => into.truncate(into.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
            _ => {
                if !into.is_empty() {
                    into.push(b'/');
                }
                into.extend_from_slice(name);
            }
        }
    }
}
