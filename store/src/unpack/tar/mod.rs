//! The tar reader: what an archive says, strictly, one entry at a time and no more memory than that.
//!
//! Our own, since what it must refuse is the point. The crates (tar, tokio-tar and its forks) read leniently by design, each had
//! a hole where two readers saw different entries in the same bytes (CVE-2025-62518, CVE-2026-33055), and none of them has all
//! of sparse files in four formats, bounds on what a metadata header may claim, and entries without an allocation each. Where the formats
//! leave a choice it falls as in Go's archive/tar, since that is how containerd, umoci and every scanner of images read:
//! links, directories and devices have no data whatever their size says; GNU's long names win over PAX's; global headers
//! are read past; an archive may end without its two blocks of zeros, but not amid an entry.

mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead};

use super::Limits;
use crate::error::{Error, Kind as ErrorKind, Result};
pub use header::BLOCK;
use header::{Dialect, Header, until_nul};
use pax::Records;
pub use sparse::Segment;
use sparse::{Lines, Place};

/// Extended attributes of one entry; the names of more would not fit what listxattr(2) returns.
const MOST_XATTRS: usize = 2048;

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
pub(super) fn shown(path: &[u8]) -> String {
    let text = format!("/{}", String::from_utf8_lossy(&path[..path.len().min(300)]));
    format!("{text:?}{}", if path.len() > 300 { "…" } else { "" })
}

pub(super) fn corrupt(what: impl Into<String>) -> Error {
    Error::data_loss(what)
}

/// Reads entries from a stream.
pub struct Reader<'l, R> {
    stream: R,
    limits: &'l Limits,
    /// Headers seen.
    headers: u64,
    /// Bytes of the current entry's data that are still in the stream.
    left: u64,
    /// And of what fills its last block.
    padding: u64,
    block: [u8; BLOCK],
    meta: Vec<u8>,
    ended: bool,
}

impl<'l, R: BufRead> Reader<'l, R> {
    /// Reads from the stream's first byte on.
    pub fn new(stream: R, limits: &'l Limits) -> Self {
        Self { stream, limits, headers: 0, left: 0, padding: 0, block: [0; BLOCK], meta: Vec::new(), ended: false }
    }

    /// Headers seen so far.
    #[must_use]
    pub fn headers(&self) -> u64 {
        self.headers
    }

