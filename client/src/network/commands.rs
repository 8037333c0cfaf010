//! `network create|ls|inspect|rm|prune` and `port`, as data: the command line prints it.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::journal::{self, Journal};
use super::record::{self, BRIDGE_NAME, HOST_BINDING, MTU, Network, Pool};
use super::{attach, netlink, plan, ports, rules, subnet};
use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::events;
use crate::names;
use crate::record::{Map, PortBinding};
use crate::truth;

/// The kernel's limit (IFNAMSIZ), the final zero not counted.
const LONGEST_DEVICE: usize = 15;

/// What `network create` is asked for; texts as the user gives them.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// Its name.
    pub name: String,
    /// `bridge`, or empty for the same.
    pub driver: String,
    /// One at most; none: a free one.
    pub subnets: Vec<String>,
    /// One at most, in the subnet.
    pub gateways: Vec<String>,
    /// One at most, a part of the subnet.
    pub ip_ranges: Vec<String>,
    /// It has no way out.
    pub internal: bool,
    /// Kept, and without effect.
    pub attachable: bool,
    /// It is to have addresses of IPv6: refused.
    pub ipv6: bool,
    /// Of the driver.
    pub options: Map,
    /// What people say of it.
    pub labels: Map,
}

/// Makes a network. Its device comes with its first container.
///
/// # Errors
/// The name or the subnet is taken, or a wish makes no sense.
pub async fn create(client: &Client, wishes: &Create) -> Result<Network> {
    let paths = &client.paths;
    check(wishes)?;
    // The predefined ones are there before the lock is taken.
    record::list(paths)?;
    let lock = record::lock(paths)?;
    let networks = record::list(paths)?;
    if networks.iter().any(|it| it.name == wishes.name) {
        return Err(Error::conflict(format!(
            "there is already a network {}: take another name, or remove it first",
            wishes.name
        )));
    }
    let mut network = Network::new(&wishes.name, "bridge")?;
    network.ipam.options = Some(Map::new());
    network.ipam.config = vec![pool(wishes, &networks)?];
    network.internal = wishes.internal;
    network.attachable = wishes.attachable;
    network.options.clone_from(&wishes.options);
    network.labels.clone_from(&wishes.labels);
    if let Some(other) = networks.iter().find(|it| it.driver == "bridge" && it.device() == network.device()) {
        return Err(Error::conflict(format!(
            "the device {} is the network {}'s: take another name",
            network.device(),
            other.name
        )));
    }
    record::save(paths, &network, &lock)?;
    event(client, "create", &network, &[]);
    Ok(network)
}

/// All networks, by name.
///
/// # Errors
/// A record cannot be read.
pub fn list(client: &Client) -> Result<Vec<Network>> {
    record::list(&client.paths)
}

/// A network and who is in it, in docker's words.
///
/// # Errors
/// There is none of this name or id.
pub fn inspect(client: &Client, name: &str) -> Result<Value> {
    let network = record::find(&client.paths, name)?;
    let mut value =
        serde_json::to_value(&network).map_err(|error| Error::failed(format!("show a network: {error}")))?;
    let mut containers = serde_json::Map::new();
    for journal in journal::all(&client.paths)? {
        let Some(attachment) = journal.attachment(&network.name) else { continue };
        let Some(result) = &attachment.result else { continue };
        let connected = plan::connected(result)?;
        let entry = json!({
            "Name": journal.name,
            "EndpointID": endpoint_id(&journal.id, &network.id),
            "MacAddress": connected.mac,
            "IPv4Address": format!("{}/{}", connected.address, connected.prefix),
            "IPv6Address": "",
        });
        containers.insert(journal.id.clone(), entry);
    }
    value["Containers"] = Value::Object(containers);
    Ok(value)
}

