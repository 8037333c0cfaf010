//! Reading a container's cgroups into [`Stats`]: which file of which version says what.

use std::collections::BTreeMap;
use std::path::Path;

use nix::errno::Errno;

use super::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Pressure, Stats, Throttling,
};
use crate::cgroup::{Cgroup, files};
use crate::error::{Context, Result};

/// A directory that is read; what it lacks is nothing.
#[derive(Clone, Copy)]
struct Source<'a>(&'a Path);

impl Source<'_> {
    /// The text of a file; none where this kernel or this hierarchy has no such file, or has it switched off.
    fn text(self, file: &str) -> Result<Option<String>> {
        match files::read(self.0, file) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno).on("read", self.0.join(file).display()),
        }
    }

    /// The number in a file; `max` is the largest.
    fn number(self, file: &str) -> Result<Option<u64>> {
        Ok(self.text(file)?.and_then(|text| match text.trim() {
            "max" => Some(u64::MAX),
            number => number.parse().ok(),
        }))
    }

    fn number_or_zero(self, file: &str) -> Result<u64> {
        Ok(self.number(file)?.unwrap_or(0))
    }

    /// The numbers of a file of `key number` lines.
    fn table(self, file: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(file)?.unwrap_or_default();
        let pair =
            |line: &str| line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
        Ok(text.lines().filter_map(pair).collect())
    }

    fn pressure(self, file: &str) -> Result<Option<Pressure>> {
        Ok(self.text(file)?.map(|text| pressure(&text)))
    }
}

impl Cgroup {
    /// What the container uses now.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        let of = |controller| self.directory(controller).map(Source);
        if self.is_unified() {
            if let Some(source) = of("") {
                unified(source, &mut stats)?;
            }
            return Ok(stats);
        }
        if let Some(source) = of("pids") {
            stats.pids = pids(source)?;
        }
        if let Some(source) = of("memory") {
            stats.memory = memory_v1(source)?;
        }
        if let Some(source) = of("cpu") {
            let table = source.table("cpu.stat")?;
            let count = |key| table.get(key).copied().unwrap_or(0);
            let (periods, throttled_periods) = (count("nr_periods"), count("nr_throttled"));
            stats.cpu.throttling = Throttling { periods, throttled_periods, throttled_time: count("throttled_time") };
        }
        if let Some(source) = of("cpuacct") {
            stats.cpu.usage = cpuacct(source)?;
        }
        if let Some(source) = of("cpuset") {
            stats.cpuset = cpuset(source)?;
        }
        if let Some(source) = of("blkio") {
            stats.blkio = blkio(source)?;
        }
        if let Some(source) = of("hugetlb") {
            stats.hugetlb = hugetlb(source, ["usage_in_bytes", "max_usage_in_bytes", "failcnt"])?;
        }
        Ok(stats)
    }
}

fn unified(source: Source<'_>, stats: &mut Stats) -> Result<()> {
    stats.pids = pids(source)?;
    stats.memory = memory_v2(source)?;
    stats.cpu = cpu_v2(source)?;
    stats.blkio = io_v2(source)?;
    stats.hugetlb = hugetlb(source, ["current", "", "events"])?;
    Ok(())
}

fn pids(source: Source<'_>) -> Result<Pids> {
    match source.number("pids.current")? {
        Some(current) => {
            let limit = source.number_or_zero("pids.max")?;
            Ok(Pids { current, limit: if limit == u64::MAX { 0 } else { limit } })
        }
        // Without the controller the list is the only source.
        None => Ok(Pids { current: files::pids(source.0)?.len() as u64, limit: 0 }),
    }
}

fn memory_v1(source: Source<'_>) -> Result<Memory> {
    let entry = |name: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: source.number_or_zero(&format!("{name}.limit_in_bytes"))?,
            usage: source.number_or_zero(&format!("{name}.usage_in_bytes"))?,
            max: source.number_or_zero(&format!("{name}.max_usage_in_bytes"))?,
            failcnt: source.number_or_zero(&format!("{name}.failcnt"))?,
        })
    };
    let raw = source.table("memory.stat")?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

