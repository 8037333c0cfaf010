//! From a record and its image to what a runtime is told (OCI runtime specification, config.md), as docker would tell it.
//!
//! ```text
//! complete   record + image's configuration -> a record that says everything; every user error ends here
//! build      that record -> config.json; reads nothing but the host's devices and, beneath the root, passwd and group
//! ```
//!
//! What is different from docker's, on purpose: the seccomp profile (see [`seccomp`]), and no hook, for networks are made before.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::Result;
use crate::record::Container;
use crate::users;
use crate::volumes::Held;

pub mod capabilities;
mod complete;
mod devices;
mod limits;
mod mounts;
mod process;
mod profile;
mod resources;
pub mod seccomp;
mod security;

pub(crate) use complete::has_cgroups_2;
pub use complete::{complete, merge};
pub use limits::ULIMITS;
pub use process::{DEFAULT_PATH, arguments, environment};

/// All that a configuration is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Completed by [`complete`]; its mounts are those that are made.
    pub record: &'a Container,
    /// What is bound over the container's.
    pub files: &'a Files,
    /// The network namespace to join; none: the host's with `--network host`, otherwise a new one.
    pub netns: Option<&'a Path>,
    /// Where its users are looked up.
    pub root: BorrowedFd<'a>,
    /// Namespaces of other containers.
    pub joins: &'a Joins,
    /// The AppArmor profile, where the host has the module ([`crate::apparmor::of`]).
    pub apparmor: Option<&'a str>,
    /// Variables that tell of linked containers.
    pub links: &'a [String],
    /// Parts of volumes that are mounted.
    pub held: &'a Held,
}

/// Files of the host that are bound over `/etc/…`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// Over /etc/hosts.
    pub hosts: PathBuf,
    /// Over /etc/hostname.
    pub hostname: PathBuf,
    /// Over /etc/resolv.conf.
    pub resolv_conf: PathBuf,
}

/// Processes whose namespaces are joined, as the host counts, and what goes with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joins {
    /// With `--pid container:X`.
    pub pid: Option<u32>,
    /// With `--ipc container:X`.
    pub ipc: Option<u32>,
    /// What is bound over /dev/shm, if it is not the container's alone.
    pub shm: Option<PathBuf>,
}

/// The whole of config.json. The root is `rootfs` in the bundle.
///
/// # Errors
/// There is no such user in the root, no such device on the host, or no such capability.
pub fn build(inputs: &Inputs<'_>) -> Result<Value> {
    let Inputs { record, .. } = *inputs;
    let user = users::resolve(inputs.root, &record.config.user, &record.host_config.group_add)?;
    let security = security::parse(&record.host_config)?;
    let capabilities = capabilities::of_host(&record.host_config)?;
    let devices = devices::collect(&record.host_config)?;
    let init = record.host_config.init.then(process::init_program).transpose()?;

    let mut root = json!({ "path": "rootfs" });
    if record.host_config.readonly_rootfs {
        root["readonly"] = true.into();
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": process::process(inputs, &user, &capabilities, &security),
        "root": root,
        "mounts": mounts::all(inputs, init.as_deref()),
        "linux": linux(inputs, &security, &capabilities, &devices)?,
    });
    if !record.host_config.annotations.is_empty() {
        spec["annotations"] = json!(record.host_config.annotations);
    }
    if record.host_config.uts_mode != "host" {
        spec["hostname"] = record.config.hostname.clone().into();
        // The specification's own field came later than many runtimes: as docker, by the kernel's parameter.
        if !record.config.domainname.is_empty() {
            spec["linux"]["sysctl"]["kernel.domainname"] = record.config.domainname.clone().into();
        }
    }
    Ok(spec)
}

fn linux(
    inputs: &Inputs<'_>,
    security: &security::Security,
    capabilities: &[String],
    devices: &devices::Devices,
) -> Result<Value> {
    let host = &inputs.record.host_config;
    let mut linux = json!({
        "sysctl": sysctls(inputs.record),
        "resources": resources::resources(host, devices),
        "cgroupsPath": cgroup(inputs.record),
        "namespaces": namespaces(inputs),
    });
    if !devices.nodes.is_empty() {
        linux["devices"] = devices.nodes.clone().into();
    }
    if !host.privileged {
        linux["maskedPaths"] = host.masked_paths.clone().into();
        linux["readonlyPaths"] = host.readonly_paths.clone().into();
    }
    if let Some(profile) = seccomp::choose(security, host.privileged, capabilities)? {
        linux["seccomp"] = profile;
    }
    if let Some(propagation) = mounts::root_propagation(inputs.record) {
        linux["rootfsPropagation"] = propagation.into();
    }
    Ok(linux)
}

/// Where its cgroup lies, below the host's.
#[must_use]
pub fn cgroup(record: &Container) -> String {
    let parent = record.host_config.cgroup_parent.as_str();
    let parent = if parent.is_empty() { "/tarectl" } else { parent };
    format!("/{}/{}", parent.trim_matches('/'), record.id)
}

fn sysctls(record: &Container) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    let mode = record.host_config.network_mode.as_str();
    if mode != "host" && !mode.starts_with("container:") {
        // In a network of its own everybody may serve low ports and ping.
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    sysctls.extend(record.host_config.sysctls.clone());
    sysctls
}

fn namespaces(inputs: &Inputs<'_>) -> Vec<Value> {
    let host = &inputs.record.host_config;
    let own = |kind: &str| json!({ "type": kind });
    let of = |kind: &str, path: String| json!({ "type": kind, "path": path });
    let of_process = |kind: &str, file: &str, pid: u32| of(kind, format!("/proc/{pid}/ns/{file}"));
    let mut all = vec![own("mount")];
    match inputs.netns {
        Some(path) => all.push(of("network", crate::paths::text(path))),
        None if host.network_mode == "host" => {}
        None => all.push(own("network")),
    }
    if host.uts_mode != "host" {
        all.push(own("uts"));
    }
    match inputs.joins.pid {
        Some(pid) => all.push(of_process("pid", "pid", pid)),
        None if host.pid_mode == "host" => {}
        None => all.push(own("pid")),
    }
    match inputs.joins.ipc {
        Some(pid) => all.push(of_process("ipc", "ipc", pid)),
        None if host.ipc_mode == "host" => {}
        None => all.push(own("ipc")),
    }
    if host.cgroupns_mode == "private" {
        all.push(own("cgroup"));
    }
    all
}

#[cfg(test)]
mod tests;
