//! A container gets its networks, and gives them back.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::cni::{Plugins, Target};
use super::files::Files;
use super::journal::{Attachment, Journal, Portmap, ids};
use super::plan::{self, Route};
use super::record::{self, HOST_BINDING, Network};
use super::{Mode, files, journal, names, namespace, ports, rules};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::record::Container;
use crate::records;
use crate::truth;

/// Gives a container that is about to start what its record says: namespace, interfaces, addresses, ports, files. The record's
/// endpoints and ports are filled. When it fails, nothing is left of it. The caller holds the container's lock.
///
/// # Errors
/// A port or an address is taken, a plugin is missing or fails, or a file cannot be written.
pub async fn attach(client: &Client, record: &mut Container) -> Result<()> {
    let plugins = Plugins::busy(&client.paths, &record.id)?;
    // What an earlier run has left that was killed with everybody who could have cleaned up.
    release(client, &plugins, &record.id).await?;
    forget(record);
    sweep(client).await?;
    let made = match Mode::of(record) {
        Mode::Host => files::write(&client.paths, record, host_gateway(&client.paths)?, &[]),
        Mode::None => alone(client, record),
        Mode::Container(owner) => share(client, record, &owner),
        Mode::Networks => into_networks(client, &plugins, record).await,
    };
    if made.is_err() {
        // The first failure is the one to tell; what cannot be given back now is given back by the next command.
        let _ = release(client, &plugins, &record.id).await;
        forget(record);
    }
    made
}

/// Gives back what a container has of networks, and clears it from its record. That it has nothing is as well.
///
/// # Errors
/// A plugin fails or is missing: what it took is still known, and given back by the next call.
pub async fn detach(client: &Client, record: &mut Container) -> Result<()> {
    forget(record);
    release(client, &Plugins::busy(&client.paths, &record.id)?, &record.id).await
}

/// Whether a container has something of networks, whether it runs or not.
#[must_use]
pub fn attached(client: &Client, id: &str) -> bool {
    // What cannot be looked at is dealt with by whoever then detaches.
    journal::file(&client.paths, id).try_exists().unwrap_or(true)
}

/// Gives back what belongs to containers of which there is no record any more: their removal was killed.
///
/// # Errors
/// The journals cannot be listed. What cannot be given back stays for the next call.
pub async fn sweep(client: &Client) -> Result<()> {
    let mut known = ids(&client.paths)?;
    // A namespace without a journal: it was made at the very moment.
    let bound = fs::read_dir(client.paths.run.join("netns")).ok().into_iter().flatten();
    known.extend(bound.filter_map(|it| it.ok()?.file_name().into_string().ok()).filter(|it| records::is_id(it)));
    for id in known {
        if !client.paths.container(&id).try_exists().unwrap_or(true) {
            // One that fails is no reason for a command about another container to fail.
            if let Ok(plugins) = Plugins::busy(&client.paths, &id) {
                let _ = release(client, &plugins, &id).await;
            }
        }
    }
    Ok(())
}

/// Whether what a running container was given in a network is still there; the plugin's sentence, if it is not. portmap is
/// not asked: that of Debian 12 misses rules of IPv6 where there is no such address.
pub(super) async fn check(client: &Client, journal: &Journal, network: &str) -> Result<()> {
    let Some(attachment) = journal.attachment(network) else { return Ok(()) };
    let path = client.paths.netns(&journal.id);
    let target = Target { container: &journal.id, namespace: Some(&path), interface: &attachment.interface };
    let configuration = plan::with_result(&attachment.configuration, attachment.result.as_ref());
    Plugins::idle().check(&configuration, target).await
}

/// A running container has another name: the others' files say so.
///
/// # Errors
/// A file cannot be written.
pub fn renamed(client: &Client, record: &Container) -> Result<()> {
    let _lock = record::lock(&client.paths)?;
    let Some(mut journal) = Journal::load(&client.paths, &record.id)? else { return Ok(()) };
    journal.name.clone_from(&record.name);
    journal.save(&client.paths)?;
    refresh(&client.paths, &mut journal::all(&client.paths)?)
}

