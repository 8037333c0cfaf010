//! The three files that are bound over a container's: /etc/hosts, /etc/hostname and /etc/resolv.conf.
//!
//! They are the container's to change while it runs; then only the lines about itself and others are replaced, within the file,
//! since a new one would not be seen inside.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::names::{GATEWAY, extra_host};
use crate::error::{Context, Result};
use crate::paths::Paths;
use crate::record::Container;

/// More is not read of a file that a container may have written, and not of the host's.
const LIMIT: u64 = 1 << 20;
/// What docker puts first.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
     ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
/// Whom docker asks when all of the host's name servers are on the host itself.
const PUBLIC_SERVERS: &str = "\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
/// The host's own.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved asks, where the file above names it alone.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Where the three are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// For /etc/hosts.
    pub hosts: PathBuf,
    /// For /etc/hostname.
    pub hostname: PathBuf,
    /// For /etc/resolv.conf.
    pub resolv_conf: PathBuf,
}

impl Files {
    pub(super) fn of(paths: &Paths, id: &str) -> Self {
        let at = |name: &str| paths.container(id).join(name);
        Self { hosts: at("hosts"), hostname: at("hostname"), resolv_conf: at("resolv.conf") }
    }
}

/// Writes all three anew, with these lines about itself and others. `gateway` is what `host-gateway` means.
pub(super) fn write(paths: &Paths, record: &Container, gateway: Ipv4Addr, lines: &[String]) -> Result<()> {
    let files = Files::of(paths, &record.id);
    let of_host = record.host_config.network_mode == super::record::HOST;
    let mut hosts = if of_host { read("/etc/hosts")? } else { HOSTS.to_owned() };
    for entry in &record.host_config.extra_hosts {
        let (name, address) = extra_host(entry)?;
        let address = if address == GATEWAY { gateway.to_string() } else { address };
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    lines.iter().for_each(|line| hosts.extend([line.as_str(), "\n"]));
    fresh(&files.hosts, &hosts)?;
    fresh(&files.hostname, &format!("{}\n", record.config.hostname))?;
    fresh(&files.resolv_conf, &resolv_conf(record, of_host)?)
}

/// Replaces some lines of a hosts file, and leaves the others as they are.
pub(super) fn replace_lines(path: &Path, old: &[String], new: &[String]) -> Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        // The container is just being removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.context(what)?,
    };
    let mut content = Vec::new();
    Read::by_ref(&mut file).take(LIMIT + 1).read_to_end(&mut content).context(what)?;
    if content.len() as u64 > LIMIT {
        // What the container has made of it is its own affair.
        return Ok(());
    }
    let mut text = replaced(&content, old);
    new.iter().for_each(|line| text.extend_from_slice(format!("{line}\n").as_bytes()));
    file.write_all_at(&text, 0).and_then(|()| file.set_len(text.len() as u64)).context(what)
}

/// Without these lines.
fn replaced(content: &[u8], old: &[String]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in content.split_inclusive(|it| *it == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if !old.iter().any(|it| it.as_bytes() == bare) {
            text.extend_from_slice(bare);
            text.push(b'\n');
        }
    }
    text
}

fn resolv_conf(record: &Container, of_host: bool) -> Result<String> {
    let mut host = read(RESOLV_CONF)?;
    if !of_host && servers(&host) == ["127.0.0.53"] {
        host = read(RESOLVED).ok().filter(|it| !it.is_empty()).unwrap_or(host);
    }
    let given = &record.host_config;
    if given.dns.is_empty() && given.dns_search.is_empty() && given.dns_options.is_empty() {
        return Ok(if of_host { host } else { reachable(&host) });
    }
    let host = if of_host { host } else { reachable(&host) };
    let or = |given: &[String], of_host: Vec<&str>| match given {
        [] => of_host.join(" "),
        given => given.join(" "),
    };
    let mut text = String::new();
    let search = or(&given.dns_search, words(&host, &["search", "domain"]));
    // A single dot is docker's word for none.
    if !search.is_empty() && search != "." {
        text.push_str(&format!("search {search}\n"));
    }
    for server in or(&given.dns, servers(&host)).split(' ').filter(|it| !it.is_empty()) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let options = or(&given.dns_options, words(&host, &["options"]));
    if !options.is_empty() {
        text.push_str(&format!("options {options}\n"));
    }
    Ok(text)
}

