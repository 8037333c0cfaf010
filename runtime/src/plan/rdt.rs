//! `linux.intelRdt`: a share of the caches and of the memory bandwidth (Intel RDT, AMD QoS), by the resctrl file system.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The share a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdtPlan {
    /// The container, after which what is its own is named.
    pub id: String,
    /// The group it belongs to.
    pub group: Group,
    /// Lines for the group's `schemata`, which an existing group of that name must have already.
    pub required: Vec<String>,
    /// Lines for the group's `schemata` that come after those and are written in any case.
    pub written: Vec<String>,
    /// Whether it gets a monitoring group of its own.
    pub monitoring: Monitoring,
}

/// A class of service: a directory of the resctrl file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// One for this container, named after it.
    Own,
    /// One with a name, shared by who names it.
    Named(String),
    /// The root of the file system.
    Default,
}

/// Whether a container is monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitoring {
    /// In a monitoring group named after it.
    Group,
    /// Not by us.
    None,
}

/// Where a container was put, kept in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRdt {
    /// The directory of its class.
    pub group: PathBuf,
    /// Whether it was not there before this container.
    pub made: bool,
    /// Whether it belongs to this container alone, and goes with it.
    pub own: bool,
    /// Its monitoring group.
    pub monitor: Option<PathBuf>,
}

/// Reads `linux.intelRdt`; `None` leaves resctrl alone.
pub fn lower(spec: &Spec, id: &str) -> Result<Option<RdtPlan>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else { return Ok(None) };
    let group = match rdt.clos_id().as_deref() {
        None | Some("") => Group::Own,
        Some("/") => Group::Default,
        Some(name) => {
            check_group(name)?;
            Group::Named(name.to_owned())
        }
    };
    let required = schemas(rdt.l3_cache_schema().as_deref(), rdt.mem_bw_schema().as_deref())?;
    let written = rdt.schemata().clone().unwrap_or_default();
    for (index, line) in written.iter().enumerate() {
        check_line(&format!("linux.intelRdt.schemata[{index}]"), line)?;
    }
    let monitoring = if rdt.enable_monitoring() == &Some(true) { Monitoring::Group } else { Monitoring::None };
    Ok(Some(RdtPlan { id: id.to_owned(), group, required, written, monitoring }))
}

/// The lines that `l3CacheSchema` and `memBwSchema` (of the configuration or of `update`) mean, in the order in which
/// they must be written.
pub fn schemas(l3_cache: Option<&str>, mem_bw: Option<&str>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if let Some(line) = l3_cache.filter(|line| !line.is_empty()) {
        check_line("linux.intelRdt.l3CacheSchema", line)?;
        lines.push(line.to_owned());
    }
    if let Some(line) = mem_bw.filter(|line| !line.is_empty()) {
        check_line("linux.intelRdt.memBwSchema", line)?;
        if !line.starts_with("MB:") {
            return Err(Error::invalid(format!("linux.intelRdt.memBwSchema {line:?} does not start with MB:")));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

/// A group is one directory: the name must neither leave the file system's root nor be one the kernel uses itself.
fn check_group(name: &str) -> Result<()> {
    let reserved = matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data");
    if reserved || name.len() > 255 || name.contains(['/', '\n', '\0']) {
        return Err(Error::invalid(format!("linux.intelRdt.closID {name:?} is not the name of a class of service")));
    }
    Ok(())
}

fn check_line(field: &str, line: &str) -> Result<()> {
    match line.split_once(':') {
        _ if line.contains('\n') => Err(Error::invalid(format!("{field} {line:?} contains a newline"))),
        Some((resource, domains)) if !resource.is_empty() && !domains.is_empty() => Ok(()),
        _ => Err(Error::invalid(format!("{field} {line:?} is not a schema such as L3:0=ff;1=ff"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rdt: &str) -> Result<Option<RdtPlan>> {
        let config = format!(r#"{{"ociVersion": "1.3.0", "linux": {{"intelRdt": {rdt}}}}}"#);
        lower(&serde_json::from_str(&config).unwrap(), "c1")
    }

    #[test]
    fn shares_are_read() {
        let own = RdtPlan {
            id: "c1".to_owned(),
            group: Group::Own,
            required: vec![],
            written: vec![],
            monitoring: Monitoring::None,
        };
        let lines = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (rdt, expected) in [
            ("{}", own.clone()),
            (r#"{"closID": "/"}"#, RdtPlan { group: Group::Default, ..own.clone() }),
            (
                r#"{"closID": "g", "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f", "schemata": ["L2:0=1"],
                    "enableMonitoring": true}"#,
                RdtPlan {
                    id: "c1".to_owned(),
                    group: Group::Named("g".to_owned()),
                    required: lines(&["L3:0=f", "MB:0=20"]),
                    written: lines(&["L2:0=1"]),
                    monitoring: Monitoring::Group,
                },
            ),
        ] {
            assert_eq!(read(rdt), Ok(Some(expected)), "{rdt}");
        }
        assert_eq!(lower(&serde_json::from_str(r#"{"ociVersion": "1.3.0"}"#).unwrap(), "c1"), Ok(None));
    }

    #[test]
    fn wrong_shares_are_named() {
        let id = |name: &str| format!("linux.intelRdt.closID {name:?} is not the name of a class of service");
        for (rdt, expected) in [
            (r#"{"closID": ".."}"#, id("..")),
            (r#"{"closID": "a/b"}"#, id("a/b")),
            (r#"{"closID": "info"}"#, id("info")),
            (
                r#"{"l3CacheSchema": "L3:0=f\nMB:0=1"}"#,
                "linux.intelRdt.l3CacheSchema \"L3:0=f\\nMB:0=1\" contains a newline".into(),
            ),
            (
                r#"{"l3CacheSchema": "x"}"#,
                "linux.intelRdt.l3CacheSchema \"x\" is not a schema such as L3:0=ff;1=ff".into(),
            ),
            (
                r#"{"memBwSchema": "MB:0=20\nL3:0=1"}"#,
                "linux.intelRdt.memBwSchema \"MB:0=20\\nL3:0=1\" contains a newline".into(),
            ),
            (r#"{"memBwSchema": "L3:0=f"}"#, "linux.intelRdt.memBwSchema \"L3:0=f\" does not start with MB:".into()),
            (
                r#"{"schemata": ["L3:0=f", ""]}"#,
                "linux.intelRdt.schemata[1] \"\" is not a schema such as L3:0=ff;1=ff".into(),
            ),
        ] {
            assert_eq!(read(rdt).unwrap_err().to_string(), expected, "{rdt}");
        }
    }
}