fn memory_v2(source: Source<'_>) -> Result<Memory> {
    let raw = source.table("memory.stat")?;
    let psi = source.pressure("memory.pressure")?;
    let Some(usage) = source.number("memory.current")? else { return Ok(Memory { raw, psi, ..Memory::default() }) };
    let memory = MemoryEntry {
        limit: source.number_or_zero("memory.max")?,
        usage,
        // Since Linux 5.19.
        max: source.number_or_zero("memory.peak")?,
        failcnt: 0,
    };
    let swap_limit = source.number_or_zero("memory.swap.max")?;
    let swap = MemoryEntry {
        limit: swap_limit.saturating_add(if swap_limit == u64::MAX { 0 } else { memory.limit }),
        usage: source.number_or_zero("memory.swap.current")?.saturating_add(usage),
        ..MemoryEntry::default()
    };
    Ok(Memory { cache: raw.get("file").copied().unwrap_or(0), usage: memory, swap, raw, psi, ..Memory::default() })
}

fn cpu_v2(source: Source<'_>) -> Result<Cpu> {
    let table = source.table("cpu.stat")?;
    let count = |key| table.get(key).copied().unwrap_or(0);
    let nanoseconds = |key| count(key).saturating_mul(1000);
    Ok(Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: source.pressure("cpu.pressure")?,
    })
}

fn cpuacct(source: Source<'_>) -> Result<CpuUsage> {
    // A clock tick is a hundredth of a second for every program (times(2)).
    let ticks = |count: u64| count.saturating_mul(10_000_000);
    let stat = source.table("cpuacct.stat")?;
    let each = source.text("cpuacct.usage_percpu")?.unwrap_or_default();
    let all = source.text("cpuacct.usage_all")?.unwrap_or_default();
    // After a heading: cpu, user, system.
    let column = |index: usize| {
        let value = |line: &str| line.split(' ').nth(index).and_then(|value| value.parse().ok());
        all.lines().skip(1).filter_map(value).collect()
    };
    Ok(CpuUsage {
        total: source.number_or_zero("cpuacct.usage")?,
        percpu: each.split_whitespace().filter_map(|value| value.parse().ok()).collect(),
        percpu_kernel: column(2),
        percpu_user: column(1),
        kernel: ticks(stat.get("system").copied().unwrap_or(0)),
        user: ticks(stat.get("user").copied().unwrap_or(0)),
    })
}

