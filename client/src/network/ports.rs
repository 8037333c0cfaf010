//! Which ports of the host a container gets, and that nobody else has them.
//!
//! Between containers the journals tell: a published port has no socket, packets to it are rewritten before they reach one.
//! Of other programs the kernel tells: each port is listened on until it is published, so that it is free and stays so.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use serde::{Deserialize, Serialize};

use super::journal::Journal;
use crate::error::{Error, Result};
use crate::record::{Container, PortBinding};

/// How often the kernel is asked for a free port that no container has either.
const TRIES: usize = 100;

/// A port of the host and where its packets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub(super) protocol: String,
    pub(super) host_ip: Ipv4Addr,
    pub(super) host_port: u16,
}

impl Published {
    /// As docker writes the container's side: `80/tcp`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.container_port, self.protocol)
    }

    fn meets(&self, other: &Self) -> bool {
        let same_address =
            self.host_ip == other.host_ip || self.host_ip.is_unspecified() || other.host_ip.is_unspecified();
        self.protocol == other.protocol && self.host_port == other.host_port && same_address
    }
}

/// Something that listens on the host in the container's place.
#[derive(Debug)]
pub(super) enum Held {
    Tcp {
        _listener: TcpListener,
    },
    Udp {
        _socket: UdpSocket,
    },
    /// Of this protocol the journals alone tell.
    Unknown,
}

/// A port as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    container_port: u16,
    protocol: String,
    host_ip: Ipv4Addr,
    /// Both ends included; 0 is any.
    host_ports: (u16, u16),
}

/// Refuses what cannot be meant, before anything is made.
pub(super) fn check(record: &Container) -> Result<()> {
    wishes(record, Ipv4Addr::UNSPECIFIED).map(drop)
}

/// Finds the ports that a container is to have, and holds them. `others` are all other containers' journals, and the lock is held
/// until the container's own is written.
pub(super) fn take(record: &Container, usual: Ipv4Addr, others: &[Journal]) -> Result<(Vec<Published>, Vec<Held>)> {
    let (mut published, mut held): (Vec<Published>, Vec<Held>) = (Vec::new(), Vec::new());
    for wish in wishes(record, usual)? {
        let (port, holder) = first_free(&wish, others, &published)?;
        published.push(port);
        held.push(holder);
    }
    Ok((published, held))
}

/// What is published, as records have it.
pub(super) fn bindings(published: &[Published]) -> BTreeMap<String, Vec<PortBinding>> {
    let mut bindings: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for port in published {
        let binding = PortBinding { host_ip: port.host_ip.to_string(), host_port: port.host_port.to_string() };
        bindings.entry(port.key()).or_default().push(binding);
    }
    bindings
}

/// `80/tcp`, or `80`, which is tcp's.
pub(super) fn parse(text: &str) -> Result<(u16, String)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(Error::usage(format!("{text:?} is no port: its protocol must be tcp, udp or sctp")));
    }
    Ok((number(port).filter(|port| *port > 0).ok_or_else(|| wrong("a port of a container", text))?, protocol))
}

fn wishes(record: &Container, usual: Ipv4Addr) -> Result<Vec<Wish>> {
    let mut wishes = Vec::new();
    for (key, bindings) in &record.host_config.port_bindings {
        let (container_port, protocol) = parse(key)?;
        for binding in bindings {
            let host_ip = host_address(&binding.host_ip, usual)?;
            let host_ports = range(&binding.host_port)?;
            wishes.push(Wish { container_port, protocol: protocol.clone(), host_ip, host_ports });
        }
    }
    if record.host_config.publish_all_ports {
        for key in record.config.exposed_ports.keys() {
            let (container_port, protocol) = parse(key)?;
            if !wishes.iter().any(|it| it.container_port == container_port && it.protocol == protocol) {
                wishes.push(Wish { container_port, protocol, host_ip: usual, host_ports: (0, 0) });
            }
        }
    }
    // What is asked for by number comes first: a free port that was chosen before could be just that one.
    wishes.sort_by_key(|wish| (wish.host_ports == (0, 0), wish.host_ports.0 != wish.host_ports.1));
    Ok(wishes)
}

