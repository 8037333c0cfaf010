//! The compiled filter as bytes, so that exec need not compile again: the form stands in the module above.
//!
//! Reading is strict: what is not exactly such a form is an error.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use seccompiler::sock_filter;

use super::program::MAX_LENGTH;
use super::{LOG, NEW_LISTENER, Notify, SPEC_ALLOW, Seccomp, WAIT_KILLABLE_RECV};
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"tare-sc1";
/// The longest path or metadata that is believed: more than any configuration may hold.
const MAX_TEXT: usize = 16 << 20;

impl Seccomp {
    /// The filter as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 8 * self.program.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.push(self.notify.is_some().into());
        if let Some(notify) = &self.notify {
            for text in [notify.listener_path.as_os_str().as_bytes(), notify.metadata.as_bytes()] {
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text);
            }
        }
        bytes.extend_from_slice(&(self.program.len() as u32).to_le_bytes());
        for instruction in &self.program {
            bytes.extend_from_slice(&instruction.code.to_le_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_le_bytes());
        }
        bytes
    }

    /// The filter that [`Seccomp::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        read(bytes)
            .ok_or_else(|| Error::invalid("the saved seccomp filter is damaged, or was saved by another version"))
    }
}

fn read(mut rest: &[u8]) -> Option<Seccomp> {
    let rest = &mut rest;
    if take(rest, MAGIC.len())? != MAGIC {
        return None;
    }
    let flags = number(rest)?;
    let notify = match take(rest, 1)? {
        [0] => None,
        [1] => Some(Notify {
            listener_path: PathBuf::from(OsString::from_vec(text(rest)?)),
            metadata: String::from_utf8(text(rest)?).ok()?,
        }),
        _ => return None,
    };
    let known = LOG | SPEC_ALLOW | NEW_LISTENER | WAIT_KILLABLE_RECV;
    if flags & !known != 0 || (flags & NEW_LISTENER != 0) != notify.is_some() {
        return None;
    }
    let length = usize::try_from(number(rest)?).ok()?;
    if !(1..=MAX_LENGTH).contains(&length) || rest.len() != 8 * length {
        return None;
    }
    let program = rest
        .chunks_exact(8)
        .map(|chunk| sock_filter {
            code: u16::from_le_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect();
    Some(Seccomp { program, flags, notify })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(number(rest)?).ok().filter(|&length| length <= MAX_TEXT)?;
    Some(take(rest, length)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(notify: Option<Notify>) -> Seccomp {
        let flags = SPEC_ALLOW | if notify.is_some() { NEW_LISTENER } else { 0 };
        let program = vec![sock_filter { code: 0x20, jt: 0, jf: 0, k: 4 }, sock_filter { code: 6, jt: 0, jf: 0, k: 1 }];
        Seccomp { program, flags, notify }
    }

    #[test]
    fn what_was_written_is_read() {
        let notify = Notify { listener_path: "/run/agent.sock".into(), metadata: "m".into() };
        for filter in [filter(None), filter(Some(notify))] {
            assert_eq!(Seccomp::from_bytes(&filter.to_bytes()).unwrap(), filter);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let notify = Notify { listener_path: "/a".into(), metadata: "m".into() };
        let good = filter(Some(notify)).to_bytes();
        for length in 0..good.len() {
            assert!(Seccomp::from_bytes(&good[..length]).is_err(), "cut to {length} bytes");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(Seccomp::from_bytes(&longer).is_err(), "a byte too many");
        for (at, value) in [(0, b'T'), (8, 0xff), (12, 0), (12, 2), (13, 0xff)] {
            let mut changed = good.clone();
            changed[at] = value;
            assert!(Seccomp::from_bytes(&changed).is_err(), "byte {at} set to {value}");
        }
        let empty = Seccomp { program: Vec::new(), ..filter(None) };
        assert!(Seccomp::from_bytes(&empty.to_bytes()).is_err(), "no instruction");
    }
}
