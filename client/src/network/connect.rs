//! `network connect` and `disconnect`: also while the container runs.

use super::attach::{add, del, fill, forget_endpoint, is_free, publish, refresh};
use super::cni::{Plugins, Target};
use super::journal::{self, Journal};
use super::plan::{self, Route};
use super::record::{self, Network};
use super::resolve::check_endpoint;
use super::{Mode, commands, namespace, rules};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::{Container, Endpoint};
use crate::records;

/// What `network connect` is asked for beside the two.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// An address of the network.
    pub ip: String,
    /// Other names there.
    pub aliases: Vec<String>,
}

/// Connects a container to one more network.
///
/// # Errors
/// There is no such network or container, it is in it already, or cannot be in any.
pub async fn connect(client: &Client, network: &str, container: &str, wishes: &Connect) -> Result<()> {
    let network = record::find(&client.paths, network)?;
    let lock = records::lock(client, &records::find(client, container)?.id)?;
    let mut record = lock.load()?;
    has_own_networks(&record)?;
    if record.networks.contains_key(&network.name) {
        return Err(Error::conflict(format!(
            "the container {} is in the network {} already",
            record.name, network.name
        )));
    }
    let endpoint = Endpoint {
        requested_ip: wishes.ip.clone(),
        aliases: wishes.aliases.clone(),
        network_id: network.id.clone(),
        ..Endpoint::default()
    };
    check_endpoint(&network, &endpoint)?;
    record.networks.insert(network.name.clone(), endpoint);
    if super::attached(client, &record.id) {
        plug(client, &mut record, &network).await?;
    }
    lock.save(&record)?;
    commands::event(client, "connect", &network, &[("container", &record.id)]);
    Ok(())
}

/// Takes a container out of a network. With `force` a container that is gone is no error.
///
/// # Errors
/// It is not in it, or a plugin fails.
pub async fn disconnect(client: &Client, network: &str, container: &str, force: bool) -> Result<()> {
    let network = record::find(&client.paths, network)?;
    let id = match records::find(client, container) {
        // What a removed one has left is given back as always.
        Err(error) if error.kind == Kind::NotFound && force => return super::sweep(client).await,
        found => found?.id,
    };
    let lock = records::lock(client, &id)?;
    let mut record = lock.load()?;
    has_own_networks(&record)?;
    if record.networks.remove(&network.name).is_none() {
        return Err(Error::not_found(format!("the container {} is not in the network {}", record.name, network.name)));
    }
    if super::attached(client, &id) {
        unplug(client, &mut record, &network).await?;
    }
    lock.save(&record)?;
    commands::event(client, "disconnect", &network, &[("container", &id)]);
    Ok(())
}

fn has_own_networks(record: &Container) -> Result<()> {
    if Mode::of(record) == Mode::Networks {
        return Ok(());
    }
    let (name, mode) = (&record.name, &record.host_config.network_mode);
    Err(Error::usage(format!(
        "the container {name} was made with --network {mode}, which cannot be changed: make it anew"
    )))
}

/// Gives a running container one more interface.
async fn plug(client: &Client, record: &mut Container, network: &Network) -> Result<()> {
    let (paths, plugins) = (&client.paths, Plugins::busy(&client.paths, &record.id)?);
    plugins.need(&["bridge", "host-local"])?;
    let mut journal = {
        let _lock = record::lock(paths)?;
        let others = journal::all(paths)?;
        let Some(mut journal) = others.iter().find(|it| it.id == record.id).cloned() else { return Ok(()) };
        let endpoint = record.networks.get(&network.name).cloned().unwrap_or_default();
        is_free(paths, network, &endpoint.requested_ip, &others)?;
        let route = if journal.attachments.iter().any(|it| !it.internal) { Route::None } else { Route::Default };
        let mut names = (0..).map(|number| format!("eth{number}"));
        let free = names.find(|name| !journal.attachments.iter().any(|it| it.interface == *name)).unwrap_or_default();
        journal.attachments.push(plan::attachment(paths, network, &endpoint, free, route)?);
        journal.save(paths)?;
        journal
    };
    let made = async {
        rules::set(paths).await?;
        if let Some(attachment) = journal.attachments.last_mut() {
            add(&plugins, paths, &record.id, attachment).await?;
        }
        if !journal.ports.is_empty() && journal.portmap.is_none() {
            publish(&plugins, paths, &mut journal).await?;
        }
        Ok(())
    };
    if let Err(error) = made.await {
        // The first failure is the one to tell; what stays is given back with the rest.
        let _ = pull_out(client, &plugins, &mut journal, &network.name).await;
        return Err(error);
    }
    finish(client, record, &journal)
}

/// Takes an interface from a running container; its ports and its way out go over another network, if there is one.
async fn unplug(client: &Client, record: &mut Container, network: &Network) -> Result<()> {
    let (paths, plugins) = (&client.paths, Plugins::busy(&client.paths, &record.id)?);
    let Some(mut journal) = Journal::load(paths, &record.id)? else { return Ok(()) };
    pull_out(client, &plugins, &mut journal, &network.name).await?;
    let next = journal.attachments.iter().find(|it| !it.internal);
    if let Some((next, gateway)) = next.and_then(|it| Some((it, it.gateway?))) {
        namespace::set_default_route(&paths.netns(&record.id), &next.interface, gateway)?;
    }
    if !journal.ports.is_empty() && journal.portmap.is_none() {
        publish(&plugins, paths, &mut journal).await?;
    }
    finish(client, record, &journal)
}

async fn pull_out(client: &Client, plugins: &Plugins, journal: &mut Journal, network: &str) -> Result<()> {
    let path = client.paths.netns(&journal.id);
    if let Some(portmap) = journal.portmap.as_ref().filter(|it| it.network == network) {
        let target = Target { container: &journal.id, namespace: Some(&path), interface: &portmap.interface };
        plugins.del(&portmap.configuration, target).await?;
        journal.portmap = None;
    }
    if let Some(at) = journal.attachments.iter().position(|it| it.network == network) {
        del(plugins, &journal.id, Some(&path), &journal.attachments[at]).await?;
        journal.attachments.remove(at);
    }
    let _lock = record::lock(&client.paths)?;
    journal.save(&client.paths)
}

/// The journal as it is now, in the record and in everybody's hosts file.
fn finish(client: &Client, record: &mut Container, journal: &Journal) -> Result<()> {
    record.networks.values_mut().for_each(forget_endpoint);
    fill(record, journal)?;
    let _lock = record::lock(&client.paths)?;
    journal.save(&client.paths)?;
    refresh(&client.paths, &mut journal::all(&client.paths)?)
}
