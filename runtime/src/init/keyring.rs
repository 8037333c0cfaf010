//! The session keyring of the container: without one of its own, its processes could read the keys of whoever started it.

use std::ffi::CStr;

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::keyring::{describe, join_session, set_permissions};

/// `KEY_USR_SEARCH`: the user who owns the keyring may find keys in it. A process that joins the container later finds the
/// keyring by its name only with this.
const USER_SEARCH: u32 = 0x0008_0000;

/// Joins the session keyring `name`, which is made if it is not there.
pub fn join(name: &CStr) -> Result<()> {
    let key = match join_session(name) {
        Ok(key) => key,
        // A kernel without keyrings has no keys to hide.
        Err(Errno::ENOSYS) => return Ok(()),
        Err(errno) => {
            return Err(Error::sys(format!("join the session keyring {}", name.to_string_lossy()), errno)
                .hint("--no-new-keyring does without, and shares the caller's keys"));
        }
    };
    let mut text = [0; 256];
    let text = describe(key, &mut text).on("describe", "the session keyring")?;
    let Some(permissions) = permissions(text) else {
        return Err(Error::sys("read the permissions of the session keyring", Errno::EINVAL));
    };
    if permissions & USER_SEARCH != 0 {
        return Ok(());
    }
    match set_permissions(key, permissions | USER_SEARCH) {
        // It was there already, and is another user's of the container: joining it needs no more than has been done.
        Err(Errno::EACCES) => Ok(()),
        other => other.on("make searchable", "the session keyring"),
    }
}

/// The fourth field of `type;uid;gid;permissions;description`.
fn permissions(text: &[u8]) -> Option<u32> {
    let field = text.split(|&byte| byte == b';').nth(3)?;
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_fourth_field() {
        assert_eq!(permissions(b"keyring;0;0;3f130000;_ses.c1\0"), Some(0x3f13_0000));
        for wrong in [&b"keyring;0;0"[..], b"", b"keyring;0;0;xyz;a", b";;;\xff;"] {
            assert_eq!(permissions(wrong), None);
        }
    }
}