/// Loopback and nothing else.
fn alone(client: &Client, record: &Container) -> Result<()> {
    let journal = begin(record, None);
    {
        let _lock = record::lock(&client.paths)?;
        journal.save(&client.paths)?;
    }
    namespace::make(&client.paths.netns(&record.id))?;
    files::write(&client.paths, record, host_gateway(&client.paths)?, &[])
}

/// Nothing of its own; but as long as it runs, the other's namespace is in use.
fn share(client: &Client, record: &Container, owner: &str) -> Result<()> {
    let other = records::load(client, owner)?;
    let _lock = record::lock(&client.paths)?;
    if Mode::of(&other) != Mode::Host && !attached(client, owner) {
        return Err(Error::conflict(format!(
            "the container {} does not run, so that its network cannot be had: start it first",
            other.name
        )));
    }
    begin(record, Some(owner.to_owned())).save(&client.paths)
}

async fn into_networks(client: &Client, plugins: &Plugins, record: &mut Container) -> Result<()> {
    let paths = &client.paths;
    let networks = networks(paths, record)?;
    let publishes = !record.host_config.port_bindings.is_empty() || record.host_config.publish_all_ports;
    plugins.need(&["bridge", "host-local"])?;
    plugins.need(if publishes { &["portmap"] } else { &[] })?;

    // The ports are held until they are published.
    let (mut journal, _held) = match promise(client, record, &networks) {
        // Whoever has it may be dead, and nobody has looked yet.
        Err(error) if error.kind == Kind::Conflict => {
            truth::list(client).await?;
            promise(client, record, &networks)?
        }
        promised => promised?,
    };
    let path = paths.netns(&record.id);
    namespace::make(&path)?;
    rules::set(paths).await?;
    for attachment in &mut journal.attachments {
        add(plugins, paths, &record.id, attachment).await?;
    }
    if !journal.ports.is_empty() {
        publish(plugins, paths, &mut journal).await?;
    }
    fill(record, &journal)?;
    let _lock = record::lock(paths)?;
    let mut all = journal::all(paths)?;
    all.retain(|it| it.id != journal.id);
    journal.hosts = names::lines(&journal, &[&all[..], &[journal.clone()]].concat());
    journal.save(paths)?;
    files::write(paths, record, host_gateway(paths)?, &journal.hosts)?;
    all.push(journal);
    refresh(paths, &mut all)
}

/// The container's networks; the one with the way out first.
fn networks(paths: &Paths, record: &Container) -> Result<Vec<Network>> {
    let own = &record.host_config.network_mode;
    let mut networks = record.networks.keys().map(|name| record::find(paths, name)).collect::<Result<Vec<_>>>()?;
    networks.sort_by_key(|it| (it.name != *own, it.name.clone()));
    Ok(networks)
}

/// Writes down what is about to be taken, and takes what is only written down: ports, and addresses that were asked for.
fn promise(client: &Client, record: &Container, networks: &[Network]) -> Result<(Journal, Vec<ports::Held>)> {
    let paths = &client.paths;
    let _lock = record::lock(paths)?;
    let others = journal::all(paths)?;
    let mut journal = begin(record, None);
    let way_out = networks.iter().position(|it| !it.internal);
    for (number, network) in networks.iter().enumerate() {
        let Some(endpoint) = record.networks.get(&network.name) else { continue };
        is_free(paths, network, &endpoint.requested_ip, &others)?;
        let route = if way_out == Some(number) { Route::Default } else { Route::None };
        journal.attachments.push(plan::attachment(paths, network, endpoint, format!("eth{number}"), route)?);
    }
    for link in &record.host_config.links {
        let (id, alias) = link.split_once(':').unwrap_or((link, link));
        if !others.iter().any(|it| it.id == id) {
            let name = records::load(client, id).map_or_else(|_| records::short(id).to_owned(), |it| it.name);
            return Err(Error::conflict(format!(
                "the container is linked to {name} (as {alias}), which does not run: start that one first"
            )));
        }
        journal.links.insert(alias.to_owned(), id.to_owned());
    }
    let usual = way_out.and_then(|at| networks[at].options.get(HOST_BINDING)?.parse().ok());
    let (published, held) = ports::take(record, usual.unwrap_or(Ipv4Addr::UNSPECIFIED), &others)?;
    journal.ports = published;
    journal.save(paths)?;
    Ok((journal, held))
}

