//! Which addresses a network gets when nobody says so, and what of an asked-for subnet makes no sense.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::error::{Error, Result};

/// docker's own: sixteen-bit networks from 172.17.0.0 on, then twenty-bit ones of 192.168.0.0.
fn pools() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..32).filter_map(|second| Ipv4Net::new(Ipv4Addr::new(172, second, 0, 0), 16).ok());
    let small = (0..16).filter_map(|it| Ipv4Net::new(Ipv4Addr::new(192, 168, it * 16, 0), 20).ok());
    large.chain(small)
}

/// The first pool that overlaps with nothing.
pub(super) fn free(taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    pools().find(|pool| taken.iter().all(|other| !overlap(*pool, *other))).ok_or_else(|| {
        Error::conflict(
            "no subnet is free among 172.17.0.0/16 to 172.31.0.0/16 and 192.168.0.0/16: \
             remove networks (tarectl network prune), or give one with --subnet",
        )
    })
}

/// Whether an address can be in both.
pub(super) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Where the host has its routes (but the default one), as proc(5) tells of /proc/net/route: hexadecimal, in the byte
/// order of the wire read as a number.
pub(super) fn of_host() -> Vec<Ipv4Net> {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let address =
            |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(|it| Ipv4Addr::from(it.to_ne_bytes()));
        Ipv4Net::with_netmask(address(1)?, address(7)?).ok()
    });
    routes.filter(|route| route.prefix_len() > 0).collect()
}

/// A subnet as --subnet has it: what lies behind the prefix is left out, as docker does it.
pub(super) fn parse(text: &str) -> Result<Ipv4Net> {
    match text.parse::<IpNet>() {
        // A point-to-point link has no room for a gateway and a container.
        Ok(IpNet::V4(net)) if net.prefix_len() <= 29 && net.prefix_len() >= 8 => Ok(net.trunc()),
        Ok(IpNet::V4(_)) => Err(Error::usage(format!("the subnet {text} must have a prefix of 8 to 29 bits"))),
        Ok(IpNet::V6(_)) => Err(Error::usage(format!(
            "the subnet {text} is one of IPv6, which networks of tarectl do not have: give one of IPv4, as in 10.5.0.0/16"
        ))),
        Err(_) => {
            Err(Error::usage(format!("{text:?} is not a subnet: give an address and a prefix, as in 10.5.0.0/16")))
        }
    }
}

/// An address of IPv4 that a host in this subnet may have.
pub(super) fn address(what: &str, text: &str, subnet: Ipv4Net) -> Result<Ipv4Addr> {
    let address = match text.parse() {
        Ok(IpAddr::V4(address)) => address,
        Ok(IpAddr::V6(_)) => {
            return Err(Error::usage(format!(
                "the {what} {text} is one of IPv6, which networks of tarectl do not have"
            )));
        }
        Err(_) => return Err(Error::usage(format!("the {what} {text:?} is not an address: give one as in 10.5.0.1"))),
    };
    if !subnet.contains(&address) || address == subnet.network() || address == subnet.broadcast() {
        return Err(Error::usage(format!("the {what} {address} is no host's address in the subnet {subnet}")));
    }
    Ok(address)
}

/// The first address for a host: the gateway's, if nobody says otherwise.
pub(super) fn first(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

/// From the first to the last address for a host.
pub(super) fn hosts(range: Ipv4Net, subnet: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let last = Ipv4Addr::from(u32::from(subnet.broadcast()).saturating_sub(1));
    (range.network().max(first(subnet)), range.broadcast().min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_subnet_overlaps_with_none() {
        let net = |text: &str| parse(text).unwrap();
        assert_eq!(free(&[]).unwrap(), net("172.17.0.0/16"));
        assert_eq!(free(&[net("172.17.3.0/24"), net("172.18.0.0/15")]).unwrap(), net("172.20.0.0/16"));
        assert_eq!(free(&[net("172.0.0.0/8")]).unwrap(), net("192.168.0.0/20"));
        let error = free(&[net("172.0.0.0/8"), net("192.168.0.0/16")]).unwrap_err();
        assert!(error.message.contains("--subnet"), "{error}");
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        for (text, said) in [
            ("10.0.0.1", "give an address and a prefix"),
            ("10.0.0.0/33", "give an address"),
            ("10.0.0.0/30", "8 to 29 bits"),
            ("0.0.0.0/0", "8 to 29 bits"),
            ("fd00::/64", "IPv6"),
            ("", "give an address"),
            ("10.0.0.0/8\n", "give an address"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.message.contains(said), "{text}: {error}");
        }
        let subnet = parse("10.1.2.3/24").unwrap();
        assert_eq!((subnet.to_string().as_str(), first(subnet).to_string().as_str()), ("10.1.2.0/24", "10.1.2.1"));
        for (text, said) in [
            ("10.1.3.1", "no host's address"),
            ("10.1.2.0", "no host's"),
            ("10.1.2.255", "no host's"),
            ("x", "is not an address"),
            ("::1", "IPv6"),
        ] {
            let error = address("gateway", text, subnet).expect_err(text);
            assert!(error.message.contains(said), "{text}: {error}");
        }
        let (first, last) = hosts(parse("10.1.2.0/29").unwrap(), subnet);
        assert_eq!((first.to_string().as_str(), last.to_string().as_str()), ("10.1.2.1", "10.1.2.7"));
        let (first, last) = hosts(subnet, subnet);
        assert_eq!((first.to_string().as_str(), last.to_string().as_str()), ("10.1.2.1", "10.1.2.254"));
    }
}
