//! `update`: other limits for a running container.
//!
//! Flags or a JSON document become `linux.resources`, and from there on it is what create does: checked, lowered, written.
//! Two values of version 2 are one in the specification (a quota with its period, memory with swap); the half that was not
//! given is the one in force, read from the cgroup.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::cgroup::Cgroup;
use crate::cli::{Global, UpdateArgs};
use crate::error::{Context, Error, Kind, Result};
use crate::parent::rdt;
use crate::plan;
use crate::plan::cgroup::forget_unset_pids;
use crate::state::{self, ContainerDir, Status};
use crate::strict_json;

/// A document of limits is a few hundred bytes.
const MAX_DOCUMENT: u64 = 1 << 20;

/// Runs the command.
pub fn run(global: &Global, args: &UpdateArgs) -> Result<()> {
    let resources = wanted(args)?;
    let schemas = plan::rdt::schemas(args.l3_cache_schema.as_deref(), args.mem_bw_schema.as_deref())?;
    let root = global.root();
    let dir = ContainerDir::open(&root, &args.id)?;
    let state = dir.load()?.ok_or_else(|| state::does_not_exist(&args.id))?;
    if state.status(&root)? == Status::Stopped {
        return Err(Error::new(Kind::State, format!("container not running: {:?} is stopped", args.id)));
    }
    let saved = match (&state.rdt, schemas.is_empty()) {
        (None, false) => {
            return Err(Error::invalid(format!(
                "container {:?} was created without linux.intelRdt, so its schema cannot be updated",
                args.id
            )));
        }
        (saved, _) => saved,
    };
    let cgroup = Cgroup::open(&state.cgroup)?;
    cgroup.apply(&complete(resources, &cgroup))?;
    match saved {
        Some(saved) => rdt::set(saved, &schemas.iter().map(String::as_str).collect::<Vec<_>>()),
        None => Ok(()),
    }
}

/// What the command line asks for; a document replaces the flags.
fn wanted(args: &UpdateArgs) -> Result<LinuxResources> {
    match &args.resources {
        Some(path) if path == Path::new("-") => parse(read(std::io::stdin(), "standard input")?, "standard input"),
        Some(path) => {
            let file = File::open(path).on("open", path.display())?;
            let name = path.display().to_string();
            parse(read(file, &name)?, &name)
        }
        None => Ok(from_flags(args)),
    }
}

fn read(source: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).on("read", name)?;
    match bytes.len() as u64 > MAX_DOCUMENT {
        true => Err(Error::invalid(format!("{name} is larger than {} KiB", MAX_DOCUMENT >> 10))),
        false => Ok(bytes),
    }
}

fn parse(bytes: Vec<u8>, name: &str) -> Result<LinuxResources> {
    let mut resources: LinuxResources = strict_json::from_slice(&bytes)
        .map_err(|error| Error::caused(Kind::Invalid, format!("{name} does not hold linux.resources"), error))?;
    forget_unset_pids(&mut resources, &bytes, "/pids");
    // Which devices a container may use is decided at its creation.
    resources.set_devices(None);
    Ok(resources)
}

fn from_flags(args: &UpdateArgs) -> LinuxResources {
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        crate::log::warn(format_args!("limits of kernel memory are ignored: kernels have none any more"));
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(args.memory).set_reservation(args.memory_reservation).set_swap(args.memory_swap);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(args.cpu_share)
        .set_quota(args.cpu_quota)
        .set_idle(args.cpu_idle)
        .set_burst(args.cpu_burst)
        .set_period(args.cpu_period)
        .set_realtime_runtime(args.cpu_rt_runtime)
        .set_realtime_period(args.cpu_rt_period)
        .set_cpus(args.cpuset_cpus.clone())
        .set_mems(args.cpuset_mems.clone());
    let mut io = LinuxBlockIo::default();
    io.set_weight(args.blkio_weight);
    let pids = args.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    });
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_block_io(Some(io)).set_pids(pids);
    resources
}

/// Fills in, on version 2 or with systemd, the half of a pair that was not given.
fn complete(mut resources: LinuxResources, cgroup: &Cgroup) -> LinuxResources {
    let has_unit = cgroup.unit().is_some();
    if !cgroup.is_unified() && !has_unit {
        return resources;
    }
    if let Some(cpu) = resources.cpu_mut() {
        let now = cgroup.quota_and_period();
        match now {
            // A change of any of them makes systemd write all, a quota as it keeps it: in whole percents.
            Some((quota, period)) if has_unit && touches_cpu(cpu) && asked(cpu.quota()).is_none() => {
                let period = asked(cpu.period()).unwrap_or(period);
                cpu.set_quota(Some(quota)).set_period(Some(period));
            }
            now => complete_cpu(cpu, now),
        }
    }
    if let Some(memory) = resources.memory_mut().as_mut().filter(|_| cgroup.is_unified()) {
        let (limit, swap) = cgroup.memory_and_swap_limits();
        complete_memory(memory, limit, swap);
    }
    resources
}

/// A number that asks for something: 0 asks for nothing.
fn asked<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn touches_cpu(cpu: &LinuxCpu) -> bool {
    asked(cpu.shares()).is_some() || asked(cpu.period()).is_some() || cpu.idle().is_some()
}

