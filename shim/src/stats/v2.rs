//! `io.containerd.cgroups.v2.Metrics`.
//!
//! Processes, processors, memory, devices and rdma are there always, as clients of containerd expect; where nothing counts
//! them, they are zero. What there may be more of (pressure, huge pages, events of memory) is there when the kernel says it.

use std::path::Path;

use tare_proto::MessageField;
use tare_proto::cgroups_v2::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat, RdmaEntry,
    RdmaStat,
};

use super::{Unlimited, huge_page_sizes, pairs, rdma, text};

pub(super) fn metrics(directory: &Path) -> Metrics {
    Metrics {
        pids: MessageField::some(PidsStat {
            current: number(directory, "pids.current").unwrap_or_default(),
            limit: number(directory, "pids.max").unwrap_or_default(),
            ..Default::default()
        }),
        cpu: MessageField::some(cpu(directory)),
        memory: MessageField::some(memory(directory)),
        rdma: MessageField::some(RdmaStat {
            current: rdma_entries(directory, "rdma.current"),
            limit: rdma_entries(directory, "rdma.max"),
            ..Default::default()
        }),
        io: MessageField::some(IOStat {
            usage: io_entries(directory),
            psi: pressure(directory, "io.pressure"),
            ..Default::default()
        }),
        hugetlb: hugetlb(directory),
        memory_events: memory_events(directory).into(),
        ..Default::default()
    }
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    super::number(directory, file, Unlimited::Largest)
}

fn cpu(directory: &Path) -> CPUStat {
    let mut cpu = CPUStat { psi: pressure(directory, "cpu.pressure"), ..Default::default() };
    for (name, value) in pairs(&text(directory, "cpu.stat").unwrap_or_default()) {
        let field = match name {
            "usage_usec" => &mut cpu.usage_usec,
            "user_usec" => &mut cpu.user_usec,
            "system_usec" => &mut cpu.system_usec,
            "nr_periods" => &mut cpu.nr_periods,
            "nr_throttled" => &mut cpu.nr_throttled,
            "throttled_usec" => &mut cpu.throttled_usec,
            "nr_bursts" => &mut cpu.nr_bursts,
            "burst_usec" => &mut cpu.burst_usec,
            _ => continue,
        };
        *field = value;
    }
    cpu
}

fn memory(directory: &Path) -> MemoryStat {
    let value = |file: &str| number(directory, file).unwrap_or_default();
    let mut memory = MemoryStat {
        usage: value("memory.current"),
        usage_limit: value("memory.max"),
        max_usage: value("memory.peak"),
        swap_usage: value("memory.swap.current"),
        swap_limit: value("memory.swap.max"),
        swap_max_usage: value("memory.swap.peak"),
        psi: pressure(directory, "memory.pressure"),
        ..Default::default()
    };
    for (name, value) in pairs(&text(directory, "memory.stat").unwrap_or_default()) {
        let field = match name {
            "anon" => &mut memory.anon,
            "file" => &mut memory.file,
            "kernel_stack" => &mut memory.kernel_stack,
            "slab" => &mut memory.slab,
            "sock" => &mut memory.sock,
            "shmem" => &mut memory.shmem,
            "file_mapped" => &mut memory.file_mapped,
            "file_dirty" => &mut memory.file_dirty,
            "file_writeback" => &mut memory.file_writeback,
            "anon_thp" => &mut memory.anon_thp,
            "inactive_anon" => &mut memory.inactive_anon,
            "active_anon" => &mut memory.active_anon,
            "inactive_file" => &mut memory.inactive_file,
            "active_file" => &mut memory.active_file,
            "unevictable" => &mut memory.unevictable,
            "slab_reclaimable" => &mut memory.slab_reclaimable,
            "slab_unreclaimable" => &mut memory.slab_unreclaimable,
            "pgfault" => &mut memory.pgfault,
            "pgmajfault" => &mut memory.pgmajfault,
            "workingset_refault" => &mut memory.workingset_refault,
            "workingset_activate" => &mut memory.workingset_activate,
            "workingset_nodereclaim" => &mut memory.workingset_nodereclaim,
            "workingset_refault_anon" => &mut memory.workingset_refault_anon,
            "workingset_refault_file" => &mut memory.workingset_refault_file,
            "workingset_activate_anon" => &mut memory.workingset_activate_anon,
            "workingset_activate_file" => &mut memory.workingset_activate_file,
            "pgrefill" => &mut memory.pgrefill,
            "pgscan" => &mut memory.pgscan,
            "pgsteal" => &mut memory.pgsteal,
            "pgactivate" => &mut memory.pgactivate,
            "pgdeactivate" => &mut memory.pgdeactivate,
            "pglazyfree" => &mut memory.pglazyfree,
            "pglazyfreed" => &mut memory.pglazyfreed,
            "thp_fault_alloc" => &mut memory.thp_fault_alloc,
            "thp_collapse_alloc" => &mut memory.thp_collapse_alloc,
            _ => continue,
        };
        *field = value;
    }
    memory
}

