//! The tar reader: what an archive says, strictly, one entry at a time and no more memory than that.
//!
//! Our own, since what it must refuse is the point. The crates (tar, tokio-tar and its forks) read leniently by design, each had
//! a hole where two readers saw different entries in the same bytes (CVE-2025-62518, CVE-2026-33055), and none of them has all
//! of sparse files in four formats, bounds on what a metadata header may claim, and entries without an allocation each. Where the formats
//! leave a choice it falls as in Go's archive/tar, since that is how containerd, umoci and every scanner of images read:
//! links, directories and devices have no data whatever their size says; GNU's long names win over PAX's; global headers
//! are read past; an archive may end without its two blocks of zeros, but not amid an entry.

mod entry;
mod fill;
mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead};

use super::Limits;
use crate::error::{Error, Kind as ErrorKind, Result};
pub(super) use entry::shown;
pub use entry::{Entry, Kind, Time};
pub use header::BLOCK;
use header::{Header, until_nul};
use pax::Records;
pub use sparse::Segment;

/// Extended attributes of one entry; the names of more would not fit what listxattr(2) returns.
const MOST_XATTRS: usize = 2048;

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
