//! Writes into files of a cgroup → the properties by which systemd writes the same.
//!
//! | version 2 | version 1 | property |
//! |---|---|---|
//! | `memory.max` `.high` `.low` `.min` `.swap.max` | `memory.limit_in_bytes` | `MemoryMax` `High` `Low` `Min` `SwapMax`; `MemoryLimit` |
//! | `cpu.weight`, `cpu.idle` | `cpu.shares` | `CPUWeight`; `CPUShares` |
//! | `cpu.max` | `cpu.cfs_quota_us`, `cpu.cfs_period_us` | `CPUQuotaPerSecUSec`, `CPUQuotaPeriodUSec` |
//! | `cpuset.cpus` `.mems` | the same | `AllowedCPUs`, `AllowedMemoryNodes` |
//! | `pids.max` | the same | `TasksMax` |
//! | `io.weight` | `blkio.weight` | `IOWeight`; `BlockIOWeight` |
//! | `io.max` | `blkio.throttle.*_bps_device` | `IO{Read,Write}{Bandwidth,IOPS}Max`; `BlockIO{Read,Write}Bandwidth` |
//! | `io.latency` | | `IODeviceLatencyTargetUSec` |
//!
//! Made of the writes and not of the specification, so that `unified` and the fields beside it end in the same place.

use std::borrow::Cow;

use super::Property;
use crate::cgroup::layout::Version;
use crate::dbus::{Type, Value};
use crate::error::{Error, Result};
use crate::plan::cgroup::{Limit, Write};

/// No limit.
const INFINITY: u64 = u64::MAX;
/// systemd keeps a quota in percent of a CPU: of a second, 10 ms.
const PERCENT: u64 = 10_000;
/// More CPUs than any kernel has.
const MAX_CPU: usize = 1 << 16;
/// The weight of a unit that nobody gave one.
const DEFAULT_WEIGHT: u64 = 100;

/// The properties for limits; what has none is left out.
pub fn from_limits(limits: &[Limit], version: Version) -> Result<Vec<Property>> {
    let writes = || limits.iter().flat_map(|limit| &limit.writes);
    let mut properties = Vec::new();
    for write in writes() {
        properties.extend(one(write)?);
    }
    match version {
        Version::V1 => {
            let number = |file| {
                writes().find(|write| write.file == file).map(|write| write.value.parse().map_err(|_| wrong(write)))
            };
            let quota: Option<i64> = number("cpu.cfs_quota_us").transpose()?;
            let period: Option<i64> = number("cpu.cfs_period_us").transpose()?;
            properties.extend(quota_and_period(quota, period.and_then(|period| u64::try_from(period).ok())));
        }
        // A weight that follows an idle cgroup's makes it idle no more, so the word of idleness comes last.
        _ => {
            let idle = writes().rfind(|write| write.file == "cpu.idle");
            let weighed = properties.iter().any(|property| property.name == "CPUWeight");
            match idle.map(|write| write.value.trim()) {
                Some("1") => properties.push(Property::new("CPUWeight", Value::U64(0)).since(252)),
                Some("0") if !weighed => properties.push(Property::new("CPUWeight", Value::U64(DEFAULT_WEIGHT))),
                _ => {}
            }
        }
    }
    Ok(properties)
}

fn one(write: &Write) -> Result<Vec<Property>> {
    let number = |name: &'static str, value: Option<u64>| {
        value.map(|value| vec![Property::new(name, Value::U64(value))]).ok_or_else(|| wrong(write))
    };
    let value = write.value.trim();
    match &*write.file {
        "memory.max" => number("MemoryMax", bytes(value)),
        "memory.high" => number("MemoryHigh", bytes(value)),
        "memory.low" => number("MemoryLow", bytes(value)),
        "memory.min" => number("MemoryMin", bytes(value)),
        "memory.swap.max" => number("MemorySwapMax", bytes(value)),
        "memory.limit_in_bytes" => number("MemoryLimit", if value == "-1" { Some(INFINITY) } else { bytes(value) }),
        "pids.max" => number("TasksMax", count(value)),
        "cpu.weight" => number("CPUWeight", count(value)),
        "cpu.shares" => number("CPUShares", count(value)),
        "cpu.max" => cpu_max(value).ok_or_else(|| wrong(write)),
        "cpuset.cpus" => Ok(set("AllowedCPUs", value)),
        "cpuset.mems" => Ok(set("AllowedMemoryNodes", value)),
        "blkio.weight" => number("BlockIOWeight", count(value)),
        "io.bfq.weight" | "io.weight" => weight(write),
        "io.max" => device_limits(value).ok_or_else(|| wrong(write)),
        "io.latency" => latency(value).ok_or_else(|| wrong(write)),
        "blkio.throttle.read_bps_device" => throttle("BlockIOReadBandwidth", value).ok_or_else(|| wrong(write)),
        "blkio.throttle.write_bps_device" => throttle("BlockIOWriteBandwidth", value).ok_or_else(|| wrong(write)),
        _ => Ok(Vec::new()),
    }
}

