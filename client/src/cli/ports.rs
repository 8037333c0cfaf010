//! Ports as `ps` shows them: `0.0.0.0:8000-8002->80-82/tcp, 53/udp`.

use std::collections::BTreeMap;

use crate::record::Container;

/// All of a container that runs; ranges are put together as docker does.
pub(super) fn displayed(record: &Container) -> String {
    if record.state.pid == 0 {
        return String::new();
    }
    let mut published: BTreeMap<(String, String), Vec<(u16, u16)>> = BTreeMap::new();
    let mut exposed: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for (port, bindings) in &record.ports {
        let Some((number, protocol)) = split(port) else { continue };
        for binding in bindings {
            let address = if binding.host_ip.is_empty() { "0.0.0.0" } else { &binding.host_ip };
            let Ok(host) = binding.host_port.parse() else { continue };
            published.entry((protocol.clone(), address.to_owned())).or_default().push((host, number));
        }
    }
    for port in record.config.exposed_ports.keys().filter(|it| record.ports.get(*it).is_none_or(Vec::is_empty)) {
        let Some((number, protocol)) = split(port) else { continue };
        exposed.entry(protocol).or_default().push(number);
    }
    let mut all: Vec<(u16, String)> = Vec::new();
    for ((protocol, address), mut pairs) in published {
        pairs.sort_unstable_by_key(|(host, inside)| (*inside, *host));
        for ((from, to), length) in runs(&pairs, |one, next| next.0 == one.0 + 1 && next.1 == one.1 + 1) {
            let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            all.push((to, format!("{address}:{}->{}/{protocol}", range(from, length), range(to, length))));
        }
    }
    for (protocol, mut numbers) in exposed {
        numbers.sort_unstable();
        for (first, length) in runs(&numbers, |one, next| *next == one + 1) {
            all.push((first, format!("{}/{protocol}", range(first, length))));
        }
    }
    all.sort_by_key(|(port, _)| *port);
    all.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

fn split(port: &str) -> Option<(u16, String)> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    Some((number.parse().ok()?, protocol.to_owned()))
}

/// The beginnings of runs of followers, with their lengths.
fn runs<T: Copy>(sorted: &[T], follows: impl Fn(&T, &T) -> bool) -> Vec<(T, u16)> {
    let mut all: Vec<(T, T, u16)> = Vec::new();
    for item in sorted {
        match all.last_mut() {
            Some((_, last, length)) if follows(last, item) => (*last, *length) = (*item, *length + 1),
            _ => all.push((*item, *item, 1)),
        }
    }
    all.into_iter().map(|(first, _, length)| (first, length)).collect()
}

fn range(first: u16, length: u16) -> String {
    if length == 1 { first.to_string() } else { format!("{first}-{}", u32::from(first) + u32::from(length) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PortBinding;

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let mut record = Container::default();
        record.state.pid = 5;
        let bind = |address: &str, port: &str| PortBinding { host_ip: address.to_owned(), host_port: port.to_owned() };
        for (port, bindings) in [
            ("80/tcp", vec![bind("", "8000"), bind("::1", "90")]),
            ("81/tcp", vec![bind("", "8001")]),
            ("53/udp", vec![bind("127.0.0.1", "5353")]),
        ] {
            record.ports.insert(port.to_owned(), bindings);
        }
        for port in ["80/tcp", "81/tcp", "7000/tcp", "7001/tcp", "9/udp"] {
            record.config.exposed_ports.insert(port.to_owned(), serde_json::json!({}));
        }
        assert_eq!(
            displayed(&record),
            "9/udp, 127.0.0.1:5353->53/udp, 0.0.0.0:8000-8001->80-81/tcp, [::1]:90->80/tcp, 7000-7001/tcp"
        );
        record.state.pid = 0;
        assert_eq!(displayed(&record), "");
    }
}
