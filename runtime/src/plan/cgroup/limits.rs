//! `linux.resources` → writes, a controller at a time. Both versions, create and update alike.
//!
//! Each value is checked here as far as it can be without the kernel, so that a mistake is told by its field and before
//! anything was made. The order within a controller is the kernel's: what may contradict a value still in force says so
//! ([`Refused::TryLast`]).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::{Missing, Refused, Write};
use crate::cgroup::layout::Version;
use crate::error::{Error, Result};

/// What is written for one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The controller, by the name of its version 1 hierarchy.
    pub controller: &'static str,
    /// The writes, in their order.
    pub writes: Vec<Write>,
}

/// Lowers resources; what was not asked for gives no write, and a controller without writes gives no limit.
pub fn limits(resources: &LinuxResources, version: Version) -> Result<Vec<Limit>> {
    let v1 = version == Version::V1;
    let pids = resources.pids().map(|pids| self::pids(pids.limit())).unwrap_or_default();
    let memory = match resources.memory() {
        Some(memory) if v1 => memory_v1(memory)?,
        Some(memory) => memory_v2(memory)?,
        None => Vec::new(),
    };
    let io = match resources.block_io() {
        Some(io) if v1 => io_v1(io)?,
        Some(io) => io_v2(io)?,
        None => Vec::new(),
    };
    let (cpu, cpuset) = match resources.cpu() {
        Some(cpu) if v1 => (cpu_v1(cpu)?, cpuset(cpu)?),
        Some(cpu) => (cpu_v2(cpu)?, cpuset(cpu)?),
        None => (Vec::new(), Vec::new()),
    };
    let mut limits = vec![
        Limit { controller: "pids", writes: pids },
        Limit { controller: "memory", writes: memory },
        Limit { controller: "blkio", writes: io },
        Limit { controller: "cpu", writes: cpu },
        Limit { controller: "cpuset", writes: cpuset },
        Limit {
            controller: "hugetlb",
            writes: hugetlb(resources.hugepage_limits().as_deref().unwrap_or_default(), version)?,
        },
        Limit { controller: "rdma", writes: rdma(resources)? },
    ];
    if v1 {
        limits.extend(network(resources)?);
    }
    limits.push(Limit { controller: "", writes: unified(resources, version)? });
    limits.retain(|limit| !limit.writes.is_empty());
    Ok(limits)
}

fn pids(limit: i64) -> Vec<Write> {
    let value = match limit {
        ..0 => "max".to_owned(),
        // The container's first process exists: 0 and 1 forbid the same, and systemd can express only 1.
        0 => "1".to_owned(),
        limit => limit.to_string(),
    };
    vec![Write::new("pids.max", value, "linux.resources.pids.limit")]
}

const MEMORY: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";

/// The limits of memory, and of memory with swap, as asked for; 0 asks for nothing, -1 for no limit.
fn memory_and_swap(memory: &LinuxMemory) -> Result<(i64, i64)> {
    let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    for (field, value) in [(MEMORY, limit), (SWAP, swap), (RESERVATION, memory.reservation().unwrap_or(0))] {
        if value < -1 {
            return Err(Error::invalid(format!("{field} is {value}: give a number of bytes, or -1 for no limit")));
        }
    }
    if limit > 0 && swap > 0 && swap < limit {
        return Err(Error::invalid(format!(
            "{SWAP} {swap} is below {MEMORY} {limit}, and it is the sum of memory and swap: give at least {limit}, or -1 for no limit"
        )));
    }
    Ok((limit, swap))
}

