//! Numbers that cannot be, with docker's words.

use crate::error::{Error, Result};
use crate::record::HostConfig;

const MIB: i64 = 1 << 20;

/// The limits of setrlimit(2) that can be set, as docker has them.
pub const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parameters of the kernel that belong to a namespace of the container's own.
const SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.domainname",
];

pub(super) fn check(host: &HostConfig) -> Result<()> {
    let wrong = |text: &str| Err(Error::usage(text.to_owned()));
    if host.memory != 0 && host.memory < 6 * MIB {
        return wrong("the minimum memory limit allowed is 6MB: give --memory more");
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return wrong("you should always set the memory limit when using the memory-swap limit: give --memory too");
    }
    if host.memory_swap > 0 && host.memory_swap < host.memory {
        return wrong("--memory-swap is memory and swap together: it should be larger than --memory");
    }
    if host.memory_swap < -1 || host.memory < 0 || host.shm_size < 0 {
        return wrong("a limit of memory is a number of bytes, and of --memory-swap perhaps -1");
    }
    if host.memory_reservation != 0 && host.memory_reservation < 6 * MIB {
        return wrong("the minimum memory reservation allowed is 6MB: give --memory-reservation more");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return wrong("the minimum memory limit can not be less than the memory reservation: give --memory more");
    }
    if host.memory_swappiness.is_some_and(|it| !(-1..=100).contains(&it)) {
        return wrong("--memory-swappiness is a number from 0 to 100");
    }
    if host.nano_cpus != 0 && (host.cpu_period != 0 || host.cpu_quota != 0) {
        return wrong("--cpus cannot be given together with --cpu-period or --cpu-quota: they say the same");
    }
    cpus(host)?;
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return wrong("--cpu-period is a number of microseconds from 1000 to 1000000");
    }
    if host.cpu_quota != 0 && host.cpu_quota != -1 && host.cpu_quota < 1_000 {
        return wrong("--cpu-quota is a number of microseconds from 1000 on");
    }
    if host.cpu_shares < 0 || host.cpu_shares == 1 || host.cpu_shares > 262_144 {
        return wrong("--cpu-shares is a number from 2 to 262144");
    }
    if host.blkio_weight != 0 && !(10..=1_000).contains(&host.blkio_weight) {
        return wrong("--blkio-weight is a number from 10 to 1000");
    }
    if !(-1_000..=1_000).contains(&host.oom_score_adj) {
        return wrong("--oom-score-adj is a number from -1000 to 1000");
    }
    list("--cpuset-cpus", &host.cpuset_cpus)?;
    list("--cpuset-mems", &host.cpuset_mems)?;
    host.ulimits.iter().try_for_each(ulimit)?;
    host.sysctls.keys().try_for_each(|name| sysctl(name, host))
}

fn cpus(host: &HostConfig) -> Result<()> {
    let there = std::thread::available_parallelism().map_or(i64::MAX, |it| i64::try_from(it.get()).unwrap_or(i64::MAX));
    let limit = there.saturating_mul(1_000_000_000);
    if host.nano_cpus != 0 && !(10_000_000..=limit).contains(&host.nano_cpus) {
        return Err(Error::usage(format!(
            "range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available"
        )));
    }
    Ok(())
}

/// As `0-3,5`.
fn list(flag: &str, text: &str) -> Result<()> {
    let number = |it: &str| it.parse::<u16>().ok().filter(|_| it.bytes().all(|byte| byte.is_ascii_digit()));
    let one = |part: &str| -> bool {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to && to < 8192)
    };
    if text.is_empty() || text.split(',').all(one) {
        return Ok(());
    }
    Err(Error::usage(format!("invalid value {text:?} for {flag}: give numbers and ranges, as in 0-3,5")))
}

fn ulimit(limit: &crate::record::Ulimit) -> Result<()> {
    if !ULIMITS.contains(&limit.name.as_str()) {
        return Err(Error::usage(format!("invalid ulimit type: {}: there are {}", limit.name, ULIMITS.join(", "))));
    }
    if limit.hard != -1 && (limit.soft > limit.hard || limit.soft == -1) {
        return Err(Error::usage(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft, limit.hard
        )));
    }
    Ok(())
}

fn sysctl(name: &str, host: &HostConfig) -> Result<()> {
    let refuse = |why: &str| Err(Error::usage(format!("sysctl '{name}' is not allowed: {why}")));
    let mode = host.network_mode.as_str();
    match name {
        _ if name.contains('/') || name.contains("..") => refuse("its name is written with dots"),
        _ if name.starts_with("net.") && mode == "host" => refuse("it would be the host's, with --network host"),
        _ if name.starts_with("net.") => Ok(()),
        _ if name.starts_with("fs.mqueue.") || SYSCTLS.contains(&name) => {
            if host.ipc_mode == "host" && name != "kernel.domainname" {
                return refuse("it would be the host's, with --ipc host");
            }
            Ok(())
        }
        _ => refuse("it belongs to the whole host, and not to a container"),
    }
}
