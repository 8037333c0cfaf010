//! `-p` and `--expose`: docker's forms.
//!
//! ```text
//! 80   8080:80   8080:80/udp   127.0.0.1:8080:80   127.0.0.1::80   [::1]:8080:80   8000-8002:80-82   8000-8010:80
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::record::PortBinding;

/// By `80/tcp`: where on the host.
pub(crate) type Bindings = BTreeMap<String, Vec<PortBinding>>;

/// Ports of the container with their protocol, for `--expose 80-82/udp`.
pub(crate) fn exposed(text: &str) -> Result<Vec<String>> {
    let (range, protocol) = protocol(text, text)?;
    let (first, last) = ports(range, text)?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Adds what one `-p` says.
pub(crate) fn publish(text: &str, bindings: &mut Bindings) -> Result<()> {
    let (address, host, container) = parts(text)?;
    let (container, protocol) = protocol(container, text)?;
    if container.is_empty() {
        return Err(wrong(text, "it names no port of the container"));
    }
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(wrong(text, &format!("{address:?} is no address of the host")));
    }
    let (first, last) = ports(container, text)?;
    let host = if host.is_empty() { None } else { Some(ports(host, text)?) };
    // A range of the host for one port: any that is free.
    let any_of = host.filter(|(from, to)| first == last && from != to);
    if let (None, Some((from, to))) = (any_of, host)
        && to - from != last - first
    {
        return Err(wrong(text, "its ranges are not of the same length"));
    }
    for (at, port) in (first..=last).enumerate() {
        let host_port = match (any_of, host) {
            (Some((from, to)), _) => format!("{from}-{to}"),
            (None, Some((from, _))) => (usize::from(from) + at).to_string(),
            (None, None) => String::new(),
        };
        let binding = PortBinding { host_ip: address.to_owned(), host_port };
        let list = bindings.entry(format!("{port}/{protocol}")).or_default();
        if !list.contains(&binding) {
            list.push(binding);
        }
    }
    Ok(())
}

/// Address, port of the host, port of the container.
fn parts(text: &str) -> Result<(&str, &str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once("]:").ok_or_else(|| wrong(text, "its [ has no ]:"))?;
        let (host, container) =
            rest.split_once(':').ok_or_else(|| wrong(text, "it names one port where it needs two"))?;
        return Ok((address, host, container));
    }
    let Some((before, container)) = text.rsplit_once(':') else { return Ok(("", "", text)) };
    match before.rsplit_once(':') {
        Some((address, host)) => Ok((address, host, container)),
        None => Ok(("", before, container)),
    }
}

fn protocol<'a>(container: &'a str, text: &str) -> Result<(&'a str, String)> {
    let (range, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong(text, &format!("its protocol {protocol:?} is none of tcp, udp and sctp")));
    }
    Ok((range, protocol))
}

/// `80` or `80-82`.
fn ports(range: &str, text: &str) -> Result<(u16, u16)> {
    let port = |it: &str| {
        let number = it.bytes().all(|byte| byte.is_ascii_digit()).then(|| it.parse::<u16>().ok()).flatten();
        number.filter(|it| *it > 0).ok_or_else(|| wrong(text, &format!("{it:?} is no port from 1 to 65535")))
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(wrong(text, "its range ends before it begins"));
    }
    Ok((first, last))
}

fn wrong(text: &str, why: &str) -> Error {
    Error::usage(format!("{text:?} cannot be published: {why} (give [[ADDRESS:]PORT:]PORT[/udp], as in 8080:80)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> String {
        let mut bindings = Bindings::new();
        for text in texts {
            publish(text, &mut bindings).unwrap();
        }
        let shown = |list: &Vec<PortBinding>| {
            list.iter().map(|it| format!("{},{}", it.host_ip, it.host_port)).collect::<Vec<_>>().join("+")
        };
        bindings.iter().map(|(port, list)| format!("{port}={}", shown(list))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        for (texts, expected) in [
            (&["80"][..], "80/tcp=,"),
            (&["8080:80"], "80/tcp=,8080"),
            (&["8080:80/udp"], "80/udp=,8080"),
            (&["127.0.0.1:8080:80"], "80/tcp=127.0.0.1,8080"),
            (&["127.0.0.1::80"], "80/tcp=127.0.0.1,"),
            (&["[::1]:8080:80"], "80/tcp=::1,8080"),
            (&["8000-8002:80-82"], "80/tcp=,8000 81/tcp=,8001 82/tcp=,8002"),
            (&["8000-8010:80"], "80/tcp=,8000-8010"),
            (&["80-81"], "80/tcp=, 81/tcp=,"),
            (&["8080:80", "8081:80", "8080:80"], "80/tcp=,8080+,8081"),
        ] {
            assert_eq!(read(texts), expected, "{texts:?}");
        }
        assert_eq!(exposed("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
    }

    #[test]
    fn nothing_else_is_a_port() {
        for wrong in [
            "",
            "0",
            "65536",
            "-1",
            "a",
            "80:",
            "a:80",
            "8080:80/icmp",
            "1.2.3:8080:80",
            "8000-8001:80-82",
            "82-80",
            "[::1:80:80",
            "[::1]:80",
            "+80",
            "80/",
            "1:2:3:4",
        ] {
            assert!(publish(wrong, &mut Bindings::new()).is_err(), "{wrong}");
        }
        assert!(exposed("x").is_err());
    }
}
