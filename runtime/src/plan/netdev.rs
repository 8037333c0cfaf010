//! `linux.netDevices`: devices of the host that move into the container's network namespace.

use oci_spec::runtime::Spec;

use super::namespaces::Namespaces;
use crate::error::{Error, Result};

/// The longest name of a network device: IFNAMSIZ without its null character.
const LONGEST: usize = 15;

/// One device to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub host: String,
    /// Its name in the container.
    pub name: NewName,
}

/// The name of a device in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewName {
    /// This one; taken already is an error.
    Exact(String),
    /// The first free one of a pattern, which is split here where the number belongs.
    Numbered(String, String),
}

/// Reads `linux.netDevices`, in the order of the host's names (the configuration has none).
pub fn lower(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let Some(linux) = spec.linux() else { return Ok(Vec::new()) };
    let mut devices = Vec::new();
    for (host, device) in linux.net_devices().iter().flatten() {
        let invalid = |what: String| Error::invalid(format!("linux.netDevices[{host:?}]{what}"));
        valid(host).map_err(|what| invalid(format!(" is not the name of a network device: it {what}")))?;
        if host.contains('%') {
            return Err(invalid(" is not the name of a network device: it contains '%'".to_owned()));
        }
        let wanted = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        valid(wanted).map_err(|what| invalid(format!(".name {wanted:?} {what}")))?;
        let name = match wanted.split_once('%') {
            None => NewName::Exact(wanted.to_owned()),
            Some((before, after)) => match after.strip_prefix('d') {
                Some(after) if !after.contains('%') => NewName::Numbered(before.to_owned(), after.to_owned()),
                _ => return Err(invalid(format!(".name {wanted:?} may contain '%' only once, as %d"))),
            },
        };
        devices.push(NetDevice { host: host.clone(), name });
    }
    devices.sort_by(|one, other| one.host.cmp(&other.host));
    check_unique(&devices)?;
    if !devices.is_empty() && !namespaces.network.is_private() {
        return Err(Error::invalid("linux.netDevices needs a network namespace in linux.namespaces"));
    }
    Ok(devices)
}

fn check_unique(devices: &[NetDevice]) -> Result<()> {
    let mut names: Vec<(&str, &str)> = devices
        .iter()
        .filter_map(|device| match &device.name {
            NewName::Exact(name) => Some((name.as_str(), device.host.as_str())),
            NewName::Numbered(..) => None,
        })
        .collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(Error::invalid(format!(
            "linux.netDevices gives the name {:?} to both {} and {}",
            pair[0].0, pair[0].1, pair[1].1
        ))),
    }
}

/// Whether the kernel takes this as a device's name (dev_valid_name).
fn valid(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("is empty"),
        "." | ".." => Err("is a directory"),
        _ if name.len() > LONGEST => Err("is longer than 15 bytes"),
        _ if name.contains(['/', ':']) => Err("contains '/' or ':'"),
        // The kernel's isspace covers ASCII and the no-break space of Latin-1, which is never valid UTF-8 alone.
        _ if name.bytes().any(|byte| byte.is_ascii_whitespace() || byte == 0x0b || byte == 0) => {
            Err("contains white space or a null character")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(devices: &str, namespaces: &str) -> Result<Vec<NetDevice>> {
        let config =
            format!(r#"{{"ociVersion": "1.3.0", "linux": {{"namespaces": [{namespaces}], "netDevices": {devices}}}}}"#);
        let spec = serde_json::from_str(&config).unwrap();
        lower(&spec, &crate::plan::namespaces::lower(&spec)?)
    }

    #[test]
    fn devices_keep_their_name_or_get_another() {
        let devices = read(r#"{"eth1": {"name": "n%d"}, "eth0": {}, "eth2": {"name": "x"}}"#, r#"{"type": "network"}"#);
        let exact = |name: &str| NewName::Exact(name.to_owned());
        let device = |host: &str, name| NetDevice { host: host.to_owned(), name };
        assert_eq!(
            devices.unwrap(),
            [
                device("eth0", exact("eth0")),
                device("eth1", NewName::Numbered("n".into(), String::new())),
                device("eth2", exact("x"))
            ]
        );
    }

    #[test]
    fn wrong_devices_are_named() {
        let net = r#"{"type": "network"}"#;
        for (devices, namespaces, expected) in [
            (r#"{"eth0": {}}"#, "", "linux.netDevices needs a network namespace in linux.namespaces"),
            (r#"{"": {}}"#, net, "linux.netDevices[\"\"] is not the name of a network device: it is empty"),
            (r#"{"e%d": {}}"#, net, "linux.netDevices[\"e%d\"] is not the name of a network device: it contains '%'"),
            (r#"{"eth0": {"name": "a/b"}}"#, net, "linux.netDevices[\"eth0\"].name \"a/b\" contains '/' or ':'"),
            (r#"{"eth0": {"name": ".."}}"#, net, "linux.netDevices[\"eth0\"].name \"..\" is a directory"),
            (
                r#"{"eth0": {"name": "0123456789abcdef"}}"#,
                net,
                "linux.netDevices[\"eth0\"].name \"0123456789abcdef\" is longer than 15 bytes",
            ),
            (
                r#"{"eth0": {"name": "a b"}}"#,
                net,
                "linux.netDevices[\"eth0\"].name \"a b\" contains white space or a null character",
            ),
            (
                r#"{"eth0": {"name": "%d%d"}}"#,
                net,
                "linux.netDevices[\"eth0\"].name \"%d%d\" may contain '%' only once, as %d",
            ),
            (
                r#"{"eth0": {"name": "%s"}}"#,
                net,
                "linux.netDevices[\"eth0\"].name \"%s\" may contain '%' only once, as %d",
            ),
            (
                r#"{"eth1": {"name": "x"}, "eth0": {"name": "x"}}"#,
                net,
                "linux.netDevices gives the name \"x\" to both eth0 and eth1",
            ),
        ] {
            assert_eq!(read(devices, namespaces).unwrap_err().to_string(), expected, "{devices}");
        }
        assert_eq!(read("{}", ""), Ok(Vec::new()));
    }
}