fn memory_v1(memory: &LinuxMemory) -> Result<Vec<Write>> {
    let (limit, swap) = memory_and_swap(memory)?;
    // Memory without a limit means swap without a limit too, unless the caller says otherwise.
    let (swap, missing) = match (limit, swap) {
        (-1, 0) | (_, -1) => (-1, Missing::Ignore),
        _ => (swap, Missing::Fail),
    };
    let mut writes = Vec::new();
    if limit != 0 {
        // A limit above the one of memory with swap is refused: then that one is raised first.
        writes.push(Write::new("memory.limit_in_bytes", limit, MEMORY).refused(Refused::TryLast));
    }
    if swap != 0 {
        writes.push(Write::new("memory.memsw.limit_in_bytes", swap, SWAP).missing(missing));
    }
    if let Some(reservation) = memory.reservation().filter(|&value| value != 0) {
        writes.push(Write::new("memory.soft_limit_in_bytes", reservation, RESERVATION));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory.oom_control", 1, "linux.resources.memory.disableOOMKiller"));
    }
    // -1 arrives as the largest number, and asks for nothing.
    if let Some(swappiness) = memory.swappiness().filter(|&value| value != u64::MAX) {
        if swappiness > 100 {
            return Err(Error::invalid(format!("linux.resources.memory.swappiness is {swappiness}: give 0 to 100")));
        }
        writes.push(Write::new("memory.swappiness", swappiness, "linux.resources.memory.swappiness"));
    }
    Ok(writes)
}

fn memory_v2(memory: &LinuxMemory) -> Result<Vec<Write>> {
    let (limit, swap) = memory_and_swap(memory)?;
    let checked = memory.check_before_update() == Some(true);
    let check = |write: Write, limit: i64| match u64::try_from(limit) {
        Ok(limit) if checked && limit > 0 => Write { more_than: Some(("memory.current", limit)), ..write },
        _ => write,
    };
    // The specification counts memory and swap together, this version counts swap alone.
    let swap_alone = match (limit, swap) {
        (-1, 0) | (_, -1) => Some("max".to_owned()),
        (_, 0) => None,
        (-1, swap) => Some(swap.to_string()),
        (0, swap) => {
            return Err(Error::invalid(format!(
                "{SWAP} is {swap} without {MEMORY}, and it is the sum of memory and swap: set {MEMORY} too"
            )));
        }
        (limit, swap) => Some((swap - limit).to_string()),
    };
    let mut writes = Vec::new();
    if let Some(value) = swap_alone {
        // A kernel without swap accounting has no swap to allow or to forbid.
        let missing = match value.as_str() {
            "max" | "0" => Missing::Ignore,
            _ => Missing::Fail,
        };
        writes.push(check(Write::new("memory.swap.max", value, SWAP).missing(missing), swap));
    }
    if limit != 0 {
        writes.push(check(Write::new("memory.max", or_max(limit), MEMORY), limit));
    }
    if let Some(reservation) = memory.reservation().filter(|&value| value != 0) {
        writes.push(Write::new("memory.low", or_max(reservation), RESERVATION));
    }
    Ok(writes)
}

fn or_max(value: i64) -> String {
    match value {
        -1 => "max".to_owned(),
        value => value.to_string(),
    }
}

const SHARES: &str = "linux.resources.cpu.shares";
const QUOTA: &str = "linux.resources.cpu.quota";
const PERIOD: &str = "linux.resources.cpu.period";
const BURST: &str = "linux.resources.cpu.burst";
const IDLE: &str = "linux.resources.cpu.idle";

/// The kernel's bounds of a period, in microseconds; a quota has the same lower bound.
const PERIODS: RangeInclusive<u64> = 1_000..=1_000_000;
/// The period of a cgroup that was given none, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// Quota and period in microseconds as asked for; 0 asks for nothing.
fn quota_and_period(cpu: &LinuxCpu) -> Result<(i64, u64)> {
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if (1..1000).contains(&quota) {
        return Err(Error::invalid(format!(
            "{QUOTA} is {quota}, and the kernel takes no less than 1000 (microseconds): give at least 1000, or -1 for no limit"
        )));
    }
    if period != 0 && !PERIODS.contains(&period) {
        return Err(Error::invalid(format!("{PERIOD} is {period}: give 1000 to 1000000 (microseconds)")));
    }
    if let (Some(burst), Ok(limit @ 1..)) = (cpu.burst(), u64::try_from(quota))
        && burst > limit
    {
        return Err(Error::invalid(format!("{BURST} {burst} is above {QUOTA} {quota}: give at most {quota}")));
    }
    if let Some(idle) = cpu.idle().filter(|idle| ![0, 1].contains(idle)) {
        return Err(Error::invalid(format!("{IDLE} is {idle}: give 0 (normal) or 1 (run only when the CPU is idle)")));
    }
    Ok((quota, period))
}

