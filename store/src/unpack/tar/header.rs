//! One header block: 512 bytes of fields at fixed places (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's manual, "Standard").
//!
//! ```text
//! 0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 sum 8 | 156 type | 157 link 100
//! 257 magic 8 | 265 uname 32 | 297 gname 32 | 329 major 8 | 337 minor 8 | 345 prefix 155 (ustar), sparse map at 386 (GNU)
//! ```

use std::ops::Range;

/// The unit everything in an archive is padded to.
pub const BLOCK: usize = 512;

/// Which fields a header has beyond those of 1979.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// None.
    V7,
    /// A prefix of the name, device numbers.
    Ustar,
    /// As ustar, with a shorter prefix and times behind it.
    Star,
    /// Device numbers, times and a sparse map where ustar has the prefix.
    Gnu,
}

/// A block that is a header.
pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// The sum holds: of unsigned bytes, or of signed ones as some old programs had it.
    pub(super) fn is_sound(&self) -> bool {
        let Some(stated) = octal(&self.0[148..156]) else { return false };
        let blank = 8 * u32::from(b' ');
        let outside = || self.0[..148].iter().chain(&self.0[156..]);
        let unsigned: u32 = outside().map(|&byte| u32::from(byte)).sum::<u32>() + blank;
        let signed: i32 = outside().map(|&byte| i32::from(byte.cast_signed())).sum::<i32>() + blank.cast_signed();
        stated == u64::from(unsigned) || i64::try_from(stated) == Ok(i64::from(signed))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if self.0[508..] == *b"tar\0" => Dialect::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The text of a field, to its first NUL.
    pub(super) fn text(&self, field: Range<usize>) -> &[u8] {
        until_nul(&self.0[field])
    }

    /// The number in a field: octal, or base 256 with a sign.
    pub(super) fn number(&self, field: Range<usize>) -> Option<i64> {
        number(&self.0[field])
    }

    /// Prefix and name, put together.
    pub(super) fn name(&self, into: &mut Vec<u8>) {
        into.clear();
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(345..500),
            Dialect::Star => self.text(345..476),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if !prefix.is_empty() {
            into.extend_from_slice(prefix);
            into.push(b'/');
        }
        into.extend_from_slice(self.text(0..100));
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|&byte| byte == 0).map_or(bytes, |end| &bytes[..end])
}

/// Digits between blanks and NULs; none at all are 0, as everybody reads it.
fn octal(field: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
    if field[start + digits.len()..].iter().any(|byte| !blank(byte)) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return i64::try_from(octal(field)?).ok();
    }
    // Two's complement over all bits but the mark; twelve bytes fit an i128.
    let sign: i128 = if first & 0x40 == 0 { 0 } else { -1 };
    let low = i128::from(first & 0x3f);
    let value = field[1..]
        .iter()
        .fold(if sign == 0 { low } else { (sign << 6) | low }, |value, &byte| (value << 8) | i128::from(byte));
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"77777777", Some(0o77_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\x20\0\0", Some(1 << 21)),
            (b"\x80\0\0\0\xff\xff\xff\xfe", Some(0xffff_fffe)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"064 4\0\0\0", None),
            (b"64\x004\0\0\0\0", None),
            (b"0x1f\0\0\0\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