/// What the plugins made in a network and do not find any more, a sentence for each container.
///
/// # Errors
/// There is no network of this name or id.
pub async fn problems(client: &Client, name: &str) -> Result<Vec<Error>> {
    let network = record::find(&client.paths, name)?;
    let mut problems = Vec::new();
    for journal in journal::all(&client.paths)?.iter().filter(|it| it.attachment(&network.name).is_some()) {
        let checked = attach::check(client, journal, &network.name).await;
        problems.extend(checked.err().map(|error| error.within(format!("the container {}", journal.name))));
    }
    Ok(problems)
}

/// What names a container's place in a network: docker has one by chance, ours follows from both ids.
#[must_use]
pub fn endpoint_id(container: &str, network: &str) -> String {
    let digit = |it: u8| char::from(it).to_digit(16).unwrap_or(0);
    let both = container.bytes().zip(network.bytes());
    both.map(|(one, other)| char::from_digit(digit(one) ^ digit(other), 16).unwrap_or('0')).collect()
}

/// Removes a network nobody uses, with its device.
///
/// # Errors
/// It is a predefined one, somebody is in it, or there is none.
pub async fn remove(client: &Client, name: &str) -> Result<Network> {
    let paths = &client.paths;
    let network = record::find(paths, name)?;
    if network.is_predefined() {
        return Err(Error::usage(format!("the network {} is a predefined one, which stays", network.name)));
    }
    {
        let lock = record::lock(paths)?;
        let inside = inside(&journal::all(paths)?, &network);
        if !inside.is_empty() {
            return Err(Error::conflict(format!(
                "the network {} is in use by {}: stop them, or disconnect them with tarectl network disconnect",
                network.name,
                inside.join(", ")
            )));
        }
        if let Ok(index) = nix::net::if_::if_nametoindex(network.device().as_str()) {
            netlink::remove_link(index).context(|| format!("remove the device {}", network.device()))?;
        }
        let addresses = plan::addresses(paths).join(&network.name);
        match fs::remove_dir_all(&addresses) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {}", addresses.display()))?;
            }
            _ => {}
        }
        // Last: what is left of a network that has no record is found by nobody.
        record::remove(paths, &network, &lock)?;
    }
    rules::set_again(paths).await?;
    event(client, "destroy", &network, &[]);
    Ok(network)
}

