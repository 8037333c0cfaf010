//! One question to one host, until there is an answer: with a token if one is wanted, followed to where it sends us, and tried
//! again while that may help.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::error::{Error, Kind, Result};
use crate::registry::auth::{Asker, Session};
use crate::registry::body::Outgoing;
use crate::registry::client::Call;
use crate::registry::connect::Why;
use crate::registry::hosts::{Endpoint, Scheme};
use crate::registry::http::{Failure, location, origin};
use crate::registry::retry::{self, Tries};
use crate::registry::{answer, limit, shortened};

/// One host in one call.
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    /// Held while a token is fetched: the layers of an image ask for one all at once.
    session: tokio::sync::Mutex<Session>,
    avoided: AtomicBool,
}

impl Host {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, session: tokio::sync::Mutex::default(), avoided: AtomicBool::new(false) }
    }

    pub(super) fn avoid(&self) {
        self.avoided.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_avoided(&self) -> bool {
        self.avoided.load(Ordering::Relaxed)
    }
}

/// One question.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) to: To,
    /// What a token must allow.
    pub(super) scope: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Bytes>,
    /// Answers besides success that are no failures.
    pub(super) accepted: &'static [StatusCode],
    /// Until the answer begins; nothing: as always.
    pub(super) wait: Option<Duration>,
    /// For messages: "fetch the manifest 12 of library/debian".
    pub(super) what: String,
}

/// Where a question goes.
#[derive(Clone)]
pub(super) enum To {
    /// Behind the host's prefix: `/library/debian/tags/list`.
    Path(String),
    /// Behind the host alone: `/v1/search`.
    Root(String),
    /// Where an answer sent us.
    At(Uri),
}

impl Ask {
    pub(super) fn new(method: Method, path: String, scope: String, what: String) -> Self {
        Self { method, to: To::Path(path), scope, headers: Vec::new(), body: None, accepted: &[], wait: None, what }
    }

    /// Whether somebody is there.
    pub(super) fn ping(what: String) -> Self {
        Self::new(Method::GET, "/".to_owned(), String::new(), what)
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Error::invalid(format!("{:?} cannot be said to a registry", shortened(value))))?;
        self.headers.push((name, value));
        Ok(self)
    }
}

/// An answer, and where it came from in the end.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) from: Uri,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|it| it.to_str().ok())
    }

    /// Where it sends us.
    pub(super) fn location(&self) -> Option<Uri> {
        location(&self.from, self.header("location")?)
    }
}

