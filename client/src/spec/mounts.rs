//! What is mounted in the container, in the order in which it is.

use std::path::Path;

use serde_json::{Value, json};

use super::Inputs;
use super::process::INIT;
use crate::paths;
use crate::record::{Container, HostConfig, Mount};

/// One mount of the configuration.
struct Line {
    destination: String,
    kind: &'static str,
    source: String,
    options: Vec<String>,
}

impl Line {
    fn new(destination: &str, kind: &'static str, source: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.to_owned(),
            kind,
            source: source.to_owned(),
            options: options.iter().map(|it| (*it).to_owned()).collect(),
        }
    }
}

/// The list `mounts`.
pub(super) fn all(inputs: &Inputs<'_>, init: Option<&Path>) -> Vec<Value> {
    let Inputs { record, files, joins, .. } = *inputs;
    let host = &record.host_config;
    let asked = asked(inputs);
    let mut lines = system(host);
    lines.extend(shared_memory(host, joins.shm.as_deref()));
    let read_only = host.readonly_rootfs;
    for (destination, source) in
        [("/etc/resolv.conf", &files.resolv_conf), ("/etc/hostname", &files.hostname), ("/etc/hosts", &files.hosts)]
    {
        let options: &[&str] = if read_only { &["rbind", "ro", "rprivate"] } else { &["rbind", "rprivate"] };
        lines.push(Line::new(destination, "bind", &paths::text(source), options));
    }
    if let Some(init) = init {
        lines.push(Line::new(INIT, "bind", &paths::text(init), &["bind", "ro"]));
    }
    // What the user puts there is there in its place; over the whole of /dev, what is in it comes from there.
    let over = |place: &str| asked.iter().any(|it| it.destination == place);
    let whole_dev = over("/dev");
    lines.retain(|it| !(over(&it.destination) || whole_dev && it.destination.starts_with("/dev/")));
    // Above comes before below.
    let mut asked = asked;
    asked.sort_by_key(|it| it.destination.split('/').filter(|part| !part.is_empty()).count());
    lines.extend(asked);
    lines
        .into_iter()
        .map(|it| json!({ "destination": it.destination, "type": it.kind, "source": it.source, "options": it.options }))
        .collect()
}

/// What every container has.
fn system(host: &HostConfig) -> Vec<Line> {
    let mut lines = vec![
        Line::new("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        Line::new("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Line::new(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Line::new("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        Line::new("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        Line::new("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if host.privileged {
        lines.iter_mut().filter(|it| it.destination.starts_with("/sys")).for_each(|it| {
            it.options.retain(|option| option != "ro");
        });
    }
    lines
}

/// /dev/shm.
fn shared_memory(host: &HostConfig, shared: Option<&Path>) -> Option<Line> {
    let bound = |source: &str| Some(Line::new("/dev/shm", "bind", source, &["rbind", "rprivate"]));
    match (host.ipc_mode.as_str(), shared) {
        ("none", _) => None,
        ("host", _) => bound("/dev/shm"),
        (_, Some(shared)) => bound(&paths::text(shared)),
        _ => {
            let size = format!("size={}", host.shm_size);
            Some(Line::new("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]))
        }
    }
}

/// What the user, or the image by its volumes, wants mounted.
fn asked(inputs: &Inputs<'_>) -> Vec<Line> {
    let host = &inputs.record.host_config;
    let mut lines: Vec<Line> = inputs.record.mounts.iter().map(|mount| line(mount, host)).collect();
    for line in &mut lines {
        if let Some(held) = inputs.held.source(&line.destination) {
            line.source = held;
        }
    }
    for (destination, options) in &host.tmpfs {
        let given: Vec<&str> = options.split(',').filter(|it| !it.is_empty()).collect();
        lines.push(Line::new(destination, "tmpfs", "tmpfs", &tmpfs_options(&given)));
    }
    lines
}

fn line(mount: &Mount, host: &HostConfig) -> Line {
    let spec = host.mounts.iter().find(|it| it.target == mount.destination);
    if mount.kind == "tmpfs" {
        let mut given = Vec::new();
        if let Some(spec) = spec {
            given.push(format!("mode={:o}", if spec.mode == 0 { 0o1777 } else { spec.mode }));
            if spec.size_bytes > 0 {
                given.push(format!("size={}", spec.size_bytes));
            }
        }
        if !mount.writable {
            given.push("ro".to_owned());
        }
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        return Line::new(&mount.destination, "tmpfs", "tmpfs", &tmpfs_options(&given));
    }
    let alone = spec.is_some_and(|it| it.non_recursive);
    let mut options = vec![if alone { "bind" } else { "rbind" }];
    if !mount.writable {
        options.push("ro");
    }
    if !mount.propagation.is_empty() {
        options.push(&mount.propagation);
    }
    Line::new(&mount.destination, "bind", &mount.source, &options)
}

/// A tmpfs runs nothing and has no device, unless it is said.
fn tmpfs_options<'a>(given: &[&'a str]) -> Vec<&'a str> {
    let mut options = Vec::new();
    for (off, on) in [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")] {
        if !given.contains(&on) && !given.contains(&off) {
            options.push(off);
        }
    }
    options.push("rprivate");
    options.extend(given.iter().filter(|it| **it != "defaults"));
    options
}

/// What the root has to be, so that mounts can travel through this one.
pub(super) fn root_propagation(record: &Container) -> Option<&'static str> {
    let any = |names: [&str; 2]| record.mounts.iter().any(|it| names.contains(&it.propagation.as_str()));
    match (any(["shared", "rshared"]), any(["slave", "rslave"])) {
        (true, _) => Some("shared"),
        (false, true) => Some("slave"),
        _ => None,
    }
}
