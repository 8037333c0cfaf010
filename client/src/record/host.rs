//! What the host gives a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Map;

/// What the host gives the container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `source:target[:options]`, as given with -v.
    pub binds: Vec<String>,
    /// As given with --mount.
    pub mounts: Vec<MountSpec>,
    /// Where to write the id.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// The log.
    pub log_config: LogConfig,
    /// `bridge`, `host`, `none`, `container:<id>` or a network's name.
    pub network_mode: String,
    /// `80/tcp` → where on the host.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// All exposed ports get a free one of the host.
    pub publish_all_ports: bool,
    /// What happens after an exit.
    pub restart_policy: RestartPolicy,
    /// It is removed at its end.
    pub auto_remove: bool,
    /// Columns and rows at the start.
    pub console_size: [u16; 2],
    /// Added capabilities, without CAP_.
    pub cap_add: Vec<String>,
    /// Capabilities it does not get.
    pub cap_drop: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Options of resolv.conf(5).
    pub dns_options: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `host:address`.
    pub extra_hosts: Vec<String>,
    /// Additional groups.
    pub group_add: Vec<String>,
    /// `private`, `shareable`, `host`, `none` or `container:<id>`.
    pub ipc_mode: String,
    /// `container:alias`.
    pub links: Vec<String>,
    /// -1000 to 1000.
    pub oom_score_adj: i64,
    /// Empty (its own), `host` or `container:<id>`.
    pub pid_mode: String,
    /// Everything is allowed.
    pub privileged: bool,
    /// Its root cannot be written.
    pub readonly_rootfs: bool,
    /// `seccomp=…`, `apparmor=…`, `no-new-privileges`, `label=…`, `systempaths=unconfined`.
    pub security_opt: Vec<String>,
    /// `target` → options.
    pub tmpfs: Map,
    /// Empty (its own) or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty (the host's), or `host`.
    pub userns_mode: String,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// Of /dev/shm, in bytes.
    pub shm_size: i64,
    /// Kernel parameters.
    pub sysctls: Map,
    /// The OCI runtime.
    pub runtime: String,
    /// What that is told beside.
    pub annotations: Map,
    /// In bytes; 0 is no limit, here and below.
    pub memory: i64,
    /// Memory and swap together; -1 is no limit.
    pub memory_swap: i64,
    /// In bytes.
    pub memory_reservation: i64,
    /// 0 to 100; none: the kernel's.
    pub memory_swappiness: Option<i64>,
    /// 1e9 is one CPU.
    pub nano_cpus: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// In microseconds.
    pub cpu_period: i64,
    /// In microseconds.
    pub cpu_quota: i64,
    /// As `0-3,5`.
    pub cpuset_cpus: String,
    /// As `0,1`.
    pub cpuset_mems: String,
    /// 10 to 1000.
    pub blkio_weight: u16,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Rules such as `c 42:* rmw`.
    pub device_cgroup_rules: Vec<String>,
    /// It is not killed when memory lacks.
    pub oom_kill_disable: bool,
    /// Runs as process 1, forwards signals and reaps.
    pub init: bool,
    /// Processes and threads; 0 and -1 are no limit.
    pub pids_limit: i64,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Its parent cgroup.
    pub cgroup_parent: String,
    /// Volumes of these containers too: `id[:ro]`.
    pub volumes_from: Vec<String>,
    /// What is hidden from it.
    pub masked_paths: Vec<String>,
    /// What it cannot write.
    pub readonly_paths: Vec<String>,
}

/// A mount as --mount gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountSpec {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A path or a volume's name.
    pub source: String,
    /// A path in the container.
    pub target: String,
    /// It cannot be written.
    pub read_only: bool,
    /// `rprivate`, `rslave`, …
    pub propagation: String,
    /// What is mounted below the source does not come along.
    pub non_recursive: bool,
    /// A new volume stays as it is, empty.
    pub no_copy: bool,
    /// Only this directory of the volume, relative to it; empty: all of it.
    pub subpath: String,
    /// Of a tmpfs, in bytes; 0 is the kernel's.
    pub size_bytes: i64,
    /// Of a tmpfs; 0 is 1777.
    pub mode: u32,
    /// Labels for a new volume.
    pub labels: Map,
}

/// The log and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// `json-file` or `none`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// max-size, max-file.
    pub config: Map,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { kind: "json-file".to_owned(), config: Map::new() }
    }
}

/// An address and a port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Empty: all of the host's.
    pub host_ip: String,
    /// A number, or empty for a free one.
    pub host_port: String,
}

/// What happens after an exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `on-failure`, `always` or `unless-stopped`.
    pub name: String,
    /// With `on-failure`; 0 is no limit.
    pub maximum_retry_count: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { name: "no".to_owned(), maximum_retry_count: 0 }
    }
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Device {
    /// On the host: a device, or a directory of such.
    pub path_on_host: String,
    /// In the container.
    pub path_in_container: String,
    /// Of `rwm`.
    pub cgroup_permissions: String,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// As `nofile`.
    pub name: String,
    /// -1 is no limit.
    pub soft: i64,
    /// -1 is no limit.
    pub hard: i64,
}
