//! What no other part of the plan looks at: the platform, and the names of the UTS namespace.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
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