/// Without the name servers that a container does not reach: those on the host's loopback, and those of IPv6, which it has not.
fn reachable(host: &str) -> String {
    let is_out = |line: &&str| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        ["nameserver", address, ..] => {
            let address = address.split('%').next().unwrap_or_default().parse();
            !matches!(address, Ok(IpAddr::V6(_))) && !address.is_ok_and(|it| it.is_loopback())
        }
        _ => true,
    };
    let mut text: String = host.lines().filter(is_out).flat_map(|line| [line, "\n"]).collect();
    if servers(&text).is_empty() {
        text.push_str(PUBLIC_SERVERS);
    }
    text
}

fn servers(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.split_ascii_whitespace());
    lines.filter_map(|mut words| (words.next() == Some("nameserver")).then(|| words.next()).flatten()).collect()
}

/// What follows the last line that begins with one of these.
fn words<'a>(text: &'a str, keys: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next().is_some_and(|key| keys.contains(&key)) {
            found = words.collect();
        }
    }
    found
}

fn read(path: &str) -> Result<String> {
    let mut text = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut text)) {
        // A host without one has no name servers, or no names.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        read => read.context(|| format!("read {path}"))?,
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A new file in the place of an old one, which everybody may read. It is needed while the container runs, and then not: nothing
/// is synchronised.
fn fresh(path: &Path, content: &str) -> Result<()> {
    let write = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(content.as_bytes())?;
        // Whatever the umask says.
        file.set_permissions(Permissions::from_mode(0o644))
    };
    write().context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_that_a_container_cannot_reach_are_left_out() {
        let host = "# by hand\nsearch a.example\nnameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 10.0.0.2\n";
        assert_eq!(reachable(host), "# by hand\nsearch a.example\nnameserver 10.0.0.2\n");
        assert_eq!(reachable("nameserver 127.0.0.53\n"), "\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        assert_eq!(reachable(""), "\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        assert_eq!(words("search a\nsearch b c\n", &["search", "domain"]), ["b", "c"]);
    }

    #[test]
    fn what_is_given_takes_the_place_of_the_hosts() {
        let mut record = Container::default();
        record.host_config.dns = vec!["9.9.9.9".to_owned(), "1.1.1.1".to_owned()];
        record.host_config.dns_search = vec!["a.b".to_owned()];
        record.host_config.dns_options = vec!["ndots:2".to_owned()];
        let text = "search a.b\nnameserver 9.9.9.9\nnameserver 1.1.1.1\noptions ndots:2\n";
        assert_eq!(resolv_conf(&record, false).unwrap(), text);
        record.host_config.dns_search = vec![".".to_owned()];
        assert_eq!(resolv_conf(&record, false).unwrap(), text.trim_start_matches("search a.b\n"));
    }

    #[test]
    fn only_our_lines_of_a_hosts_file_are_replaced() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "1.1.1.1\tone\n2.2.2.2\tpeer\n3.3.3.3\tthe container's own").unwrap();
        let lines = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        replace_lines(&path, &lines(&["2.2.2.2\tpeer"]), &lines(&["4.4.4.4\tnew"])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1.1.1.1\tone\n3.3.3.3\tthe container's own\n4.4.4.4\tnew\n");
        replace_lines(&path, &lines(&["4.4.4.4\tnew"]), &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1.1.1.1\tone\n3.3.3.3\tthe container's own\n");
        let huge = vec![b'x'; 2 << 20];
        fs::write(&path, &huge).unwrap();
        replace_lines(&path, &[], &lines(&["4.4.4.4\tnew"])).unwrap();
        assert_eq!(fs::read(&path).unwrap(), huge);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(replace_lines(&link, &[], &lines(&["4.4.4.4\tnew"])).is_err());
    }
}
