//! Who we are, said to one host in one call: basic, and bearer tokens by GET and by POST.
//!
//! ```text
//! request -> 401, "Bearer realm=…, service=…, scope=…"
//!   identity token:       POST realm   grant_type=refresh_token …                -> token
//!   user and password:    GET realm?service=…&scope=…   Authorization: Basic …   -> token; POST grant_type=password if GET is refused
//!   nobody:               GET realm?service=…&scope=…                            -> token, for what everybody may do
//! request, Authorization: Bearer token
//! ```
//!
//! Where credentials may go is decided in [`realm`](super::realm). Token servers are not followed to other places.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::registry::access::Credentials;
use crate::registry::body::{self, Outgoing};
use crate::registry::challenge::{Challenge, challenges};
use crate::registry::hosts::Endpoint;
use crate::registry::http::Http;
use crate::registry::realm::{Realm, judge, scopes};
use crate::registry::retry::{self, Tries};
use crate::registry::{answer, limit, shortened};

/// As what we ask for tokens.
const CLIENT: &str = "tare-store";
/// How long a token holds that does not say it (distribution's token specification).
const SHORTEST: Duration = Duration::from_secs(60);
/// A token is not used in its last moments.
const MARGIN: Duration = Duration::from_secs(5);
/// What stays as it is in a form.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What one host wants of us.
#[derive(Default)]
pub(super) struct Session {
    how: How,
    /// Tokens by what they are for.
    tokens: HashMap<String, Token>,
}

#[derive(Default)]
enum How {
    /// Nothing, as far as it said.
    #[default]
    Open,
    /// The same with each request.
    Always(HeaderValue),
    /// A token for each scope.
    Bearer(Challenge),
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

/// What it takes to answer a challenge.
pub(super) struct Asker<'a> {
    pub(super) http: &'a Http,
    pub(super) tries: Tries,
    pub(super) endpoint: &'a Endpoint,
    /// Where the challenge came from, or would.
    pub(super) from: &'a Uri,
    pub(super) credentials: Option<&'a Credentials>,
}

/// What a token server gives.
#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<i64>,
}

impl Session {
    /// What goes along with a request for this, as far as it is known without asking again.
    pub(super) fn header(&self, scope: &str) -> Option<HeaderValue> {
        match &self.how {
            How::Open => None,
            How::Always(header) => Some(header.clone()),
            How::Bearer(_) => self.tokens.get(scope).filter(|it| Instant::now() < it.until).map(|it| it.header.clone()),
        }
    }

    /// Gets a token for a further scope, where the host is known to want one; spares it the refusal.
    pub(super) async fn prepare(&mut self, asker: &Asker<'_>, scope: &str) -> Result<Option<HeaderValue>> {
        if let How::Bearer(challenge) = &self.how
            && self.header(scope).is_none()
        {
            // What the host said of the scope was for another request.
            let mut challenge = challenge.clone();
            challenge.parameters.retain(|(name, _)| name != "scope");
            self.fetch(asker, &challenge, scope, false).await?;
        }
        Ok(self.header(scope))
    }

    /// After a 401: finds what the host wants. `refused`: what went along with the request. An error if there is nothing else to
    /// try, else the same request is worth another try: one, or the caller goes round in circles.
    pub(super) async fn challenged(
        &mut self,
        asker: &Asker<'_>,
        scope: &str,
        headers: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<()> {
        let current = self.header(scope);
        if current.is_some() && current.as_ref() != refused {
            // Another request of this call has been through it meanwhile.
            return Ok(());
        }
        let all: Vec<Challenge> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok()).flat_map(challenges).collect();
        let refusal = || self.refusal(asker, refused.is_some());
        if let Some(token) = asker.credentials.map(|it| it.registry_token.as_str()).filter(|it| !it.is_empty()) {
            let header = secret(format!("Bearer {token}"))?;
            if refused == Some(&header) {
                return Err(refusal());
            }
            self.how = How::Always(header);
            return Ok(());
        }
        if let Some(challenge) = all.iter().find(|it| it.scheme == "bearer" && it.get("realm").is_some()) {
            self.fetch(asker, challenge, scope, false).await?;
            self.how = How::Bearer(challenge.clone());
            return Ok(());
        }
        if all.iter().any(|it| it.scheme == "basic") {
            let basic = asker.credentials.and_then(basic).ok_or_else(refusal)??;
            if refused == Some(&basic) {
                return Err(refusal());
            }
            self.how = How::Always(basic);
            return Ok(());
        }
        Err(refusal())
    }

