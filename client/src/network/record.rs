//! The networks' records, in docker's words: `inspect` shows them as they are, with who is in them.
//!
//! ```text
//! ROOT/networks/<name>.json      bridge, host and none are made when the first command asks for any
//! ```

use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use super::subnet;
use crate::disk::{flock, make_private, replace};
use crate::error::{Context, Error, Result};
use crate::paths::Paths;
use crate::record::Map;
use crate::records::{is_id, new_id};
use crate::time::Time;

/// More is no record.
const RECORD_LIMIT: u64 = 1 << 20;
/// The root of the instance that is there when nobody says otherwise.
const FIRST_ROOT: &str = "/var/lib/tarectl";
/// The network of whom nobody says otherwise.
pub(super) const BRIDGE: &str = "bridge";
/// The host's own.
pub(super) const HOST: &str = "host";
/// None but loopback.
pub(super) const NONE: &str = "none";
/// The option that names the host's device.
pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Whether packets to elsewhere leave with the host's address.
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Where ports are published whose address is not given.
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// The size of its packets.
pub(super) const MTU: &str = "com.docker.network.driver.mtu";

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// As people call it.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Never, yet.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// It has no way out.
    pub internal: bool,
    /// Said for swarms; kept, and without effect.
    pub attachable: bool,
    /// As docker's; never.
    pub ingress: bool,
    /// As docker's; none.
    pub config_from: ConfigFrom,
    /// As docker's; never.
    pub config_only: bool,
    /// Of the driver.
    pub options: Map,
    /// What people say of it.
    pub labels: Map,
}

/// How addresses are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// `default`: the CNI plugin host-local.
    pub driver: String,
    /// None.
    pub options: Option<Map>,
    /// One subnet at most.
    pub config: Vec<Pool>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    /// All of it.
    pub subnet: Ipv4Net,
    /// The part that containers get.
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none", default)]
    pub ip_range: Option<Ipv4Net>,
    /// The host's address in it.
    pub gateway: Ipv4Addr,
}

/// As docker's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// None.
    pub network: String,
}

impl Pool {
    /// How many containers can have an address of it.
    pub(super) fn room(&self) -> u64 {
        let (first, last) = subnet::hosts(self.ip_range.unwrap_or(self.subnet), self.subnet);
        let all = u64::from(u32::from(last).saturating_sub(u32::from(first))) + 1;
        all - u64::from((first..=last).contains(&self.gateway))
    }
}

impl Network {
    /// A new one of this name and driver, with an id and nothing else.
    pub(super) fn new(name: &str, driver: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            id: new_id()?,
            created: Time::now(),
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            enable_ipv6: false,
            ipam: Ipam { driver: "default".to_owned(), options: None, config: Vec::new() },
            internal: false,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom::default(),
            config_only: false,
            options: Map::new(),
            labels: Map::new(),
        })
    }

    /// The host's device.
    pub(super) fn device(&self) -> String {
        self.options.get(BRIDGE_NAME).cloned().unwrap_or_else(|| format!("br-{}", crate::records::short(&self.id)))
    }

    /// Its subnet, where it is a bridge.
    pub(super) fn pool(&self) -> Result<&Pool> {
        self.ipam.config.first().ok_or_else(|| Error::usage(format!("the network {} has no addresses", self.name)))
    }

    /// An option that is on unless it is said to be off.
    pub(super) fn enabled(&self, option: &str) -> bool {
        self.options.get(option).is_none_or(|value| value != "false" && value != "0")
    }

    /// Whether nobody has made it, and nobody may remove it.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        [BRIDGE, HOST, NONE].contains(&self.name.as_str())
    }
}

/// The right to change what networks there are and who has which port and name; it ends when this is dropped. It is held for
/// bookkeeping alone, never while a plugin runs.
pub(super) struct Lock {
    _file: Flock<fs::File>,
}

/// Takes it.
pub(super) fn lock(paths: &Paths) -> Result<Lock> {
    let directory = super::directory(paths);
    make_private(&directory)?;
    Ok(Lock { _file: flock(&directory.join("networks.lock"))? })
}