/// Removes all networks that nobody uses and that are wanted to be removed; the names of those that were.
///
/// # Errors
/// One cannot be removed.
pub async fn prune(client: &Client, wanted: &dyn Fn(&Network) -> bool) -> Result<Vec<String>> {
    super::sweep(client).await?;
    let mut removed = Vec::new();
    let journals = journal::all(&client.paths)?;
    for network in record::list(&client.paths)? {
        if !network.is_predefined() && inside(&journals, &network).is_empty() && wanted(&network) {
            match remove(client, &network.id).await {
                Ok(_) => removed.push(network.name),
                // Somebody has just come to use it, or was faster.
                Err(error) if matches!(error.kind, Kind::Conflict | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

/// Where a container's ports are published: all of them, or one as in `80` or `53/udp`.
///
/// # Errors
/// There is no such container, or the port is not published.
pub async fn port(client: &Client, name: &str, port: Option<&str>) -> Result<Vec<(String, PortBinding)>> {
    let record = truth::find(client, name).await?;
    let all = |ports: &BTreeMap<String, Vec<PortBinding>>| -> Vec<(String, PortBinding)> {
        ports.iter().flat_map(|(key, all)| all.iter().map(move |it| (key.clone(), it.clone()))).collect()
    };
    let Some(wanted) = port else { return Ok(all(&record.ports)) };
    let (number, protocol) = ports::parse(wanted)?;
    let key = format!("{number}/{protocol}");
    let bindings = record.ports.get(&key).ok_or_else(|| {
        Error::not_found(format!(
            "the port {key} of the container {} is not published: tarectl port {0} lists those that are",
            record.name
        ))
    })?;
    Ok(bindings.iter().map(|it| (key.clone(), it.clone())).collect())
}

/// Tells of it in the log of events.
pub(super) fn event(client: &Client, action: &str, network: &Network, more: &[(&str, &str)]) {
    let mut attributes = vec![("name", network.name.as_str()), ("type", network.driver.as_str())];
    attributes.extend(more);
    events::other(&client.paths, "network", action, &network.id, &attributes);
}

/// The names of who is in a network.
fn inside(journals: &[Journal], network: &Network) -> Vec<String> {
    journals.iter().filter(|it| it.attachment(&network.name).is_some()).map(|it| it.name.clone()).collect()
}

/// What can be judged without looking at other networks.
fn check(wishes: &Create) -> Result<()> {
    names::check("network", &wishes.name)?;
    if ["bridge", "host", "none", "default", "container"].contains(&wishes.name.as_str()) {
        return Err(Error::usage(format!("{} is the name of a predefined network: take another", wishes.name)));
    }
    if !["", "bridge"].contains(&wishes.driver.as_str()) {
        return Err(Error::usage(format!(
            "there is no network driver {:?}: the one there is is bridge",
            wishes.driver
        )));
    }
    if wishes.ipv6 {
        return Err(Error::usage("networks of tarectl have addresses of IPv4 only: leave out --ipv6"));
    }
    if let Some(device) = wishes.options.get(BRIDGE_NAME) {
        names::check("network's device", device)?;
        if device.len() > LONGEST_DEVICE {
            return Err(Error::usage(format!(
                "{device} has more than the {LONGEST_DEVICE} characters that a device's name may have"
            )));
        }
    }
    if let Some(mtu) = wishes.options.get(MTU) {
        // IPv4 asks every link for 68 bytes (RFC 791).
        if !mtu.parse::<u32>().is_ok_and(|it| (68..=65_535).contains(&it)) {
            return Err(Error::usage(format!("{MTU}={mtu}: give a number of bytes from 68 to 65535")));
        }
    }
    if let Some(address) = wishes.options.get(HOST_BINDING)
        && address.parse::<std::net::Ipv4Addr>().is_err()
    {
        return Err(Error::usage(format!("{HOST_BINDING}={address}: give an address of this host, as in 127.0.0.1")));
    }
    Ok(())
}

fn pool(wishes: &Create, networks: &[Network]) -> Result<Pool> {
    let one = |all: &[String], what: &str| match all {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(Error::usage(format!("a network of tarectl has one {what}: give {what} once"))),
    };
    let (gateway, range) = (one(&wishes.gateways, "--gateway")?, one(&wishes.ip_ranges, "--ip-range")?);
    let Some(subnet) = one(&wishes.subnets, "--subnet")? else {
        if gateway.is_some() || range.is_some() {
            return Err(Error::usage("--gateway and --ip-range are parts of a subnet: give it with --subnet"));
        }
        let subnet = record::free_subnet(networks)?;
        return Ok(Pool { subnet, ip_range: None, gateway: subnet::first(subnet) });
    };
    let subnet = subnet::parse(&subnet)?;
    let used = networks.iter().find(|it| it.ipam.config.iter().any(|it| subnet::overlap(it.subnet, subnet)));
    if let Some(other) = used {
        return Err(Error::conflict(format!(
            "the subnet {subnet} overlaps with that of the network {}: give another with --subnet",
            other.name
        )));
    }
    let gateway = gateway.map_or(Ok(subnet::first(subnet)), |it| subnet::address("gateway", &it, subnet))?;
    let ip_range = range.map(|text| part(&text, subnet)).transpose()?;
    Ok(Pool { subnet, ip_range, gateway })
}

fn part(text: &str, subnet: Ipv4Net) -> Result<Ipv4Net> {
    let part = text.parse::<Ipv4Net>().map_err(|_| {
        Error::usage(format!(
            "{text:?} is no range of addresses: give a part of the subnet {subnet}, as in 10.5.1.0/24"
        ))
    })?;
    if !subnet.contains(&part) {
        return Err(Error::usage(format!("the range {part} is no part of the subnet {subnet}")));
    }
    Ok(part.trunc())
}