fn cpu_v1(cpu: &LinuxCpu) -> Result<Vec<Write>> {
    let (quota, period) = quota_and_period(cpu)?;
    let mut writes = Vec::new();
    // Real-time bandwidth comes before any process: one with a real-time policy may not join a cgroup without it.
    if let Some(value) = cpu.realtime_period().filter(|&value| value != 0) {
        let write = Write::new("cpu.rt_period_us", value, "linux.resources.cpu.realtimePeriod");
        writes.push(write.refused(Refused::TryLast));
    }
    if let Some(value) = cpu.realtime_runtime().filter(|&value| value != 0) {
        writes.push(Write::new("cpu.rt_runtime_us", value, "linux.resources.cpu.realtimeRuntime"));
    }
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        // The kernel would put another value in its place without a word.
        if !(2..=262_144).contains(&shares) {
            return Err(Error::invalid(format!("{SHARES} is {shares}: give 2 to 262144")));
        }
        writes.push(Write::new("cpu.shares", shares, SHARES));
    }
    if period != 0 {
        writes.push(Write::new("cpu.cfs_period_us", period, PERIOD).refused(Refused::TryLast));
    }
    if let Some(burst) = cpu.burst() {
        // Kernels before 5.14 have no burst, which costs speed and never more than the quota allows.
        let write = Write::new("cpu.cfs_burst_us", burst, BURST);
        writes.push(write.refused(Refused::TryLast).missing(Missing::Ignore));
    }
    if quota != 0 {
        writes.push(Write::new("cpu.cfs_quota_us", quota, QUOTA));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(Write::new("cpu.idle", idle, IDLE));
    }
    Ok(writes)
}

fn cpu_v2(cpu: &LinuxCpu) -> Result<Vec<Write>> {
    let (quota, period) = quota_and_period(cpu)?;
    let mut writes = Vec::new();
    let weight = weight_from_shares(cpu.shares().unwrap_or(0)).map(|weight| Write::new("cpu.weight", weight, SHARES));
    let idle = cpu.idle().map(|idle| Write::new("cpu.idle", idle, IDLE));
    // The weight of an idle cgroup cannot be set: so before it becomes idle, or after it ceased to be.
    match cpu.idle() {
        Some(1) => writes.extend(weight.into_iter().chain(idle)),
        _ => writes.extend(idle.into_iter().chain(weight)),
    }
    if let Some(burst) = cpu.burst() {
        writes.push(Write::new("cpu.max.burst", burst, BURST).refused(Refused::TryLast));
    }
    if quota != 0 || period != 0 {
        let limit = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        writes.push(Write::new("cpu.max", format!("{limit} {period}"), if quota != 0 { QUOTA } else { PERIOD }));
    }
    Ok(writes)
}

/// The version 2 weight (1 to 10000, default 100) for version 1 shares (2 to 262144, default 1024).
///
/// On a logarithmic scale, a parabola through the two minima, the two defaults and the two maxima; the same that runc 1.3
/// and later use, so that a container weighs the same under both. 0 shares ask for nothing.
pub(super) fn weight_from_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        // Below 2^18 no digit is lost.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

fn cpuset(cpu: &LinuxCpu) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for (file, value, field) in [
        ("cpuset.cpus", cpu.cpus(), "linux.resources.cpu.cpus"),
        ("cpuset.mems", cpu.mems(), "linux.resources.cpu.mems"),
    ] {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        if !value.trim().split(',').all(is_range) {
            return Err(Error::invalid(format!(
                "{field} is {value:?}: give a list of numbers and ranges, such as 0-3,7"
            )));
        }
        writes.push(Write::new(file, value.trim(), field));
    }
    Ok(writes)
}

