//! Docker's config.json: who we are at which registry, and which programs know more of it.
//!
//! A host's credentials are found under its own name only. Asked are, in this order: the helper of this host, the helper of
//! all hosts, the file itself.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Error, Result};
use crate::registry::access::Credentials;
use crate::registry::{limit, shortened};

/// How long a helper may take: it may ask a person.
const PATIENCE: Duration = Duration::from_secs(60);
/// Under which docker keeps the credentials of its hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is read of the file.
#[derive(Deserialize, Default)]
pub struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Deserialize, Default, Clone)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

/// What a helper answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default, rename = "Username")]
    username: String,
    #[serde(default, rename = "Secret")]
    secret: String,
}

impl DockerConfig {
    /// Reads the text of a config.json; an empty one says nothing.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() as u64 > limit::CONFIGURATION {
            return Err(Error::invalid("docker's config.json is larger than 1 MiB, which is not believed"));
        }
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(text).map_err(|error| {
            // The text holds secrets: say where, not what.
            Error::invalid(format!(
                "docker's config.json is broken at line {}, column {}",
                error.line(),
                error.column()
            ))
        })
    }

    /// The credentials for a host, and a repository there: some keep them by parts of the name.
    pub(super) async fn credentials(&self, host: &str, path: &str) -> Result<Option<Credentials>> {
        let names = names(host);
        let helper = names.iter().find_map(|name| self.helpers.get(name.as_str()));
        if let Some(helper) = helper.or(Some(&self.store).filter(|it| !it.is_empty())) {
            let server = if is_hub(host) { HUB_KEY.to_owned() } else { host.to_owned() };
            if let Some(found) = ask(helper, &server).await? {
                return Ok(Some(Credentials { host: host.to_owned(), ..found }));
            }
        }
        // From the longest name down to the host alone.
        let mut below = format!("{}/{path}", names.first().map_or(host, String::as_str));
        while below.contains('/') {
            if let Some(auth) = self.auths.get(&below) {
                return auth.credentials(host);
            }
            below.truncate(below.rfind('/').unwrap_or(0));
        }
        let wanted = normalized(host);
        let by_name = names.iter().find_map(|name| self.auths.get(name.as_str()));
        let auth = by_name.or_else(|| self.auths.iter().find(|(key, _)| is_for(key, &wanted)).map(|(_, auth)| auth));
        auth.map_or(Ok(None), |auth| auth.credentials(host))
    }
}

impl Auth {
    fn credentials(&self, host: &str) -> Result<Option<Credentials>> {
        let mut found = Credentials {
            host: host.to_owned(),
            username: self.username.clone(),
            password: self.password.clone(),
            identity_token: self.identity_token.clone(),
            registry_token: self.registry_token.clone(),
        };
        if !self.auth.is_empty() {
            let wrong =
                || Error::invalid(format!("docker's config.json has a broken \"auth\" for {host}: log in again"));
            let plain = STANDARD.decode(self.auth.trim()).map_err(|_| wrong())?;
            let plain = String::from_utf8(plain).map_err(|_| wrong())?;
            let (user, password) = plain.split_once(':').ok_or_else(wrong)?;
            found.username = user.to_owned();
            found.password = password.trim_matches('\0').to_owned();
        }
        Ok(Some(found).filter(|it| !it.is_empty()))
    }
}