/// All networks, by name.
pub(super) fn list(paths: &Paths) -> Result<Vec<Network>> {
    let mut networks = read_all(paths)?;
    if networks.iter().filter(|it| it.is_predefined()).count() < 3 {
        let _lock = lock(paths)?;
        make_predefined(paths)?;
        networks = read_all(paths)?;
    }
    Ok(networks)
}

/// The one that is meant by a name, an id or the beginning of an id.
pub(super) fn find(paths: &Paths, name: &str) -> Result<Network> {
    let mut networks = list(paths)?;
    if let Some(at) = networks.iter().position(|it| it.name == name || it.id == name) {
        return Ok(networks.swap_remove(at));
    }
    let prefix = !name.is_empty() && name.bytes().all(|it| it.is_ascii_hexdigit());
    networks.retain(|it| prefix && it.id.starts_with(name));
    match networks.len() {
        1 => Ok(networks.swap_remove(0)),
        0 => Err(Error::not_found(format!("there is no network {name:?}: tarectl network ls lists all"))),
        _ => Err(Error::usage(format!("more than one network has an id that begins with {name}: give more digits"))),
    }
}

/// Writes one, new or changed. The lock is held.
pub(super) fn save(paths: &Paths, network: &Network, _lock: &Lock) -> Result<()> {
    write(paths, network)
}

/// Removes one. The lock is held.
pub(super) fn remove(paths: &Paths, network: &Network, _lock: &Lock) -> Result<()> {
    let file = file(paths, &network.name);
    fs::remove_file(&file).context(|| format!("remove {}", file.display()))
}

/// A subnet that nobody has: no other network, and no route of the host.
pub(super) fn free_subnet(networks: &[Network]) -> Result<Ipv4Net> {
    let mut taken = subnet::of_host();
    taken.extend(networks.iter().flat_map(|it| &it.ipam.config).map(|pool| pool.subnet));
    subnet::free(&taken)
}

fn make_predefined(paths: &Paths) -> Result<()> {
    let networks = read_all(paths)?;
    let is_there = |name: &str| networks.iter().any(|it| it.name == name);
    for (name, driver) in [(HOST, "host"), (NONE, "null")] {
        if !is_there(name) {
            write(paths, &Network::new(name, driver)?)?;
        }
    }
    if is_there(BRIDGE) {
        return Ok(());
    }
    let mut network = Network::new(BRIDGE, "bridge")?;
    let subnet = free_subnet(&networks)?;
    network.ipam.config = vec![Pool { subnet, ip_range: None, gateway: subnet::first(subnet) }];
    // Several instances run side by side: the plain name is the first one's.
    let plain = paths.root == Path::new(FIRST_ROOT) && nix::net::if_::if_nametoindex("tare0").is_err();
    let device = if plain { "tare0".to_owned() } else { format!("tare-{}", &network.id[..8]) };
    let options = [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        (MASQUERADE, "true"),
        (HOST_BINDING, "0.0.0.0"),
        (BRIDGE_NAME, &device),
        (MTU, "1500"),
    ];
    network.options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    write(paths, &network)
}

fn file(paths: &Paths, name: &str) -> PathBuf {
    paths.networks().join(format!("{name}.json"))
}

fn write(paths: &Paths, network: &Network) -> Result<()> {
    make_private(&paths.networks())?;
    let text =
        serde_json::to_vec(network).map_err(|error| Error::failed(format!("write a network's record: {error}")))?;
    replace(&file(paths, &network.name), &text, 0o600)
}

fn read_all(paths: &Paths) -> Result<Vec<Network>> {
    let directory = paths.networks();
    let what = || format!("list {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(what)?,
    };
    let mut networks = Vec::new();
    for entry in entries {
        let path = entry.context(what)?.path();
        if path.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let mut text = Vec::new();
        match fs::File::open(&path).and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut text)) {
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.context(|| format!("read {}", path.display()))?,
        };
        let network: Network = serde_json::from_slice(&text).map_err(|error| {
            Error::failed(format!("read the network in {}: {error}: the file is damaged; remove it", path.display()))
        })?;
        if !is_id(&network.id) {
            return Err(Error::failed(format!("the network in {} has no id: remove the file", path.display())));
        }
        networks.push(network);
    }
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(networks)
}
