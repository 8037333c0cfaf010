//! `io.containerd.cgroups.v1.Metrics`.
//!
//! A part is there when its hierarchy is; the processors' and within memory all four entries are there always, as clients of
//! containerd expect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};
use tare_proto::MessageField;
use tare_proto::cgroups_v1::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat, Metrics,
    PidsStat, RdmaEntry, RdmaStat, Throttle,
};

use super::{Unlimited, huge_page_sizes, pairs, rdma, text};

const NANOSECONDS: u64 = 1_000_000_000;

pub(super) fn metrics(directories: &[(String, PathBuf)]) -> Metrics {
    let at = |controller: &str| {
        directories.iter().find(|(name, _)| name == controller).map(|(_, directory)| directory.as_path())
    };
    Metrics {
        hugetlb: at("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: at("pids").and_then(pids).into(),
        cpu: MessageField::some(CPUStat {
            usage: MessageField::some(at("cpuacct").map(usage).unwrap_or_default()),
            throttling: MessageField::some(at("cpu").map(throttling).unwrap_or_default()),
            ..Default::default()
        }),
        memory: at("memory").and_then(memory).into(),
        blkio: at("blkio").map(blkio).into(),
        rdma: at("rdma").and_then(rdma_stat).into(),
        memory_oom_control: at("memory").and_then(oom_control).into(),
        ..Default::default()
    }
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    super::number(directory, file, Unlimited::Zero)
}

fn hugetlb(directory: &Path) -> Vec<HugetlbStat> {
    let of_size = |pagesize: String| {
        let value = |name: &str| number(directory, &format!("hugetlb.{pagesize}.{name}"));
        Some(HugetlbStat {
            usage: value("usage_in_bytes")?,
            max: value("max_usage_in_bytes").unwrap_or_default(),
            failcnt: value("failcnt").unwrap_or_default(),
            pagesize,
            ..Default::default()
        })
    };
    huge_page_sizes().into_iter().filter_map(of_size).collect()
}

fn pids(directory: &Path) -> Option<PidsStat> {
    Some(PidsStat {
        current: number(directory, "pids.current")?,
        limit: number(directory, "pids.max").unwrap_or_default(),
        ..Default::default()
    })
}

fn usage(directory: &Path) -> CPUUsage {
    let mut usage = CPUUsage { total: number(directory, "cpuacct.usage").unwrap_or_default(), ..Default::default() };
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    for (name, value) in pairs(&text(directory, "cpuacct.stat").unwrap_or_default()) {
        let field = match name {
            "user" => &mut usage.user,
            "system" => &mut usage.kernel,
            _ => continue,
        };
        *field = value.saturating_mul(NANOSECONDS / ticks);
    }
    let per_cpu = text(directory, "cpuacct.usage_percpu").unwrap_or_default();
    usage.per_cpu = per_cpu.split_ascii_whitespace().filter_map(|value| value.parse().ok()).collect();
    usage
}

fn throttling(directory: &Path) -> Throttle {
    let mut throttle = Throttle::default();
    for (name, value) in pairs(&text(directory, "cpu.stat").unwrap_or_default()) {
        let field = match name {
            "nr_periods" => &mut throttle.periods,
            "nr_throttled" => &mut throttle.throttled_periods,
            "throttled_time" => &mut throttle.throttled_time,
            _ => continue,
        };
        *field = value;
    }
    throttle
}

fn memory(directory: &Path) -> Option<MemoryStat> {
    let mut memory = MemoryStat::default();
    for (name, value) in pairs(&text(directory, "memory.stat")?) {
        let field = match name {
            "cache" => &mut memory.cache,
            "rss" => &mut memory.rss,
            "rss_huge" => &mut memory.rss_huge,
            "mapped_file" => &mut memory.mapped_file,
            "dirty" => &mut memory.dirty,
            "writeback" => &mut memory.writeback,
            "pgpgin" => &mut memory.pg_pg_in,
            "pgpgout" => &mut memory.pg_pg_out,
            "pgfault" => &mut memory.pg_fault,
            "pgmajfault" => &mut memory.pg_maj_fault,
            "inactive_anon" => &mut memory.inactive_anon,
            "active_anon" => &mut memory.active_anon,
            "inactive_file" => &mut memory.inactive_file,
            "active_file" => &mut memory.active_file,
            "unevictable" => &mut memory.unevictable,
            "hierarchical_memory_limit" => &mut memory.hierarchical_memory_limit,
            "hierarchical_memsw_limit" => &mut memory.hierarchical_swap_limit,
            "total_cache" => &mut memory.total_cache,
            "total_rss" => &mut memory.total_rss,
            "total_rss_huge" => &mut memory.total_rss_huge,
            "total_mapped_file" => &mut memory.total_mapped_file,
            "total_dirty" => &mut memory.total_dirty,
            "total_writeback" => &mut memory.total_writeback,
            "total_pgpgin" => &mut memory.total_pg_pg_in,
            "total_pgpgout" => &mut memory.total_pg_pg_out,
            "total_pgfault" => &mut memory.total_pg_fault,
            "total_pgmajfault" => &mut memory.total_pg_maj_fault,
            "total_inactive_anon" => &mut memory.total_inactive_anon,
            "total_active_anon" => &mut memory.total_active_anon,
            "total_inactive_file" => &mut memory.total_inactive_file,
            "total_active_file" => &mut memory.total_active_file,
            "total_unevictable" => &mut memory.total_unevictable,
            _ => continue,
        };
        *field = value;
    }
    memory.usage = MessageField::some(memory_entry(directory, "memory"));
    memory.swap = MessageField::some(memory_entry(directory, "memory.memsw"));
    memory.kernel = MessageField::some(memory_entry(directory, "memory.kmem"));
    memory.kernel_tcp = MessageField::some(memory_entry(directory, "memory.kmem.tcp"));
    Some(memory)
}

fn memory_entry(directory: &Path, prefix: &str) -> MemoryEntry {
    let value = |name: &str| number(directory, &format!("{prefix}.{name}")).unwrap_or_default();
    MemoryEntry {
        limit: value("limit_in_bytes"),
        usage: value("usage_in_bytes"),
        max: value("max_usage_in_bytes"),
        failcnt: value("failcnt"),
        ..Default::default()
    }
}

fn oom_control(directory: &Path) -> Option<MemoryOomControl> {
    let mut control = MemoryOomControl::default();
    for (name, value) in pairs(&text(directory, "memory.oom_control")?) {
        let field = match name {
            "oom_kill_disable" => &mut control.oom_kill_disable,
            "under_oom" => &mut control.under_oom,
            "oom_kill" => &mut control.oom_kill,
            _ => continue,
        };
        *field = value;
    }
    Some(control)
}

fn blkio(directory: &Path) -> BlkIOStat {
    let mut devices = None;
    let mut table = |name: &str| blkio_table(directory, name, &mut devices);
    let of_scheduler = BlkIOStat {
        io_service_bytes_recursive: table("io_service_bytes_recursive"),
        io_serviced_recursive: table("io_serviced_recursive"),
        io_queued_recursive: table("io_queued_recursive"),
        io_service_time_recursive: table("io_service_time_recursive"),
        io_wait_time_recursive: table("io_wait_time_recursive"),
        io_merged_recursive: table("io_merged_recursive"),
        io_time_recursive: table("time_recursive"),
        sectors_recursive: table("sectors_recursive"),
        ..Default::default()
    };
    if of_scheduler != BlkIOStat::default() {
        return of_scheduler;
    }
    // Only one scheduler counts there; what any device does is counted where it could be throttled.
    BlkIOStat {
        io_service_bytes_recursive: table("throttle.io_service_bytes_recursive"),
        io_serviced_recursive: table("throttle.io_serviced_recursive"),
        ..Default::default()
    }
}

/// Lines of `8:0 Read 4096` or `8:0 4096`; the sum at the end is left out.
fn blkio_table(directory: &Path, name: &str, devices: &mut Option<HashMap<(u64, u64), String>>) -> Vec<BlkIOEntry> {
    let text = text(directory, &format!("blkio.{name}")).unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let (op, value) = match (fields.next()?, fields.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        let devices = devices.get_or_insert_with(block_devices);
        Some(BlkIOEntry {
            op: op.to_owned(),
            device: devices.get(&(major, minor)).cloned().unwrap_or_default(),
            major,
            minor,
            value: value.parse().ok()?,
            ..Default::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

/// The host's block devices by number: `(8, 0)` is `/dev/sda`.
fn block_devices() -> HashMap<(u64, u64), String> {
    let text = text(Path::new("/proc"), "partitions").unwrap_or_default();
    let device = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(((major, minor), format!("/dev/{}", fields.nth(1)?)))
    };
    text.lines().filter_map(device).collect()
}

fn rdma_stat(directory: &Path) -> Option<RdmaStat> {
    let entries = |file: &str| {
        let entry = |(device, hca_handles, hca_objects): (&str, u32, u32)| RdmaEntry {
            device: device.to_owned(),
            hca_handles,
            hca_objects,
            ..Default::default()
        };
        Some(rdma(&text(directory, file)?).map(entry).collect())
    };
    Some(RdmaStat { current: entries("rdma.current")?, limit: entries("rdma.max")?, ..Default::default() })
}
