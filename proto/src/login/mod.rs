//! Docker's config.json, which is its user's and not the store's: who we are at which registry.
//!
//! A call carries the whole file, and the store chooses from it by host; credentials never leave their host. `login` writes there
//! what docker's login writes: into the file itself, or through the helper that the file names.
//!
//! ```text
//! {"auths": {"host:5000": {"auth": base64("user:password")}}, "credsStore": "x", "credHelpers": {"host": "y"}}
//! ```
//!
//! An error is a sentence, with a kind where a system call has one.

pub mod terminal;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Docker's registry in names, and its key in config.json.
const HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");
/// Bytes of a config.json; the store takes no more either.
const LIMIT: u64 = 1 << 20;

/// Where it is, if nobody says otherwise: in `$DOCKER_CONFIG`, or in the home's `.docker`.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let of = |variable: &str| std::env::var_os(variable).filter(|it| !it.is_empty()).map(PathBuf::from);
    of("DOCKER_CONFIG").or_else(|| of("HOME").map(|it| it.join(".docker"))).map(|it| it.join("config.json"))
}

/// All of it, as a call carries it.
///
/// # Errors
/// It cannot be read ([`ErrorKind::NotFound`]: there is none), or is too long to be docker's.
pub fn read(path: &Path) -> Result<String> {
    let doing = || format!("read {}", path.display());
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_string(&mut text))
        .map_err(|it| said(doing(), &it))?;
    if text.len() as u64 > LIMIT {
        let sentence = format!("{} has more than {LIMIT} bytes: that is not docker's configuration", path.display());
        return Err(Error::new(ErrorKind::FileTooLarge, sentence));
    }
    Ok(text)
}

/// A registry's name, by what people write for it.
#[must_use]
pub fn registry(written: &str) -> &str {
    let bare = written.strip_prefix("https://").or_else(|| written.strip_prefix("http://")).unwrap_or(written);
    match bare.trim_end_matches('/') {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => HUB.0,
        other => other.split('/').next().unwrap_or(other),
    }
}

/// As docker's messages and its file call a registry.
#[must_use]
pub fn key(host: &str) -> &str {
    if host == HUB.0 { HUB.1 } else { host }
}

/// What is kept of a login.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// Who.
    pub user: &'a str,
    /// By what.
    pub password: &'a str,
    /// In place of the password, if the registry gave one.
    pub token: &'a str,
}

/// Keeps credentials: in the file, or by the helper that it names. Gives whether they lie in the file, for all to read who may read it.
///
/// # Errors
/// The file is not docker's, it cannot be written, or the helper refuses.
pub fn store(path: &Path, host: &str, kept: Kept<'_>) -> Result<bool> {
    let mut config = parse(path)?;
    let (user, secret) = if kept.token.is_empty() { (kept.user, kept.password) } else { ("<token>", kept.token) };
    if let Some(helper) = helper(&config, key(host)) {
        let entry = json!({ "ServerURL": key(host), "Username": user, "Secret": secret });
        run(&helper, "store", &entry.to_string())?;
        // Docker notes that the helper has something.
        entries(path, &mut config)?.insert(key(host).to_owned(), json!({}));
        write(path, &config)?;
        return Ok(false);
    }
    let plain = if kept.token.is_empty() { format!("{user}:{secret}") } else { format!("{}:", kept.user) };
    let mut entry = Map::from_iter([("auth".to_owned(), STANDARD.encode(plain).into())]);
    if !kept.token.is_empty() {
        entry.insert("identitytoken".to_owned(), secret.into());
    }
    entries(path, &mut config)?.insert(key(host).to_owned(), entry.into());
    write(path, &config)?;
    Ok(true)
}

/// Forgets credentials; false if there are none.
///
/// # Errors
/// As those of [`store`].
pub fn forget(path: &Path, host: &str) -> Result<bool> {
    let mut config = parse(path)?;
    let helper = helper(&config, key(host));
    let had = entries(path, &mut config)?.remove(key(host)).is_some();
    if !had {
        return Ok(false);
    }
    if let Some(helper) = helper {
        run(&helper, "erase", key(host))?;
    }
    write(path, &config)?;
    Ok(true)
}

