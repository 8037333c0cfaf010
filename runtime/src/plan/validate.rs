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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(extra: Value) -> Spec {
        let mut config = json!({"ociVersion": "1.3.0"});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn a_configuration_is_for_linux_alone() {
        assert!(check(&spec(json!({}))).unwrap_err().to_string().starts_with("linux is missing"));
        assert_eq!(check(&spec(json!({"linux": {}}))), Ok(()));
        for (other, content) in [("solaris", json!({})), ("vm", json!({"kernel": {"path": "/k"}}))] {
            let error = check(&spec(json!({"linux": {}, other: content}))).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{other} is set")), "{error}");
        }
    }

    #[test]
    fn a_name_needs_its_namespace_and_fits() {
        let own = crate::plan::namespaces::lower(&spec(json!({"linux": {"namespaces": [{"type": "uts"}]}}))).unwrap();
        let name = |name: &str, namespaces: &Namespaces| uts_name(&Some(name.to_owned()), "hostname", namespaces);
        assert_eq!(name("a", &own), Ok(Some("a".to_owned())));
        assert_eq!(name("", &Namespaces::default()), Ok(None));
        assert!(name("a", &Namespaces::default()).unwrap_err().to_string().contains("no uts namespace"));
        assert!(name(&"x".repeat(64), &own).is_ok());
        for wrong in ["x".repeat(65), "a\0".to_owned()] {
            assert!(name(&wrong, &own).unwrap_err().to_string().contains("is longer than 64 bytes"), "{wrong:?}");
        }
    }
}
