//! What is known of a container: what was asked for, and how it is.
//!
//! The fields carry docker's names, so that `inspect` shows the record nearly as it is, and scripts that ask docker for
//! `.State.StartedAt` or `.HostConfig.Memory` ask us the same. Unset numbers are 0, unset texts empty, as docker's.

mod config;
mod host;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::config::{Config, Health};
pub use self::host::{Device, HostConfig, LogConfig, MountSpec, PortBinding, RestartPolicy, Ulimit};
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