fn host_address(text: &str, usual: Ipv4Addr) -> Result<Ipv4Addr> {
    match text.trim_matches(['[', ']']) {
        "" => Ok(usual),
        text => match text.parse() {
            Ok(IpAddr::V4(address)) => Ok(address),
            Ok(IpAddr::V6(_)) => Err(Error::usage(format!(
                "port at {text}: tarectl publishes ports at addresses of IPv4 only: give one as in 127.0.0.1:8080:80"
            ))),
            Err(_) => {
                Err(Error::usage(format!("{text:?} is no address of the host: give one as in 127.0.0.1:8080:80")))
            }
        },
    }
}

fn range(text: &str) -> Result<(u16, u16)> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && (first > 0 || last == 0) => Ok((first, last)),
        _ => Err(wrong("a port of the host, or a range of such,", text)),
    }
}

/// Digits and nothing else: `u16::from_str` takes a sign.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn wrong(what: &str, text: &str) -> Error {
    Error::usage(format!(
        "{text:?} is not {what}: ports are numbers from 1 to 65535, as in -p 8080:80 or -p 8000-8009:80/udp"
    ))
}

fn first_free(wish: &Wish, others: &[Journal], own: &[Published]) -> Result<(Published, Held)> {
    let (first, last) = wish.host_ports;
    let candidates: Box<dyn Iterator<Item = u16>> =
        if first == 0 { Box::new(std::iter::repeat_n(0, TRIES)) } else { Box::new(first..=last) };
    let mut refusal = None;
    for candidate in candidates {
        let at = SocketAddr::from((wish.host_ip, candidate));
        // By number: a container that has it is to be named, and a published port has no socket to be found by.
        let known = (candidate != 0).then(|| taken_by(&published(wish, candidate), others, own)).flatten();
        if let Some(taken) = known {
            refusal.get_or_insert(taken);
            continue;
        }
        match hold(&wish.protocol, at) {
            Ok((port, holder)) => {
                let port = published(wish, port);
                if port.host_port != 0 && taken_by(&port, others, own).is_none() {
                    return Ok((port, holder));
                }
            }
            Err(error) => {
                refusal.get_or_insert_with(|| refused(wish, candidate, &error));
            }
        }
    }
    let refusal = refusal.unwrap_or_else(|| {
        Error::conflict(format!("the host has no free port for {}/{}", wish.container_port, wish.protocol))
    });
    Err(if first == last {
        refusal
    } else {
        refusal.within(format!("none of the ports {first} to {last} of the host is free"))
    })
}

fn published(wish: &Wish, host_port: u16) -> Published {
    Published { container_port: wish.container_port, protocol: wish.protocol.clone(), host_ip: wish.host_ip, host_port }
}

fn taken_by(port: &Published, others: &[Journal], own: &[Published]) -> Option<Error> {
    let text = format!("the port {}/{} of the host", port.host_port, port.protocol);
    if own.iter().any(|it| it.meets(port)) {
        return Some(Error::usage(format!("{text} is asked for twice")));
    }
    let holder = others.iter().find(|journal| journal.ports.iter().any(|it| it.meets(port)))?;
    Some(Error::conflict(format!(
        "{text} is already published by the container {}: stop that one, or publish another port",
        holder.name
    )))
}

fn hold(protocol: &str, at: SocketAddr) -> io::Result<(u16, Held)> {
    match protocol {
        "tcp" => {
            let listener = TcpListener::bind(at)?;
            Ok((listener.local_addr()?.port(), Held::Tcp { _listener: listener }))
        }
        "udp" => {
            let socket = UdpSocket::bind(at)?;
            Ok((socket.local_addr()?.port(), Held::Udp { _socket: socket }))
        }
        // Any port that is free for another protocol will do as well.
        _ if at.port() == 0 => Ok((TcpListener::bind(at)?.local_addr()?.port(), Held::Unknown)),
        _ => Ok((at.port(), Held::Unknown)),
    }
}

