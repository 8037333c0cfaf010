//! Refusals, put into sentences: who was asked for what, what came back, and what to do about it.

use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use crate::error::{Error, Kind};
use crate::registry::connect::Why;
use crate::registry::hosts::{Endpoint, Scheme};
use crate::registry::http::Failure;
use crate::registry::{body, shortened};

/// What of a refusal is read, in bytes.
const READ: usize = 16 << 10;

/// The form in which registries explain themselves (distribution specification, "Error Codes").
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    errors: Vec<OneError>,
    // What some gateways and token servers say instead.
    message: Option<String>,
    details: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The status, and what the registry says of it.
pub(super) async fn said(mut response: Response<Incoming>, patience: Duration) -> String {
    let status = response.status();
    let is_text = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok())
        .is_none_or(|it| it.starts_with("text/plain"));
    let bytes = body::beginning(response.body_mut(), READ, patience).await;
    explained(status, &bytes, is_text)
}

fn explained(status: StatusCode, bytes: &[u8], is_text: bool) -> String {
    let why = match serde_json::from_slice::<Said>(bytes) {
        Ok(said) => {
            let first = said.errors.first().map(|it| match (it.code.as_str(), it.message.as_str()) {
                ("", message) => message.to_owned(),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code}: {message}"),
            });
            first.or(said.message).or(said.details).or(said.error_description).unwrap_or_default()
        }
        Err(_) if is_text => String::from_utf8_lossy(bytes).into_owned(),
        Err(_) => String::new(),
    };
    match why.trim() {
        "" => status.to_string(),
        why => format!("{status}: {}", shortened(why)),
    }
}

/// What a status means to the caller.
fn kind(status: StatusCode, said: &str) -> Kind {
    match status {
        _ if said.contains("DIGEST_INVALID") || said.contains("SIZE_INVALID") => Kind::DataLoss,
        StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
        StatusCode::FORBIDDEN => Kind::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::GONE => Kind::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE => Kind::ResourceExhausted,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Kind::Unavailable,
        _ if status.is_server_error() => Kind::Unavailable,
        _ => Kind::FailedPrecondition,
    }
}

/// A refusal as an error. `what`: "fetch the manifest 12 of library/debian".
pub(super) fn refused(
    endpoint: &Endpoint,
    what: &str,
    status: StatusCode,
    said: &str,
    asked: Option<Duration>,
) -> Error {
    let host = &endpoint.authority;
    let remedy = match status {
        StatusCode::UNAUTHORIZED => format!("; log in with `tarectl login {host}`, or give credentials"),
        StatusCode::FORBIDDEN => format!("; the credentials for {host} do not allow it"),
        StatusCode::NOT_FOUND => {
            "; see whether the name is right: private repositories show only to those who log in".into()
        }
        StatusCode::TOO_MANY_REQUESTS => match asked {
            Some(asked) => format!("; it wants to be asked again after {} seconds", asked.as_secs()),
            None => "; log in if that gives more requests, or try again later".into(),
        },
        _ if status.is_server_error() => "; try again later".into(),
        _ => String::new(),
    };
    Error::new(kind(status, said), format!("registry {host}: {what}: {said}{remedy}"))
}

/// No answer at all, as an error.
pub(super) fn unreachable(endpoint: &Endpoint, what: &str, failure: &Failure) -> Error {
    let host = &endpoint.authority;
    let (kind, remedy) = match failure.why {
        Why::Unreachable => (Kind::Unavailable, String::new()),
        Why::Unknown => (Kind::Unavailable, "; see whether the name is right, and /etc/resolv.conf".into()),
        Why::NotTls if endpoint.scheme != Scheme::Http => {
            (Kind::FailedPrecondition, "; if it is meant to speak plain HTTP, ask for plain_http".into())
        }
        Why::NotTls => (Kind::FailedPrecondition, String::new()),
        Why::Certificate => (
            Kind::FailedPrecondition,
            format!("; if that is right, put its CA's certificate into a directory {host} of certs.d, as ca.crt"),
        ),
        Why::Configuration => (Kind::InvalidArgument, String::new()),
    };
    Error::new(kind, format!("registry {host}: {what}: {}{remedy}", failure.message))
}

impl Failure {
    /// Whether another try may succeed.
    pub(super) fn is_passing(&self) -> bool {
        self.why == Why::Unreachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say_is_said_on_within_bounds() {
        let not_found = StatusCode::NOT_FOUND;
        for (bytes, is_text, shown) in [
            (
                &br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such\nname","detail":{"x":1}}]}"#[..],
                false,
                "404 Not Found: NAME_UNKNOWN: no such name",
            ),
            (br#"{"errors":[{"message":"m"}]}"#, false, "404 Not Found: m"),
            (
                br#"{"details":"incorrect username or password"}"#,
                false,
                "404 Not Found: incorrect username or password",
            ),
            (br#"{"errors":[]}"#, false, "404 Not Found"),
            (b"page not found\n", true, "404 Not Found: page not found"),
            (b"<html>x", false, "404 Not Found"),
            (b"\x1b[31mred", true, "404 Not Found:  [31mred"),
            (b"", true, "404 Not Found"),
        ] {
            assert_eq!(explained(not_found, bytes, is_text), shown);
        }
        assert!(explained(not_found, "x".repeat(16000).as_bytes(), true).chars().count() < 330);
    }
}