/// Refuses an address that was asked for and another container has, and any where all are taken.
pub(super) fn is_free(paths: &Paths, network: &Network, asked: &str, others: &[Journal]) -> Result<()> {
    let name = &network.name;
    let Ok(address) = asked.parse::<Ipv4Addr>() else {
        let taken = fs::read_dir(plan::addresses(paths).join(name)).ok().into_iter().flatten();
        let taken =
            taken.filter(|it| it.as_ref().is_ok_and(|it| it.file_name().to_string_lossy().parse::<Ipv4Addr>().is_ok()));
        let room = network.pool()?.room();
        return if (taken.count() as u64) < room {
            Ok(())
        } else {
            Err(Error::conflict(format!(
                "all {room} addresses of the network {name} are taken: stop containers in it, or make a larger one with --subnet"
            )))
        };
    };
    let has_it = |it: &&Journal| it.attachment(name).is_some_and(|it| it.address == Some(address));
    others.iter().find(has_it).map_or(Ok(()), |holder| {
        Err(Error::conflict(format!(
            "the address {address} of the network {name} is the container {}'s: stop that one, or ask for another",
            holder.name
        )))
    })
}

fn begin(record: &Container, shares: Option<String>) -> Journal {
    Journal {
        id: record.id.clone(),
        name: record.name.clone(),
        hostname: names::hostname(&record.config.hostname, &record.config.domainname),
        shares,
        lingers: !record.host_config.pid_mode.is_empty(),
        ..Journal::default()
    }
}

/// Makes one interface.
pub(super) async fn add(plugins: &Plugins, paths: &Paths, id: &str, attachment: &mut Attachment) -> Result<()> {
    let path = paths.netns(id);
    let target = Target { container: id, namespace: Some(&path), interface: &attachment.interface };
    let result = plugins
        .add(&attachment.configuration, target)
        .await
        .map_err(|error| error.within(format!("the network {}", attachment.network)))?;
    let connected = plan::connected(&result)?;
    attachment.address = Some(connected.address);
    attachment.gateway = connected.gateway;
    attachment.result = Some(result);
    Ok(())
}

/// Publishes the container's ports over the first network that has a way out, and writes down where. Without one there is
/// nowhere to publish to.
pub(super) async fn publish(plugins: &Plugins, paths: &Paths, journal: &mut Journal) -> Result<()> {
    let Some(attachment) = journal.attachments.iter().find(|it| !it.internal) else { return Ok(()) };
    let Some(result) = &attachment.result else { return Ok(()) };
    let configuration = plan::portmap(&attachment.network, &journal.ports, result);
    let (network, interface) = (attachment.network.clone(), attachment.interface.clone());
    journal.portmap = Some(Portmap { network, interface, configuration });
    journal.save(paths)?;
    let Some(portmap) = &journal.portmap else { return Ok(()) };
    let path = paths.netns(&journal.id);
    let target = Target { container: &journal.id, namespace: Some(&path), interface: &portmap.interface };
    plugins.add(&portmap.configuration, target).await.map(drop)
}

