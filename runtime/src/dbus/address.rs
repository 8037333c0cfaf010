//! Addresses of buses (D-Bus specification, "Server Addresses"): `unix:path=/run/user/7/bus,guid=…;tcp:…`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::UnixAddr;

/// A socket on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// On the file system.
    Path(PathBuf),
    /// In the abstract name space of the network namespace.
    Abstract(Vec<u8>),
}

impl Socket {
    /// The address for connect(2).
    pub(super) fn to_unix(&self) -> Result<UnixAddr, Errno> {
        match self {
            Self::Path(path) => UnixAddr::new(path),
            Self::Abstract(name) => UnixAddr::new_abstract(name),
        }
    }
}

impl std::fmt::Display for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// The sockets that a list of addresses names, in its order. Other transports are passed over.
pub fn parse(list: &str) -> Vec<Socket> {
    list.split(';').filter_map(one).collect()
}

fn one(address: &str) -> Option<Socket> {
    let pairs = address.strip_prefix("unix:")?;
    pairs.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", path) => Some(Socket::Path(PathBuf::from(OsString::from_vec(unescape(path)?)))),
        ("abstract", name) => Some(Socket::Abstract(unescape(name)?)),
        _ => None,
    })
}

/// Undoes `%41`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
        }
    }
    (!bytes.is_empty() && !bytes.contains(&0)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_sockets() {
        let path = |path: &str| Socket::Path(path.into());
        for (list, expected) in [
            ("unix:path=/run/user/7/bus", vec![path("/run/user/7/bus")]),
            ("unix:path=/a%20b,guid=12", vec![path("/a b")]),
            ("tcp:host=x,port=1;unix:guid=1,path=/b", vec![path("/b")]),
            ("unix:abstract=/tmp/x;unix:path=/y", vec![Socket::Abstract(b"/tmp/x".to_vec()), path("/y")]),
            ("unix:path=;unix:path=/a%0;unix:path=%00;unix:;;disabled:", vec![]),
        ] {
            assert_eq!(parse(list), expected, "{list}");
        }
    }
}
