//! Which hosts serve a registry's images, and how they are spoken to: containerd's hosts.toml, docker's certs.d, and what
//! holds without both.
//!
//! ```text
//! DIR/<host>/hosts.toml            <host> is host, host:port or host_port_; _default is for all others
//! DIR/<host>/*.crt                 without a hosts.toml: authorities of the host
//! DIR/<host>/{*.cert,*.key}        the client's certificate and its key, by the same name
//! ```

use std::path::{Path, PathBuf};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Context, Error, Kind, Result};
use crate::registry::access::Access;
use crate::registry::connect::is_loopback;
use crate::registry::reference::{DEFAULT_REGISTRY, Repository, is_authority};
use crate::registry::tls::Trust;
use crate::registry::{hosts_toml, limit};

/// Where images of names without a registry really are.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What a host is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Can {
    /// Serve what a digest names.
    pub pull: bool,
    /// Say what a tag names.
    pub resolve: bool,
    /// Take what is pushed.
    pub push: bool,
    /// List what refers to something.
    pub referrers: bool,
}

impl Can {
    /// Everything.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true, referrers: true };
}

/// One host, and how it is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Host, and port if it has one.
    pub(super) authority: String,
    pub(super) scheme: Scheme,
    /// What stands before the repository: `/v2`.
    pub(super) prefix: String,
    /// For a mirror: which registry is meant (`ns=`).
    pub(super) namespace: Option<String>,
    pub(super) can: Can,
    pub(super) trust: Trust,
    pub(super) headers: HeaderMap,
    /// Token servers on other hosts that get this host's credentials.
    pub(super) realms: Vec<String>,
}

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    /// A loopback address of which nothing is configured: by TLS if it speaks that, else without.
    Either,
}

/// The hosts of a repository in the order in which they are asked. Reads files: call it where that may block.
pub(super) fn endpoints(dirs: &[PathBuf], repository: &Repository, access: &Access) -> Result<Vec<Endpoint>> {
    let registry = repository.registry();
    let mut found = match configured(dirs, registry)? {
        Some(Directory { path, hosts: Some(text) }) => {
            let file = hosts_toml::parse(&text).map_err(|error| error.within(path.join("hosts.toml").display()))?;
            let of = |host: hosts_toml::Host| endpoint(host, &path, registry);
            file.into_iter().map(of).collect::<Result<Vec<_>>>()?
        }
        Some(Directory { path, hosts: None }) => {
            let mut upstream = upstream(registry);
            upstream.trust = certificates(&path)?;
            vec![upstream]
        }
        None => vec![upstream(registry)],
    };
    for endpoint in &mut found {
        endpoint.trust.skip_verify |= access.skip_verify;
        let is_own = endpoint.authority == registry;
        let has_tls = !endpoint.trust.authorities.is_empty() || !endpoint.trust.client.is_empty();
        if access.plain_http && is_own {
            endpoint.scheme = Scheme::Http;
        } else if endpoint.scheme == Scheme::Either && (has_tls || access.skip_verify) {
            endpoint.scheme = Scheme::Https;
        }
    }
    Ok(found)
}

/// The registry itself, of which nothing is configured.
fn upstream(registry: &str) -> Endpoint {
    let authority = if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
    let host = authority.parse::<http::uri::Authority>();
    let loopback = host.is_ok_and(|it| is_loopback(it.host()));
    Endpoint {
        authority: authority.to_owned(),
        scheme: if loopback { Scheme::Either } else { Scheme::Https },
        prefix: "/v2".to_owned(),
        namespace: None,
        can: Can::ALL,
        trust: Trust::default(),
        headers: HeaderMap::new(),
        realms: Vec::new(),
    }
}

