//! Credentials: docker's config.json, which is the client's and not the daemon's.
//!
//! A call carries the client's whole config.json, and the daemon chooses from it by host. `login` writes there what docker's login
//! writes: `auths`, or through the helper that `credsStore` or `credHelpers` names.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use tare_proto::MessageField;
use tare_proto::store::{Credentials, LoginRequest, RegistryOptions};

use super::archive::small_stdin;
use super::args;
use super::output::{self, Done, apart};
use super::{Session, config};
use crate::error::{Context, Error, Result};
use crate::registry::reference::Reference;

/// What docker calls its own registry in config.json.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Bytes of a config.json; the daemon takes no more either.
const LIMIT: u64 = 1 << 20;

/// The registry that a reference names; none, if it is no reference.
pub(super) fn host_of(reference: &str) -> String {
    reference.parse::<Reference>().map(|it| it.repository().registry().to_owned()).unwrap_or_default()
}

/// How a registry is reached, with what this user's config.json says.
pub(super) async fn options(args: &args::Registry, host: &str) -> Result<MessageField<RegistryOptions>> {
    let mut options = RegistryOptions::new();
    (options.plain_http, options.skip_verify) = (args.plain_http, args.skip_verify);
    if let Some(user) = &args.user {
        let mut credentials = Credentials::new();
        credentials.host = host.to_owned();
        credentials.username.clone_from(user);
        credentials.password = password(args.password_stdin).await?;
        options.credentials = MessageField::some(credentials);
    }
    let (path, said) = (path(args.docker_config.clone()), args.docker_config.is_some());
    // Who gives credentials may be about to make the file.
    let must_be = said && args.user.is_none();
    if let Some(path) = path {
        options.docker_config = apart(move || read(&path, must_be)).await?.unwrap_or_default();
    }
    Ok(MessageField::some(options))
}

fn path(flag: Option<PathBuf>) -> Option<PathBuf> {
    flag.or_else(|| Some(PathBuf::from(config::environment("DOCKER_CONFIG")?).join("config.json")))
        .or_else(|| Some(PathBuf::from(config::environment("HOME")?).join(".docker/config.json")))
}

fn read(path: &Path, must_be: bool) -> Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_be => return Ok(None),
        opened => opened.context(|| format!("open {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text).context(|| format!("read {}", path.display()))?;
    if text.len() as u64 > LIMIT {
        return Err(Error::exhausted(format!("{} has more than {LIMIT} bytes", path.display())));
    }
    Ok(Some(text))
}

async fn password(from_stdin: bool) -> Result<String> {
    if from_stdin {
        return Ok(small_stdin("the password").await?.trim_end_matches(['\r', '\n']).to_owned());
    }
    apart(ask).await
}

/// From the terminal, without showing it.
fn ask() -> Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Error::invalid("a password is needed and there is no terminal to ask for it: use --password-stdin")
    })?;
    if !terminal.is_terminal() {
        return Err(Error::invalid("a password is needed: use --password-stdin"));
    }
    let before = tcgetattr(&terminal).context(|| "look at the terminal".to_owned())?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    terminal.write_all(b"Password: ").context(|| "ask for the password".to_owned())?;
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).context(|| "silence the terminal".to_owned())?;
    let mut line = String::new();
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(&terminal), &mut line);
    let restored = tcsetattr(&terminal, SetArg::TCSAFLUSH, &before);
    let _ = terminal.write_all(b"\n");
    read.context(|| "read the password".to_owned())?;
    restored.context(|| "let the terminal show what is typed again".to_owned())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

pub(super) async fn login(session: &Session, args: args::Login) -> Done {
    let host = registry(&args.host);
    let mut request = LoginRequest::new();
    request.registry = options(&args.registry, &host).await?;
    let Some(credentials) = request.registry.credentials.clone().into_option() else {
        return Err(output::Failure::usage("whom to log in as? Name a user with --user"));
    };
    let response = session.client.store().login(session.client.context(), &request).await;
    let token = response.map_err(|error| session.client.failed(error))?.identity_token;
    let path = path(args.registry.docker_config).ok_or_else(|| {
        Error::invalid("there is no HOME to keep the credentials in: name a file with --docker-config")
    })?;
    let kept = Kept { user: credentials.username, password: credentials.password, token };
    apart(move || store(&path, &host, &kept)).await?;
    if session.json { output::document(&json!({ "loggedIn": true })) } else { output::line("logged in") }
}

pub(super) fn logout(args: &args::Logout) -> Done {
    let path = path(args.docker_config.clone())
        .ok_or_else(|| Error::invalid("there is no HOME with credentials: name a file with --docker-config"))?;
    Ok(forget(&path, &registry(&args.host))?)
}

