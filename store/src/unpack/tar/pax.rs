//! Extended headers: records `length key=value\n` before the entry they are for (POSIX.1-2017, pax, "pax Extended Header").
//!
//! A record's length is taken at its word and nothing else: it has to end where it says, in a line feed. What a record says of the size
//! is THE size, for the reader and for whoever is told (CVE-2025-62518, CVE-2026-33055: two sizes for one entry
//! let an archive within a file be read as entries).

use super::sparse::Claims;
use super::{Time, corrupt};
use crate::error::Result;

/// What the records of one entry say; `None` leaves it to the header.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Claims,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Takes the records of one extended header; a later one overrides, an empty value takes back.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (key, value, rest) = split(bytes)?;
            self.take(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            return self.take_xattr(name, value);
        }
        match key {
            b"path" => self.path = text("path", value)?,
            b"linkpath" => self.link = text("linkpath", value)?,
            b"size" => self.size = number("size", value)?,
            b"uid" => self.uid = number("uid", value)?,
            b"gid" => self.gid = number("gid", value)?,
            b"mtime" => self.mtime = time("mtime", value)?,
            b"atime" => self.atime = time("atime", value)?,
            _ => {
                // The rest is read past, as the standard wants: comments, names of owners, times of no use.
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err(corrupt("an extended attribute whose name is empty, has a NUL or more than 255 bytes"));
        }
        if value.len() > 65_536 {
            return Err(corrupt(format!(
                "extended attribute {:?} of {} bytes; Linux has at most 65536",
                String::from_utf8_lossy(name),
                value.len()
            )));
        }
        self.xattrs.retain(|(it, _)| it != name);
        self.xattrs.push((name.to_owned(), value.to_owned()));
        Ok(())
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let broken = || corrupt("an extended header with a record that does not end where its length says");
    // Twenty digits are more than any length has.
    let blank = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or_else(broken)?;
    let length = decimal(&bytes[..blank]).and_then(|it| usize::try_from(it).ok()).ok_or_else(broken)?;
    if length <= blank + 1 || length > bytes.len() {
        return Err(broken());
    }
    let (record, rest) = bytes.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
    match record.iter().position(|&byte| byte == b'=') {
        Some(equals) if equals > 0 => Ok((&record[..equals], &record[equals + 1..], rest)),
        _ => Err(corrupt("an extended header with a record without a key")),
    }
}

/// Digits alone: no sign, no blank.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn text(key: &str, value: &[u8]) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(corrupt(format!("an extended header whose {key} has a NUL")));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

fn number(key: &str, value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() {
        return Ok(None);
    }
    match decimal(value) {
        Some(number) => Ok(Some(number)),
        None => Err(corrupt(format!(
            "an extended header whose {key} is {:?}, which is no count",
            String::from_utf8_lossy(value)
        ))),
    }
}

fn time(key: &str, value: &[u8]) -> Result<Option<Time>> {
    if value.is_empty() {
        return Ok(None);
    }
    match seconds(value) {
        Some(time) => Ok(Some(time)),
        None => Err(corrupt(format!(
            "an extended header whose {key} is {:?}, which is no time",
            String::from_utf8_lossy(value)
        ))),
    }
}

/// `[-]seconds[.fraction]`; what is finer than a nanosecond is cut.
fn seconds(value: &[u8]) -> Option<Time> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match value.iter().position(|&byte| byte == b'.') {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let whole = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos =
        (0..9).fold(0u32, |nanos, place| nanos * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanos) {
        (false, _) => Time { seconds: whole, nanos },
        (true, 0) => Time { seconds: -whole, nanos },
        (true, _) => Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_they_say() {
        let mut records = Records::default();
        records.read(b"12 path=a/b\n12 path=c/d\n30 mtime=1350244992.023960108\n13 uid=70000\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"c/d"[..]));
        assert_eq!(records.mtime, Some(Time { seconds: 1_350_244_992, nanos: 23_960_108 }));
        assert_eq!(records.uid, Some(70_000));
        records.read(b"8 path=\n").unwrap();
        assert_eq!(records.path, None);
        for wrong in [
            &b"12 path=a/bc"[..],
            b"11 path=a/b\n",
            b"13 path=a/b\n",
            b"3 \n",
            b"2 ",
            b"0 path=a\n",
            b"-1 path=a\n",
            b"+9 path=a\n",
            b"path=a\n",
            b"99999999999999999999 path=a\n",
            b"18446744073709551615 path=a\n",
            b"7 path\n",
            b"5 =a\n",
            b"11 path=a\0b\n",
            b"11 size=-12\n",
            b"10 size=0x\n",
            b"31 size=99999999999999999999999\n",
            b"12 mtime=1e9\n",
            b"12 mtime=1.x\n",
        ] {
            let error = Records::default().read(wrong).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::DataLoss, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn times_have_nine_places_and_a_sign() {
        for (text, seconds_, nanos) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("-3", -3, 0),
            ("2.1234567899", 2, 123_456_789),
            ("7.", 7, 0),
        ] {
            assert_eq!(seconds(text.as_bytes()), Some(Time { seconds: seconds_, nanos }), "{text}");
        }
    }
}
