//! The commands of networks.

use serde_json::{Value, json};

use super::args::{Connect, Disconnect, InspectOne, List, NetworkCreate, Port, Prune, Remove};
use super::filter::{self, Filters};
use super::images::confirmed;
use super::output::{self, Format};
use super::ps::{go_time_exact, joined};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::network::{self, Network};
use crate::record::Map;
use crate::time::Time;
use crate::{records, truth};

/// `network create`.
pub(super) async fn create(client: &Client, args: NetworkCreate) -> Result<u8> {
    let wishes = network::Create {
        name: args.name,
        driver: args.driver,
        subnets: args.subnet.into_iter().collect(),
        gateways: args.gateway.into_iter().collect(),
        ip_ranges: args.ip_range.into_iter().collect(),
        internal: args.internal,
        attachable: args.attachable,
        ipv6: args.ipv6,
        options: pairs("--opt", &args.opt)?,
        labels: super::request::labels(&args.label)?,
    };
    let network = network::create(client, &wishes).await?;
    output::line(&network.id).map(|()| 0)
}

/// `NAME=VALUE`, several times.
pub(super) fn pairs(flag: &str, given: &[String]) -> Result<Map> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("{flag} {text:?} is none: give NAME=VALUE"))),
    };
    given.iter().map(pair).collect()
}

/// `network ls`.
pub(super) async fn ls(client: &Client, args: List) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    let filters = Filters::parse(&args.filter, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let dangling = filters.truth("dangling")?;
    let used = if dangling.is_some() { users(client).await? } else { Vec::new() };
    let networks: Vec<Network> = network::list(client)?
        .into_iter()
        .filter(|it| {
            filters.matches("driver", |wanted| it.driver == wanted)
                && filters.matches("id", |wanted| it.id.starts_with(wanted))
                && filters.matches("name", |wanted| it.name.contains(wanted))
                && filters.matches("scope", |wanted| wanted == "local")
                && filters.matches("type", |wanted| (wanted == "builtin") == is_predefined(it))
                && filters.labels(&it.labels)
                && dangling.is_none_or(|wanted| wanted == (!is_predefined(it) && !used.contains(&it.name)))
        })
        .collect();
    let id = |it: &Network| if args.no_trunc { it.id.clone() } else { records::short(&it.id).to_owned() };
    if args.quiet {
        let ids: String = networks.iter().map(|it| id(it) + "\n").collect();
        return output::text(&ids).map(|()| 0);
    }
    let rows: Vec<Value> = networks
        .iter()
        .map(|it| {
            json!({
                "ID": id(it), "Name": it.name, "Driver": it.driver, "Scope": "local", "CreatedAt": go_time_exact(it.created),
                "IPv6": "false", "Internal": it.internal.to_string(), "Labels": joined(&it.labels),
            })
        })
        .collect();
    let columns = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];
    output::text(&format.list(&columns, &[("CREATED AT", "CreatedAt")], &rows)?).map(|()| 0)
}

/// Those that are always there.
fn is_predefined(network: &Network) -> bool {
    ["bridge", "host", "none"].contains(&network.name.as_str())
}

/// The names of networks that containers have.
async fn users(client: &Client) -> Result<Vec<String>> {
    let all = truth::users(client, |_| true).await;
    let all = all.map_err(|error| error.within("it is not known which networks are in use"))?;
    Ok(all.into_iter().flat_map(|it| it.networks.into_keys()).collect())
}

/// `network inspect`.
pub(super) async fn inspect(client: &Client, args: InspectOne) -> Result<u8> {
    if args.verbose {
        for name in &args.names {
            network::problems(client, name).await?.iter().for_each(output::complain);
        }
    }
    super::inspect::show(client, &args.format, &args.names, &["network"], false).await
}

/// `network rm`.
pub(super) async fn rm(client: &Client, args: Remove) -> Result<u8> {
    let force = args.force;
    let remove = async |name: &str| match network::remove(client, name).await {
        Ok(network) => output::line(&network.name),
        Err(error) if force && error.kind == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    output::each(&args.names, remove).await
}

/// `network connect`.
pub(super) async fn connect(client: &Client, args: Connect) -> Result<u8> {
    if !args.link.is_empty() {
        return Err(Error::usage(
            "containers in one network know each other by their names: give --alias to the other in place of --link",
        ));
    }
    let wishes = network::Connect { ip: args.ip.unwrap_or_default(), aliases: args.alias };
    network::connect(client, &args.network, &args.container, &wishes).await.map(|()| 0)
}

/// `network disconnect`.
pub(super) async fn disconnect(client: &Client, args: Disconnect) -> Result<u8> {
    network::disconnect(client, &args.network, &args.container, args.force).await.map(|()| 0)
}

/// `network prune`.
pub(super) async fn prune(client: &Client, args: Prune) -> Result<u8> {
    let wanted = wanted(&args.filter)?;
    if !args.force && !confirmed(&["all networks that no container uses"])? {
        return Ok(0);
    }
    let removed = network::prune(client, &wanted).await?;
    if removed.is_empty() {
        return Ok(0);
    }
    output::text(&format!("Deleted Networks:\n{}\n\n", removed.join("\n"))).map(|()| 0)
}

/// Which networks `until` and `label` want to be removed.
pub(super) fn wanted(filters: &[String]) -> Result<impl Fn(&Network) -> bool + use<>> {
    let filters = Filters::parse(filters, &filter::PRUNE)?;
    let until = filters.values("until").last().map(|it| Time::parse(it)).transpose()?;
    Ok(move |network: &Network| until.is_none_or(|it| network.created < it) && filters.labels(&network.labels))
}

/// `port`.
pub(super) async fn port(client: &Client, args: Port) -> Result<u8> {
    let all = network::port(client, &args.container, args.port.as_deref()).await?;
    let mut out = String::new();
    for (port, binding) in all {
        let address = match binding.host_ip.as_str() {
            "" => "0.0.0.0".to_owned(),
            v6 if v6.contains(':') => format!("[{v6}]"),
            v4 => v4.to_owned(),
        };
        // Asked for one port, docker says only where it is.
        let before = if args.port.is_some() { String::new() } else { format!("{port} -> ") };
        out.push_str(&format!("{before}{address}:{}\n", binding.host_port));
    }
    output::text(&out).map(|()| 0)
}
