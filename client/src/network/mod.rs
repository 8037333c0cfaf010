//! Networks: what a container has of them, and how it comes to it and gives it back.
//!
//! ```text
//! create   resolve    every wish is checked, before anything is made
//! start    attach     journal ─> namespace ─> rules ─> bridge, host-local ─> portmap ─> the three files ─> names to the others
//! exit     detach     namespace ─> portmap, bridge, host-local ─> journal ─> names from the others
//! ```
//!
//! A namespace is bound at RUN/netns/<id>; `host` has none, `container:X` uses X's, `none` is one with loopback alone. Loopback is set
//! up by ourselves, since `none` must work without plugins; so are the filter rules, per network (`rules`). Everything else is
//! done by the CNI plugins bridge, host-local and portmap, whose configurations are made here (`plan`).
//!
//! # Invariants
//!
//! - What is about to be taken is in the journal before it is taken (`journal`), and is in it until it is given back: to give
//!   back twice is to give back once, and who was killed in between is finished by the next command.
//! - No plugin runs while the lock on the journals is held.
//! - No name, address or option that could end a line comes into a file (`names`).

mod attach;
mod cni;
mod commands;
mod connect;
mod environment;
mod files;
mod journal;
mod names;
mod namespace;
mod netlink;
mod plan;
mod ports;
mod record;
mod resolve;
mod rules;
mod subnet;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use attach::{attach, attached, detach, renamed, sweep};
pub use commands::{Create, create, endpoint_id, inspect, list, port, problems, prune, remove};
pub use connect::{Connect, connect, disconnect};
pub use environment::link_environment;
pub use files::Files;
pub use record::{ConfigFrom, Ipam, Network, Pool};
pub use resolve::resolve;

use crate::client::Client;
use crate::error::Result;
use crate::paths::Paths;
use crate::record::{Container, PortBinding};
use crate::records;

/// Whose network a container has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// The host's.
    Host,
    /// Loopback alone.
    None,
    /// That of the container with this id.
    Container(String),
    /// Those of its endpoints.
    Networks,
}

impl Mode {
    fn of(record: &Container) -> Self {
        match record.host_config.network_mode.as_str() {
            record::HOST => Self::Host,
            record::NONE => Self::None,
            mode => match mode.strip_prefix("container:") {
                Some(id) => Self::Container(id.to_owned()),
                None => Self::Networks,
            },
        }
    }
}

/// The network namespace that a container runs in, once it is attached; none: the host's.
///
/// # Errors
/// The container whose network it has is gone.
pub fn namespace(client: &Client, record: &Container) -> Result<Option<PathBuf>> {
    Ok(match Mode::of(record) {
        Mode::Host => None,
        Mode::None | Mode::Networks => Some(client.paths.netns(&record.id)),
        Mode::Container(id) => {
            // That one has none of another's: `resolve` saw to it.
            let owner = records::load(client, &id)?;
            (Mode::of(&owner) != Mode::Host).then(|| client.paths.netns(&id))
        }
    })
}

/// What is bound over /etc/hosts, /etc/hostname and /etc/resolv.conf, once it is attached.
#[must_use]
pub fn files(client: &Client, record: &Container) -> Files {
    match Mode::of(record) {
        Mode::Container(owner) => Files::of(&client.paths, &owner),
        Mode::Host | Mode::None | Mode::Networks => Files::of(&client.paths, &record.id),
    }
}

/// Where its ports are published; nowhere while it does not run.
#[must_use]
pub fn ports(record: &Container) -> &BTreeMap<String, Vec<PortBinding>> {
    &record.ports
}

/// Where the journals are, and what belongs to them.
fn directory(paths: &Paths) -> PathBuf {
    paths.run.join("network")
}
