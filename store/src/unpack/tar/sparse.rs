//! Files with holes: GNU tar's four ways to say where the data goes (its manual, "Sparse Formats").
//!
//! ```text
//! old GNU   type S: four pairs in the header, 21 in each block that follows while the last one says "more"
//! PAX 0.0   GNU.sparse.size, then GNU.sparse.offset and .numbytes in turn
//! PAX 0.1   GNU.sparse.size, GNU.sparse.map=offset,length,…
//! PAX 1.0   GNU.sparse.major=1, minor=0, realsize; the map is the first blocks of the data: count, then pairs, a line each
//! ```

use super::corrupt;
use super::header::{BLOCK, number};
use super::pax::decimal;
use crate::error::Result;

/// A stretch of data in a file, all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// As many as fit 4 MiB: a map is kept whole.
const MOST: usize = 1 << 18;

/// What PAX records say of holes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    major: Option<u64>,
    minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    mapped: bool,
}

impl Claims {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let count = || {
            decimal(value).ok_or_else(|| {
                corrupt(format!(
                    "a sparse file whose {} is {:?}",
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(value)
                ))
            })
        };
        match key {
            b"major" => self.major = Some(count()?),
            b"minor" => self.minor = Some(count()?),
            b"name" if value.contains(&0) => return Err(corrupt("a sparse file whose name has a NUL")),
            b"name" => self.name = Some(value.to_owned()),
            b"size" | b"realsize" => self.size = Some(count()?),
            b"offset" | b"numbytes" => {
                let offset = self.numbers.len().is_multiple_of(2);
                if offset != (key == b"offset") {
                    return Err(corrupt("a sparse file whose offsets and lengths do not come in turn"));
                }
                self.mapped = true;
                self.push(count()?)?;
            }
            b"map" => {
                self.mapped = true;
                self.numbers.clear();
                for part in value.split(|&byte| byte == b',') {
                    self.push(decimal(part).ok_or_else(|| corrupt("a sparse file whose map is no list of numbers"))?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<()> {
        if self.numbers.len() >= 2 * MOST {
            return Err(corrupt(format!("a sparse file of more than {MOST} pieces")));
        }
        self.numbers.push(number);
        Ok(())
    }

    /// Whether the entry is sparse at all, and where its map is.
    pub(super) fn place(&self) -> Result<Place> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) if !self.mapped => Ok(Place::Data),
            (None, None) | (Some(0), Some(0 | 1)) if self.mapped => Ok(Place::Records),
            (None, None) if self.name.is_none() && self.size.is_none() => Ok(Place::Nowhere),
            _ => Err(corrupt("a sparse file in a format that is none of GNU tar's 0.0, 0.1 and 1.0")),
        }
    }

    /// The map that the records hold.
    pub(super) fn map(&self, into: &mut Vec<Segment>) -> Result<()> {
        if !self.numbers.len().is_multiple_of(2) {
            return Err(corrupt("a sparse file with an offset without its length"));
        }
        into.extend(self.numbers.as_chunks::<2>().0.iter().map(|&[offset, length]| Segment { offset, length }));
        Ok(())
    }
}

/// Where a sparse file's map is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is no sparse file.
    Nowhere,
    /// In the records.
    Records,
    /// In the first blocks of its data.
    Data,
}

/// The lines of a map in the data, as they come block by block.
#[derive(Default)]
pub(super) struct Lines {
    current: Option<u64>,
    expected: Option<u64>,
    offset: Option<u64>,
}

impl Lines {
    /// Takes one block; true when the map is whole, and the data begins with the next block.
    pub(super) fn take(&mut self, block: &[u8; BLOCK], into: &mut Vec<Segment>) -> Result<bool> {
        let broken = || corrupt("a sparse file whose map is no list of numbers");
        for &byte in block {
            match byte {
                b'0'..=b'9' => {
                    let value =
                        self.current.unwrap_or(0).checked_mul(10).and_then(|it| it.checked_add(u64::from(byte - b'0')));
                    self.current = Some(value.ok_or_else(broken)?);
                }
                b'\n' => {
                    let value = self.current.take().ok_or_else(broken)?;
                    match (self.expected, self.offset.take()) {
                        (None, _) if value > MOST as u64 => {
                            return Err(corrupt(format!("a sparse file of more than {MOST} pieces")));
                        }
                        (None, _) => self.expected = Some(value),
                        (Some(_), None) => self.offset = Some(value),
                        (Some(_), Some(offset)) => into.push(Segment { offset, length: value }),
                    }
                    if self.expected == Some(into.len() as u64) && self.offset.is_none() {
                        return Ok(true);
                    }
                }
                _ => return Err(broken()),
            }
        }
        Ok(false)
    }
}

/// The pairs of the old format in a block: at most `most` from `start` on, up to the first without a length given.
pub(super) fn old(block: &[u8; BLOCK], start: usize, most: usize, into: &mut Vec<Segment>) -> Result<()> {
    let count = |field: &[u8]| {
        number(field)
            .and_then(|it| u64::try_from(it).ok())
            .ok_or_else(|| corrupt("a sparse file with an offset that is no count"))
    };
    for pair in block[start..].chunks_exact(24).take(most) {
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        if into.len() >= MOST {
            return Err(corrupt(format!("a sparse file of more than {MOST} pieces")));
        }
        into.push(Segment { offset: count(&pair[..12])?, length: count(&pair[12..])? });
    }
    Ok(())
}

/// The pieces are in order, apart, within the file, and as long together as the data that is there.
pub(super) fn check(map: &[Segment], size: u64, stored: u64) -> Result<()> {
    let mut end = 0u64;
    let mut total = 0u64;
    for segment in map {
        if segment.offset < end {
            return Err(corrupt("a sparse file whose pieces overlap or are out of order"));
        }
        end = segment.offset.checked_add(segment.length).filter(|end| *end <= size).ok_or_else(|| {
            corrupt(format!(
                "a sparse file of {size} bytes with a piece of {} bytes at {}",
                segment.length, segment.offset
            ))
        })?;
        total += segment.length;
    }
    if total != stored {
        return Err(corrupt(format!(
            "a sparse file whose pieces are {total} bytes together, but {stored} are in the archive"
        )));
    }
    Ok(())
}