/// Whether `text` is one item of the kernel's list format: `3`, `0-3`, `0-10:2/5`, or all.
fn is_range(text: &str) -> bool {
    let number = |text: &str| match text {
        "N" => Some(u32::MAX),
        _ => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten(),
    };
    let (range, groups) = match text.trim().split_once(':') {
        Some((range, groups)) => (range, Some(groups)),
        None => (text.trim(), None),
    };
    let groups_fit = groups.is_none_or(|groups| {
        groups.split_once('/').is_some_and(|(used, size)| match (number(used), number(size)) {
            (Some(used), Some(size)) => (1..=size).contains(&used),
            _ => false,
        })
    });
    let range_fits = match range.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => range == "all" || number(range).is_some(),
    };
    groups_fit && range_fits
}

const WEIGHT: &str = "linux.resources.blockIO.weight";

/// A weight as asked for; 0 asks for nothing.
fn io_weight(value: Option<u16>, field: &str) -> Result<Option<u16>> {
    match value {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => Err(Error::invalid(format!("{field} is {weight}: give 10 to 1000"))),
    }
}

fn device(major: i64, minor: i64, field: &str) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => {
            Err(Error::invalid(format!("{field} is for the device {major}:{minor}: give its major and minor numbers")))
        }
    }
}

type Throttle<'a> = (&'static str, &'a Option<Vec<LinuxThrottleDevice>>, &'static str, &'static str);

/// The throttles of a specification: field, devices, version 1 file, version 2 key.
fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        ("throttleReadBpsDevice", io.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "rbps"),
        ("throttleWriteBpsDevice", io.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "wbps"),
        ("throttleReadIOPSDevice", io.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "riops"),
        ("throttleWriteIOPSDevice", io.throttle_write_iops_device(), "blkio.throttle.write_iops_device", "wiops"),
    ]
}

fn io_v1(io: &LinuxBlockIo) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(weight) = io_weight(io.weight(), WEIGHT)? {
        writes.push(Write::new("blkio.weight", weight, WEIGHT).or("blkio.bfq.weight", weight));
    }
    let leaf = "linux.resources.blockIO.leafWeight";
    if let Some(weight) = io_weight(io.leaf_weight(), leaf)? {
        writes.push(Write::new("blkio.leaf_weight", weight, leaf));
    }
    for (index, entry) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let name = device(entry.major(), entry.minor(), &field)?;
        if let Some(weight) = io_weight(entry.weight(), &field)? {
            let value = format!("{name} {weight}");
            writes.push(Write::new("blkio.weight_device", &value, field.clone()).or("blkio.bfq.weight_device", &value));
        }
        if let Some(weight) = io_weight(entry.leaf_weight(), &field)? {
            writes.push(Write::new("blkio.leaf_weight_device", format!("{name} {weight}"), field));
        }
    }
    for (name, entries, file, _) in throttles(io) {
        for (index, entry) in entries.iter().flatten().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{index}]");
            let value = format!("{} {}", device(entry.major(), entry.minor(), &field)?, entry.rate());
            writes.push(Write::new(file, value, field));
        }
    }
    Ok(writes)
}

fn io_v2(io: &LinuxBlockIo) -> Result<Vec<Write>> {
    // The scheduler that has weights of its own has them in the range of the specification; the other has 1 to 10000.
    let converted = |weight: u16| 1 + (u64::from(weight) - 10) * 9999 / 990;
    let mut writes = Vec::new();
    if let Some(weight) = io_weight(io.weight(), WEIGHT)? {
        writes.push(Write::new("io.bfq.weight", weight, WEIGHT).or("io.weight", converted(weight)));
    }
    for (index, entry) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let name = device(entry.major(), entry.minor(), &field)?;
        if let Some(weight) = io_weight(entry.weight(), &field)? {
            let other = format!("{name} {}", converted(weight));
            let write = Write::new("io.bfq.weight", format!("{name} {weight}"), field).or("io.weight", other);
            writes.push(write.missing(Missing::Ignore));
        }
    }
    for (name, entries, _, key) in throttles(io) {
        for (index, entry) in entries.iter().flatten().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{index}]");
            // Version 1 takes a limit away by 0; here that has a word.
            let rate = if entry.rate() == 0 { "max".to_owned() } else { entry.rate().to_string() };
            let value = format!("{} {key}={rate}", device(entry.major(), entry.minor(), &field)?);
            writes.push(Write::new("io.max", value, field));
        }
    }
    Ok(writes)
}

