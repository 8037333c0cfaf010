//! `update`: other limits, and another restart policy, for containers that may be running.

use serde_json::{Map, Value, json};

use super::args::Update;
use super::flags::Resources;
use super::{output, request};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::{HostConfig, Status};
use crate::shim::Shim;
use crate::{events, truth};

/// Changes each of them, or none of it.
pub(super) async fn run(client: &Client, args: Update) -> Result<u8> {
    let policy = args.restart.as_deref().map(request::restart_policy).transpose()?;
    let resources = &args.resources;
    if policy.is_none() && said(resources).is_empty() {
        return Err(Error::usage("tarectl update needs something to change: tarectl update --help lists the flags"));
    }
    let policy = &policy;
    let change = async |name: &str| {
        let (lock, mut record) = truth::hold(client, name).await?;
        if let Some(policy) = policy {
            if record.host_config.auto_remove && policy.name != "no" {
                return Err(Error::conflict(format!(
                    "container {} is removed at its end (--rm), and cannot be restarted then",
                    record.name
                )));
            }
            record.host_config.restart_policy = policy.clone();
        }
        request::resources::apply(resources, &mut record.host_config)?;
        let limits = said(resources);
        if !limits.is_empty() && matches!(record.state.status, Status::Running | Status::Paused) {
            Shim::of(&record).await?.update(&oci(resources, &record.host_config)).await?;
        }
        lock.save(&record)?;
        events::container(&client.paths, "update", &record, &[]);
        output::line(name)
    };
    output::each(&args.containers, change).await
}

/// The names of what was said.
fn said(flags: &Resources) -> Vec<&'static str> {
    [
        ("--blkio-weight", flags.blkio_weight.is_some()),
        ("--cpu-period", flags.cpu_period.is_some()),
        ("--cpu-quota", flags.cpu_quota.is_some()),
        ("--cpu-shares", flags.cpu_shares.is_some()),
        ("--cpus", flags.cpus.is_some()),
        ("--cpuset-cpus", flags.cpuset_cpus.is_some()),
        ("--cpuset-mems", flags.cpuset_mems.is_some()),
        ("--memory", flags.memory.is_some()),
        ("--memory-reservation", flags.memory_reservation.is_some()),
        ("--memory-swap", flags.memory_swap.is_some()),
        ("--pids-limit", flags.pids_limit.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect()
}

/// What was said, as `linux.resources` of the runtime specification: what was not said stays as it is.
fn oci(flags: &Resources, host: &HostConfig) -> Value {
    let mut all = Map::new();
    let mut memory = Map::new();
    if flags.memory.is_some() || flags.memory_swap.is_some() {
        memory.insert("limit".to_owned(), if host.memory == 0 { json!(-1) } else { json!(host.memory) });
        if host.memory_swap != 0 {
            memory.insert("swap".to_owned(), host.memory_swap.into());
        }
    }
    if flags.memory_reservation.is_some() {
        memory.insert("reservation".to_owned(), host.memory_reservation.into());
    }
    let mut cpu = Map::new();
    if flags.cpus.is_some() {
        let quota = if host.nano_cpus == 0 { -1 } else { host.nano_cpus / 10_000 };
        cpu.insert("period".to_owned(), 100_000.into());
        cpu.insert("quota".to_owned(), quota.into());
    }
    let mut put = |given: bool, name: &str, value: Value| {
        if given {
            cpu.insert(name.to_owned(), value);
        }
    };
    put(flags.cpu_period.is_some(), "period", host.cpu_period.into());
    put(flags.cpu_quota.is_some(), "quota", host.cpu_quota.into());
    put(flags.cpu_shares.is_some(), "shares", host.cpu_shares.into());
    put(flags.cpuset_cpus.is_some(), "cpus", host.cpuset_cpus.clone().into());
    put(flags.cpuset_mems.is_some(), "mems", host.cpuset_mems.clone().into());
    for (name, part) in [("memory", memory), ("cpu", cpu)] {
        if !part.is_empty() {
            all.insert(name.to_owned(), part.into());
        }
    }
    if flags.pids_limit.is_some() {
        let limit = if host.pids_limit == 0 { -1 } else { host.pids_limit };
        all.insert("pids".to_owned(), json!({ "limit": limit }));
    }
    if flags.blkio_weight.is_some() {
        all.insert("blockIO".to_owned(), json!({ "weight": host.blkio_weight }));
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_changed() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Resources { memory: some("64m"), cpus: some("0.5"), pids_limit: Some(-1), ..Resources::default() };
        let mut host = HostConfig { cpuset_cpus: "0".to_owned(), ..HostConfig::default() };
        request::resources::apply(&flags, &mut host).unwrap();
        let expected = json!({
            "memory": {"limit": 64 << 20, "swap": 128 << 20},
            "cpu": {"period": 100_000, "quota": 50_000},
            "pids": {"limit": -1},
        });
        assert_eq!(oci(&flags, &host), expected);
        let flags = Resources { cpuset_cpus: some("0"), ..Resources::default() };
        assert_eq!(oci(&flags, &host), json!({"cpu": {"cpus": "0"}}));
    }
}
