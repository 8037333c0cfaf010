//! What a cgroup has used, as containerd's messages say it.
//!
//! | host | message | units |
//! |---|---|---|
//! | version 1 and hybrid | `io.containerd.cgroups.v1.Metrics` (`v1.rs`) | nanoseconds, bytes |
//! | version 2 | `io.containerd.cgroups.v2.Metrics` (`v2.rs`) | microseconds, bytes |
//!
//! Every file may be missing: controllers differ by host, files by kernel and its configuration. What is missing is left out.
//! Networks belong to a network namespace, not to a cgroup; who wants them asks there, as with containerd's own shim.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tare_proto::{Any, any};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

mod v1;
mod v2;

/// The statistics of `cgroup`: `io.containerd.cgroups.v1.Metrics` or `io.containerd.cgroups.v2.Metrics`, by what it is.
///
/// What the host does not count is left out; only a cgroup that is gone is an error (`NotFound`).
pub fn stats(cgroup: &Cgroup) -> Result<Any> {
    let packed = match cgroup {
        Cgroup::V1(directories) => any::pack(&v1::metrics(directories)),
        Cgroup::V2(directory) => any::pack(&v2::metrics(directory)),
    };
    // Asked last: what went while its files were read has given nothing.
    if !cgroup.exists() {
        return Err(Error::not_found(format!("read the statistics of {}: the cgroup is gone", cgroup.display())));
    }
    packed.map_err(|error| Error::internal(format!("pack the statistics of {}: {error}", cgroup.display())))
}

/// The content of a file, or None where it cannot be had: not there, not readable, or not counted (`EOPNOTSUPP`).
fn text(directory: &Path, file: &str) -> Option<String> {
    let mut text = String::new();
    File::open(directory.join(file)).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// What `max` stands for in a message.
#[derive(Clone, Copy)]
enum Unlimited {
    /// Version 1 of containerd's statistics.
    Zero,
    /// Version 2.
    Largest,
}

/// The one number in a file.
fn number(directory: &Path, file: &str, unlimited: Unlimited) -> Option<u64> {
    match (text(directory, file)?.trim(), unlimited) {
        ("max", Unlimited::Zero) => Some(0),
        ("max", Unlimited::Largest) => Some(u64::MAX),
        // A counter may be below zero for a moment; nobody has less than nothing.
        (number, _) if number.starts_with('-') => Some(0),
        (number, _) => number.parse().ok(),
    }
}

/// Lines of a name and a number.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// A device of `rdma.current` or `rdma.max`: its name, handles and objects.
fn rdma(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next()?;
        let values: HashMap<&str, u32> = fields
            .filter_map(|field| {
                let (name, value) = field.split_once('=')?;
                Some((name, if value == "max" { u32::MAX } else { value.parse().ok()? }))
            })
            .collect();
        let value = |name| values.get(name).copied().unwrap_or_default();
        Some((device, value("hca_handle"), value("hca_object")))
    })
}

/// The sizes of huge pages of this host, as the files of a cgroup name them: `64KB`, `2MB`, `1GB`. Smallest first.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut kilobytes: Vec<u64> = entries
        .filter_map(|entry| {
            entry.ok()?.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
        })
        .collect();
    kilobytes.sort_unstable();
    kilobytes.into_iter().map(huge_page_size).collect()
}

fn huge_page_size(kilobytes: u64) -> String {
    match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    }
}

#[cfg(test)]
mod tests;