    /// Drops what a host refused although it had not run out: it may have been revoked.
    pub(super) fn forget(&mut self, scope: &str) {
        self.tokens.remove(scope);
    }

    /// Logs in: gives the refresh token, if the server gives one.
    pub(super) async fn log_in(&mut self, asker: &Asker<'_>, headers: &HeaderMap) -> Result<Option<String>> {
        let all = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok()).flat_map(challenges);
        match all.into_iter().find(|it| it.scheme == "bearer" && it.get("realm").is_some()) {
            Some(challenge) => {
                let refresh = self.fetch(asker, &challenge, "", true).await?;
                self.how = How::Bearer(challenge);
                Ok(refresh)
            }
            None => self.challenged(asker, "", headers, None).await.map(|()| None),
        }
    }

    /// Whether a token is fetched before the host asks for one.
    pub(super) fn wants_token(&self) -> bool {
        matches!(self.how, How::Bearer(_))
    }

    pub(super) fn refusal(&self, asker: &Asker<'_>, tried: bool) -> Error {
        let host = &asker.endpoint.authority;
        let why = if asker.credentials.is_none() {
            format!(
                "it wants credentials, and none are known for {host}: give some, or log in with `tarectl login {host}`"
            )
        } else if tried {
            format!(
                "it refused what it asked for; the credentials for {host} may not do for this, or it does not exist"
            )
        } else {
            format!("it cannot be told who we are in a way that it and this store know; it is at {host}")
        };
        Error::new(Kind::Unauthenticated, why)
    }

    async fn fetch(
        &mut self,
        asker: &Asker<'_>,
        challenge: &Challenge,
        scope: &str,
        offline: bool,
    ) -> Result<Option<String>> {
        let given = token(asker, challenge, scope, offline).await?;
        let value = given.token.filter(|it| !it.is_empty()).or(given.access_token).filter(|it| !it.is_empty());
        let value = value.ok_or_else(|| server(asker, challenge, "its answer has no token".into()))?;
        let lasts = given.expires_in.and_then(|it| u64::try_from(it).ok()).map_or(SHORTEST, Duration::from_secs);
        // Never past any horizon: an absurd number is no reason to fail.
        let lasts = lasts.clamp(SHORTEST, Duration::from_secs(24 * 3600)) - MARGIN;
        let header = secret(format!("Bearer {value}"))?;
        self.tokens.insert(scope.to_owned(), Token { header, until: Instant::now() + lasts });
        Ok(given.refresh_token.filter(|it| !it.is_empty()))
    }
}

/// One token of a token server.
async fn token(asker: &Asker<'_>, challenge: &Challenge, scope: &str, offline: bool) -> Result<Given> {
    let realm = challenge.get("realm").unwrap_or_default();
    let uri: Uri = match realm.parse() {
        Ok(uri) => uri,
        Err(_) => return Err(server(asker, challenge, "that is no address".into())),
    };
    let credentials = match judge(asker.endpoint, asker.from, &uri) {
        Realm::Trusted => asker.credentials.filter(|it| !it.is_empty()),
        Realm::Stranger => None,
        Realm::Refused(why) => return Err(server(asker, challenge, why.into())),
    };
    let withheld = credentials.is_none() && asker.credentials.is_some_and(|it| !it.is_empty());
    let scopes = scopes(challenge.get("scope").unwrap_or_default(), scope);
    let mut form: Vec<(&str, &str)> = Vec::new();
    if let Some(service) = challenge.get("service") {
        form.push(("service", service));
    }
    let by_post = match credentials {
        Some(it) if !it.identity_token.is_empty() => true,
        Some(it) if !offline => {
            form.push(("account", &it.username));
            false
        }
        _ => false,
    };
    let mut result = Err((None, String::new()));
    if !by_post {
        let mut query = form.clone();
        query.extend(scopes.iter().map(|it| ("scope", it.as_str())));
        if offline {
            query.extend([("offline_token", "true"), ("client_id", CLIENT)]);
        }
        let separator = if uri.query().is_some() { '&' } else { '?' };
        let target = format!("{uri}{separator}{}", encoded(&query));
        let authorization = credentials.and_then(basic).transpose()?;
        result = ask(asker, Method::GET, &target, authorization, None).await;
    }
    let post_instead = matches!(&result, Err((Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED), _)));
    if let Some(credentials) = credentials
        && (by_post || post_instead)
    {
        let joined = scopes.join(" ");
        form.retain(|(name, _)| *name == "service");
        form.extend([("client_id", CLIENT), ("scope", &joined)]);
        if by_post {
            form.extend([("grant_type", "refresh_token"), ("refresh_token", &credentials.identity_token)]);
        } else {
            form.extend([
                ("grant_type", "password"),
                ("username", &credentials.username),
                ("password", &credentials.password),
            ]);
        }
        if offline {
            form.push(("access_type", "offline"));
        }
        result = ask(asker, Method::POST, realm, None, Some(encoded(&form))).await;
    }
    result.map_err(|(status, why)| {
        let mut error = server(asker, challenge, why);
        if matches!(status, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST)) {
            error.kind = Kind::Unauthenticated;
        }
        if withheld {
            let host = uri.host().unwrap_or_default();
            error.message.push_str(&format!(
                "; the credentials were not sent there, since {host} is not the registry's own: if it is to be trusted, name it in \
                 `realms` of the registry's hosts.toml"
            ));
        } else if error.kind == Kind::Unauthenticated {
            let host = &asker.endpoint.authority;
            error.message.push_str(&format!("; log in again with `tarectl login {host}`, or give other credentials"));
        }
        error
    })
}

