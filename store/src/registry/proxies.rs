//! Which proxy leads to a host, if one does.

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::error::{Error, Result};
use crate::registry::connect::is_loopback;
use crate::registry::shortened;

/// Which proxies are used.
#[derive(Debug, Clone, Default)]
pub enum Proxies {
    /// Those that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say, in capitals or not.
    #[default]
    Environment,
    /// This one for everything but what is on this host.
    Only(String),
    /// None.
    None,
}

/// The same, ready to be asked.
#[derive(Debug)]
pub(super) struct Routes {
    matcher: Matcher,
    /// Ports of hosts that need no proxy there, each with what knows those hosts: it leads nowhere.
    spared: Vec<(u16, Matcher)>,
}

impl Routes {
    pub(super) fn new(proxies: &Proxies) -> Result<Self> {
        let matcher = match proxies {
            Proxies::Environment => return Ok(Self::of(&|name| std::env::var(name).ok())),
            Proxies::Only(address) => {
                if address.parse::<Uri>().is_err() {
                    return Err(Error::invalid(format!("{:?} is not the address of a proxy", shortened(address))));
                }
                Matcher::builder().all(address.as_str()).build()
            }
            Proxies::None => Matcher::builder().build(),
        };
        Ok(Self { matcher, spared: Vec::new() })
    }

    /// As containerd reads these variables: an empty one says nothing, `*` in NO_PROXY means everything, `*.domain` what is in a domain,
    /// and a port behind a name that port alone. The matcher by itself knows none of these.
    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| {
            let mut values = [name.to_owned(), name.to_lowercase()].into_iter().filter_map(|it| variable(&it));
            values.find(|it| !it.is_empty()).unwrap_or_default()
        };
        let no = said("NO_PROXY");
        let entries: Vec<&str> = no.split(',').map(str::trim).collect();
        if entries.contains(&"*") {
            return Self { matcher: Matcher::builder().build(), spared: Vec::new() };
        }
        let (mut names, mut spared) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.strip_prefix('*').filter(|it| it.starts_with('.')).unwrap_or(entry);
            match with_port(entry) {
                Some((host, port)) => spared.push((port, Matcher::builder().all("http://none").no(host).build())),
                None => names.push(entry),
            }
        }
        // A server that answers by CGI has HTTP_PROXY from its clients' headers.
        let http = if variable("REQUEST_METHOD").is_some() { String::new() } else { said("HTTP_PROXY") };
        let matcher = Matcher::builder().all(said("ALL_PROXY")).http(http).https(said("HTTPS_PROXY"));
        Self { matcher: matcher.no(names.join(",")).build(), spared }
    }

    /// The proxy for this address. As everybody does it, there is none for this host: a proxy could not reach it.
    pub(super) fn to(&self, uri: &Uri) -> Option<Intercept> {
        if is_loopback(uri.host()?) {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let is_spared = self.spared.iter().any(|(of, hosts)| *of == port && hosts.intercept(uri).is_none());
        if is_spared { None } else { self.matcher.intercept(uri) }
    }
}

/// `host:5000` or `[2001:db8::1]:5000`; what has more colons is an address of IPv6.
fn with_port(entry: &str) -> Option<(&str, u16)> {
    let (host, port) = entry.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = bare.or_else(|| Some(host).filter(|it| !it.contains(':')))?;
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_what_the_environment_says() {
        let (http, tls) = ("http://registry.example/", "https://registry.example/");
        for (variables, address, proxied) in [
            (&[("HTTP_PROXY", "http://p:1")][..], http, true),
            (&[("HTTP_PROXY", "http://p:1")], tls, false),
            (&[("https_proxy", "p:1")], tls, true),
            (&[("ALL_PROXY", "http://p:1")], tls, true),
            (&[("HTTP_PROXY", ""), ("http_proxy", "http://p:1")], http, true),
            (&[("HTTP_PROXY", "http://p:1"), ("REQUEST_METHOD", "GET")], http, false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "other.example")], http, true),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "a, registry.example")], http, false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", ".example")], http, false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "*.example")], http, false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "*ample")], http, true),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "*")], "http://192.0.2.1/", false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "192.0.2.0/24")], "http://192.0.2.1:5000/", false),
            (&[("ALL_PROXY", "http://p:1"), ("no_proxy", "2001:db8::1")], "http://[2001:db8::1]:5000/", false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "registry.example:5000")], http, true),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "registry.example:80")], http, false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "*.example:443")], tls, false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "a,192.0.2.1:5000")], "http://192.0.2.1:5000/", false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "a,192.0.2.1:5000")], "http://192.0.2.2:5000/", true),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "[2001:db8::1]:5000")], "http://[2001:db8::1]:5000/", false),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "[2001:db8::1]:5000")], "http://[2001:db8::1]/", true),
            (&[("ALL_PROXY", "http://p:1")], "http://localhost:5000/", false),
            (&[], http, false),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
            let routes = Routes::of(&variable);
            assert_eq!(routes.to(&address.parse().unwrap()).is_some(), proxied, "{variables:?} {address}");
        }
    }
}
