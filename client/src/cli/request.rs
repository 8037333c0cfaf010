//! From the flags of `run` and `create` to a request: every error of the user ends here, before anything is made.

mod environment;
mod health;
mod mounts;
mod network;
pub(crate) mod ports;
pub(super) mod resources;
mod security;

use super::flags::{Absent, Container as Flags, Words};
use crate::error::{Error, Result};
use crate::names;
use crate::paths;
use crate::record::{Config, Container, HostConfig, LogConfig, Map, RestartPolicy};
use crate::units;

/// How the streams of a new container are to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// `create`: nobody looks yet.
    Later,
    /// `run`: the caller looks on.
    Attached,
    /// `run -d`: nobody looks.
    Detached,
}

/// The record of what was said.
pub(crate) fn record(flags: &Flags, words: &Words, view: View) -> Result<Container> {
    refuse(&flags.absent)?;
    let (image, command) = words.split();
    if image.is_empty() {
        return Err(Error::usage("the image's name is empty: give one, as in debian:stable"));
    }
    let mut record = Container { name: name(flags)?, ..Container::default() };
    record.image.reference = image.to_owned();
    record.config = config(flags, image, command)?;
    streams(flags, view, &mut record.config)?;
    record.host_config = host_config(flags)?;
    storage(flags, &mut record)?;
    network::apply(&flags.network, &mut record)?;
    Ok(record)
}

/// `--label`.
pub(super) fn labels(given: &[String]) -> Result<Map> {
    environment::labels(&[], given)
}

/// `-e` and `--env-file` of an exec.
pub(super) fn variables(files: &[String], given: &[String]) -> Result<Vec<String>> {
    environment::environment(files, given, &|name| std::env::var(name).ok())
}

fn name(flags: &Flags) -> Result<String> {
    let Some(given) = &flags.name else { return Ok(String::new()) };
    let name = given.strip_prefix('/').unwrap_or(given);
    names::check("container", name)?;
    Ok(name.to_owned())
}

fn config(flags: &Flags, image: &str, command: &[String]) -> Result<Config> {
    let caller = |name: &str| std::env::var(name).ok();
    if let Some(directory) = flags.workdir.as_deref().filter(|it| !it.is_empty() && !it.starts_with('/')) {
        return Err(Error::usage(format!("-w {directory:?} does not begin with /: give a directory's whole path")));
    }
    if let Some(name) = flags.hostname.as_deref().filter(|it| it.len() > 64 || it.contains(char::is_whitespace)) {
        return Err(Error::usage(format!("-h {name:?} is no host name: it has at most 64 characters and no spaces")));
    }
    Ok(Config {
        hostname: flags.hostname.clone().unwrap_or_default(),
        domainname: flags.domainname.clone().unwrap_or_default(),
        user: flags.user.clone().unwrap_or_default(),
        tty: flags.tty,
        open_stdin: flags.interactive,
        env: environment::environment(&flags.env_file, &flags.env, &caller)?,
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        healthcheck: health::check(&flags.health)?,
        image: image.to_owned(),
        working_dir: flags.workdir.clone().unwrap_or_default(),
        entrypoint: flags.entrypoint.clone().map(|it| vec![it]),
        labels: environment::labels(&flags.label_file, &flags.label)?,
        stop_signal: flags.stop_signal.as_deref().map(signal).transpose()?.unwrap_or_default(),
        stop_timeout: flags.stop_timeout,
        ..Config::default()
    })
}

/// Who sees which stream.
fn streams(flags: &Flags, view: View, config: &mut Config) -> Result<()> {
    let mut attached = [false; 3];
    for name in &flags.attach {
        let at = ["stdin", "stdout", "stderr"]
            .iter()
            .position(|it| name.eq_ignore_ascii_case(it))
            .ok_or_else(|| Error::usage(format!("-a {name:?} is no stream: there are stdin, stdout and stderr")))?;
        attached[at] = true;
    }
    if view == View::Detached {
        if !flags.attach.is_empty() {
            return Err(Error::usage("-a and -d exclude each other: leave one out"));
        }
    } else if flags.attach.is_empty() {
        attached = [flags.interactive, true, true];
    }
    [config.attach_stdin, config.attach_stdout, config.attach_stderr] = attached;
    config.stdin_once = config.open_stdin && config.attach_stdin;
    Ok(())
}