/// Whether this is docker's hub, by one of its names.
pub(super) fn is_hub(host: &str) -> bool {
    matches!(normalized(host).as_str(), "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// Whether two names mean the same host.
pub(super) fn same_host(one: &str, other: &str) -> bool {
    normalized(one) == normalized(other) || (is_hub(one) && is_hub(other))
}

/// A key's host: without scheme, path, and the port that is meant anyway.
fn normalized(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = bare.split('/').next().unwrap_or_default().to_ascii_lowercase();
    host.strip_suffix(":443").map(str::to_owned).unwrap_or(host)
}

/// Only whole hosts, with a scheme or docker's old paths behind them: `host/team` is for a part of a host.
fn is_for(key: &str, wanted: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let path = bare.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    matches!(path, "" | "v1" | "v2") && normalized(key) == wanted
}

/// Under which names a host's credentials may be kept.
fn names(host: &str) -> Vec<String> {
    if is_hub(host) {
        let names = ["docker.io", HUB_KEY, "https://index.docker.io/v1", "index.docker.io", "registry-1.docker.io"];
        names.map(str::to_owned).to_vec()
    } else {
        vec![host.to_owned(), format!("https://{host}")]
    }
}

/// Asks `docker-credential-<name>`, by docker's protocol: the server on stdin, JSON on stdout.
async fn ask(name: &str, server: &str) -> Result<Option<Credentials>> {
    if name.is_empty() || !name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it)) {
        return Err(Error::invalid(format!("{:?} is not the name of a credential helper", shortened(name))));
    }
    let program = format!("docker-credential-{name}");
    let failed = |why: String| {
        Error::internal(format!("{program} did not give the credentials of {server}: {}", shortened(why.trim())))
    };
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("it cannot be run: {error}")))?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // It may answer without having read it.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(limit::CONFIGURATION).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, answer))
    };
    let ended = tokio::time::timeout(PATIENCE, talk).await.map_err(|_| failed(format!("no answer in {PATIENCE:?}")))?;
    let (status, answer) = ended.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&answer);
        // The protocol's own words for "none".
        let none = said.contains("credentials not found") || said.contains("no credentials");
        // Words for a person, but for one that gives what it knows and fails after that, and may say more around it.
        let said = if said.contains('{') { "" } else { &*said };
        return if none { Ok(None) } else { Err(failed(format!("{status} {said}"))) };
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| failed("its answer is no JSON".into()))?;
    let found = if answer.username == "<token>" {
        Credentials { identity_token: answer.secret, ..Credentials::default() }
    } else {
        Credentials { username: answer.username, password: answer.secret, ..Credentials::default() }
    };
    Ok(Some(found).filter(|it| !it.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &DockerConfig, host: &str, path: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(config.credentials(host, path)) {
            Ok(Some(it)) => format!("{}:{}{}{}", it.username, it.password, it.identity_token, it.registry_token),
            Ok(None) => "-".into(),
            Err(error) => error.message,
        }
    }

    #[test]
    fn each_host_has_its_own_and_no_other() {
        let auth = |text: &str| STANDARD.encode(text);
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth("hub:h:1")},
            "a.example": {"auth": auth("a:1\0\0")},
            "https://b.example/v2/": {"username": "b", "password": "2"},
            "c.example/team": {"auth": auth("team:3")},
            "c.example/team/app": {"auth": auth("app:4")},
            "d.example": {"identitytoken": "refresh"},
            "e.example:5000": {"registrytoken": "bearer"},
            "f.example": {},
            "g.example": {"auth": "%"},
        }, "unknown": 1});
        let config = DockerConfig::parse(config.to_string().as_bytes()).unwrap();
        for (host, path, found) in [
            ("docker.io", "library/x", "hub:h:1"),
            ("registry-1.docker.io", "library/x", "hub:h:1"),
            ("a.example", "x", "a:1"),
            ("A.example:443", "x", "a:1"),
            ("a.example:5000", "x", "-"),
            ("b.a.example", "x", "-"),
            ("example", "x", "-"),
            ("b.example", "x", "b:2"),
            ("c.example", "team/app", "app:4"),
            ("c.example", "team/app/x", "app:4"),
            ("c.example", "team/other", "team:3"),
            ("c.example", "teams", "-"),
            ("d.example", "x", ":refresh"),
            ("e.example:5000", "x", ":bearer"),
            ("f.example", "x", "-"),
        ] {
            assert_eq!(self::find(&config, host, path), found, "{host} {path}");
        }
        assert!(find(&config, "g.example", "x").contains("broken \"auth\" for g.example"));
    }

    #[test]
    fn what_is_broken_is_said_without_its_secrets() {
        let error = DockerConfig::parse(b"{\"auths\": {\"a\": {\"auth\": secret}}}").err().unwrap();
        assert_eq!(error.message, "docker's config.json is broken at line 1, column 26");
        assert!(DockerConfig::parse(b" \n").is_ok());
        let odd = DockerConfig::parse(br#"{"credsStore": "../x"}"#).unwrap();
        assert!(find(&odd, "a.example", "x").contains("is not the name of a credential helper"));
        let missing = DockerConfig::parse(br#"{"credHelpers": {"a.example": "no-such-helper"}}"#).unwrap();
        assert!(find(&missing, "a.example", "x").contains("docker-credential-no-such-helper did not give"));
        assert_eq!(find(&missing, "b.example", "x"), "-");
    }
}
