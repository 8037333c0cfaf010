//! What is known of a container: what was asked for, and how it is.
//!
//! The fields carry docker's names, so that `inspect` shows the record nearly as it is, and scripts that ask docker for
//! `.State.StartedAt` or `.HostConfig.Memory` ask us the same. Unset numbers are 0, unset texts empty, as docker's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The form of the record; a newer one than this program knows is refused.
pub const VERSION: u32 = 1;

/// A list of texts by name.
pub type Map = BTreeMap<String, String>;

/// Whether there is a label as a filter asks for it: `NAME`, or `NAME=VALUE`.
#[must_use]
pub fn has_label(labels: &Map, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|it| it == value),
        None => labels.contains_key(wanted),
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// [`VERSION`] of who wrote it.
    pub record_version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without docker's slash.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// The image as it was asked for, resolved.
    pub image: ImageOf,
    /// The snapshot that is its root; its id too.
    pub snapshot: String,
    /// What the container is.
    pub config: Config,
    /// What the host gives it.
    pub host_config: HostConfig,
    /// How it is.
    pub state: State,
    /// Volumes and directories of the host in it.
    pub mounts: Vec<Mount>,
    /// By network: what it has there. Filled while it runs; names, aliases and addresses asked for stay.
    pub networks: BTreeMap<String, Endpoint>,
    /// `80/tcp` → where on the host it is published while it runs: no port is left open here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, Vec<PortBinding>>,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            record_version: VERSION,
            id: String::new(),
            name: String::new(),
            created: Time::NEVER,
            image: ImageOf::default(),
            snapshot: String::new(),
            config: Config::default(),
            host_config: HostConfig::default(),
            state: State::default(),
            mounts: Vec::new(),
            networks: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }
}

/// Which image it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageOf {
    /// As the user wrote it.
    pub reference: String,
    /// The image's name in the store: `docker.io/library/debian:latest`.
    pub name: String,
    /// Its id: the digest of its configuration.
    pub id: String,
    /// The digest of its manifest.
    pub manifest: String,
    /// The snapshot below the container's.
    pub chain_id: String,
}

/// What the container is: an image's `config` (OCI image specification, config.md) with what the call changed of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Its host name; the id's first twelve digits if nothing else is said.
    pub hostname: String,
    /// Its NIS domain name.
    pub domainname: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty: root.
    pub user: String,
    /// The caller looks on.
    pub attach_stdin: bool,
    /// As `attach_stdin`.
    pub attach_stdout: bool,
    /// As `attach_stdin`.
    pub attach_stderr: bool,
    /// `80/tcp` and the like, that its image or call says it serves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input stays open.
    pub open_stdin: bool,
    /// Its standard input ends with the client that is attached.
    pub stdin_once: bool,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// What is run, or the arguments of `entrypoint`.
    pub cmd: Option<Vec<String>>,
    /// How it is seen whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Health>,
    /// As the user wrote it.
    pub image: String,
    /// Directories that are volumes.
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    /// Where the command starts.
    pub working_dir: String,
    /// What is run, before `cmd`.
    pub entrypoint: Option<Vec<String>>,
    /// What people say of it.
    pub labels: Map,
    /// As `SIGTERM`, or a number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// For builds: instructions of an image made from this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// For builds: what runs a command given as a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// A health check. Times are in nanoseconds, as docker's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    pub test: Vec<String>,
    /// Between two checks; 0: 30 s.
    pub interval: i64,
    /// Of one check; 0: 30 s.
    pub timeout: i64,
    /// At first failures do not count.
    pub start_period: i64,
    /// Between two checks at first; 0: 5 s.
    pub start_interval: i64,
    /// So many failures in a row are too many; 0: 3.
    pub retries: i64,
}

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

/// How a container can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, and not started yet.
    #[default]
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended and will be started again.
    Restarting,
    /// It is being removed.
    Removing,
    /// It has ended.
    Exited,
    /// It has ended, and could not be cleaned up.
    Dead,
}

impl Status {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// The one word.
    pub status: Status,
    /// The kernel killed a process of it for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Of its first process, as the host counts; 0 when it does not run.
    pub pid: u32,
    /// Of its last run.
    pub exit_code: i64,
    /// Why it could not be started.
    pub error: String,
    /// When it was started last.
    pub started_at: Time,
    /// When it ended last.
    pub finished_at: Time,
    /// How often it was started again by policy, since the user started it.
    pub restart_count: u32,
    /// How long it waits before it is started again, in milliseconds; grows with each time.
    #[serde(skip_serializing_if = "is_zero")]
    pub restart_delay: u64,
    /// The user stopped it: `unless-stopped` and `always` leave it so (until the next boot, with `always`).
    pub stopped_by_user: bool,
    /// The shim's address while there is one.
    pub shim: String,
    /// Of health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What health checks have found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthState {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five.
    pub log: Vec<HealthResult>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthResult {
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// 0 is well.
    pub exit_code: i64,
    /// The first 4 KiB that it wrote.
    pub output: String,
}

/// A volume or a directory of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The volume's; empty for others.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// On the host.
    pub source: String,
    /// In the container.
    pub destination: String,
    /// `local` for volumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Further options, as `z` or `ro`.
    pub mode: String,
    /// It can be written.
    #[serde(rename = "RW")]
    pub writable: bool,
    /// Of mounts below it.
    pub propagation: String,
}

/// What a container has in a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    /// The addresses that were asked for.
    #[serde(rename = "RequestedIP")]
    pub requested_ip: String,
    /// The MAC address that was asked for.
    #[serde(rename = "RequestedMAC")]
    pub requested_mac: String,
    /// Other names of it there.
    pub aliases: Vec<String>,
    /// `container:alias` there.
    pub links: Vec<String>,
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Its interface in the container.
    pub interface: String,
    /// Of the network.
    pub gateway: String,
    /// Empty when it does not run.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Of its address.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// As `02:42:…`.
    pub mac_address: String,
    /// What the CNI plugins answered: given back to them when they take it away.
    pub cni_result: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file_and_has_dockers_names() {
        let mut record = Container { id: "ab".repeat(32), name: "web".to_owned(), ..Container::default() };
        record.host_config.memory = 64 << 20;
        record.state.started_at = Time::since_epoch(1_000_000_000, 5);
        let text = serde_json::to_string(&record).unwrap();
        for name in [
            "\"HostConfig\":{",
            "\"Memory\":67108864",
            "\"OOMKilled\":false",
            "\"StartedAt\":\"2001-09-09T01:46:40.000000005Z\"",
            "\"Status\":\"created\"",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert_eq!(serde_json::from_str::<Container>(&text).unwrap(), record);
        // An older record has fewer fields.
        let old: Container = serde_json::from_str(r#"{"Id":"x","State":{"Status":"exited"}}"#).unwrap();
        assert_eq!((old.id.as_str(), old.state.status), ("x", Status::Exited));
    }
}
