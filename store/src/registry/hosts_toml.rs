//! containerd's hosts.toml: mirrors, what each can do, and how each is trusted.
//!
//! One key is our own: `realms`, the token servers on other hosts that may get a host's credentials.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::error::{Error, Result};
use crate::registry::hosts::Can;
use crate::registry::reference::is_authority;
use crate::registry::shortened;

/// One host that serves a registry's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it is; nothing: the registry itself.
    pub address: Option<Address>,
    /// What it is asked to do.
    pub can: Can,
    /// Files with further authorities, relative to the hosts.toml.
    pub ca: Vec<String>,
    /// Files with a client certificate, and with its key if that is another file.
    pub client: Vec<(String, Option<String>)>,
    /// Believe any certificate.
    pub skip_verify: bool,
    /// Sent with each request.
    pub headers: BTreeMap<String, Vec<String>>,
    /// For a connection, in milliseconds; 0: not said.
    pub dial_timeout: u64,
    /// Token servers elsewhere.
    pub realms: Vec<String>,
}

/// `https://host:port/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host, and port if it has one.
    pub authority: String,
    /// Without TLS; nothing: not said.
    pub plain: Option<bool>,
    /// What stands before the repository, without a slash at its end.
    pub prefix: String,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(flatten)]
    own: Settings,
    /// The order in the file decides: each name knows where it stands.
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Settings>,
}

#[derive(Deserialize, Default)]
struct Settings {
    #[serde(default)]
    capabilities: Vec<String>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: BTreeMap<String, OneOrMany>,
    dial_timeout: Option<String>,
    #[serde(default)]
    realms: Vec<String>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// A file that holds both, several of those, or pairs of certificate and key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    One(String),
    Many(Vec<OneOrMany>),
}

/// The hosts of a registry, in the order in which they are asked: the mirrors as they stand, then the registry itself.
pub fn parse(text: &str) -> Result<Vec<Host>> {
    let broken = |why: &str| Error::invalid(format!("it is no hosts.toml: {}", shortened(why)));
    let file: File = toml::from_str(text).map_err(|error| broken(error.message()))?;
    let mut mirrors: Vec<_> = file.host.into_iter().collect();
    mirrors.sort_by_key(|(name, _)| name.span().start);
    let mut found = Vec::new();
    for (name, settings) in mirrors {
        let address = address(name.get_ref(), settings.override_path)?;
        found.push(host(Some(address), settings)?);
    }
    let server = match file.server.as_deref().filter(|it| !it.is_empty()) {
        Some(server) => Some(address(server, file.own.override_path)?),
        None => None,
    };
    found.push(host(server, file.own)?);
    Ok(found)
}

fn host(address: Option<Address>, settings: Settings) -> Result<Host> {
    let client = match settings.client {
        None => Vec::new(),
        Some(Client::One(file)) => vec![(file, None)],
        Some(Client::Many(many)) => many.into_iter().map(pair).collect::<Result<_>>()?,
    };
    Ok(Host {
        address,
        can: capabilities(&settings.capabilities)?,
        ca: settings.ca.map(OneOrMany::all).unwrap_or_default(),
        client,
        skip_verify: settings.skip_verify,
        headers: settings.header.into_iter().map(|(name, values)| (name, values.all())).collect(),
        dial_timeout: settings.dial_timeout.map_or(Ok(0), |it| duration(&it))?,
        realms: settings.realms,
    })
}

fn pair(client: OneOrMany) -> Result<(String, Option<String>)> {
    let mut files = client.all().into_iter();
    match (files.next(), files.next(), files.next()) {
        (Some(certificate), key, None) => Ok((certificate, key.filter(|it| !it.is_empty()))),
        _ => Err(Error::invalid("a client certificate is one file, or a pair of certificate and key")),
    }
}

fn capabilities(names: &[String]) -> Result<Can> {
    if names.is_empty() {
        return Ok(Can::ALL);
    }
    let mut can = Can { pull: false, resolve: false, push: false, referrers: false };
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "pull" => can.pull = true,
            "resolve" => can.resolve = true,
            "push" => can.push = true,
            "referrers" => can.referrers = true,
            other => {
                return Err(Error::invalid(format!(
                    "{:?} is no capability: there are pull, resolve, push and referrers",
                    shortened(other)
                )));
            }
        }
    }
    Ok(can)
}

fn address(text: &str, override_path: bool) -> Result<Address> {
    let wrong = |why: &str| Error::invalid(format!("{:?} is not the address of a registry: {why}", shortened(text)));
    let (plain, rest) = match text.split_once("://") {
        Some(("https", rest)) => (Some(false), rest),
        Some(("http", rest)) => (Some(true), rest),
        Some(_) => return Err(wrong("it begins neither with https:// nor with http://")),
        None => (None, text),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !is_authority(authority) {
        return Err(wrong("it has no host"));
    }
    let clean = |it: &str| it.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._~".contains(&it)) && it != "..";
    let path = path.trim_end_matches('/');
    if !path.is_empty() && !path.split('/').all(|it| !it.is_empty() && clean(it)) {
        return Err(wrong("its path is none of a registry"));
    }
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    let prefix = if override_path || path.ends_with("/v2") { path } else { format!("{path}/v2") };
    Ok(Address { authority: authority.to_owned(), plain, prefix })
}

/// Go's way to write durations, in milliseconds.
fn duration(text: &str) -> Result<u64> {
    let wrong = || Error::invalid(format!("{:?} is not a duration: write 500ms, 5s or 1m", shortened(text)));
    let digits = text.find(|it: char| !it.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let factor = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).filter(|it| *it <= 3_600_000).ok_or_else(wrong)
}
