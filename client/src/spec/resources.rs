//! Limits, for the cgroup.

use serde_json::{Map, Value, json};

use super::devices::Devices;
use crate::record::HostConfig;

/// The object `linux.resources`.
pub(super) fn resources(host: &HostConfig, devices: &Devices) -> Value {
    let mut all = Map::new();
    all.insert("devices".to_owned(), devices.rules.clone().into());
    let mut put = |name: &str, value: Map<String, Value>| {
        if !value.is_empty() {
            all.insert(name.to_owned(), value.into());
        }
    };
    put("memory", memory(host));
    put("cpu", cpu(host));
    if host.pids_limit > 0 {
        put("pids", object(&[("limit", host.pids_limit)]));
    }
    put("blockIO", object(&[("weight", i64::from(host.blkio_weight))]));
    all.into()
}

/// What was said; 0 is nothing.
fn object(fields: &[(&str, i64)]) -> Map<String, Value> {
    fields.iter().filter(|(_, value)| *value != 0).map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
}

fn memory(host: &HostConfig) -> Map<String, Value> {
    // Without a limit of swap (-1) nothing is said of it, as by docker.
    let mut memory =
        object(&[("limit", host.memory), ("reservation", host.memory_reservation), ("swap", host.memory_swap.max(0))]);
    if let Some(swappiness) = host.memory_swappiness.filter(|it| *it >= 0) {
        memory.insert("swappiness".to_owned(), swappiness.into());
    }
    if host.oom_kill_disable {
        memory.insert("disableOOMKiller".to_owned(), true.into());
    }
    memory
}

fn cpu(host: &HostConfig) -> Map<String, Value> {
    let (period, quota) =
        if host.nano_cpus > 0 { (100_000, host.nano_cpus / 10_000) } else { (host.cpu_period, host.cpu_quota) };
    let mut cpu = object(&[("shares", host.cpu_shares), ("period", period), ("quota", quota)]);
    for (name, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !list.is_empty() {
            cpu.insert(name.to_owned(), list.clone().into());
        }
    }
    cpu
}
