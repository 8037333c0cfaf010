//! criu restores processes into a time namespace, so that their clocks go on where they stopped.

use std::fs;

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::state::{ContainerDir, write_atomically};

/// Adds the namespace to the configuration that is kept for `exec`, if init is in one that is not ours: a process that is
/// executed beside it is to read the same clocks.
pub(super) fn note_namespace(dir: &ContainerDir, init: i32) -> Result<()> {
    let number = |path: String| fs::read_link(&path).ok();
    let (own, its) = (number("/proc/self/ns/time".into()), number(format!("/proc/{init}/ns/time")));
    if own == its {
        return Ok(());
    }
    let path = dir.path().join("config.json");
    let config: Value = serde_json::from_slice(&dir.config()?)
        .map_err(|error| Error::caused(Kind::System, format!("read {}", path.display()), error))?;
    let Some(config) = with_time_namespace(config) else { return Ok(()) };
    write_atomically(&path, config.to_string().as_bytes(), 0o600)
}

/// The configuration with a time namespace, or none if it has one.
fn with_time_namespace(mut config: Value) -> Option<Value> {
    let list = &mut config["linux"]["namespaces"];
    if list.is_null() {
        *list = json!([]);
    }
    let list = list.as_array_mut()?;
    if list.iter().any(|namespace| namespace["type"] == "time") {
        return None;
    }
    list.push(json!({"type": "time"}));
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_namespace_is_added_once() {
        let added = json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "time"}]}});
        assert_eq!(with_time_namespace(json!({"linux": {"namespaces": [{"type": "pid"}]}})), Some(added.clone()));
        assert_eq!(with_time_namespace(added), None);
        assert_eq!(with_time_namespace(json!({})), Some(json!({"linux": {"namespaces": [{"type": "time"}]}})));
    }
}