type Refused = (Option<StatusCode>, String);

async fn ask(
    asker: &Asker<'_>,
    method: Method,
    target: &str,
    authorization: Option<HeaderValue>,
    form: Option<String>,
) -> std::result::Result<Given, Refused> {
    let own = asker.from.host().map(str::to_ascii_lowercase);
    let target: Uri = target.parse().map_err(|_| (None, "its address makes no request".to_owned()))?;
    let at_home = target.host().map(str::to_ascii_lowercase) == own;
    let trust = if at_home { asker.endpoint.trust.clone() } else { asker.endpoint.trust.elsewhere() };
    let patience = asker.http.patience;
    let mut next = 1;
    loop {
        let mut request = Request::new(form.as_ref().map_or_else(Outgoing::empty, |it| Outgoing::whole(it.clone())));
        *request.method_mut() = method.clone();
        *request.uri_mut() = target.clone();
        if let Some(value) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        if form.is_some() {
            let value = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        let (pause, failure) = match asker.http.send(&trust, request, patience.answer).await {
            Ok(mut response) if response.status() == StatusCode::OK => {
                let bytes = body::whole(response.body_mut(), limit::ANSWER, patience.stall).await;
                let bytes = bytes.map_err(|why| (None, why))?;
                // What does not parse may hold a token all the same: not a word of it.
                return serde_json::from_slice(&bytes).map_err(|_| (None, "its answer is no JSON of a token".into()));
            }
            Ok(response) => {
                let status = response.status();
                let asked = retry::asked(response.headers(), std::time::SystemTime::now());
                let pause = retry::is_passing(status).then(|| asker.tries.pause(next, asked)).flatten();
                (pause, (Some(status), answer::said(response, patience.stall).await))
            }
            Err(failure) => (asker.tries.pause(next, None).filter(|_| failure.is_passing()), (None, failure.message)),
        };
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(failure),
        }
        next += 1;
    }
}

fn server(asker: &Asker<'_>, challenge: &Challenge, why: String) -> Error {
    let realm = shortened(challenge.get("realm").unwrap_or_default());
    Error::unavailable(format!("no token from {realm}, where {} sends for one: {why}", asker.endpoint.authority))
}

fn basic(credentials: &Credentials) -> Option<Result<HeaderValue>> {
    (!credentials.username.is_empty()).then(|| {
        let pair = format!("{}:{}", credentials.username, credentials.password);
        secret(format!("Basic {}", STANDARD.encode(pair)))
    })
}

fn secret(value: String) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| Error::invalid("the token holds characters that no header can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn encoded(form: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, FORM));
    form.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_hold_anything() {
        assert_eq!(encoded(&[("a", "b c&d=é"), ("e", "")]), "a=b%20c%26d%3D%C3%A9&e=");
    }
}