fn host_config(flags: &Flags) -> Result<HostConfig> {
    let mut to = HostConfig {
        container_id_file: flags.cidfile.as_deref().map(id_file).transpose()?.unwrap_or_default(),
        log_config: log(flags)?,
        restart_policy: restart_policy(&flags.restart)?,
        auto_remove: flags.rm,
        init: flags.init,
        readonly_rootfs: flags.storage.read_only,
        runtime: flags.runtime.clone().unwrap_or_default(),
        annotations: super::networks::pairs("--annotation", &flags.annotation)?,
        shm_size: 64 << 20,
        ..HostConfig::default()
    };
    if to.auto_remove && to.restart_policy.name != "no" {
        return Err(Error::usage("--rm removes what --restart would start again: leave one out"));
    }
    if let Some(text) = &flags.storage.shm_size {
        to.shm_size = units::bytes(text).map_err(|error| error.within("--shm-size"))?;
        if to.shm_size == 0 {
            to.shm_size = 64 << 20;
        }
    }
    resources::apply(&flags.resources, &mut to)?;
    security::apply(&flags.security, &mut to)?;
    for text in &flags.security.device {
        to.devices.push(mounts::device(text)?);
    }
    Ok(to)
}

fn storage(flags: &Flags, record: &mut Container) -> Result<()> {
    for text in &flags.storage.volume {
        match mounts::volume(text)? {
            mounts::Volume::Bind(bind) => record.host_config.binds.push(bind),
            mounts::Volume::Unnamed(target) => {
                record.config.volumes.get_or_insert_default().insert(target, serde_json::json!({}));
            }
        }
    }
    for text in &flags.storage.mount {
        record.host_config.mounts.push(mounts::mount(text)?);
    }
    for text in &flags.storage.tmpfs {
        mounts::tmpfs(text, &mut record.host_config.tmpfs)?;
    }
    for text in &flags.storage.volumes_from {
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if name.is_empty() || !["ro", "rw", "z", "Z"].contains(&mode) {
            return Err(Error::usage(format!("--volumes-from {text:?} is none: give CONTAINER[:ro]")));
        }
    }
    record.host_config.volumes_from.clone_from(&flags.storage.volumes_from);
    targets_differ(record)
}

/// Two things cannot be in one place.
fn targets_differ(record: &Container) -> Result<()> {
    let binds = record.host_config.binds.iter().filter_map(|it| it.split(':').nth(1));
    let mounts = record.host_config.mounts.iter().map(|it| it.target.as_str());
    let tmpfs = record.host_config.tmpfs.keys().map(String::as_str);
    let mut seen = std::collections::BTreeSet::new();
    for target in binds.chain(mounts).chain(tmpfs) {
        if !seen.insert(target) {
            return Err(Error::usage(format!("two mounts have the directory {target}: leave one of them out")));
        }
    }
    Ok(())
}

/// The file must not be there: another container may be known by it.
fn id_file(text: &str) -> Result<String> {
    let path =
        std::path::absolute(text).map_err(|error| Error::usage(format!("--cidfile {text:?} is no path: {error}")))?;
    if path.symlink_metadata().is_ok() {
        return Err(Error::conflict(format!(
            "--cidfile {text} is there already: remove it, if the container it names is no longer needed"
        )));
    }
    if path.parent().is_none_or(|it| !it.is_dir()) {
        return Err(Error::usage(format!("--cidfile {text} cannot be written: its directory is not there")));
    }
    Ok(paths::text(&path))
}

