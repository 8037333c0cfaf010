//! What a container is, whatever the host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Map;

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
