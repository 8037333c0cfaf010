//! What resctrl tells of a container's class, in the JSON of runc's `events`.

use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Context, Result};
use crate::plan::rdt::SavedRdt;

/// The class of a container: what is not there is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rdt {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct L3CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct MemBwInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// Bytes moved, for one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Bytes of cache held, for one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

/// Reads the class of a container; without one there is nothing to tell.
pub(super) fn read(saved: Option<&SavedRdt>) -> Result<Rdt> {
    let Some(saved) = saved else { return Ok(Rdt::default()) };
    // A container without a class of its own is in that of the root.
    let inside = text(&saved.group.join("info/last_cmd_status"))?.is_some();
    let root = if inside { saved.group.as_path() } else { saved.group.parent().unwrap_or(&saved.group) };
    let lines = |path: &Path| -> Result<Vec<String>> {
        Ok(text(&path.join("schemata"))?.unwrap_or_default().lines().map(|line| line.trim().to_owned()).collect())
    };
    let (own, top) = (lines(&saved.group)?, lines(root)?);
    let find = |lines: &[String], prefix: &str| {
        lines.iter().find(|line| line.starts_with(prefix)).cloned().unwrap_or_default()
    };
    let mut rdt = Rdt { schemata: own.clone(), ..Rdt::default() };
    if let Some(mask) = text(&root.join("info/L3/cbm_mask"))? {
        let number = |name| number(&root.join("info/L3").join(name));
        let (min_cbm_bits, num_closids) = (number("min_cbm_bits")?, number("num_closids")?);
        rdt.l3_cache_info = Some(L3CacheInfo { cbm_mask: mask.trim().to_owned(), min_cbm_bits, num_closids });
        rdt.l3_cache_schema_root = find(&top, "L3");
        rdt.l3_cache_schema = find(&own, "L3");
    }
    if text(&root.join("info/MB/min_bandwidth"))?.is_some() {
        let number = |name| number(&root.join("info/MB").join(name));
        rdt.mem_bw_info = Some(MemBwInfo {
            bandwidth_gran: number("bandwidth_gran")?,
            delay_linear: number("delay_linear")?,
            min_bandwidth: number("min_bandwidth")?,
            num_closids: number("num_closids")?,
        });
        rdt.mem_bw_schema_root = find(&top, "MB");
        rdt.mem_bw_schema = find(&own, "MB");
    }
    let features = text(&root.join("info/L3_MON/mon_features"))?.unwrap_or_default();
    monitor(saved.monitor.as_deref().unwrap_or(&saved.group), &features, &mut rdt)?;
    Ok(rdt)
}

/// One entry a node, in the order of their numbers.
fn monitor(group: &Path, features: &str, rdt: &mut Rdt) -> Result<()> {
    let has = |name: &str| features.lines().any(|line| line == name);
    let entries = std::fs::read_dir(group.join("mon_data")).into_iter().flatten().flatten();
    let mut nodes: Vec<_> = entries.map(|entry| entry.path()).collect();
    nodes.sort();
    if has("mbm_total_bytes") || has("mbm_local_bytes") {
        let bandwidth = nodes.iter().map(|node| {
            let (total, local) = (number(&node.join("mbm_total_bytes"))?, number(&node.join("mbm_local_bytes"))?);
            Ok(Bandwidth { mbm_total_bytes: total, mbm_local_bytes: local })
        });
        rdt.mbm_stats = Some(bandwidth.collect::<Result<_>>()?);
    }
    if has("llc_occupancy") {
        let occupancy = nodes.iter().map(|node| Ok(Occupancy { llc_occupancy: number(&node.join("llc_occupancy"))? }));
        rdt.cmt_stats = Some(occupancy.collect::<Result<_>>()?);
    }
    Ok(())
}

fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        text => text.map(Some).on("read", path.display()),
    }
}

/// The number in a file; what is not there, or has no value now, is 0.
fn number(path: &Path) -> Result<u64> {
    Ok(text(path)?.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_told_from_its_files() {
        #[allow(clippy::disallowed_methods, reason = "a test keeps no state there")]
        let root = std::env::temp_dir().join(format!("tare-unit-rdt-{}", std::process::id()));
        for (file, content) in [
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "fff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("schemata", "    L3:0=fff\n"),
            ("c1/schemata", "    L3:0=00f\n"),
            ("c1/mon_data/mon_L3_00/llc_occupancy", "17\n"),
            ("c1/mon_data/mon_L3_00/mbm_total_bytes", "Unavailable\n"),
            ("c1/mon_data/mon_L3_00/mbm_local_bytes", "5\n"),
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let saved = SavedRdt { group: root.join("c1"), made: true, own: true, monitor: None };
        let json = serde_json::to_value(read(Some(&saved)).unwrap()).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "l3_cache_info": {"cbm_mask": "fff", "min_cbm_bits": 1, "num_closids": 16},
                "l3_cache_schema_root": "L3:0=fff",
                "l3_cache_schema": "L3:0=00f",
                "schemata": ["L3:0=00f"],
                "mbm_stats": [{"mbm_total_bytes": 0, "mbm_local_bytes": 5}],
                "cmt_stats": [{"llc_occupancy": 17}]
            })
        );
        assert_eq!(serde_json::to_string(&read(None).unwrap()).unwrap(), "{}");
    }
}
