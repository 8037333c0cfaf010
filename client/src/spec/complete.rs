//! What the user said, what the image says, and what goes without saying, in one record.

use super::{limits, process, seccomp, security};
use crate::error::{Error, Result};
use crate::record::{Config, Container, Health};

/// Hidden from a container unless it is privileged.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What a container may look at and not write.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Of /dev/shm.
const SHM_SIZE: i64 = 64 << 20;

/// Merges the image's configuration into the record's and fills what nobody said. It has no effect but on the record: every wrong
/// use that can be known without the host's help is told here.
///
/// # Errors
/// The first wrong use.
pub fn complete(record: &mut Container, image: &Config) -> Result<()> {
    merge(&mut record.config, image);
    defaults(record);
    check(record)
}

/// What the image says where the user said nothing, as docker merges it.
pub fn merge(config: &mut Config, image: &Config) {
    let fill = |own: &mut String, other: &String| {
        if own.is_empty() {
            own.clone_from(other);
        }
    };
    fill(&mut config.user, &image.user);
    fill(&mut config.working_dir, &image.working_dir);
    fill(&mut config.stop_signal, &image.stop_signal);
    for (port, value) in &image.exposed_ports {
        config.exposed_ports.entry(port.clone()).or_insert_with(|| value.clone());
    }
    for (name, value) in &image.labels {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    for (place, value) in image.volumes.iter().flatten() {
        config.volumes.get_or_insert_default().entry(place.clone()).or_insert_with(|| value.clone());
    }
    let key = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
    let own: Vec<String> = config.env.iter().map(key).collect();
    config.env.extend(image.env.iter().filter(|it| !own.contains(&key(it))).cloned());
    // Who gives another entry point does not want the image's arguments for it.
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    merge_health(config, image.healthcheck.as_ref());
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    if config.shell.is_none() {
        config.shell.clone_from(&image.shell);
    }
}

fn merge_health(config: &mut Config, image: Option<&Health>) {
    let Some(image) = image else { return };
    let own = config.healthcheck.get_or_insert_with(Health::default);
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    let fill = |own: &mut i64, other: i64| {
        if *own == 0 {
            *own = other;
        }
    };
    fill(&mut own.interval, image.interval);
    fill(&mut own.timeout, image.timeout);
    fill(&mut own.start_period, image.start_period);
    fill(&mut own.start_interval, image.start_interval);
    fill(&mut own.retries, image.retries);
}

/// Whether all cgroups of this host are in the unified hierarchy.
pub(crate) fn has_cgroups_2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").metadata().is_ok()
}

fn defaults(record: &mut Container) {
    let Container { config, host_config: host, id, .. } = record;
    if config.hostname.is_empty() {
        config.hostname = if host.network_mode == "host" { host_name() } else { id.chars().take(12).collect() };
    }
    if config.entrypoint == Some(vec![String::new()]) {
        config.entrypoint = None;
    }
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if host.cgroupns_mode.is_empty() {
        // As docker: where all cgroups are in the unified hierarchy, a container has its own view of it, a privileged one too.
        if has_cgroups_2() { "private" } else { "host" }.clone_into(&mut host.cgroupns_mode);
    }
    if host.shm_size == 0 {
        host.shm_size = SHM_SIZE;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    let unconfined = host.privileged || host.security_opt.iter().any(|it| it == "systempaths=unconfined");
    if unconfined {
        host.masked_paths.clear();
        host.readonly_paths.clear();
    } else if host.masked_paths.is_empty() && host.readonly_paths.is_empty() {
        host.masked_paths = MASKED.map(str::to_owned).to_vec();
        host.readonly_paths = READONLY.map(str::to_owned).to_vec();
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn check(record: &Container) -> Result<()> {
    let Container { config, host_config: host, .. } = record;
    if process::arguments(config).is_empty() {
        return Err(Error::usage(
            "no command specified: the image has none, so give one behind its name, as in: run IMAGE COMMAND",
        ));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::usage(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    // Every text goes to the kernel with a nul behind it.
    let texts = config.env.iter().chain(config.cmd.iter().flatten()).chain(config.entrypoint.iter().flatten());
    if let Some(text) = texts.chain([&config.working_dir, &config.user, &config.hostname]).find(|it| it.contains('\0'))
    {
        return Err(Error::usage(format!(
            "{text:?} has a nul character in it, which no argument or variable can have"
        )));
    }
    let parsed = security::parse(host)?;
    super::capabilities::of_host(host)?;
    seccomp::choose(&parsed, host.privileged, &[])?;
    modes(record)?;
    limits::check(host)
}

/// Words that are one of a few.
fn modes(record: &Container) -> Result<()> {
    let host = &record.host_config;
    let known = |what: &str, mode: &str, known: &[&str]| {
        if known.contains(&mode) || mode.strip_prefix("container:").is_some_and(|id| !id.is_empty()) {
            return Ok(());
        }
        let all: Vec<String> = known.iter().filter(|it| !it.is_empty()).map(|it| format!("{it:?}")).collect();
        Err(Error::usage(format!("{mode:?} is no {what} mode: there are {}", all.join(", "))))
    };
    known("IPC", &host.ipc_mode, &["private", "shareable", "host", "none"])?;
    known("PID", &host.pid_mode, &["", "host"])?;
    let plain = |what: &str, mode: &str, all: &[&str]| {
        if mode.starts_with("container:") {
            return Err(Error::usage(format!("{mode:?} is no {what} mode: {what} cannot be another container's")));
        }
        known(what, mode, all)
    };
    plain("UTS", &host.uts_mode, &["", "host"])?;
    plain("cgroup namespace", &host.cgroupns_mode, &["private", "host"])?;
    plain("user namespace", &host.userns_mode, &["", "host"])?;
    if host.uts_mode == "host" && !record.config.domainname.is_empty() {
        return Err(Error::usage("--domainname cannot be given with --uts host: the host's name would be changed"));
    }
    Ok(())
}
