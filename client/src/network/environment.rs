//! What a linked container tells in the environment: docker's oldest way to find another, which images of its time still read.

use std::collections::BTreeSet;

use super::journal::Journal;
use super::ports;
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::Container;
use crate::records;

/// `DB_PORT_5432_TCP=tcp://172.17.0.2:5432` and the like, for each link; to be put before what the container itself says.
///
/// # Errors
/// The record of a linked container cannot be read.
pub fn link_environment(client: &Client, record: &Container) -> Result<Vec<String>> {
    let Some(own) = Journal::load(&client.paths, &record.id)? else { return Ok(Vec::new()) };
    let mut environment = Vec::new();
    for (alias, id) in &own.links {
        let linked = match records::load(client, id) {
            // It went away just now.
            Err(Error { kind: Kind::NotFound, .. }) => continue,
            linked => linked?,
        };
        let shared = linked.networks.iter().find(|(name, _)| record.networks.contains_key(*name));
        if let Some((_, endpoint)) = shared {
            tell(&mut environment, &record.name, alias, &linked, &endpoint.ip_address)?;
        }
    }
    Ok(environment)
}

fn tell(to: &mut Vec<String>, name: &str, alias: &str, linked: &Container, address: &str) -> Result<()> {
    let prefix = alias.to_ascii_uppercase().replace(['-', '.'], "_");
    let exposed = linked.config.exposed_ports.keys().chain(linked.host_config.port_bindings.keys());
    let ports: BTreeSet<(u16, String)> = exposed.map(|key| ports::parse(key)).collect::<Result<_>>()?;
    if let Some((port, protocol)) = ports.first() {
        to.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in &ports {
        let key = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        to.push(format!("{key}={protocol}://{address}:{port}"));
        to.push(format!("{key}_ADDR={address}"));
        to.push(format!("{key}_PORT={port}"));
        to.push(format!("{key}_PROTO={protocol}"));
    }
    to.push(format!("{prefix}_NAME=/{name}/{alias}"));
    for entry in &linked.config.env {
        // Those every container has of its own.
        match entry.split_once('=') {
            Some(("HOME" | "PATH", _)) | None => {}
            Some((key, value)) => to.push(format!("{prefix}_ENV_{key}={value}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_link_is_told_as_docker_tells_it() {
        let mut db = Container::default();
        db.config.env = vec!["FOO=bar".to_owned(), "PATH=/bin".to_owned(), "broken".to_owned()];
        for port in ["80/tcp", "53/udp"] {
            db.config.exposed_ports.insert(port.to_owned(), json!({}));
        }
        let mut environment = Vec::new();
        tell(&mut environment, "web", "my-db", &db, "172.17.0.2").unwrap();
        environment.sort();
        assert_eq!(
            environment,
            [
                "MY_DB_ENV_FOO=bar",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_PORT=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80",
                "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_80_TCP_PORT=80",
                "MY_DB_PORT_80_TCP_PROTO=tcp",
            ]
        );
    }
}