fn memory_events(directory: &Path) -> Option<MemoryEvents> {
    let mut events = MemoryEvents::default();
    for (name, value) in pairs(&text(directory, "memory.events")?) {
        let field = match name {
            "low" => &mut events.low,
            "high" => &mut events.high,
            "max" => &mut events.max,
            "oom" => &mut events.oom,
            "oom_kill" => &mut events.oom_kill,
            "oom_group_kill" => &mut events.oom_group_kill,
            _ => continue,
        };
        *field = value;
    }
    Some(events)
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(directory: &Path, file: &str) -> MessageField<PSIStats> {
    let Some(text) = text(directory, file) else { return MessageField::none() };
    let mut stats = PSIStats::default();
    for line in text.lines() {
        let (whose, values) = line.split_once(' ').unwrap_or((line, ""));
        let mut data = PSIData::default();
        for (name, value) in values.split_ascii_whitespace().filter_map(|field| field.split_once('=')) {
            match name {
                "avg10" => data.avg10 = value.parse().unwrap_or_default(),
                "avg60" => data.avg60 = value.parse().unwrap_or_default(),
                "avg300" => data.avg300 = value.parse().unwrap_or_default(),
                "total" => data.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        match whose {
            "some" => stats.some = MessageField::some(data),
            "full" => stats.full = MessageField::some(data),
            _ => {}
        }
    }
    MessageField::some(stats)
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`; a device alone in its line has done nothing.
fn io_entries(directory: &Path) -> Vec<IOEntry> {
    let text = text(directory, "io.stat").unwrap_or_default();
    let entry = |line: &str| {
        let (device, values) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let mut entry = IOEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Default::default() };
        for (name, value) in values.split_ascii_whitespace().filter_map(|field| field.split_once('=')) {
            let field = match name {
                "rbytes" => &mut entry.rbytes,
                "wbytes" => &mut entry.wbytes,
                "rios" => &mut entry.rios,
                "wios" => &mut entry.wios,
                _ => continue,
            };
            *field = value.parse().unwrap_or_default();
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

fn rdma_entries(directory: &Path, file: &str) -> Vec<RdmaEntry> {
    let entry = |(device, hca_handles, hca_objects): (&str, u32, u32)| RdmaEntry {
        device: device.to_owned(),
        hca_handles,
        hca_objects,
        ..Default::default()
    };
    rdma(&text(directory, file).unwrap_or_default()).map(entry).collect()
}

fn hugetlb(directory: &Path) -> Vec<HugeTlbStat> {
    let of_size = |pagesize: String| {
        let file = |name: &str| format!("hugetlb.{pagesize}.{name}");
        let events = text(directory, &file("events")).unwrap_or_default();
        Some(HugeTlbStat {
            current: number(directory, &file("current"))?,
            max: number(directory, &file("max")).unwrap_or_default(),
            failcnt: pairs(&events).find(|(name, _)| *name == "max").map(|(_, value)| value).unwrap_or_default(),
            pagesize,
            ..Default::default()
        })
    };
    huge_page_sizes().into_iter().filter_map(of_size).collect()
}
