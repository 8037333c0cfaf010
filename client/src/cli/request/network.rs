//! `--network`, `-p`, `--link`, `--dns` and the other flags of the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ports;
use crate::cli::flags::Network;
use crate::error::{Error, Result};
use crate::record::{Container, Endpoint};

/// Puts them into the record.
pub(super) fn apply(flags: &Network, to: &mut Container) -> Result<()> {
    networks(flags, to)?;
    for text in &flags.publish {
        ports::publish(text, &mut to.host_config.port_bindings)?;
    }
    let nothing = || serde_json::json!({});
    for text in &flags.expose {
        to.config.exposed_ports.extend(ports::exposed(text)?.into_iter().map(|port| (port, nothing())));
    }
    to.config.exposed_ports.extend(to.host_config.port_bindings.keys().map(|port| (port.clone(), nothing())));
    to.host_config.publish_all_ports = flags.publish_all;
    if to.host_config.network_mode == "host" && !to.host_config.port_bindings.is_empty() {
        // It is no error with docker either, and scripts rely on that.
        eprintln!("WARNING: Published ports are discarded when using host network mode");
    }
    for text in &flags.link {
        to.host_config.links.push(link(text)?);
    }
    for text in &flags.dns {
        if text.parse::<IpAddr>().is_err() {
            return Err(Error::usage(format!("--dns {text:?} is no address: give a name server's, as in 9.9.9.9")));
        }
    }
    to.host_config.dns.clone_from(&flags.dns);
    to.host_config.dns_options.clone_from(&flags.dns_option);
    for text in &flags.dns_search {
        to.host_config.dns_search.push(domain(text)?);
    }
    for text in &flags.add_host {
        to.host_config.extra_hosts.push(extra_host(text)?);
    }
    Ok(())
}

fn networks(flags: &Network, to: &mut Container) -> Result<()> {
    if let Some(ip) = &flags.ip
        && ip.parse::<Ipv4Addr>().is_err()
    {
        return Err(Error::usage(format!("--ip {ip:?} is no IPv4 address, as in 172.30.100.104")));
    }
    if let Some(ip) = &flags.ip6
        && ip.parse::<Ipv6Addr>().is_err()
    {
        return Err(Error::usage(format!("--ip6 {ip:?} is no IPv6 address, as in 2001:db8::33")));
    }
    if let Some(mac) = &flags.mac_address {
        mac_address(mac)?;
    }
    if flags.ip6.is_some() {
        return Err(Error::usage("tarectl's networks have no IPv6: leave --ip6 out"));
    }
    let named = |it: &str| if it == "default" || it.is_empty() { "bridge".to_owned() } else { it.to_owned() };
    let given = if flags.network.is_empty() { vec!["bridge".to_owned()] } else { flags.network.clone() };
    for (at, text) in given.iter().enumerate() {
        let (name, mut endpoint) = network(text)?;
        let name = named(&name);
        if at == 0 {
            to.host_config.network_mode.clone_from(&name);
            endpoint.aliases.extend(flags.network_alias.iter().cloned());
            both(&mut endpoint.requested_ip, flags.ip.as_deref(), "--ip")?;
            both(&mut endpoint.requested_mac, flags.mac_address.as_deref(), "--mac-address")?;
        }
        let alone = ["host", "none"].contains(&name.as_str()) || name.starts_with("container:");
        if alone && given.len() > 1 {
            return Err(Error::usage(format!("--network {name} stands alone: leave the other networks out")));
        }
        if name == "container:" {
            return Err(Error::usage("--network container: names no container: give container:NAME"));
        }
        let asked = endpoint != Endpoint::default();
        if alone && (asked || name.starts_with("container:") && !flags.publish.is_empty()) {
            return Err(Error::usage(format!(
                "with --network {name} the container has no address, name or port of its own: leave --ip, --mac-address, --network-alias and -p out"
            )));
        }
        if to.networks.insert(name.clone(), endpoint).is_some() {
            return Err(Error::usage(format!("--network {name} is given twice: once is enough")));
        }
        if alone {
            // There is nothing to be asked of these.
            to.networks.clear();
        }
    }
    Ok(())
}

fn both(to: &mut String, flag: Option<&str>, name: &str) -> Result<()> {
    match flag {
        Some(_) if !to.is_empty() => Err(Error::usage(format!("{name} and --network both say it: leave one out"))),
        Some(value) => {
            value.clone_into(to);
            Ok(())
        }
        None => Ok(()),
    }
}

/// A name, or `name=…,alias=…,ip=…,mac-address=…`.
fn network(text: &str) -> Result<(String, Endpoint)> {
    let mut endpoint = Endpoint::default();
    if !text.contains('=') {
        return Ok((text.to_owned(), endpoint));
    }
    let mut name = String::new();
    for field in text.split(',') {
        let wrong = |why: &str| {
            Error::usage(format!("--network {text:?} {why}: give NAME, or name=NAME,alias=NAME,ip=ADDRESS"))
        };
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(&format!("has {field:?} without a value")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut name),
            "alias" => endpoint.aliases.push(value.to_owned()),
            "ip" if value.parse::<Ipv4Addr>().is_ok() => value.clone_into(&mut endpoint.requested_ip),
            "ip" => return Err(wrong(&format!("has {value:?}, which is no IPv4 address"))),
            "mac-address" => endpoint.requested_mac = mac_address(value)?,
            other => return Err(wrong(&format!("has {other:?}, which tarectl does not know"))),
        }
    }
    if name.is_empty() {
        return Err(Error::usage(format!("--network {text:?} has no name=NAME")));
    }
    Ok((name, endpoint))
}