fn registry(host: &str) -> String {
    match host.trim_start_matches("https://").trim_end_matches('/') {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Its key in config.json.
fn key(host: &str) -> &str {
    if host == "docker.io" { DOCKER_HUB } else { host }
}

/// What is kept of a login.
struct Kept {
    user: String,
    password: String,
    token: String,
}

fn store(path: &Path, host: &str, kept: &Kept) -> Result<()> {
    let mut config = parse(path)?;
    let (user, secret) = match kept.token.as_str() {
        "" => (kept.user.as_str(), kept.password.as_str()),
        token => ("<token>", token),
    };
    if let Some(helper) = helper(&config, key(host)) {
        let entry = json!({ "ServerURL": key(host), "Username": user, "Secret": secret });
        run(&helper, "store", &entry.to_string())?;
        // Docker notes that the helper has something.
        entries(&mut config)?.insert(key(host).to_owned(), json!({}));
        return write(path, &config);
    }
    let mut entry = Map::new();
    let auth = if kept.token.is_empty() { format!("{user}:{secret}") } else { format!("{}:", kept.user) };
    entry.insert("auth".to_owned(), base64(auth.as_bytes()).into());
    if !kept.token.is_empty() {
        entry.insert("identitytoken".to_owned(), secret.into());
    }
    entries(&mut config)?.insert(key(host).to_owned(), entry.into());
    write(path, &config)
}

fn forget(path: &Path, host: &str) -> Result<()> {
    let mut config = parse(path)?;
    if let Some(helper) = helper(&config, key(host)) {
        run(&helper, "erase", key(host))?;
    }
    match entries(&mut config)?.remove(key(host)) {
        Some(_) => write(path, &config),
        None => Err(Error::not_found(format!("{} has no credentials for {host}", path.display()))),
    }
}

fn parse(path: &Path) -> Result<Map<String, Value>> {
    let Some(text) = read(path, false)? else { return Ok(Map::new()) };
    serde_json::from_str(&text)
        .map_err(|error| Error::invalid(format!("{} is not docker's configuration: {error}", path.display())))
}

fn entries(config: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().ok_or_else(|| Error::invalid("docker's configuration is malformed: \"auths\" is no object"))
}

fn helper(config: &Map<String, Value>, key: &str) -> Option<String> {
    let of_host = config.get("credHelpers").and_then(|it| it.get(key));
    let name = of_host.or_else(|| config.get("credsStore"))?.as_str().filter(|it| !it.is_empty())?;
    Some(format!("docker-credential-{name}"))
}

fn run(helper: &str, action: &str, input: &str) -> Result<()> {
    let doing = || format!("run {helper} {action}");
    if helper.contains('/') {
        return Err(Error::invalid(format!("{helper:?} in docker's configuration is no name of a credential helper")));
    }
    let mut child =
        Command::new(helper).arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context(doing)?;
    // One that reads nothing says by its status what it thinks.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context(doing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::internal(format!("{}: {}: {}", doing(), output.status, String::from_utf8_lossy(&output.stdout).trim())))
}

/// Readable by this user alone, and never half-written.
fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let doing = || format!("write {}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).create(dir).context(doing)?;
    }
    // A link stays one: what it leads to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let text =
        serde_json::to_string_pretty(config).map_err(|error| Error::internal(format!("{}: {error}", doing())))?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).context(doing)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(0o600)))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.context(doing)
}

/// RFC 4648, with padding: as config.json has it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_reads_is_written_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let kept = |token: &str| Kept { user: "me".into(), password: "päss".into(), token: token.into() };
        store(&path, "docker.io", &kept("")).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replacen('{', r#"{"psFormat":"x","#, 1)).unwrap();
        store(&path, "r.example:5000", &kept("tok")).unwrap();
        let config = parse(&path).unwrap();
        assert_eq!(config["psFormat"], "x");
        assert_eq!(config["auths"][DOCKER_HUB]["auth"], "bWU6cMOkc3M=");
        assert_eq!(config["auths"]["r.example:5000"], json!({ "auth": "bWU6", "identitytoken": "tok" }));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        forget(&path, "docker.io").unwrap();
        assert!(parse(&path).unwrap()["auths"].get(DOCKER_HUB).is_none());
        assert!(forget(&path, "docker.io").unwrap_err().message.contains("no credentials"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn base64_as_the_standard_gives_it() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_file_that_is_no_configuration_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for wrong in ["[]", "{", r#"{"auths":[]}"#] {
            std::fs::write(&path, wrong).unwrap();
            let kept = Kept { user: "u".into(), password: "p".into(), token: String::new() };
            assert!(store(&path, "h", &kept).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), wrong);
        }
        assert_eq!(registry("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(registry("https://r.example/"), "r.example");
        assert_eq!((host_of("debian").as_str(), host_of("r.example:5/a").as_str()), ("docker.io", "r.example:5"));
    }
}