/// What the plugins have answered becomes the record's.
pub(super) fn fill(record: &mut Container, journal: &Journal) -> Result<()> {
    for attachment in &journal.attachments {
        let (Some(endpoint), Some(result)) = (record.networks.get_mut(&attachment.network), &attachment.result) else {
            continue;
        };
        let connected = plan::connected(result)?;
        endpoint.network_id.clone_from(&attachment.network_id);
        endpoint.interface.clone_from(&attachment.interface);
        endpoint.ip_address = connected.address.to_string();
        endpoint.ip_prefix_len = connected.prefix;
        // An internal network's is no way out.
        let gateway = connected.gateway.filter(|_| !attachment.internal);
        endpoint.gateway = gateway.map(|it| it.to_string()).unwrap_or_default();
        endpoint.mac_address = connected.mac;
        endpoint.cni_result = Some(result.clone());
    }
    record.ports = if journal.portmap.is_some() { ports::bindings(&journal.ports) } else { Default::default() };
    Ok(())
}

/// What a record says of a run that has ended.
fn forget(record: &mut Container) {
    record.ports.clear();
    record.networks.values_mut().for_each(forget_endpoint);
}

/// As [`forget`], of one endpoint: what was asked for stays.
pub(super) fn forget_endpoint(endpoint: &mut crate::record::Endpoint) {
    endpoint.interface.clear();
    endpoint.gateway.clear();
    endpoint.ip_address.clear();
    endpoint.ip_prefix_len = 0;
    endpoint.mac_address.clear();
    endpoint.cni_result = None;
}

/// Gives back all that a container's journal tells of.
async fn release(client: &Client, plugins: &Plugins, id: &str) -> Result<()> {
    let paths = &client.paths;
    let path = paths.netns(id);
    let Some(journal) = Journal::load(paths, id)? else { return namespace::remove(&path) };
    let mut first = Ok(());
    if journal.shares.is_none() {
        // Unless somebody else may be in it, the namespace goes with its last process, and the kernel removes its devices without
        // anybody waiting for that. Then the plugins have only to give back what is outside.
        let stays = journal.lingers || journal::all(paths)?.iter().any(|it| it.shares.as_deref() == Some(id));
        if !stays {
            first = namespace::remove(&path);
        }
        let namespace = stays.then_some(path.as_path());
        if let Some(portmap) = &journal.portmap {
            let target = Target { container: id, namespace, interface: &portmap.interface };
            first = first.and(plugins.del(&portmap.configuration, target).await);
        }
        for attachment in journal.attachments.iter().rev() {
            first = first.and(del(plugins, id, namespace, attachment).await);
        }
        first = first.and(namespace::remove(&path));
    }
    // What could not be given back is still known.
    first?;
    let _lock = record::lock(paths)?;
    Journal::remove(paths, id)?;
    refresh(paths, &mut journal::all(paths)?)
}

/// Takes one interface and its address back.
pub(super) async fn del(
    plugins: &Plugins,
    id: &str,
    namespace: Option<&std::path::Path>,
    attachment: &Attachment,
) -> Result<()> {
    let target = Target { container: id, namespace, interface: &attachment.interface };
    let configuration: Value = plan::with_result(&attachment.configuration, attachment.result.as_ref());
    plugins.del(&configuration, target).await
}

/// Brings the hosts files of all that run up to date. The lock on the journals is held.
pub(super) fn refresh(paths: &Paths, all: &mut [Journal]) -> Result<()> {
    let lines: Vec<Vec<String>> = all.iter().map(|journal| names::lines(journal, all)).collect();
    for (journal, lines) in all.iter_mut().zip(lines) {
        // One that is just starting writes its own when it has its address.
        let has_file = journal.attachments.iter().any(|it| it.address.is_some());
        if has_file && journal.hosts != lines {
            let old = std::mem::replace(&mut journal.hosts, lines);
            files::replace_lines(&Files::of(paths, &journal.id).hosts, &old, &journal.hosts)?;
            journal.save(paths)?;
        }
    }
    Ok(())
}

/// What `host-gateway` means: the host's address in the default network.
fn host_gateway(paths: &Paths) -> Result<Ipv4Addr> {
    Ok(record::find(paths, record::BRIDGE)?.pool()?.gateway)
}
