//! What a container is to have of networks, checked and made definite before anything is made.

use std::collections::BTreeMap;

use super::record::{self, BRIDGE, HOST, NONE, Network};
use super::{Mode, names, ports, subnet};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::{Container, Endpoint};
use crate::records::{self, short};

/// The kernel's limit (sethostname(2)).
const LONGEST_HOSTNAME: usize = 64;

/// Every wrong wish ends here. Afterwards networks go by their names, containers by their ids, and each network has an endpoint.
///
/// # Errors
/// What is wished for is not there, contradicts itself, or could not be written into a file.
pub async fn resolve(client: &Client, record: &mut Container) -> Result<()> {
    plain_wishes(record)?;
    let mode = match record.host_config.network_mode.as_str() {
        "" | "default" => BRIDGE.to_owned(),
        mode => mode.to_owned(),
    };
    record.host_config.network_mode = mode;
    match Mode::of(record) {
        Mode::Container(name) => join(client, record, &name)?,
        Mode::Host => {
            without_endpoints(record, "host")?;
            if !record.host_config.links.is_empty() {
                return Err(Error::usage(
                    "--link and --network host exclude each other: the host's network has no links",
                ));
            }
            // What another has filled in for one without a name.
            if record.config.hostname.is_empty() || record.config.hostname == short(&record.id) {
                let name = nix::unistd::gethostname()
                    .map_err(|errno| Error::failed(format!("ask for the host's name: {errno}")))?;
                record.config.hostname = name.to_string_lossy().into_owned();
            }
        }
        Mode::None => without_endpoints(record, "none")?,
        Mode::Networks => {
            endpoints(client, record)?;
            links(client, record)?;
        }
    }
    if record.config.hostname.is_empty() {
        short(&record.id).clone_into(&mut record.config.hostname);
    }
    Ok(())
}

/// What can be judged without looking at anything else.
fn plain_wishes(record: &Container) -> Result<()> {
    let (given, config) = (&record.host_config, &record.config);
    if !config.hostname.is_empty() {
        names::host("the container's host name", &config.hostname)?;
        if config.hostname.len() > LONGEST_HOSTNAME {
            let length = config.hostname.len();
            return Err(Error::usage(format!(
                "the host name has {length} characters, and the kernel takes {LONGEST_HOSTNAME}"
            )));
        }
    }
    if !config.domainname.is_empty() {
        names::host("the container's domain name", &config.domainname)?;
    }
    for entry in &given.extra_hosts {
        names::extra_host(entry)?;
    }
    names::resolver(&given.dns, &given.dns_search, &given.dns_options)?;
    ports::check(record)
}

fn join(client: &Client, record: &mut Container, name: &str) -> Result<()> {
    let owner = records::find(client, name)?;
    if owner.id == record.id {
        return Err(Error::usage(
            "a container cannot have its own network by --network container: give another container",
        ));
    }
    let given = &record.host_config;
    let conflicts = [
        (!record.config.hostname.is_empty() && record.config.hostname != short(&record.id), "--hostname"),
        (!given.port_bindings.is_empty() || given.publish_all_ports, "publishing ports"),
        (!given.links.is_empty(), "--link"),
        (!given.dns.is_empty() || !given.dns_search.is_empty() || !given.dns_options.is_empty(), "--dns"),
        (!given.extra_hosts.is_empty(), "--add-host"),
    ];
    if let Some((_, what)) = conflicts.iter().find(|(is, _)| *is) {
        return Err(Error::usage(format!(
            "{what} and --network container:{name} exclude each other: the network is that container's, give it there"
        )));
    }
    without_endpoints(record, &format!("container:{name}"))?;
    // Who has that one's network has the network of whom that one has it.
    let id = match Mode::of(&owner) {
        Mode::Container(id) => id,
        _ => owner.id,
    };
    record.host_config.network_mode = format!("container:{id}");
    record.config.hostname = owner.config.hostname;
    record.config.domainname = owner.config.domainname;
    Ok(())
}