fn complete_cpu(cpu: &mut LinuxCpu, now: Option<(i64, u64)>) {
    let Some((quota, period)) = now else { return };
    match (asked(cpu.quota()), asked(cpu.period())) {
        (None, Some(_)) => drop(cpu.set_quota(Some(quota))),
        (Some(_), None) => drop(cpu.set_period(Some(period))),
        _ => {}
    }
}

/// `limit` and `swap` are those in force, in bytes, swap alone; `None` is no limit.
fn complete_memory(memory: &mut LinuxMemory, limit: Option<i64>, swap: Option<i64>) {
    match (asked(memory.limit()), asked(memory.swap()), limit, swap) {
        // The sum stays as it is, and the swap is what the new limit leaves of it.
        (Some(new), None, Some(limit), Some(swap)) if new > 0 => {
            let _ = memory.set_swap(Some(limit.saturating_add(swap)));
        }
        (None, Some(_), limit, _) => {
            let _ = memory.set_limit(Some(limit.unwrap_or(-1)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: UpdateArgs,
    }

    /// What this command line asks for, as JSON.
    fn asked_by(flags: &[&str]) -> Value {
        let Line { args } = Line::parse_from(["update"].iter().chain(flags).chain(&["id"]));
        serde_json::to_value(wanted(&args).unwrap()).unwrap()
    }

    #[test]
    fn each_flag_is_one_field_and_none_else() {
        let nothing = asked_by(&[]);
        for (flag, value, pointer, number) in [
            ("--blkio-weight", "300", "/blockIO/weight", json!(300)),
            ("--cpu-period", "50000", "/cpu/period", json!(50_000)),
            ("--cpu-quota", "-1", "/cpu/quota", json!(-1)),
            ("--cpu-burst", "7", "/cpu/burst", json!(7)),
            ("--cpu-share", "200", "/cpu/shares", json!(200)),
            ("--cpu-rt-period", "90000", "/cpu/realtimePeriod", json!(90_000)),
            ("--cpu-rt-runtime", "800", "/cpu/realtimeRuntime", json!(800)),
            ("--cpu-idle", "1", "/cpu/idle", json!(1)),
            ("--cpuset-cpus", "0-2", "/cpu/cpus", json!("0-2")),
            ("--cpuset-mems", "0", "/cpu/mems", json!("0")),
            ("--memory", "64m", "/memory/limit", json!(64 << 20)),
            ("--memory-reservation", "1k", "/memory/reservation", json!(1024)),
            ("--memory-swap", "-1", "/memory/swap", json!(-1)),
            ("--pids-limit", "9", "/pids/limit", json!(9)),
        ] {
            let mut expected = nothing.clone();
            let (object, field) = pointer[1..].split_once('/').unwrap();
            expected[object][field] = number;
            assert_eq!(asked_by(&[flag, value]), expected, "{flag}");
        }
        // Kernels have no such limits any more.
        assert_eq!(asked_by(&["--kernel-memory", "1", "--kernel-memory-tcp", "1"]), nothing);
    }

    #[test]
    fn a_half_that_was_not_given_is_the_one_in_force() {
        let cpu = |text: &str| -> LinuxCpu { serde_json::from_str(text).unwrap() };
        for (asked, now, expected) in [
            (r#"{"quota": 5000}"#, Some((-1, 20_000)), (Some(5000), Some(20_000))),
            (r#"{"period": 50000}"#, Some((7000, 20_000)), (Some(7000), Some(50_000))),
            (r#"{"period": 50000, "quota": 0}"#, Some((-1, 20_000)), (Some(-1), Some(50_000))),
            (r#"{"period": 50000, "quota": 6000}"#, Some((-1, 20_000)), (Some(6000), Some(50_000))),
            (r#"{"shares": 5}"#, Some((-1, 20_000)), (None, None)),
            (r#"{"quota": 5000}"#, None, (Some(5000), None)),
        ] {
            let mut cpu = cpu(asked);
            complete_cpu(&mut cpu, now);
            assert_eq!((cpu.quota(), cpu.period()), expected, "{asked}");
        }
        for (asked, limit, swap, expected) in [
            (r#"{"limit": 60}"#, Some(50), Some(50), (Some(60), Some(100))),
            (r#"{"limit": 60}"#, Some(50), None, (Some(60), None)),
            (r#"{"limit": -1}"#, Some(50), Some(50), (Some(-1), None)),
            (r#"{"swap": 90}"#, Some(50), Some(50), (Some(50), Some(90))),
            (r#"{"swap": 90}"#, None, Some(50), (Some(-1), Some(90))),
            (r#"{"limit": 60, "swap": 90}"#, Some(50), Some(50), (Some(60), Some(90))),
        ] {
            let mut memory: LinuxMemory = serde_json::from_str(asked).unwrap();
            complete_memory(&mut memory, limit, swap);
            assert_eq!((memory.limit(), memory.swap()), expected, "{asked}");
        }
    }

    #[test]
    fn a_document_is_limited_and_strict() {
        let resources =
            parse(br#"{"pids": {}, "memory": {"limit": 5}, "devices": [{"allow": true}]}"#.to_vec(), "x").unwrap();
        assert_eq!((resources.pids().is_none(), resources.devices().is_none()), (true, true));
        let error = parse(b"[".to_vec(), "x.json").unwrap_err().to_string();
        assert!(error.starts_with("x.json does not hold linux.resources"), "{error}");
        let error = read(std::io::repeat(b' '), "x.json").unwrap_err().to_string();
        assert_eq!(error, "x.json is larger than 1024 KiB");
    }
}
