//! The tar writer: ustar headers, and PAX records for what does not fit them.

use std::io::{self, BufWriter, Read, Write};

use super::super::compress::Hashed;
use super::Written;
use crate::error::{Context, Error, Result};

const BLOCK: usize = 512;

/// One header to write.
#[derive(Debug, Default, Clone)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) seconds: i64,
    pub(super) nanos: u64,
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive that is being written.
pub(super) struct Archive<W: Write> {
    out: BufWriter<Hashed<W>>,
    buffer: Vec<u8>,
}

fn written<T>(result: io::Result<T>) -> Result<T> {
    result.context(|| "write the archive".to_owned())
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, Hashed::new(out)), buffer: vec![0; 256 << 10] }
    }

    pub(super) fn header(&mut self, header: &Header) -> Result<()> {
        let records = records(header);
        if !records.is_empty() {
            // Its own name serves nobody; the same for all, it depends on nothing.
            let meta = Header {
                path: b"PaxHeaders/entry".to_vec(),
                kind: b'x',
                mode: 0o644,
                size: records.len() as u64,
                ..Header::default()
            };
            written(self.out.write_all(&block(&meta)))?;
            written(self.out.write_all(&records))?;
            self.pad(records.len() as u64)?;
        }
        written(self.out.write_all(&block(header)))
    }

    /// A file's data: exactly as much as its header said.
    pub(super) fn data(&mut self, mut from: impl Read, size: u64) -> Result<()> {
        let mut left = size;
        loop {
            let length = from.read(&mut self.buffer).context(|| "read the file".to_owned())?;
            if length as u64 > left || (length == 0 && left > 0) {
                return Err(Error::precondition(
                    "the file changed its size while it was read: stop what writes to it, and try again",
                ));
            }
            if length == 0 {
                return self.pad(size);
            }
            written(self.out.write_all(&self.buffer[..length]))?;
            left -= length as u64;
        }
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest > 0 {
            written(self.out.write_all(&[0; BLOCK][rest..]))?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written> {
        written(self.out.write_all(&[0; 2 * BLOCK]))?;
        written(self.out.flush())?;
        let hashed = written(self.out.into_inner().map_err(io::IntoInnerError::into_error))?;
        let (_, diff_id, size) = hashed.finish();
        Ok(Written { diff_id, size })
    }
}

/// What the fields of a header hold at most: octal digits, but for the NUL.
const SMALL: u64 = 0o777_7777;
const LARGE: u64 = 0o777_7777_7777;

fn records(header: &Header) -> Vec<u8> {
    let mut all = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        let body = key.len() + value.len() + 3;
        // The length counts its own digits: one more digit can make it one longer, once.
        let mut length = body + body.to_string().len();
        length = body + length.to_string().len();
        all.extend_from_slice(format!("{length} ").as_bytes());
        all.extend_from_slice(key);
        all.push(b'=');
        all.extend_from_slice(value);
        all.push(b'\n');
    };
    if header.path.len() > 100 {
        add(b"path", &header.path);
    }
    if header.link.len() > 100 {
        add(b"linkpath", &header.link);
    }
    if header.size > LARGE {
        add(b"size", header.size.to_string().as_bytes());
    }
    if u64::from(header.uid) > SMALL {
        add(b"uid", header.uid.to_string().as_bytes());
    }
    if u64::from(header.gid) > SMALL {
        add(b"gid", header.gid.to_string().as_bytes());
    }
    if header.nanos > 0 || field(header.seconds).is_none() {
        add(b"mtime", decimal(header.seconds, header.nanos).as_bytes());
    }
    for (name, value) in &header.xattrs {
        add(&[b"SCHILY.xattr.", &**name].concat(), value);
    }
    all
}

/// Seconds before 1970 are counted down, their fraction too.
fn decimal(seconds: i64, nanos: u64) -> String {
    let (sign, whole, nanos) = match (seconds, nanos) {
        (0.., _) => ("", seconds.unsigned_abs(), nanos),
        (_, 0) => ("-", seconds.unsigned_abs(), 0),
        _ => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    match nanos {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{nanos:09}").trim_end_matches('0').to_owned(),
    }
}

fn field(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok().filter(|it| *it <= LARGE)
}

fn block(header: &Header) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, text: &[u8]| {
        let length = text.len().min(100);
        block[at..at + length].copy_from_slice(&text[..length]);
    };
    text(0, &header.path);
    text(157, &header.link);
    octal(&mut block[100..108], u64::from(header.mode));
    octal(&mut block[108..116], Some(u64::from(header.uid)).filter(|it| *it <= SMALL).unwrap_or(0));
    octal(&mut block[116..124], Some(u64::from(header.gid)).filter(|it| *it <= SMALL).unwrap_or(0));
    octal(&mut block[124..136], Some(header.size).filter(|it| *it <= LARGE).unwrap_or(0));
    octal(&mut block[136..148], field(header.seconds).unwrap_or(0));
    block[156] = header.kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], u64::from(header.device.0));
    octal(&mut block[337..345], u64::from(header.device.1));
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
    field[digits.len()] = 0;
}