fn parse(path: &Path) -> Result<Map<String, Value>> {
    let text = match read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read?,
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(&text).map_err(|error| {
        // The text holds secrets: where, and not what.
        let (line, column) = (error.line(), error.column());
        broken(path, &format!("at line {line}, column {column}"))
    })
}

fn entries<'a>(path: &Path, config: &'a mut Map<String, Value>) -> Result<&'a mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().ok_or_else(|| broken(path, "where \"auths\" is no object"))
}

fn helper(config: &Map<String, Value>, key: &str) -> Option<String> {
    let of_host = config.get("credHelpers").and_then(|it| it.get(key));
    let name = of_host.or_else(|| config.get("credsStore"))?.as_str().filter(|it| !it.is_empty())?;
    Some(format!("docker-credential-{name}"))
}

/// Runs a credential helper, by docker's protocol: its input on stdin, and an answer on stdout.
fn run(helper: &str, action: &str, input: &str) -> Result<()> {
    let doing = || format!("run {helper} {action}");
    if helper.contains('/') {
        let sentence = format!("{helper:?} in docker's config.json is not the name of a credential helper");
        return Err(Error::new(ErrorKind::InvalidData, sentence));
    }
    let mut command = Command::new(helper);
    let piped = command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().map_err(|it| Error::other(said(doing(), &it)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing says by its status what it thinks.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|it| said(doing(), &it))?;
    if output.status.success() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&output.stdout);
    Err(Error::other(format!("{}: {}: {}", doing(), output.status, answer.trim())))
}

/// Readable by this user alone, and never half-written.
fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let failed = |error: Error| said(format!("write {}", path.display()), &error);
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    // A link stays one: what it leads to is replaced.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let text = serde_json::to_string_pretty(config).map_err(|it| failed(it.into()))?;
    // One of our number was killed before it was done.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o600)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, &target));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

/// The same failure, with what was tried before it.
fn said(what: String, error: &Error) -> Error {
    Error::new(error.kind(), format!("{what}: {error}"))
}

fn broken(path: &Path, place: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{} is broken {place}: repair or remove it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_reads_is_written_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let kept = |token: &'static str| Kept { user: "me", password: "päss", token };
        assert!(store(&path, "docker.io", kept("")).unwrap());
        fs::write(&path, fs::read_to_string(&path).unwrap().replacen('{', r#"{"psFormat":"x","#, 1)).unwrap();
        store(&path, "r.example:5000", kept("tok")).unwrap();
        let config = parse(&path).unwrap();
        assert_eq!(config["psFormat"], "x");
        assert_eq!(config["auths"][HUB.1]["auth"], "bWU6cMOkc3M=");
        assert_eq!(config["auths"]["r.example:5000"], json!({ "auth": "bWU6", "identitytoken": "tok" }));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(forget(&path, "docker.io").unwrap());
        assert!(parse(&path).unwrap()["auths"].get(HUB.1).is_none());
        assert!(!forget(&path, "docker.io").unwrap());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_a_killed_one_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let left = dir.path().join(format!("config.json.{}", std::process::id()));
        fs::write(&left, "half of it").unwrap();
        store(&path, "h", Kept { user: "u", password: "p", token: "" }).unwrap();
        assert!(!left.try_exists().unwrap());
    }

    #[test]
    fn a_file_that_is_no_configuration_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let kept = Kept { user: "u", password: "p", token: "" };
        for wrong in ["[]", "{", "\"s3cret\"", r#"{"auths":[]}"#] {
            fs::write(&path, wrong).unwrap();
            let error = store(&path, "h", kept).unwrap_err();
            assert!(
                error.to_string().contains("repair or remove it") && !error.to_string().contains("s3cret"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), wrong);
        }
        fs::write(&path, r#"{"credsStore": "../x"}"#).unwrap();
        let error = store(&path, "h", kept).unwrap_err();
        assert!(error.to_string().contains("is not the name of a credential helper"), "{error}");
        fs::write(&path, vec![b' '; LIMIT as usize + 1]).unwrap();
        assert_eq!(store(&path, "h", kept).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn registries_have_several_names() {
        for (written, host) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://r.example/", "r.example"),
            ("r.example:5000/v2/", "r.example:5000"),
        ] {
            assert_eq!(registry(written), host, "{written}");
        }
        assert_eq!(key("docker.io"), "https://index.docker.io/v1/");
    }
}
