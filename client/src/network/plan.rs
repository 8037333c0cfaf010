//! What the plugins are told: a network's record and a container's wishes become their configuration.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::cni::VERSION;
use super::journal::Attachment;
use super::ports::Published;
use super::record::{BRIDGE, MTU, Network};
use super::subnet;
use crate::error::{Error, Result};
use crate::paths::{self, Paths};
use crate::record::Endpoint;

/// Whether the default route goes over a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Default,
    None,
}

/// What an endpoint becomes.
pub(super) fn attachment(
    paths: &Paths,
    network: &Network,
    endpoint: &Endpoint,
    interface: String,
    route: Route,
) -> Result<Attachment> {
    Ok(Attachment {
        network: network.name.clone(),
        network_id: network.id.clone(),
        interface,
        internal: network.internal,
        names: network.name != BRIDGE,
        aliases: endpoint.aliases.clone(),
        configuration: bridge(paths, network, endpoint, route)?,
        ..Attachment::default()
    })
}

/// The plugin bridge, and host-local below it.
fn bridge(paths: &Paths, network: &Network, endpoint: &Endpoint, route: Route) -> Result<Value> {
    let pool = network.pool()?;
    let mut range = json!({ "subnet": pool.subnet, "gateway": pool.gateway });
    let mut asked = json!({});
    if endpoint.requested_ip.is_empty() {
        if let Some(part) = pool.ip_range {
            let (first, last) = subnet::hosts(part, pool.subnet);
            range["rangeStart"] = json!(first);
            range["rangeEnd"] = json!(last);
        }
    } else {
        // An address that is asked for may lie outside of the part that is given by itself, as with docker.
        asked["ips"] = json!([endpoint.requested_ip]);
    }
    if !endpoint.requested_mac.is_empty() {
        asked["mac"] = json!(endpoint.requested_mac);
    }
    let mut configuration = json!({
        "cniVersion": VERSION,
        "name": network.name,
        "type": "bridge",
        "bridge": network.device(),
        "isGateway": true,
        "isDefaultGateway": route == Route::Default && !network.internal,
        // A container reaches its own published port by the host's address.
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": paths::text(&addresses(paths)),
            "ranges": [[range]],
        },
        "runtimeConfig": asked,
    });
    if let Some(mtu) = network.options.get(MTU) {
        configuration["mtu"] = json!(mtu.parse::<u32>().map_err(|_| {
            Error::usage(format!("the network {}: {MTU} is {mtu:?}, which is no number of bytes", network.name))
        })?);
    }
    Ok(configuration)
}

/// Where host-local writes which addresses are taken.
pub(super) fn addresses(paths: &Paths) -> PathBuf {
    super::directory(paths).join("addresses")
}

/// The plugin portmap, after `bridge` has answered.
pub(super) fn portmap(network: &str, ports: &[Published], result: &Value) -> Value {
    let mappings: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut mapping = json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol,
            });
            if !port.host_ip.is_unspecified() {
                mapping["hostIP"] = json!(port.host_ip);
            }
            mapping
        })
        .collect();
    json!({
        "cniVersion": VERSION,
        "name": network,
        "type": "portmap",
        "capabilities": { "portMappings": true },
        "snat": true,
        "runtimeConfig": { "portMappings": mappings },
        "prevResult": result,
    })
}

/// The configuration with what was answered to it: what DEL and CHECK are told.
pub(super) fn with_result(configuration: &Value, result: Option<&Value>) -> Value {
    let mut configuration = configuration.clone();
    if let Some(result) = result {
        configuration["prevResult"] = result.clone();
    }
    configuration
}

/// What `bridge` answers: address, prefix, gateway and the container's MAC address.
pub(super) struct Connected {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) mac: String,
}

/// Reads the answer.
pub(super) fn connected(result: &Value) -> Result<Connected> {
    let first = &result["ips"][0];
    let net: Ipv4Net = first["address"]
        .as_str()
        .and_then(|it| it.parse().ok())
        .ok_or_else(|| Error::failed(format!("the CNI plugin bridge answered without an address of IPv4: {result}")))?;
    let interfaces = result["interfaces"].as_array();
    // The one inside is that with a namespace.
    let inside =
        interfaces.and_then(|all| all.iter().find(|it| it["sandbox"].as_str().is_some_and(|it| !it.is_empty())));
    Ok(Connected {
        address: net.addr(),
        prefix: net.prefix_len(),
        gateway: first["gateway"].as_str().and_then(|it| it.parse().ok()),
        mac: inside.and_then(|it| it["mac"].as_str()).unwrap_or_default().to_owned(),
    })
}
