//! Where credentials go: how far a token server is trusted, and what it is asked for.
//!
//! The realm is what the registry says, and may be elsewhere: docker's hub has it at auth.docker.io. But it must not become a way
//! to send credentials anywhere (CVE-2026-48978 of oras, and of containerd CVE-2020-15157):
//! - never without TLS if the registry is spoken to with it, and never to a bare address or this host if the registry is
//!   elsewhere: such a realm is not asked at all;
//! - to the registry's own host, at whatever port;
//! - to a sibling of the registry (`registry.example.org` and `auth.example.org`), or to what stands above it, by TLS;
//! - to a host that hosts.toml names in `realms`;
//! - to everybody else not: they are asked for what everybody may do.

use http::Uri;

use crate::registry::connect::is_loopback;
use crate::registry::hosts::Endpoint;
use crate::registry::http::origin;

/// How far a realm is trusted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Realm {
    Trusted,
    Stranger,
    Refused(&'static str),
}

/// See the head of this file.
pub(super) fn judge(endpoint: &Endpoint, registry: &Uri, realm: &Uri) -> Realm {
    let (own_scheme, own, _) = origin(registry);
    let (scheme, host, _) = origin(realm);
    let is_clean = realm.authority().is_some_and(|it| !it.as_str().contains('@'));
    if !is_clean || !matches!(realm.scheme_str(), Some("http" | "https")) {
        return Realm::Refused("that is no address of http or https");
    }
    if own_scheme == "https" && scheme != "https" {
        return Realm::Refused("that is without TLS, and the registry is not");
    }
    let named = |it: &String| it.eq_ignore_ascii_case(&host) || realm.authority().is_some_and(|a| a.as_str() == it);
    if host == own || endpoint.realms.iter().any(named) {
        return Realm::Trusted;
    }
    let is_bare = |it: &str| it.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() || is_loopback(it);
    match (is_bare(&host), is_bare(&own)) {
        (true, false) => Realm::Refused("that is a bare address or this very host, and the registry is elsewhere"),
        (false, false) if scheme == "https" && is_related(&own, &host) => Realm::Trusted,
        _ => Realm::Stranger,
    }
}

/// Whether a token server's name stands beside or above the registry's: everything behind the first label is the same.
/// What many owners share, as `co.uk`, does not count: at least two labels, and one of them with more than three letters.
fn is_related(registry: &str, realm: &str) -> bool {
    let shared = |domain: &str| {
        let labels: Vec<&str> = domain.split('.').collect();
        labels.len() >= 2 && (labels.len() > 2 || labels.iter().any(|it| it.len() > 3))
    };
    let below =
        |host: &str, domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|it| it.ends_with('.'));
    let parent = registry.split_once('.').map_or("", |(_, parent)| parent);
    (shared(parent) && below(realm, parent)) || (shared(registry) && below(realm, registry))
}

/// What the host asks for and what the request is for, each resource once.
pub(super) fn scopes(theirs: &str, ours: &str) -> Vec<String> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for scope in theirs.split_ascii_whitespace().chain(ours.split_ascii_whitespace()) {
        let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        let actions = actions.split(',').map(str::to_owned);
        match found.iter_mut().find(|(it, _)| it == resource) {
            Some((_, known)) => {
                for action in actions {
                    if !known.contains(&action) {
                        known.push(action);
                    }
                }
            }
            None => found.push((resource.to_owned(), actions.collect())),
        }
    }
    found.into_iter().map(|(resource, actions)| format!("{resource}:{}", actions.join(","))).collect()
}

#[cfg(test)]
#[path = "realm_tests.rs"]
mod tests;
