//! The home directory of a user, from the container's own /etc/passwd.
//!
//! The file is the image's: it may be huge, endless, a fifo, or no file at all (CVE-2023-25153, CVE-2024-9676). It is read
//! line by line up to a limit, only if it is a regular file, and a line that is not exactly an entry is none.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

/// How much of the file is read: far more than any real one has.
const LIMIT: u64 = 4 << 20;
/// The longest line that is an entry.
const LINE: usize = 4096;

/// The home directory of user `uid`; `/` for a user who is not there, or has none.
pub fn of(uid: u32) -> CString {
    open().and_then(|file| find(BufReader::with_capacity(LINE, file.take(LIMIT)), uid)).unwrap_or_else(|| c"/".into())
}

fn open() -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(AT_FDCWD, "/etc/passwd", how).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

fn find(mut lines: impl BufRead, uid: u32) -> Option<CString> {
    let mut line = Vec::with_capacity(LINE);
    loop {
        line.clear();
        if (&mut lines).take(LINE as u64).read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if line.pop_if(|byte| *byte == b'\n').is_none() && line.len() == LINE {
            skip_line(&mut lines)?;
            continue;
        }
        if let Some(home) = entry(&line, uid) {
            return Some(home);
        }
    }
}

/// Passes over the rest of a line without keeping it.
fn skip_line(lines: &mut impl BufRead) -> Option<()> {
    lines.skip_until(b'\n').ok().map(drop)
}

/// `name:password:uid:gid:comment:home:shell` with our uid and an absolute home.
fn entry(line: &[u8], uid: u32) -> Option<CString> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    let [_, _, id, _, _, home, _] = fields[..] else { return None };
    if id.is_empty() || !id.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let id: u32 = std::str::from_utf8(id).ok()?.parse().ok()?;
    if id != uid || !home.starts_with(b"/") {
        return None;
    }
    CString::new(home).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(passwd: &[u8], uid: u32) -> Option<CString> {
        find(BufReader::with_capacity(16, passwd), uid)
    }

    #[test]
    fn an_entry_is_found_by_its_number_alone() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n1000:x:7:7::/seven:\nuser:x:1000:1000::/home/user:/bin/sh";
        assert_eq!(home(passwd, 0), Some(c"/root".into()));
        assert_eq!(home(passwd, 7), Some(c"/seven".into()));
        assert_eq!(home(passwd, 1000), Some(c"/home/user".into()));
        assert_eq!(home(passwd, 1), None);
    }

    #[test]
    fn what_is_not_exactly_an_entry_is_none() {
        for line in [
            &b"root:x:0:0:root:/root"[..],
            b"root:x:0:0:root:/root:/bin/sh:more",
            b"root:x:+0:0:root:/root:/bin/sh",
            b"root:x: 0:0:root:/root:/bin/sh",
            b"root:x::0:root:/root:/bin/sh",
            b"root:x:4294967296:0:root:/root:/bin/sh",
            b"root:x:0:0:root:root:/bin/sh",
            b"root:x:0:0:root::/bin/sh",
            b"",
            b"\n\n\n",
        ] {
            assert_eq!(home(line, 0), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_line_without_end_hides_nothing_and_costs_nothing() {
        let mut passwd = b"a:x:0:0::/evil:".to_vec();
        passwd.resize(100_000, b'a');
        passwd.extend_from_slice(b"\nroot:x:0:0::/root:/bin/sh\n");
        assert_eq!(home(&passwd, 0), Some(c"/root".into()));
        let exactly = [b"a:x:5:0::/".as_slice(), &[b'h'; LINE - 11], b":", b"\nb:x:6:0::/b:\n"].concat();
        assert_eq!(home(&exactly, 6), Some(c"/b".into()));
    }
}