    /// Steps to the next entry, past what is left of the data of the last one. False at the archive's end.
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.pass_data()?;
        let mut records = Records::default();
        let mut extended = false;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            if !self.block()? || self.is_end()? {
                self.ended = true;
                return match extended || long_name.is_some() || long_link.is_some() {
                    true => Err(corrupt("the archive ends after a metadata header, before the entry it is for")),
                    false => Ok(false),
                };
            }
            self.count()?;
            let header = Header(&self.block);
            if !header.is_sound() {
                return Err(corrupt(format!(
                    "header {} has a wrong check sum: this is no tar archive, or it is damaged",
                    self.headers
                )));
            }
            match header.kind() {
                b'x' => {
                    self.meta()?;
                    records.read(&self.meta)?;
                    if records.xattrs.len() > MOST_XATTRS {
                        return Err(corrupt(format!("an entry with more than {MOST_XATTRS} extended attributes")));
                    }
                    extended = true;
                }
                b'g' if extended => {
                    return Err(corrupt("a global header between an entry's own extended header and the entry"));
                }
                b'g' => {
                    self.meta()?;
                    Records::default().read(&self.meta)?;
                }
                b'L' => {
                    self.meta()?;
                    long_name = Some(until_nul(&self.meta).to_owned());
                }
                b'K' => {
                    self.meta()?;
                    long_link = Some(until_nul(&self.meta).to_owned());
                }
                _ => break,
            }
        }
        self.fill(entry, &mut records, long_name, long_link)?;
        Ok(true)
    }

    /// The next piece of the current entry's data, as much as is at hand; empty at its end.
    pub fn piece(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let bytes = self.stream.fill_buf().map_err(stream_failed)?;
        if bytes.is_empty() {
            return Err(corrupt(format!("the archive ends {} bytes before the end of this entry's data", self.left)));
        }
        Ok(&bytes[..bytes.len().min(most)])
    }

    /// Says how much of the last piece was used.
    pub fn consume(&mut self, length: usize) {
        self.stream.consume(length);
        self.left -= length as u64;
    }

    /// Reads to the stream's last byte, past whatever is behind the archive's end.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let length = self.stream.fill_buf().map_err(stream_failed)?.len();
            if length == 0 {
                return Ok(());
            }
            self.stream.consume(length);
        }
    }

    /// The stream, where the archive has been read.
    pub fn into_stream(self) -> R {
        self.stream
    }

    fn pass_data(&mut self) -> Result<()> {
        while self.left > 0 {
            let length = self.piece()?.len();
            self.consume(length);
        }
        while self.padding > 0 {
            let length = self.stream.fill_buf().map_err(stream_failed)?.len();
            if length == 0 {
                // All data is there; only what fills the last block is missing, as some writers leave it.
                self.padding = 0;
                break;
            }
            let length = length.min(usize::try_from(self.padding).unwrap_or(usize::MAX));
            self.stream.consume(length);
            self.padding -= length as u64;
        }
        Ok(())
    }

    /// Reads one block. False where the stream ends before it.
    fn block(&mut self) -> Result<bool> {
        let mut have = 0;
        while have < BLOCK {
            let bytes = self.stream.fill_buf().map_err(stream_failed)?;
            if bytes.is_empty() {
                return match have {
                    0 => Ok(false),
                    _ => Err(corrupt("the archive ends within a header")),
                };
            }
            let length = bytes.len().min(BLOCK - have);
            self.block[have..have + length].copy_from_slice(&bytes[..length]);
            self.stream.consume(length);
            have += length;
        }
        Ok(true)
    }

    /// Two blocks of zeros end the archive; one alone does at the end of the stream.
    fn is_end(&mut self) -> Result<bool> {
        if !Header(&self.block).is_zero() {
            return Ok(false);
        }
        if self.block()? && !Header(&self.block).is_zero() {
            return Err(corrupt("a block of zeros amid the archive"));
        }
        Ok(true)
    }

    fn count(&mut self) -> Result<()> {
        self.headers += 1;
        if self.headers > self.limits.entries {
            return Err(Error::exhausted(format!(
                "the layer has more than {} entries, which is the limit",
                self.limits.entries
            )));
        }
        Ok(())
    }

    /// Reads the data of a metadata header.
    fn meta(&mut self) -> Result<()> {
        let size = self.size()?;
        if size > self.limits.records as u64 {
            return Err(Error::exhausted(format!(
                "a metadata header (long name, extended attributes) of {size} bytes; the limit is {}",
                self.limits.records
            )));
        }
        self.expect(size);
        self.meta.clear();
        while self.left > 0 {
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            let bytes = self.stream.fill_buf().map_err(stream_failed)?;
            if bytes.is_empty() {
                return Err(corrupt("the archive ends within a metadata header"));
            }
            let length = bytes.len().min(most);
            self.meta.extend_from_slice(&bytes[..length]);
            self.consume(length);
        }
        self.pass_data()
    }

    fn size(&self) -> Result<u64> {
        match Header(&self.block).number(124..136) {
            Some(size) => u64::try_from(size)
                .map_err(|_| corrupt(format!("header {} says its data has {size} bytes", self.headers))),
            None => Err(corrupt(format!("header {} has a size that is no number", self.headers))),
        }
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Puts header and records together.
    fn fill(
        &mut self,
        entry: &mut Entry,
        records: &mut Records,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
    ) -> Result<()> {
        let header = Header(&self.block);
        header.name(&mut self.meta);
        let name = name.or_else(|| records.path.take());
        let raw = records.sparse.name.as_deref().or(name.as_deref()).unwrap_or(&self.meta);
        let slash = raw.ends_with(b"/");
        clean(raw, &mut entry.path);
        let this = shown(&entry.path);
        let within = |error: Error| error.within(format_args!("entry {this}"));
        entry.kind = kind(header.kind(), slash).map_err(within)?;
        self.check_path(&entry.path).map_err(within)?;
        let link = link.or_else(|| records.link.take());
        let link = link.as_deref().unwrap_or_else(|| header.text(157..257));
        self.link(entry, link).map_err(within)?;
        self.numbers(entry, records).map_err(within)?;
        entry.xattrs = std::mem::take(&mut records.xattrs);
        self.data(entry, records).map_err(|error| error.within(format_args!("entry {this}")))
    }

    fn check_path(&self, path: &[u8]) -> Result<()> {
        if path.len() > self.limits.path {
            return Err(corrupt(format!("a path of {} bytes; the limit is {}", path.len(), self.limits.path)));
        }
        let depth = path.split(|&byte| byte == b'/').count();
        if depth > self.limits.depth {
            return Err(corrupt(format!("a path of {depth} names; the limit is {}", self.limits.depth)));
        }
        if path.split(|&byte| byte == b'/').any(|name| name.len() > 255) {
            return Err(corrupt("a name of more than 255 bytes"));
        }
        Ok(())
    }

    fn link(&self, entry: &mut Entry, link: &[u8]) -> Result<()> {
        entry.link.clear();
        match entry.kind {
            Kind::Symlink if link.is_empty() || link.len() > self.limits.path => {
                Err(corrupt(format!("a symbolic link whose target has {} bytes", link.len())))
            }
            Kind::Symlink => {
                entry.link.extend_from_slice(link);
                Ok(())
            }
            Kind::Hardlink => {
                clean(link, &mut entry.link);
                self.check_path(&entry.link)
            }
            _ => Ok(()),
        }
    }

    fn numbers(&self, entry: &mut Entry, records: &Records) -> Result<()> {
        let header = Header(&self.block);
        let number = |what, field| header.number(field).ok_or_else(|| corrupt(format!("its {what} is no number")));
        let id = |what, field, record: Option<u64>| {
            let stated = match record {
                Some(id) => i64::try_from(id).unwrap_or(i64::MAX),
                None => number(what, field)?,
            };
            // The last one means "leave it" to chown(2).
            u32::try_from(stated)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| corrupt(format!("{what} {stated} does not exist")))
        };
        entry.uid = id("uid", 108..116, records.uid)?;
        entry.gid = id("gid", 116..124, records.gid)?;
        // Some writers put the file's type above the permissions.
        entry.mode = u32::try_from(number("mode", 100..108)? & 0o7777).unwrap_or(0);
        entry.mtime = match records.mtime {
            Some(time) => time,
            None => Time { seconds: number("mtime", 136..148)?, nanos: 0 },
        };
        entry.atime = records.atime;
        entry.device = (0, 0);
        if matches!(entry.kind, Kind::Char | Kind::Block) && header.dialect() != Dialect::V7 {
            // The kernel's numbers: twelve bits and twenty.
            let part = |what, field, most: i64| {
                let stated = number(what, field)?;
                u32::try_from(stated)
                    .ok()
                    .filter(|_| stated <= most)
                    .ok_or_else(|| corrupt(format!("{what} {stated} does not exist")))
            };
            entry.device = (part("device major", 329..337, 0xfff)?, part("device minor", 337..345, 0xf_ffff)?);
        }
        Ok(())
    }

    /// How much data follows, and where it goes.
    fn data(&mut self, entry: &mut Entry, records: &Records) -> Result<()> {
        entry.size = 0;
        let mut map = entry.map.take().unwrap_or_default();
        map.clear();
        let place = records.sparse.place()?;
        let old = Header(&self.block).kind() == b'S';
        if entry.kind != Kind::File {
            self.expect(0);
            return match place {
                Place::Nowhere => Ok(()),
                _ => Err(corrupt("a map of holes, but this is no regular file")),
            };
        }
        let stored = match records.size {
            Some(size) => size,
            None => self.size()?,
        };
        // What is more than the archive may have is refused here, before anything is added to it.
        if stored > self.limits.size {
            return Err(Error::exhausted(format!(
                "its data has {stored} bytes; the limit of a layer is {}",
                self.limits.size
            )));
        }
        if old {
            return self.old_sparse(entry, map, stored);
        }
        self.expect(stored);
        match place {
            Place::Nowhere => {
                entry.size = stored;
                return Ok(());
            }
            Place::Records => records.sparse.map(&mut map)?,
            Place::Data => self.sparse_lines(&mut map)?,
        }
        entry.size = records.sparse.size.unwrap_or(stored);
        self.sparse(entry, map)
    }

    fn sparse_lines(&mut self, map: &mut Vec<Segment>) -> Result<()> {
        let mut lines = Lines::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(corrupt("a sparse file whose map is longer than its data"));
            }
            if !self.block()? {
                return Err(corrupt("the archive ends within a sparse file's map"));
            }
            self.left -= BLOCK as u64;
            if lines.take(&self.block, map)? {
                return Ok(());
            }
        }
    }

    fn old_sparse(&mut self, entry: &mut Entry, mut map: Vec<Segment>, stored: u64) -> Result<()> {
        if Header(&self.block).dialect() != Dialect::Gnu {
            return Err(corrupt("GNU's sparse file in an archive that is not GNU's"));
        }
        let size = Header(&self.block).number(483..495).and_then(|it| u64::try_from(it).ok());
        entry.size = size.ok_or_else(|| corrupt("a sparse file whose size is no count"))?;
        sparse::old(&self.block, 386, 4, &mut map)?;
        let mut more = self.block[482] != 0;
        while more {
            if !self.block()? {
                return Err(corrupt("the archive ends within a sparse file's map"));
            }
            sparse::old(&self.block, 0, 21, &mut map)?;
            self.count()?;
            more = self.block[504] != 0;
        }
        self.expect(stored);
        self.sparse(entry, map)
    }

    fn sparse(&mut self, entry: &mut Entry, map: Vec<Segment>) -> Result<()> {
        if i64::try_from(entry.size).is_err() {
            return Err(corrupt(format!("a sparse file of {} bytes", entry.size)));
        }
        sparse::check(&map, entry.size, self.left)?;
        entry.map = Some(map);
        Ok(())
    }
}

fn kind(flag: u8, slash: bool) -> Result<Kind> {
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
fn clean(raw: &[u8], into: &mut Vec<u8>) {
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

/// What a stream's failure means: our own error where one is inside, else that the layer's bytes are wrong.
pub(super) fn stream_failed(error: io::Error) -> Error {
    if let Some(own) = error.get_ref().and_then(|it| it.downcast_ref::<Error>()) {
        return own.clone();
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::data_loss("the compressed stream ends before its end"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            Error::data_loss(format!("the compressed stream is damaged: {error}"))
        }
        _ => Error::new(ErrorKind::Internal, format!("read the layer: {error}")),
    }
}

#[cfg(test)]
mod tests;
