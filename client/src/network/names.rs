//! What may stand in /etc/hosts and resolv.conf: nothing that ends a line or a word.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::journal::Journal;
use crate::error::{Error, Result};
use crate::records::short;

/// docker's word for the host's address in the default network.
pub(super) const GATEWAY: &str = "host-gateway";
/// Of a whole name (RFC 1035).
const LONGEST: usize = 253;

/// A name of a host: letters, digits, `_`, `-` and dots, and no `-` or dot first.
pub(super) fn host(what: &str, name: &str) -> Result<()> {
    let inner = |it: u8| it.is_ascii_alphanumeric() || b"_.-".contains(&it);
    let well = !name.is_empty() && name.len() <= LONGEST && !name.starts_with(['-', '.']) && name.bytes().all(inner);
    if well {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{name:?} cannot be {what}: it has up to {LONGEST} letters, digits, _, - and dots, and does not begin with - or a dot"
    )))
}

/// `name:address` or `name=address` of --add-host; the address may be [`GATEWAY`].
pub(super) fn extra_host(entry: &str) -> Result<(String, String)> {
    let (name, address) = entry
        .split_once('=')
        .or_else(|| entry.split_once(':'))
        .ok_or_else(|| Error::usage(format!("{entry:?} is no entry for /etc/hosts: give name:address")))?;
    host("a host's name", name)?;
    if address == GATEWAY {
        return Ok((name.to_owned(), address.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| {
        Error::usage(format!(
            "{address:?} in {entry:?} is no address: give name:address, or name:{GATEWAY} for this host's"
        ))
    })?;
    Ok((name.to_owned(), address.to_string()))
}

/// What --dns, --dns-search and --dns-option give.
pub(super) fn resolver(servers: &[String], search: &[String], options: &[String]) -> Result<()> {
    for server in servers {
        server.parse::<IpAddr>().map_err(|_| Error::usage(format!("{server:?} is no address of a name server")))?;
    }
    for domain in search.iter().filter(|it| *it != ".") {
        host("a search domain", domain.trim_end_matches('.'))?;
    }
    for option in options {
        if option.is_empty() || option.len() > LONGEST || !option.bytes().all(|it| it.is_ascii_graphic() && it != b'#')
        {
            return Err(Error::usage(format!("{option:?} is no option of resolv.conf(5): give one as in ndots:2")));
        }
    }
    Ok(())
}

/// A MAC address of one device: six bytes, and not a group's.
pub(super) fn mac(text: &str) -> Result<()> {
    let byte = |part: &str| {
        (part.len() == 2 && part.bytes().all(|it| it.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match bytes.as_deref() {
        Some([first, _, _, _, _, _]) if first & 1 == 0 => Ok(()),
        Some([_, _, _, _, _, _]) => {
            Err(Error::usage(format!("{text} is a group's MAC address: a container needs its own")))
        }
        _ => Err(Error::usage(format!("{text:?} is no MAC address: give six bytes as in 02:42:ac:11:00:02"))),
    }
}

/// What docker's /etc/hosts calls a container: the whole name, and its first part if it has several.
pub(super) fn hostname(hostname: &str, domain: &str) -> String {
    let whole = if domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domain}") };
    match whole.split_once('.') {
        Some((first, _)) => format!("{whole} {first}"),
        None => whole,
    }
}

/// The lines about others and itself that a container's hosts file has: whom it is linked to, itself, and who else is in its networks.
pub(super) fn lines(of: &Journal, all: &[Journal]) -> Vec<String> {
    let mut lines = Vec::new();
    for (alias, id) in &of.links {
        let Some(linked) = all.iter().find(|it| it.id == *id) else { continue };
        // Where both are; the network they share.
        let shared = linked.attachments.iter().find(|it| of.attachment(&it.network).is_some());
        if let Some(address) = shared.and_then(|it| it.address) {
            lines.push(line(address.into(), [alias.as_str(), &linked.hostname, &linked.name]));
        }
    }
    for attachment in &of.attachments {
        lines.extend(attachment.address.map(|address| line(address.into(), [of.hostname.as_str()])));
    }
    let mut others: BTreeMap<(String, u32), String> = BTreeMap::new();
    for attachment in of.attachments.iter().filter(|it| it.names) {
        for other in all.iter().filter(|it| it.id != of.id) {
            let Some(theirs) = other.attachment(&attachment.network) else { continue };
            let Some(address) = theirs.address else { continue };
            let names = [other.name.as_str()].into_iter().chain(theirs.aliases.iter().map(String::as_str));
            let line = line(address.into(), names.chain([short(&other.id)]));
            others.insert((attachment.network.clone(), address.into()), line);
        }
    }
    lines.extend(others.into_values());
    lines
}

fn line<'a>(address: IpAddr, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut said: Vec<&str> = Vec::new();
    for name in names.into_iter().flat_map(|it| it.split(' ')) {
        if !said.contains(&name) {
            said.push(name);
        }
    }
    format!("{address}\t{}", said.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::journal::Attachment;
    use super::*;

    #[test]
    fn nothing_that_ends_a_line_or_a_word_comes_into_a_file() {
        for wrong in ["", "a b", "a\nb", "a\tb", "a#b", "-a", ".a", "ä", "a\0", "a/b", "x\r"] {
            assert!(host("a name", wrong).is_err(), "{wrong:?}");
            assert!(extra_host(&format!("{wrong}:1.2.3.4")).is_err(), "{wrong:?}");
        }
        assert!(host("a name", &"x".repeat(254)).is_err());
        for wrong in ["a", "a:", "a:b", "a:1.2.3.4\n5.6.7.8 c", "a:1.2.3.4 b", "a:1.2.3", "a:host-gateway2", "=1.2.3.4"]
        {
            assert!(extra_host(wrong).is_err(), "{wrong:?}");
        }
        for (entry, address) in [
            ("a:1.2.3.4", "1.2.3.4"),
            ("a=1.2.3.4", "1.2.3.4"),
            ("a:::1", "::1"),
            ("a=[::1]", "::1"),
            ("a:host-gateway", GATEWAY),
        ] {
            assert_eq!(extra_host(entry).unwrap(), ("a".to_owned(), address.to_owned()), "{entry}");
        }
        let one = |text: &str| [text.to_owned()];
        for (servers, search, options) in [
            (&one("1.1.1.1\nsearch x")[..], &[][..], &[][..]),
            (&one("x"), &[], &[]),
            (&[], &one("a b"), &[]),
            (&[], &one("a\nnameserver 6.6.6.6"), &[]),
            (&[], &[], &one("a\nnameserver 6.6.6.6")),
            (&[], &[], &one("")),
        ] {
            assert!(resolver(servers, search, options).is_err(), "{servers:?} {search:?} {options:?}");
        }
        resolver(&one("::1"), &[".".to_owned(), "a.b.".to_owned()], &one("ndots:2")).unwrap();
        for wrong in [
            "zz",
            "02:42:ac:11:00",
            "02:42:ac:11:00:2",
            "02:42:ac:11:00:+2",
            "01:00:5e:00:00:01",
            "02:42:ac:11:00:02\n",
        ] {
            assert!(mac(wrong).is_err(), "{wrong}");
        }
        mac("02:42:AC:11:00:02").unwrap();
    }

    #[test]
    fn a_hosts_file_tells_of_links_itself_and_who_else_is_there() {
        let journal = |name: &str, network: &str, last: u8, aliases: &[&str]| Journal {
            id: name.repeat(64)[..64].to_owned(),
            name: name.to_owned(),
            hostname: hostname(&format!("host-{name}"), ""),
            attachments: vec![Attachment {
                network: network.to_owned(),
                names: network != "bridge",
                aliases: aliases.iter().map(|it| (*it).to_owned()).collect(),
                address: Some([172, 18, 0, last].into()),
                ..Attachment::default()
            }],
            ..Journal::default()
        };
        let (mut web, db, far) =
            (journal("a", "net", 3, &[]), journal("b", "net", 2, &["db", "b"]), journal("c", "other", 4, &[]));
        let all = [web.clone(), db.clone(), far.clone()];
        assert_eq!(lines(&web, &all), ["172.18.0.3\thost-a", "172.18.0.2\tb db bbbbbbbbbbbb"]);
        web.links = BTreeMap::from([("mydb".to_owned(), db.id.clone()), ("gone".to_owned(), "d".repeat(64))]);
        assert_eq!(lines(&web, &all)[0], "172.18.0.2\tmydb host-b b");
        // In the default network nobody is found by name.
        let (one, other) = (journal("a", "bridge", 3, &[]), journal("b", "bridge", 2, &[]));
        assert_eq!(lines(&one, &[one.clone(), other]), ["172.18.0.3\thost-a"]);
        assert_eq!(hostname("web.example.com", "dom"), "web.example.com.dom web");
        assert_eq!(hostname("web", ""), "web");
    }
}
