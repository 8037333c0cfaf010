//! One look at what a container uses: the shim's statistics, of either version of cgroups, and the kernel's counters of its network.

use std::fs;
use std::time::Instant;

use tare_proto::any;
use tare_proto::{cgroups_v1, cgroups_v2};

use crate::error::{Error, Result};

/// What was used up to now.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When it was looked.
    pub(super) at: Instant,
    /// CPU time, in nanoseconds.
    pub(super) cpu: u64,
    /// In bytes, without what could be dropped from caches: as docker counts.
    pub(super) memory: u64,
    /// The cgroup's limit; the host's memory or more when it has none.
    pub(super) memory_limit: u64,
    /// In bytes, here and below.
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) read: u64,
    pub(super) written: u64,
    /// Processes and threads.
    pub(super) pids: u64,
}

/// Reads a shim's answer; `pid` is a process in the container's network.
pub(super) fn of(metrics: &tare_proto::Any, pid: u32) -> Result<Sample> {
    let wrong = |error: &dyn std::fmt::Display| Error::failed(format!("read the shim's statistics: {error}"));
    let mut sample = if let Some(v2) = any::unpack::<cgroups_v2::Metrics>(metrics).map_err(|error| wrong(&error))? {
        of_v2(&v2)
    } else if let Some(v1) = any::unpack::<cgroups_v1::Metrics>(metrics).map_err(|error| wrong(&error))? {
        of_v1(&v1)
    } else {
        return Err(wrong(&format!("they are of the type {:?}, which tarectl does not know", metrics.type_url)));
    };
    (sample.received, sample.sent) = network(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
    Ok(sample)
}

impl Sample {
    /// Of nothing.
    pub(super) fn empty(at: Instant) -> Self {
        Self { at, cpu: 0, memory: 0, memory_limit: 0, received: 0, sent: 0, read: 0, written: 0, pids: 0 }
    }

    /// Percent of one CPU since another look.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn cpu_since(&self, before: &Self) -> f64 {
        let time = self.at.saturating_duration_since(before.at).as_nanos() as f64;
        if time == 0.0 { 0.0 } else { self.cpu.saturating_sub(before.cpu) as f64 / time * 100.0 }
    }

    /// What it may use: its limit, or all that the host has.
    pub(super) fn limit(&self, asked: i64) -> u64 {
        if let Ok(asked @ 1..) = u64::try_from(asked) {
            return asked;
        }
        let host = host_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
        if self.memory_limit == 0 { host } else { self.memory_limit.min(host) }
    }
}

fn of_v1(metrics: &cgroups_v1::Metrics) -> Sample {
    let usage = metrics.memory.usage.usage;
    let blocks = |wanted: &str| {
        let entries = metrics.blkio.io_service_bytes_recursive.iter();
        entries.filter(|it| it.op.eq_ignore_ascii_case(wanted)).map(|it| it.value).sum()
    };
    Sample {
        cpu: metrics.cpu.usage.total,
        memory: usage.saturating_sub(metrics.memory.total_inactive_file),
        memory_limit: metrics.memory.usage.limit,
        read: blocks("read"),
        written: blocks("write"),
        pids: metrics.pids.current,
        ..Sample::empty(Instant::now())
    }
}

fn of_v2(metrics: &cgroups_v2::Metrics) -> Sample {
    Sample {
        cpu: metrics.cpu.usage_usec * 1000,
        memory: metrics.memory.usage.saturating_sub(metrics.memory.inactive_file),
        memory_limit: metrics.memory.usage_limit,
        read: metrics.io.usage.iter().map(|it| it.rbytes).sum(),
        written: metrics.io.usage.iter().map(|it| it.wbytes).sum(),
        pids: metrics.pids.current,
        ..Sample::empty(Instant::now())
    }
}

/// Received and sent, of all interfaces but the loopback (proc(5), /proc/net/dev).
fn network(table: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in table.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers.split_whitespace().map(|it| it.parse().unwrap_or(0)).collect();
        if let (Some(received), Some(sent)) = (numbers.first(), numbers.get(8)) {
            sums = (sums.0 + received, sums.1 + sent);
        }
    }
    sums
}

fn host_memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|it| it.split_whitespace().next()).and_then(|it| it.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n\
                     eth0: 1040 12 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n";
        assert_eq!(network(table), (1040, 70));
        assert_eq!(network(""), (0, 0));
        assert_eq!(host_memory("MemTotal:       24682440 kB\nMemFree: 1 kB\n"), 24_682_440 * 1024);
    }

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let mut v1 = cgroups_v1::Metrics::new();
        v1.cpu.mut_or_insert_default().usage.mut_or_insert_default().total = 7;
        let memory = v1.memory.mut_or_insert_default();
        memory.usage.mut_or_insert_default().usage = 100;
        memory.total_inactive_file = 40;
        let blocks = v1.blkio.mut_or_insert_default();
        for (op, value) in [("Read", 5), ("Write", 6), ("Total", 11)] {
            let entry = cgroups_v1::BlkIOEntry { op: op.to_owned(), value, ..Default::default() };
            blocks.io_service_bytes_recursive.push(entry);
        }
        let sample = of(&any::pack(&v1).unwrap(), 0).unwrap();
        assert_eq!((sample.cpu, sample.memory, sample.read, sample.written), (7, 60, 5, 6));

        let mut v2 = cgroups_v2::Metrics::new();
        v2.cpu.mut_or_insert_default().usage_usec = 3;
        v2.pids.mut_or_insert_default().current = 4;
        let sample = of(&any::pack(&v2).unwrap(), 0).unwrap();
        assert_eq!((sample.cpu, sample.pids), (3000, 4));
        assert!(of(&tare_proto::Any::default(), 0).is_err());
    }
}
