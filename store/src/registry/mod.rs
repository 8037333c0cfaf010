//! Registries: what is asked of them, and what is believed of what they answer.
//!
//! ```text
//! Registry                    one for the daemon: connections, configuration
//!   remote(repository, access)  -> Remote    one for a call: which hosts serve the repository, and their tokens
//!     resolve manifest document blob referrers tags          pull side: each host in its turn, mirrors first
//!     blob_exists mount upload put_manifest                  push side: the hosts that take pushes
//!   login(host, access)  search(host, term, access)
//! ```
//!
//! What holds everywhere:
//! - Nothing that came from a registry is believed without its digest or its limit ([`limit`]).
//! - Credentials are bound to the host they were given for. They never follow a redirect, a mirror or a location to another
//!   host (CVE-2020-15157), and a token server elsewhere gets them only by the rules in [`realm`].
//! - A wait has an end: connecting, each answer, and each pause between two pieces of a body.
//! - What may succeed on another try is tried again, with growing pauses, a bounded number of times ([`retry`]).

pub mod access;
mod answer;
mod auth;
pub mod blob;
mod body;
pub mod challenge;
mod client;
mod connect;
mod dns;
pub mod docker_config;
mod exchange;
mod fetch;
pub mod hosts;
pub mod hosts_toml;
pub mod http;
pub mod limit;
pub mod manifest;
pub mod media;
pub mod platform;
mod proxies;
mod ranges;
mod realm;
pub mod reference;
mod referrers;
pub mod retry;
pub mod search;
mod tls;
mod upload;

pub use access::{Access, Credentials, Notice};
pub use client::{Registry, RegistryConfig, Remote};
pub use fetch::Resolved;
pub use http::Patience;
pub use proxies::Proxies;
pub use ranges::BlobStream;
pub use reference::{Reference, Repository};
pub use retry::Tries;
pub use upload::{Open, Put};

/// What an error message can bear of a text from outside: bounded, and no control characters for a terminal to obey.
fn shortened(text: &str) -> String {
    let mut short: String =
        text.chars().take(limit::MESSAGE).map(|it| if it.is_control() { ' ' } else { it }).collect();
    if text.chars().nth(limit::MESSAGE).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