impl Call {
    /// Asks until there is an answer that counts.
    pub(super) async fn ask(&self, host: &Host, ask: &Ask, tries: Tries) -> Result<Answer> {
        let endpoint = &host.endpoint;
        let mut next = 1;
        let mut challenged = 0;
        loop {
            let uri = self.uri(endpoint, &ask.to)?;
            let authorization = self.authorization(host, ask, &uri, tries).await?;
            let sent = self.follow(endpoint, ask, uri.clone(), authorization.clone()).await;
            let (pause, error) = match sent {
                Ok(answer) if answer.status().is_success() || ask.accepted.contains(&answer.status()) => {
                    return Ok(answer);
                }
                // Only of the host itself: what it sent us to has no say in who we are.
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && origin(&answer.from) == origin(&uri) => {
                    // For want of a token, or because it has run out early. A new one that does not do either is the answer.
                    challenged += 1;
                    let headers = answer.response.headers().clone();
                    let said = answer::said(answer.response, self.shared.http.patience.stall).await;
                    let last = challenged > 1;
                    self.challenged(host, ask, &uri, &headers, authorization.as_ref(), tries, last).await.map_err(
                        |error| error.within(format!("registry {}: {}: {said}", endpoint.authority, ask.what)),
                    )?;
                    continue;
                }
                Ok(answer) => {
                    let status = answer.status();
                    let asked = retry::asked(answer.response.headers(), SystemTime::now());
                    let pause = retry::is_passing(status).then(|| tries.pause(next, asked)).flatten();
                    let elsewhere = (origin(&answer.from) != origin(&uri))
                        .then(|| answer.from.host().unwrap_or_default().to_owned());
                    let said = answer::said(answer.response, self.shared.http.patience.stall).await;
                    let said = elsewhere.map_or(said.clone(), |it| format!("{said} (from {it}, where it sent us)"));
                    (pause, answer::refused(endpoint, &ask.what, status, &said, asked))
                }
                Err(Stopped::Failure(failure)) if self.fell_back(endpoint, &uri, &failure) => continue,
                Err(Stopped::Failure(failure)) => {
                    let pause = if failure.is_passing() { tries.pause(next, None) } else { None };
                    (pause, answer::unreachable(endpoint, &ask.what, &failure))
                }
                Err(Stopped::Error(error)) => return Err(error),
            };
            let Some(pause) = pause else { return Err(error) };
            self.access.notice(format!("{}; tried again in {:.1} s", error.message, pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
            next += 1;
        }
    }

    /// Sends one request that cannot be repeated: the caller judges the answer. `to` is on the host or where it sent us.
    pub(super) async fn once(
        &self,
        host: &Host,
        ask: &Ask,
        body: Outgoing,
        tries: Tries,
        wait: Duration,
    ) -> Result<std::result::Result<Answer, Failure>> {
        let uri = self.uri(&host.endpoint, &ask.to)?;
        let authorization = self.authorization(host, ask, &uri, tries).await?;
        let mut request = self.request(&host.endpoint, ask, &uri, authorization)?;
        *request.body_mut() = body;
        let at_home = self.is_at_home(&host.endpoint, &uri)?;
        let trust = if at_home { host.endpoint.trust.clone() } else { host.endpoint.trust.elsewhere() };
        let sent = self.shared.http.send(&trust, request, wait).await;
        Ok(sent.map(|response| Answer { response, from: uri }))
    }

    /// A token that was refused in the middle of something is not used again.
    pub(super) async fn forget(&self, host: &Host, scope: &str) {
        host.session.lock().await.forget(scope);
    }

    pub(super) async fn log_in(&self, host: &Host, ask: &Ask) -> Result<Option<String>> {
        let ask = Ask { accepted: &[StatusCode::UNAUTHORIZED], ..Ask::ping(ask.what.clone()) };
        let uri = loop {
            let uri = self.uri(&host.endpoint, &ask.to)?;
            match self.follow(&host.endpoint, &ask, uri.clone(), None).await {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    let credentials = self.credentials(&host.endpoint).await?;
                    let tries = self.tries(true);
                    let asker = self.asker(host, &uri, tries, credentials.as_ref());
                    let headers = answer.response.headers().clone();
                    let mut session = host.session.lock().await;
                    let within =
                        |error: Error| error.within(format!("registry {}: {}", host.endpoint.authority, ask.what));
                    let refresh = session.log_in(&asker, &headers).await.map_err(within)?;
                    drop(session);
                    // Only now it is sure that they are good.
                    let again = Ask::ping(ask.what.clone());
                    self.ask(host, &again, tries).await?;
                    return Ok(refresh);
                }
                Ok(_) => break uri,
                Err(Stopped::Failure(failure)) if self.fell_back(&host.endpoint, &uri, &failure) => {}
                Err(Stopped::Failure(failure)) => return Err(answer::unreachable(&host.endpoint, &ask.what, &failure)),
                Err(Stopped::Error(error)) => return Err(error),
            }
        };
        // It takes everybody: there is nothing to be tried.
        self.ask(host, &Ask { to: To::At(uri), ..Ask::ping(ask.what) }, self.tries(true)).await?;
        Ok(None)
    }

    /// Whether a host of which it was not known turned out not to speak TLS: to this request, or to another one meanwhile.
    fn fell_back(&self, endpoint: &Endpoint, uri: &Uri, failure: &Failure) -> bool {
        let falls =
            failure.why == Why::NotTls && endpoint.scheme == Scheme::Either && uri.scheme_str() == Some("https");
        if falls {
            self.set_plain(&endpoint.authority);
        }
        falls
    }

    fn uri(&self, endpoint: &Endpoint, to: &To) -> Result<Uri> {
        let (prefix, path) = match to {
            To::At(uri) => return Ok(uri.clone()),
            To::Path(path) => (endpoint.prefix.as_str(), path),
            To::Root(path) => ("", path),
        };
        let plain = match endpoint.scheme {
            Scheme::Http => true,
            Scheme::Https => false,
            Scheme::Either => self.is_known_plain(&endpoint.authority),
        };
        let scheme = if plain { "http" } else { "https" };
        let mut text = format!("{scheme}://{}{prefix}{path}", endpoint.authority);
        if let Some(namespace) = &endpoint.namespace {
            text.push(if path.contains('?') { '&' } else { '?' });
            text.push_str("ns=");
            text.push_str(namespace);
        }
        text.parse().map_err(|_| Error::invalid(format!("{:?} is not the address of a registry", shortened(&text))))
    }

    /// Whether a request goes to the host itself: nothing else gets its credentials.
    fn is_at_home(&self, endpoint: &Endpoint, uri: &Uri) -> Result<bool> {
        let home = self.uri(endpoint, &To::Path("/".to_owned()))?;
        Ok(origin(&home) == origin(uri))
    }

    async fn authorization(&self, host: &Host, ask: &Ask, uri: &Uri, tries: Tries) -> Result<Option<HeaderValue>> {
        if !self.is_at_home(&host.endpoint, uri)? {
            return Ok(None);
        }
        let mut session = host.session.lock().await;
        if let Some(header) = session.header(&ask.scope) {
            return Ok(Some(header));
        }
        let credentials = if session.wants_token() { self.credentials(&host.endpoint).await? } else { None };
        let asker = self.asker(host, uri, tries, credentials.as_ref());
        session
            .prepare(&asker, &ask.scope)
            .await
            .map_err(|error| error.within(format!("registry {}: {}", host.endpoint.authority, ask.what)))
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `ask`, with all that it knows")]
    async fn challenged(
        &self,
        host: &Host,
        ask: &Ask,
        uri: &Uri,
        headers: &HeaderMap,
        refused: Option<&HeaderValue>,
        tries: Tries,
        last: bool,
    ) -> Result<()> {
        let credentials = self.credentials(&host.endpoint).await?;
        let asker = self.asker(host, uri, tries, credentials.as_ref());
        let mut session = host.session.lock().await;
        if last {
            return Err(session.refusal(&asker, refused.is_some()));
        }
        session.challenged(&asker, &ask.scope, headers, refused).await
    }

    fn asker<'a>(
        &'a self,
        host: &'a Host,
        from: &'a Uri,
        tries: Tries,
        credentials: Option<&'a crate::registry::access::Credentials>,
    ) -> Asker<'a> {
        Asker { http: &self.shared.http, tries, endpoint: &host.endpoint, from, credentials }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        uri: &Uri,
        authorization: Option<HeaderValue>,
    ) -> Result<Request<Outgoing>> {
        let body = ask.body.clone().map_or_else(Outgoing::empty, Outgoing::whole);
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri.clone();
        if self.is_at_home(endpoint, uri)? {
            // Configured ones may be credentials as well.
            for (name, value) in &endpoint.headers {
                request.headers_mut().append(name, value.clone());
            }
            if let Some(value) = authorization {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
        }
        for (name, value) in &ask.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    /// Sends a request, and follows where it is sent to, if it only reads.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        uri: Uri,
        authorization: Option<HeaderValue>,
    ) -> std::result::Result<Answer, Stopped> {
        let mut at = uri;
        let mut authorization = authorization;
        for _ in 0..=limit::REDIRECTS {
            let request = self.request(endpoint, ask, &at, authorization.clone()).map_err(Stopped::Error)?;
            let at_home = self.is_at_home(endpoint, &at).map_err(Stopped::Error)?;
            let trust = if at_home { endpoint.trust.clone() } else { endpoint.trust.elsewhere() };
            let wait = ask.wait.unwrap_or(self.shared.http.patience.answer);
            let sent = self.shared.http.send(&trust, request, wait).await;
            let response = sent.map_err(|mut failure| {
                if !at_home {
                    let host = at.host().unwrap_or_default();
                    failure.message = format!("{host}, where it sent us: {}", failure.message);
                }
                Stopped::Failure(failure)
            })?;
            let reads = matches!(ask.method, Method::GET | Method::HEAD);
            let moves = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !(reads && moves) {
                return Ok(Answer { response, from: at });
            }
            let said = response.headers().get(LOCATION).and_then(|it| it.to_str().ok());
            let refuse = |why: &str| {
                let said = shortened(said.unwrap_or("nowhere"));
                let message = format!("registry {}: {}: it sends us to {said}, {why}", endpoint.authority, ask.what);
                Stopped::Error(Error::new(Kind::FailedPrecondition, message))
            };
            let next = said.and_then(|it| location(&at, it)).ok_or_else(|| refuse("which is no address"))?;
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(refuse("which is without TLS"));
            }
            // For good: it does not come back with a later redirect to where we began.
            if origin(&next) != origin(&at) {
                authorization = None;
            }
            at = next;
        }
        let message = format!("registry {}: {}: it sends us round in circles", endpoint.authority, ask.what);
        Err(Stopped::Error(Error::new(Kind::FailedPrecondition, message)))
    }
}

/// Why there is no answer.
enum Stopped {
    /// The connection.
    Failure(Failure),
    /// We do not go on.
    Error(Error),
}