fn refused(wish: &Wish, port: u16, error: &io::Error) -> Error {
    let (protocol, address) = (&wish.protocol, wish.host_ip);
    let flag = if protocol == "udp" { 'u' } else { 't' };
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::conflict(format!(
            "the port {port}/{protocol} of the host is in use by another program (ss -{flag}lnp sport = :{port} tells which): \
             stop it, or publish another port"
        )),
        io::ErrorKind::AddrNotAvailable => Error::usage(format!(
            "{address} is no address of this host (ip address lists them): the port {port}/{protocol} cannot be published there"
        )),
        _ => Error::failed(format!("listen at {address}:{port}/{protocol} of the host: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bindings: &[(&str, &str, &str)]) -> Container {
        let mut record = Container::default();
        for (key, ip, port) in bindings {
            let binding = PortBinding { host_ip: (*ip).to_owned(), host_port: (*port).to_owned() };
            record.host_config.port_bindings.entry((*key).to_owned()).or_default().push(binding);
        }
        record
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (binding, said) in [
            (("80/xyz", "", ""), "must be tcp, udp or sctp"),
            (("0/tcp", "", ""), "1 to 65535"),
            (("65536/tcp", "", ""), "1 to 65535"),
            (("+80/tcp", "", ""), "1 to 65535"),
            (("80/tcp", "", "70000"), "1 to 65535"),
            (("80/tcp", "", "9-8"), "1 to 65535"),
            (("80/tcp", "", "0-8"), "1 to 65535"),
            (("80/tcp", "", "80\n"), "1 to 65535"),
            (("80/tcp", "::1", "80"), "IPv4 only"),
            (("80/tcp", "localhost", "80"), "no address of the host"),
        ] {
            let error = check(&record(&[binding])).expect_err(binding.2);
            assert!(error.message.contains(said), "{binding:?}: {error}");
        }
    }

    #[test]
    fn a_port_that_a_program_or_a_container_has_is_refused_with_its_name() {
        let program = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = program.local_addr().unwrap().port();
        let usual = Ipv4Addr::UNSPECIFIED;
        let asked = record(&[("80/tcp", "", &port.to_string())]);
        let error = take(&asked, usual, &[]).unwrap_err();
        assert!(error.message.contains("in use by another program"), "{error}");
        // The same number of udp is another port.
        let (published, _held) = take(&record(&[("80/udp", "127.0.0.1", &port.to_string())]), usual, &[]).unwrap();
        assert_eq!((published[0].host_port, published[0].key().as_str()), (port, "80/udp"));
        drop(program);
        let (published, held) = take(&asked, usual, &[]).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "it is held until it is published");
        drop(held);
        let web = Journal { name: "web".to_owned(), ports: published, ..Journal::default() };
        let error = take(&record(&[("8/tcp", "127.0.0.1", &port.to_string())]), usual, &[web]).unwrap_err();
        assert!(error.message.contains("already published by the container web"), "{error}");
        let error = take(&record(&[("80/tcp", "203.0.113.9", "7")]), usual, &[]).unwrap_err();
        assert!(error.message.contains("no address of this host"), "{error}");
    }

    #[test]
    fn ranges_free_ports_and_all_exposed_ones() {
        let program = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = program.local_addr().unwrap().port();
        let local = Ipv4Addr::LOCALHOST;
        let range = format!("{port}-{}", port.saturating_add(20));
        let mut asked = record(&[("80/tcp", "", &range), ("81/tcp", "", ""), ("82/udp", "", "0")]);
        asked.host_config.publish_all_ports = true;
        for exposed in ["80/tcp", "90/udp"] {
            asked.config.exposed_ports.insert(exposed.to_owned(), serde_json::json!({}));
        }
        let (published, held) = take(&asked, local, &[]).unwrap();
        let keys: Vec<String> = published.iter().map(Published::key).collect();
        assert_eq!((keys.join(" "), held.len()), ("80/tcp 81/tcp 82/udp 90/udp".to_owned(), 4));
        assert!(published[0].host_port > port && published.iter().all(|it| it.host_port > 0 && it.host_ip == local));
        let bindings = bindings(&published);
        assert_eq!(bindings["80/tcp"][0].host_ip, "127.0.0.1");
        let twice = record(&[("80/tcp", "", "4555"), ("81/tcp", "", "4555")]);
        let error = take(&twice, local, &[]).unwrap_err();
        assert!(error.message.contains("asked for twice"), "{error}");
    }
}