/// No other network, address or name can be had there.
fn without_endpoints(record: &mut Container, mode: &str) -> Result<()> {
    if let Some((name, _)) = record.networks.iter().find(|(name, _)| *name != mode) {
        return Err(Error::usage(format!(
            "the networks {mode} and {name} exclude each other: {mode} can only be had alone"
        )));
    }
    let asked = |it: &Endpoint| !it.requested_ip.is_empty() || !it.requested_mac.is_empty() || !it.aliases.is_empty();
    if record.networks.values().any(asked) {
        return Err(Error::usage(format!(
            "--ip, --mac-address and --network-alias need a network that was made with tarectl network create, and this one is {mode}"
        )));
    }
    if record.host_config.network_mode == HOST || record.host_config.network_mode == NONE {
        record.networks = BTreeMap::from([(mode.to_owned(), Endpoint::default())]);
    } else {
        record.networks.clear();
    }
    Ok(())
}

fn endpoints(client: &Client, record: &mut Container) -> Result<()> {
    let first = record::find(&client.paths, &record.host_config.network_mode)?;
    check_endpoint(&first, &Endpoint::default())?;
    let own = Endpoint { network_id: first.id, ..Endpoint::default() };
    let mut resolved = BTreeMap::from([(first.name.clone(), own)]);
    for (name, endpoint) in std::mem::take(&mut record.networks) {
        let network = record::find(&client.paths, if name == "default" { BRIDGE } else { &name })?;
        check_endpoint(&network, &endpoint)?;
        resolved.insert(network.name, Endpoint { network_id: network.id, ..endpoint });
    }
    record.networks = resolved;
    record.host_config.network_mode = first.name;
    Ok(())
}

/// Whether an endpoint can be had in a network.
pub(super) fn check_endpoint(network: &Network, endpoint: &Endpoint) -> Result<()> {
    if network.driver != "bridge" {
        return Err(Error::usage(format!(
            "the network {} can only be had alone, as --network {}: no container is connected to it",
            network.name, network.name
        )));
    }
    if network.name == BRIDGE && !endpoint.requested_ip.is_empty() {
        return Err(Error::usage(
            "an address can be asked for in networks that were made with tarectl network create only, and this one is bridge",
        ));
    }
    if network.name == BRIDGE && !endpoint.aliases.is_empty() {
        return Err(Error::usage(
            "containers have aliases in networks that were made with tarectl network create only, and this one is bridge",
        ));
    }
    if !endpoint.requested_ip.is_empty() {
        let pool = network.pool()?;
        let address = subnet::address("address", &endpoint.requested_ip, pool.subnet)?;
        if address == pool.gateway {
            return Err(Error::conflict(format!(
                "the address {address} is the gateway's of the network {}",
                network.name
            )));
        }
    }
    if !endpoint.requested_mac.is_empty() {
        names::mac(&endpoint.requested_mac)?;
    }
    endpoint.aliases.iter().try_for_each(|alias| names::host("an alias", alias))
}

/// `container:alias` becomes `<id>:alias`.
fn links(client: &Client, record: &mut Container) -> Result<()> {
    let mut resolved = Vec::new();
    for link in &record.host_config.links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let linked = records::find(client, name).map_err(|error| match error.kind {
            Kind::NotFound => error.within(format!("--link {link}")),
            _ => error,
        })?;
        let alias = if alias == name { linked.name.as_str() } else { alias };
        names::host("a link's alias", alias)?;
        if !linked.networks.keys().any(|network| record.networks.contains_key(network)) {
            return Err(Error::usage(format!(
                "--link {link}: {} is in none of the container's networks: connect it to one with tarectl network connect",
                linked.name
            )));
        }
        let link = format!("{}:{alias}", linked.id);
        if !resolved.contains(&link) {
            resolved.push(link);
        }
    }
    record.host_config.links = resolved;
    Ok(())
}