fn hugetlb(limits: &[LinuxHugepageLimit], version: Version) -> Result<Vec<Write>> {
    let suffix = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 | Version::Missing => "max",
    };
    let mut writes = Vec::new();
    for (index, entry) in limits.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let size = entry.page_size();
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::invalid(format!("{field}.pageSize is {size:?}: give a size such as 64KB, 2MB or 1GB")));
        }
        if entry.limit() < 0 {
            return Err(Error::invalid(format!("{field}.limit is {}: give a number of bytes", entry.limit())));
        }
        writes.push(Write::new(format!("hugetlb.{size}.{suffix}"), entry.limit(), field.clone()));
        // Reservations are limited too where the kernel counts them: a process must not die at a page it has reserved.
        let reserved = Write::new(format!("hugetlb.{size}.rsvd.{suffix}"), entry.limit(), field);
        writes.push(reserved.missing(Missing::Ignore));
    }
    Ok(writes)
}

fn rdma(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut writes = Vec::new();
    for (name, limits) in devices {
        let field = format!("linux.resources.rdma.{name}");
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::invalid(format!(
                "linux.resources.rdma names the device {name:?}: give a device's name"
            )));
        }
        let handles = limits.hca_handles().map(|count| format!(" hca_handle={count}"));
        let objects = limits.hca_objects().map(|count| format!(" hca_object={count}"));
        if handles.is_none() && objects.is_none() {
            return Err(Error::invalid(format!("{field} sets no limit: give hcaHandles or hcaObjects")));
        }
        let value = format!("{name}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default());
        writes.push(Write::new("rdma.max", value, field));
    }
    Ok(writes)
}

/// Class and priorities of network traffic: version 1 alone has them.
fn network(resources: &LinuxResources) -> Result<[Limit; 2]> {
    let network = resources.network().as_ref();
    let class = network.and_then(|network| network.class_id()).filter(|&class| class != 0);
    let class = class.map(|class| Write::new("net_cls.classid", class, "linux.resources.network.classID"));
    let mut priorities = Vec::new();
    for (index, entry) in network.and_then(|network| network.priorities().as_ref()).into_iter().flatten().enumerate() {
        let (field, name) = (format!("linux.resources.network.priorities[{index}]"), entry.name());
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("{field}.name is {name:?}: give an interface's name")));
        }
        priorities.push(Write::new("net_prio.ifpriomap", format!("{name} {}", entry.priority()), field));
    }
    Ok([
        Limit { controller: "net_cls", writes: class.into_iter().collect() },
        Limit { controller: "net_prio", writes: priorities },
    ])
}

fn unified(resources: &LinuxResources, version: Version) -> Result<Vec<Write>> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    if version == Version::V1 && !entries.is_empty() {
        return Err(Error::invalid(
            "linux.resources.unified is for cgroup version 2, and version 1 manages the containers of this host: \
             use the other fields of linux.resources",
        ));
    }
    // The order of a JSON object means nothing; a fixed one makes failures repeatable.
    entries.sort();
    let mut writes = Vec::new();
    for (file, text) in entries {
        let named = file.split_once('.').is_some_and(|(controller, name)| !controller.is_empty() && !name.is_empty());
        if !named || file.contains('/') || file.contains(char::is_control) {
            return Err(Error::invalid(format!(
                "linux.resources.unified names the file {file:?}: give the name of a file in the cgroup, such as memory.high"
            )));
        }
        // A file with one value a device or a size takes one line a write.
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            let field: Cow<'static, str> = format!("linux.resources.unified[{file:?}]").into();
            writes.push(Write::new(file.clone(), line, field));
        }
    }
    Ok(writes)
}
