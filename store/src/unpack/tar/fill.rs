//! Out of a header and the records before it: one entry, every field of it checked.

use std::io::BufRead;

use super::entry::{Entry, Kind, Time, clean, kind, shown};
use super::header::{BLOCK, Dialect, Header};
use super::pax::Records;
use super::sparse::{self, Lines, Place, Segment};
use super::{Reader, corrupt};
use crate::error::{Error, Result};

impl<R: BufRead> Reader<'_, R> {
    /// Puts header and records together.
    pub(super) fn fill(
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