fn mac_address(text: &str) -> Result<String> {
    let well =
        text.split(':').count() == 6 && text.split(':').all(|it| it.len() == 2 && u8::from_str_radix(it, 16).is_ok());
    if well && u8::from_str_radix(&text[..2], 16).is_ok_and(|first| first & 1 == 0) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Error::usage(format!("--mac-address {text:?} is none that an interface can have, as in 92:d0:c6:0a:29:33")))
}

/// `container[:alias]` in full.
fn link(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (name, alias) = match parts[..] {
        [name] => (name, name),
        [name, alias] => (name, alias),
        _ => ("", ""),
    };
    let name = name.trim_start_matches('/');
    if name.is_empty() || alias.is_empty() {
        return Err(Error::usage(format!("--link {text:?} links nothing: give CONTAINER[:NAME], as in db:database")));
    }
    Ok(format!("{name}:{}", alias.trim_start_matches('/')))
}

fn domain(text: &str) -> Result<String> {
    let label = |it: &str| {
        !it.is_empty()
            && it.len() <= 63
            && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !it.starts_with('-')
            && !it.ends_with('-')
    };
    if text == "." || (text.len() <= 254 && text.trim_end_matches('.').split('.').all(label)) {
        return Ok(text.to_owned());
    }
    Err(Error::usage(format!("--dns-search {text:?} is no domain: give one, as in example.com, or . for none")))
}

/// `NAME:ADDRESS`, also with = and with [] around the address.
fn extra_host(text: &str) -> Result<String> {
    let wrong = |why: &str| Error::usage(format!("--add-host {text:?} {why}: give NAME:ADDRESS, as in db:10.0.0.5"));
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| wrong("has no address"))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(wrong("has no name"));
    }
    let plain = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    if plain != "host-gateway" && plain.parse::<IpAddr>().is_err() {
        return Err(wrong(&format!("has {address:?}, which is no address")));
    }
    Ok(format!("{name}:{plain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut Network)) -> Result<Container> {
        let mut flags = Network::default();
        change(&mut flags);
        let mut to = Container::default();
        apply(&flags, &mut to).map(|()| to)
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn flags_of_the_network_become_the_record() {
        let record = read(|_| ()).unwrap();
        assert_eq!((record.host_config.network_mode.as_str(), record.networks.len()), ("bridge", 1));
        let record = read(|it| {
            it.network = texts(&["name=front,alias=w,ip=10.1.0.5", "back"]);
            it.network_alias = texts(&["www"]);
            it.mac_address = Some("92:D0:c6:0a:29:33".to_owned());
            it.publish = texts(&["8080:80"]);
            it.expose = texts(&["53/udp"]);
            it.link = texts(&["db", "/cache:c"]);
            it.add_host = texts(&["a:1.2.3.4", "b=::1", "c:[::2]", "host:host-gateway"]);
            it.dns = texts(&["9.9.9.9"]);
            it.dns_search = texts(&["example.com", "."]);
        })
        .unwrap();
        assert_eq!(record.host_config.network_mode, "front");
        let front = &record.networks["front"];
        assert_eq!((front.aliases.join(" "), front.requested_ip.as_str()), ("w www".to_owned(), "10.1.0.5"));
        assert!(record.networks.contains_key("back"));
        assert_eq!(record.config.exposed_ports.keys().cloned().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(record.host_config.links, ["db:db", "cache:c"]);
        assert_eq!(record.host_config.extra_hosts, ["a:1.2.3.4", "b:::1", "c:::2", "host:host-gateway"]);
        let record = read(|it| it.network = texts(&["host"])).unwrap();
        assert!(record.networks.is_empty());
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        type Change = fn(&mut Network);
        let all: [(Change, &str); 19] = [
            (|it| it.network = texts(&["host", "front"]), "stands alone"),
            (|it| it.network = texts(&["front", "front"]), "given twice"),
            (|it| it.network = texts(&["container:"]), "names no container"),
            (|it| it.network = texts(&["ip=1.2.3.4"]), "has no name"),
            (|it| it.network = texts(&["name=a,ip=x"]), "no IPv4 address"),
            (|it| it.network = texts(&["name=a,speed=9"]), "does not know"),
            (|it| it.ip = Some("1.2.3".to_owned()), "no IPv4 address"),
            (|it| it.ip6 = Some("::g".to_owned()), "no IPv6 address"),
            (|it| it.mac_address = Some("01:d0:c6:0a:29:33".to_owned()), "none that an interface"),
            (|it| it.mac_address = Some("92:d0".to_owned()), "none that an interface"),
            (|it| (it.network, it.ip) = (texts(&["host"]), Some("1.2.3.4".to_owned())), "of its own"),
            (|it| (it.network, it.publish) = (texts(&["container:a"]), texts(&["80"])), "of its own"),
            (|it| it.link = texts(&["a:b:c"]), "links nothing"),
            (|it| it.link = texts(&[":b"]), "links nothing"),
            (|it| it.dns = texts(&["example.com"]), "is no address"),
            (|it| it.dns_search = texts(&["a b"]), "no domain"),
            (|it| it.add_host = texts(&["a"]), "has no address"),
            (|it| it.add_host = texts(&["a:b"]), "is no address"),
            (|it| it.publish = texts(&["99999:80"]), "no port"),
        ];
        for (change, expected) in all {
            let error = read(change).expect_err(expected);
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
