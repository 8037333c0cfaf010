//! Archives byte by byte, right or wrong, for the tests.

use std::io::Write;

/// One header and its data. What is not said is 0, or as a plain file of root's.
#[derive(Clone, Default)]
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) device: (u64, u64),
    pub(crate) pax: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes to write over the header, before its sum is made.
    pub(crate) patches: Vec<(usize, Vec<u8>)>,
    /// Bytes to write over the sum.
    pub(crate) sum: Option<Vec<u8>>,
}

pub(crate) const MTIME: u64 = 1_600_000_000;

fn item(name: &str, kind: u8, mode: u64) -> Item {
    Item { name: name.into(), kind, mode, mtime: MTIME, ..Item::default() }
}

pub(crate) fn file(name: &str, data: &[u8]) -> Item {
    Item { data: data.to_vec(), ..item(name, b'0', 0o644) }
}

pub(crate) fn dir(name: &str) -> Item {
    item(name, b'5', 0o755)
}

pub(crate) fn symlink(name: &str, target: &str) -> Item {
    Item { link: target.into(), ..item(name, b'2', 0o777) }
}

pub(crate) fn hardlink(name: &str, target: &str) -> Item {
    Item { link: target.into(), ..item(name, b'1', 0o644) }
}

pub(crate) fn device(name: &str, kind: u8, major: u64, minor: u64) -> Item {
    Item { device: (major, minor), ..item(name, kind, 0o600) }
}

impl Item {
    pub(crate) fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    pub(crate) fn at(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.into(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: &[u8]) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    pub(crate) fn patch(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((at, bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn kind(self, kind: u8) -> Self {
        Self { kind, ..self }
    }

    /// Header, data and what fills the last block.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        if !self.pax.is_empty() {
            let records: Vec<u8> = self.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            all.extend(Item { data: records, ..item("pax", b'x', 0o644) }.bytes());
        }
        let mut block = [0u8; 512];
        block[..self.name.len().min(100)].copy_from_slice(&self.name[..self.name.len().min(100)]);
        block[157..157 + self.link.len().min(100)].copy_from_slice(&self.link[..self.link.len().min(100)]);
        octal(&mut block[100..108], self.mode);
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.data.len() as u64);
        octal(&mut block[136..148], self.mtime);
        block[156] = self.kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.device.0);
        octal(&mut block[337..345], self.device.1);
        for (at, bytes) in &self.patches {
            block[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..156], sum);
        if let Some(sum) = &self.sum {
            block[148..148 + sum.len()].copy_from_slice(sum);
        }
        all.extend(block);
        all.extend(&self.data);
        all.resize(all.len().next_multiple_of(512), 0);
        all
    }
}

pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let length = (1..=7).map(|digits| body + digits).find(|length| length.to_string().len() + body == *length).unwrap();
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}

/// Entries, and the end.
pub(crate) fn archive(items: &[Item]) -> Vec<u8> {
    let mut all: Vec<u8> = items.iter().flat_map(Item::bytes).collect();
    all.resize(all.len() + 1024, 0);
    all
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}
