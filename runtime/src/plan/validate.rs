//! What no other part of the plan looks at: the platform, and the names of the UTS namespace.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::plan::mounts::{Access, Masks, Mount, RootfsPlan};
use crate::plan::namespaces::Namespaces;

/// Checks that the configuration is for this platform and says what a container cannot do without.
pub fn check(spec: &Spec) -> Result<()> {
    if spec.linux().is_none() {
        return Err(Error::invalid("linux is missing in the configuration: this runtime runs Linux containers"));
    }
    let foreign = [
        (spec.solaris().is_some(), "solaris"),
        (spec.windows().is_some(), "windows"),
        (spec.vm().is_some(), "vm"),
        (spec.zos().is_some(), "zos"),
    ];
    match foreign.into_iter().find(|(set, _)| *set) {
        Some((_, name)) => {
            Err(Error::invalid(format!("{name} is set in the configuration: this runtime runs Linux containers only")))
        }
        None => Ok(()),
    }
}

/// The longest host or domain name (__NEW_UTS_LEN, uname(2)).
const MAX_UTS_NAME: usize = 64;

/// A name of the UTS namespace: set only where there is a namespace to set it in.
pub fn uts_name(name: &Option<String>, field: &str, namespaces: &Namespaces) -> Result<Option<String>> {
    let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { return Ok(None) };
    if !namespaces.uts.is_private() {
        return Err(Error::invalid(format!("{field} is set, but linux.namespaces has no uts namespace")));
    }
    if name.len() > MAX_UTS_NAME || name.contains('\0') {
        return Err(Error::invalid(format!("{field} {name:?} is longer than {MAX_UTS_NAME} bytes or contains a NUL")));
    }
    Ok(Some(name.clone()))
}

/// Without a mount namespace of its own, what the container mounts, hides or closes would be mounted, hidden or closed on
/// the host.
pub fn without_mount_namespace(rootfs: &RootfsPlan, mounts: &[Mount], masks: &Masks) -> Result<()> {
    let what = match (mounts.first(), masks.masked.first(), masks.readonly.first()) {
        (Some(mount), ..) => format!("mounts has an entry for {}", mount.destination.display()),
        (None, Some(path), _) => format!("linux.maskedPaths names {}", path.display()),
        (None, None, Some(path)) => format!("linux.readonlyPaths names {}", path.display()),
        _ if rootfs.access == Access::ReadOnly => "root.readonly is true".to_owned(),
        _ if rootfs.propagation.is_some() => "linux.rootfsPropagation is set".to_owned(),
        (None, None, None) => return Ok(()),
    };
    Err(Error::invalid(format!("{what}, but linux.namespaces has no mount namespace")))
}