fn endpoint(host: hosts_toml::Host, dir: &Path, registry: &str) -> Result<Endpoint> {
    let mut endpoint = upstream(registry);
    if let Some(address) = host.address {
        // What a file calls docker.io is meant as everybody means it.
        let authority = if address.authority == DEFAULT_REGISTRY { DOCKER_HUB.to_owned() } else { address.authority };
        let same = authority == endpoint.authority;
        endpoint.namespace = (!same).then(|| registry.to_owned());
        endpoint.authority = authority;
        endpoint.prefix = address.prefix;
        endpoint.scheme = match address.plain {
            Some(true) => Scheme::Http,
            Some(false) => Scheme::Https,
            None => upstream(&endpoint.authority).scheme,
        };
    }
    endpoint.can = host.can;
    endpoint.realms = host.realms;
    let mut trust = Trust { skip_verify: host.skip_verify, dial_timeout: host.dial_timeout, ..Trust::default() };
    for file in &host.ca {
        trust.authorities.push(read(&dir.join(file))?);
    }
    for (certificate, key) in &host.client {
        let (name, mut pem) = read(&dir.join(certificate))?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read(&dir.join(key))?.1);
        }
        trust.client.push((name, pem));
    }
    endpoint.trust = trust;
    for (name, values) in host.headers {
        let wrong =
            || Error::invalid(format!("{:?} is not a header that can be sent", crate::registry::shortened(&name)));
        let header: HeaderName = name.parse().map_err(|_| wrong())?;
        if !crate::registry::http::may_be_set(&header) {
            return Err(wrong());
        }
        for value in values {
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            endpoint.headers.append(header.clone(), value);
        }
    }
    Ok(endpoint)
}

/// What is configured of a registry.
struct Directory {
    path: PathBuf,
    /// What hosts.toml says, if there is one.
    hosts: Option<String>,
}

fn configured(dirs: &[PathBuf], registry: &str) -> Result<Option<Directory>> {
    // It becomes a part of a path, and is a host's name.
    if !is_authority(registry) {
        return Ok(None);
    }
    let other = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = other.into_iter().chain([registry.to_owned(), "_default".to_owned()]);
    for name in names {
        for dir in dirs {
            let path = dir.join(&name);
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(|| format!("look for {}", path.display())),
            }
            let file = path.join("hosts.toml");
            let hosts = match read(&file) {
                Ok((_, bytes)) => Some(
                    String::from_utf8(bytes)
                        .map_err(|_| Error::invalid(format!("{} is no text in UTF-8", file.display())))?,
                ),
                Err(error) if error.kind == Kind::NotFound => None,
                Err(error) => return Err(error),
            };
            return Ok(Some(Directory { path, hosts }));
        }
    }
    Ok(None)
}

/// Docker's files.
fn certificates(dir: &Path) -> Result<Trust> {
    let mut trust = Trust::default();
    let context = || format!("read the directory {}", dir.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).context(context)? {
        names.push(entry.context(context)?.path());
    }
    names.sort();
    for path in names {
        match path.extension().and_then(|it| it.to_str()) {
            Some("crt") => trust.authorities.push(read(&path)?),
            Some("cert") => {
                let (name, mut pem) = read(&path)?;
                // Without a file of its own, the key stands in the same one.
                match read(&path.with_extension("key")) {
                    Ok((_, key)) => {
                        pem.push(b'\n');
                        pem.extend(key);
                    }
                    Err(error) if error.kind == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
                trust.client.push((name, pem));
            }
            _ => {}
        }
    }
    Ok(trust)
}

fn read(path: &Path) -> Result<(String, Vec<u8>)> {
    use std::io::Read as _;
    let context = || format!("read {}", path.display());
    let file = std::fs::File::open(path).context(context)?;
    let mut bytes = Vec::new();
    file.take(limit::CONFIGURATION + 1).read_to_end(&mut bytes).context(context)?;
    if bytes.len() as u64 > limit::CONFIGURATION {
        return Err(Error::invalid(format!("{} is larger than a file of its kind can be", path.display())));
    }
    Ok((path.display().to_string(), bytes))
}

/// For the tests of others.
#[cfg(test)]
pub(super) mod tests_support {
    /// A host of which nothing is configured.
    pub(in crate::registry) fn plain_endpoint(registry: &str) -> super::Endpoint {
        super::upstream(registry)
    }
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
