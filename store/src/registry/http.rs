//! Requests and answers: one at a time, with no redirect, no credentials and no second try. Those are decided above.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::Result;
use crate::registry::body::Outgoing;
use crate::registry::connect::{Connector, Refused, Why};
use crate::registry::proxies::Routes;
use crate::registry::tls::Trust;

/// After what time an unused connection is closed.
const IDLE: Duration = Duration::from_secs(60);
/// More kinds of TLS than any configuration has: files that keep changing must not fill the memory.
const KINDS: usize = 64;

/// How long everything may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until a connection is there.
    pub connect: Duration,
    /// Until an answer begins.
    pub answer: Duration,
    /// Until the next bytes of a body come, or the next bytes of an upload are taken.
    pub stall: Duration,
    /// Until a registry has put away what was sent: it may copy it from one place to another first.
    pub commit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(30), answer: seconds(60), stall: seconds(30), commit: seconds(600) }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: Why,
    pub(super) message: String,
}

/// All connections.
pub(super) struct Http {
    clients: Mutex<HashMap<Trust, Client<Connector, Outgoing>>>,
    proxies: Arc<Routes>,
    pub(super) patience: Patience,
}

impl Http {
    pub(super) fn new(patience: Patience, proxies: Routes) -> Self {
        Self { clients: Mutex::default(), proxies: Arc::new(proxies), patience }
    }

    /// The answer to one request, when its head is there. `wait`: for how long at most.
    pub(super) async fn send(
        &self,
        trust: &Trust,
        mut request: Request<Outgoing>,
        wait: Duration,
    ) -> std::result::Result<Response<Incoming>, Failure> {
        let configuration = |message: String| Failure { why: Why::Configuration, message };
        let client = self.client(trust).map_err(|error| configuration(error.message))?;
        let agent = HeaderValue::from_static(concat!("tare-store/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        if request.uri().scheme_str() == Some("http")
            && let Some(proxy) = self.proxies.to(request.uri())
            && let Some(credentials) = proxy.basic_auth()
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        match tokio::time::timeout(wait, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(Failure { why: Why::Unreachable, message: format!("no answer came in {wait:?}") }),
        }
    }

    fn client(&self, trust: &Trust) -> Result<Client<Connector, Outgoing>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let patience = match trust.dial_timeout {
            0 => self.patience.connect,
            millis => Duration::from_millis(millis),
        };
        let connector = Connector { tls: trust.config()?, proxies: Arc::clone(&self.proxies), patience };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(8)
            .build(connector);
        if clients.len() >= KINDS {
            clients.clear();
        }
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }
}

/// What went wrong deepest down: that is what people can act on.
fn failure(error: &(dyn StdError + 'static)) -> Failure {
    let mut next = Some(error);
    while let Some(at) = next {
        if let Some(refused) = at.downcast_ref::<Refused>() {
            return Failure { why: refused.why, message: refused.message.clone() };
        }
        next = at.source();
    }
    Failure { why: Why::Unreachable, message: format!("the connection failed: {}", root(error)) }
}

/// The innermost reason.
pub(super) fn root(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    crate::registry::shortened(&at.to_string())
}

/// Where a request goes to, as far as credentials are concerned (RFC 6454): scheme, host and port.
pub(super) fn origin(uri: &Uri) -> (String, String, u16) {
    let scheme = uri.scheme_str().unwrap_or("https").to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    (scheme, uri.host().unwrap_or_default().to_ascii_lowercase(), port)
}

/// What a Location leads to, seen from where it was said (RFC 3986, 5.2, without dot segments). Only http and https, and
/// no user in it.
pub fn location(from: &Uri, said: &str) -> Option<Uri> {
    let said = said.split('#').next().unwrap_or_default().trim();
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if said.is_empty() {
        return None;
    }
    let whole = if let Some(rest) = said.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if said.starts_with('/') {
        format!("{scheme}://{authority}{said}")
    } else if said.starts_with('?') {
        format!("{scheme}://{authority}{}{said}", from.path())
    } else if said.split(['/', '?']).next().is_some_and(|it| it.contains(':')) {
        said.to_owned()
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{said}")
    };
    let uri: Uri = whole.parse().ok()?;
    let is_clean = uri.authority().is_some_and(|it| !it.as_str().contains('@') && !it.host().is_empty());
    (is_clean && matches!(uri.scheme_str(), Some("http" | "https"))).then_some(uri)
}

/// Headers that a configuration may not set: they would undo what is decided here.
pub(super) fn may_be_set(name: &HeaderName) -> bool {
    *name != HOST && !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection" | "range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_seen_from_where_they_were_said() {
        let from: Uri = "https://a.example:5000/v2/x/blobs/uploads/1?state=s".parse().unwrap();
        for (said, goes) in [
            ("/v2/y?z=1", Some("https://a.example:5000/v2/y?z=1")),
            ("2?_state=t", Some("https://a.example:5000/v2/x/blobs/uploads/2?_state=t")),
            ("?n=1", Some("https://a.example:5000/v2/x/blobs/uploads/1?n=1")),
            ("//b.example/x", Some("https://b.example/x")),
            ("http://b.example/x#f", Some("http://b.example/x")),
            ("ftp://b.example/", None),
            ("file:///etc/passwd", None),
            ("https://user:pass@b.example/", None),
            ("https://", None),
            ("https:///x", None),
            ("a b", None),
            ("", None),
            ("#f", None),
        ] {
            assert_eq!(location(&from, said).map(|it| it.to_string()).as_deref(), goes, "{said}");
        }
    }
}