fn cpuset(source: Source<'_>) -> Result<Cpuset> {
    let number = |name: &str| source.number_or_zero(&format!("cpuset.{name}"));
    let list =
        |name: &str| -> Result<Vec<u16>> { Ok(numbers(&source.text(&format!("cpuset.{name}"))?.unwrap_or_default())) };
    let level = source.text("cpuset.sched_relax_domain_level")?;
    Ok(Cpuset {
        cpus: list("cpus")?,
        cpu_exclusive: number("cpu_exclusive")?,
        mems: list("mems")?,
        mem_hardwall: number("mem_hardwall")?,
        mem_exclusive: number("mem_exclusive")?,
        memory_migrate: number("memory_migrate")?,
        memory_spread_page: number("memory_spread_page")?,
        memory_spread_slab: number("memory_spread_slab")?,
        memory_pressure: number("memory_pressure")?,
        sched_load_balance: number("sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    })
}

/// The numbers of a list such as `0-2,5`.
fn numbers(list: &str) -> Vec<u16> {
    let range = |item: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// The version 1 counters, from the first group of files that there is: which one depends on the scheduler.
fn blkio(source: Source<'_>) -> Result<Blkio> {
    for prefix in ["blkio.bfq.", "blkio.", "blkio.throttle."] {
        let read = |name: &str| -> Result<Option<Vec<BlkioEntry>>> {
            let recursive = source.text(&format!("{prefix}{name}_recursive"))?;
            Ok(recursive.map(|text| blkio_entries(&text)))
        };
        let Some(bytes) = read("io_service_bytes")? else { continue };
        return Ok(Blkio {
            io_service_bytes_recursive: bytes,
            io_serviced_recursive: read("io_serviced")?.unwrap_or_default(),
            io_queue_recursive: read("io_queued")?.unwrap_or_default(),
            io_service_time_recursive: read("io_service_time")?.unwrap_or_default(),
            io_wait_time_recursive: read("io_wait_time")?.unwrap_or_default(),
            io_merged_recursive: read("io_merged")?.unwrap_or_default(),
            io_time_recursive: read("time")?.unwrap_or_default(),
            sectors_recursive: read("sectors")?.unwrap_or_default(),
            psi: None,
        });
    }
    let read = |file| -> Result<Vec<BlkioEntry>> { Ok(blkio_entries(&source.text(file)?.unwrap_or_default())) };
    Ok(Blkio {
        io_service_bytes_recursive: read("blkio.throttle.io_service_bytes")?,
        io_serviced_recursive: read("blkio.throttle.io_serviced")?,
        ..Blkio::default()
    })
}

/// Lines of `major:minor operation value`, or without the operation; the line of the total is none of them.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| -> Option<BlkioEntry> {
        let fields: Vec<&str> = line.split([' ', ':']).collect();
        let (op, value) = match fields[..] {
            [_, _, op, value] => (op, value),
            [_, _, value] => ("", value),
            _ => return None,
        };
        let (major, minor) = (fields[0].parse().ok()?, fields[1].parse().ok()?);
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines of `major:minor rbytes=1 wbytes=2 rios=3 ...`.
fn io_v2(source: Source<'_>) -> Result<Blkio> {
    let mut blkio = Blkio { psi: source.pressure("io.pressure")?, ..Blkio::default() };
    for line in source.text("io.stat")?.unwrap_or_default().lines() {
        let mut fields = line.split_whitespace();
        let device = fields.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
        }
    }
    Ok(blkio)
}

/// Usage, peak and failures for each size of page: reservations where the kernel counts them.
fn hugetlb(source: Source<'_>, [usage, peak, failures]: [&str; 3]) -> Result<BTreeMap<String, Hugetlb>> {
    let mut sizes = BTreeMap::new();
    for size in files::huge_page_sizes() {
        for reserved in [".rsvd", ""] {
            let file = |name: &str| format!("hugetlb.{size}{reserved}.{name}");
            let Some(usage) = source.number(&file(usage))? else { continue };
            let max = if peak.is_empty() { 0 } else { source.number_or_zero(&file(peak))? };
            let failcnt = match failures {
                // Events are not told apart for reservations.
                "events" => source.table(&format!("hugetlb.{size}.events"))?.get("max").copied().unwrap_or(0),
                failures => source.number_or_zero(&file(failures))?,
            };
            sizes.insert(size, Hugetlb { usage, max, failcnt });
            break;
        }
    }
    Ok(sizes)
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full ...`.
pub(super) fn pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let stall = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let share = || value.parse().unwrap_or(0.0);
            match key {
                "avg10" => stall.avg10 = share(),
                "avg60" => stall.avg60 = share(),
                "avg300" => stall.avg300 = share(),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_tables_are_read() {
        assert_eq!(numbers("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(numbers("\n"), [0; 0]);
        let entries = blkio_entries("8:0 Read 12\n8:0 Total 12\n8:16 7\nTotal 19\n");
        let told: Vec<_> = entries.iter().map(|entry| (entry.minor, entry.op.as_str(), entry.value)).collect();
        assert_eq!(told, [(0, "Read", 12), (0, "Total", 12), (16, "", 7)]);
    }
}