fn log(flags: &Flags) -> Result<LogConfig> {
    let kind = flags.log_driver.as_deref().unwrap_or("json-file");
    if !["json-file", "none"].contains(&kind) {
        return Err(Error::usage(format!("tarectl has no --log-driver {kind}: there are json-file and none")));
    }
    let mut to = LogConfig { kind: kind.to_owned(), ..LogConfig::default() };
    for text in &flags.log_opt {
        let wrong =
            |why: &str| Error::usage(format!("--log-opt {text:?} {why}: there are max-size=10m and max-file=3"));
        let (name, value) = text.split_once('=').ok_or_else(|| wrong("has no value"))?;
        match (kind, name) {
            ("none", _) => return Err(wrong("says nothing with --log-driver none")),
            (_, "max-size") => drop(units::bytes(value).map_err(|error| error.within(format!("--log-opt {text}")))?),
            (_, "max-file") if value.parse::<u32>().is_ok_and(|it| it > 0) => {}
            (_, "max-file") => return Err(wrong("is no number from 1")),
            _ => return Err(wrong("is none")),
        }
        to.config.insert(name.to_owned(), value.to_owned());
    }
    Ok(to)
}

/// `no`, `on-failure[:N]`, `always`, `unless-stopped`.
pub(super) fn restart_policy(text: &str) -> Result<RestartPolicy> {
    let wrong =
        || Error::usage(format!("--restart {text:?} is none: there are no, on-failure[:N], always and unless-stopped"));
    let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    let count = match (name, count) {
        ("on-failure", Some(count)) => count.parse().map_err(|_| wrong())?,
        ("no" | "always" | "unless-stopped" | "on-failure" | "", None) => 0,
        _ => return Err(wrong()),
    };
    let name = if name.is_empty() { "no" } else { name };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
}

/// A signal's name or number, as it was written.
pub(super) fn signal(text: &str) -> Result<String> {
    signal_number(text).map(|_| text.to_owned())
}

/// A signal by name, with or without SIG, or by number.
pub(super) fn signal_number(text: &str) -> Result<i32> {
    let wrong =
        || Error::usage(format!("{text:?} is no signal: give one, as in TERM, SIGHUP or 9 (signal(7) lists them)"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset =
            if offset.is_empty() { Some(0) } else { offset.strip_prefix('+').and_then(|it| it.parse::<i32>().ok()) };
        return offset.map(|it| 34 + it).filter(|it| (34..=64).contains(it)).ok_or_else(wrong);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset =
            if offset.is_empty() { Some(0) } else { offset.strip_prefix('-').and_then(|it| it.parse::<i32>().ok()) };
        return offset.map(|it| 64 - it).filter(|it| (34..=64).contains(it)).ok_or_else(wrong);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|it| it as i32).map_err(|_| wrong())
}

/// What docker has and tarectl has not: said, and not passed over.
fn refuse(flags: &Absent) -> Result<()> {
    let lists = [
        ("--blkio-weight-device", !flags.blkio_weight_device.is_empty()),
        ("--cpu-rt-period", flags.cpu_rt_period.is_some()),
        ("--cpu-rt-runtime", flags.cpu_rt_runtime.is_some()),
        ("--device-read-bps", !flags.device_read_bps.is_empty()),
        ("--device-read-iops", !flags.device_read_iops.is_empty()),
        ("--device-write-bps", !flags.device_write_bps.is_empty()),
        ("--device-write-iops", !flags.device_write_iops.is_empty()),
        ("--kernel-memory", flags.kernel_memory.is_some()),
        ("--link-local-ip", !flags.link_local_ip.is_empty()),
        ("--storage-opt", !flags.storage_opt.is_empty()),
        ("--use-api-socket", flags.use_api_socket),
    ];
    if let Some((name, _)) = lists.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!("tarectl has no {name}: leave it out")));
    }
    if flags.gpus.is_some() {
        return Err(Error::usage(
            "tarectl has no --gpus: give the devices by --device, as in /dev/dri or /dev/nvidia0",
        ));
    }
    if flags.isolation.as_deref().is_some_and(|it| it != "default" && !it.is_empty()) {
        return Err(Error::usage("on Linux there is only --isolation default: leave it out"));
    }
    if flags.volume_driver.as_deref().is_some_and(|it| it != "local" && !it.is_empty()) {
        return Err(Error::usage("tarectl's volumes have only the driver local: leave --volume-driver out"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