/// A value that the kernel would refuse too.
fn wrong(write: &Write) -> Error {
    Error::invalid(format!("{} is {:?}, which is no value of {}", write.field, write.value, write.file))
}

/// A number of bytes as files of the memory controller take it: with K, M, G, T behind it or not, or `max`.
fn bytes(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(INFINITY);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn count(text: &str) -> Option<u64> {
    if text == "max" { Some(INFINITY) } else { text.parse().ok() }
}

/// `max 100000`, `50000 100000`, `50000`.
fn cpu_max(text: &str) -> Option<Vec<Property>> {
    let mut fields = text.split_whitespace();
    let quota = match fields.next()? {
        "max" => -1,
        quota => quota.parse().ok()?,
    };
    let period = fields.next().map(str::parse).transpose().ok()?;
    fields.next().is_none().then(|| quota_and_period(Some(quota), period))
}

/// A quota in microseconds a period becomes one a second, rounded up to what systemd can keep.
fn quota_and_period(quota: Option<i64>, period: Option<u64>) -> Vec<Property> {
    let mut properties = Vec::new();
    if let Some(period) = period.filter(|&period| period != 0) {
        properties.push(Property::new("CPUQuotaPeriodUSec", Value::U64(period)).since(242));
    }
    if let Some(quota) = quota.filter(|&quota| quota != 0) {
        let period = period.filter(|&period| period != 0).unwrap_or(100_000);
        let each_second = match u64::try_from(quota) {
            Ok(quota) => quota.saturating_mul(1_000_000) / period,
            Err(_) => INFINITY,
        };
        let kept = each_second.checked_next_multiple_of(PERCENT).unwrap_or(INFINITY);
        properties.push(Property::new("CPUQuotaPerSecUSec", Value::U64(kept)));
    }
    properties
}

/// A list such as `0-3,7` as bits. A form that depends on how many there are is only written.
fn set(name: &'static str, list: &str) -> Vec<Property> {
    let mut bits: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { return Vec::new() };
        if last >= MAX_CPU {
            return Vec::new();
        }
        for number in first..=last {
            let byte = number / 8;
            if bits.len() <= byte {
                bits.resize(byte + 1, 0);
            }
            bits[byte] |= 1 << (number % 8);
        }
    }
    vec![Property::new(name, Value::bytes(&bits)).since(244)]
}

/// `100`, `default 100` or `8:0 100`, in the range of `io.weight`.
fn weight(write: &Write) -> Result<Vec<Property>> {
    let text: &str = match (&*write.file, &write.instead) {
        ("io.weight", _) => &write.value,
        (_, Some((_, value))) => value,
        // The weights of one scheduler, asked for by that name.
        (_, None) => return Ok(Vec::new()),
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong(write));
    match text.trim().split_once(char::is_whitespace) {
        None => Ok(vec![Property::new("IOWeight", Value::U64(number(text.trim())?))]),
        Some(("default", value)) => Ok(vec![Property::new("IOWeight", Value::U64(number(value.trim())?))]),
        Some((_, value)) if value.trim() == "default" => Ok(Vec::new()),
        Some((device, value)) => Ok(vec![on_device("IODeviceWeight", device, number(value.trim())?)]),
    }
}

/// `8:0 rbps=1048576 wiops=max`.
fn device_limits(text: &str) -> Option<Vec<Property>> {
    let mut fields = text.split_whitespace();
    let device = fields.next()?;
    fields
        .map(|field| {
            let (key, value) = field.split_once('=')?;
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                _ => return None,
            };
            Some(on_device(name, device, count(value)?))
        })
        .collect()
}

/// `8:0 target=75000`, in microseconds.
fn latency(text: &str) -> Option<Vec<Property>> {
    let (device, target) = text.split_once(char::is_whitespace)?;
    let target = target.trim().strip_prefix("target=")?;
    Some(vec![on_device("IODeviceLatencyTargetUSec", device, count(target)?).since(240)])
}

/// `8:0 1048576`; 0 takes a limit away.
fn throttle(name: &'static str, text: &str) -> Option<Vec<Property>> {
    let (device, rate) = text.split_once(' ')?;
    let rate = rate.parse().ok()?;
    Some(vec![on_device(name, device, if rate == 0 { INFINITY } else { rate })])
}

fn on_device(name: impl Into<Cow<'static, str>>, device: &str, value: u64) -> Property {
    let entry = Value::Struct(vec![Value::Text(format!("/dev/block/{device}")), Value::U64(value)]);
    Property::new(name, Value::Array(Type::Struct(vec![Type::Text, Type::U64]), vec![entry]))
}
