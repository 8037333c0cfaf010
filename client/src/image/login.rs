//! `login` and `logout`: credentials are tried at the registry, and kept where docker keeps them.

use std::io::{self, IsTerminal, Read, Write};

use tare_proto::MessageField;
use tare_proto::login::{self, Kept, terminal};
use tare_proto::store::{Credentials, LoginRequest};

use super::pull::said;
use super::{credentials, progress};
use crate::client::Client;
use crate::error::{Context, Error, Result};

/// A password, in bytes: what is longer is none.
const LONGEST: u64 = 1 << 20;

/// Who logs in.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Asked for if it is not given.
    pub username: Option<String>,
    /// Asked for if it is not given.
    pub password: Option<String>,
    /// The password is what standard input has.
    pub password_stdin: bool,
}

/// Logs in at a registry; docker's own, if none is named.
///
/// # Errors
/// The registry refuses the credentials, or they cannot be asked for or kept.
pub async fn login(client: &Client, server: Option<&str>, options: &Options, out: &mut dyn Write) -> Result<()> {
    let host = login::registry(server.unwrap_or_default());
    let path = credentials::path_to_write()?;
    let (username, password) = who(host, options)?;
    let mut request = LoginRequest::new();
    // Nothing but what is to be tried.
    let mut given = Credentials::new();
    host.clone_into(&mut given.host);
    (given.username, given.password) = (username.clone(), password.clone());
    let mut registry = tare_proto::store::RegistryOptions::new();
    registry.credentials = MessageField::some(given);
    request.registry = MessageField::some(registry);
    let store = client.store.store().await?;
    let answer = store.login(client.store.context(), &request).await;
    let token = answer.context(|| client.store.call(&format!("log in at {host}")))?.identity_token;
    let kept = Kept { user: &username, password: &password, token: &token };
    if login::store(&path, host, kept).map_err(credentials::failed)? {
        eprintln!(
            "WARNING! The password lies unencrypted in {}; a credential helper (\"credsStore\" there) would keep it better.",
            path.display()
        );
    }
    said(out, "Login Succeeded")
}

/// Forgets the credentials for a registry.
///
/// # Errors
/// What keeps them cannot be changed.
pub fn logout(server: Option<&str>, out: &mut dyn Write) -> Result<()> {
    let host = login::registry(server.unwrap_or_default());
    let key = progress::printable(login::key(host));
    let forgotten = match login::path() {
        Some(path) => login::forget(&path, host).map_err(credentials::failed)?,
        None => false,
    };
    said(
        out,
        &if forgotten { format!("Removing login credentials for {key}") } else { format!("Not logged in to {key}") },
    )
}

fn who(host: &str, options: &Options) -> Result<(String, String)> {
    if options.password_stdin && options.password.is_some() {
        return Err(Error::usage("--password and --password-stdin both say the password: give one of them"));
    }
    if options.password_stdin && options.username.is_none() {
        return Err(Error::usage("--password-stdin leaves nowhere to ask for the user: give --username too"));
    }
    if options.password.is_some() {
        eprintln!("WARNING! A password on the command line is seen by everybody here: use --password-stdin.");
    }
    let username = match &options.username {
        Some(given) => given.clone(),
        None => ask("Username: ", host, true)?,
    };
    if username.is_empty() {
        return Err(Error::usage(format!("log in at {host} as whom? Give a user with --username")));
    }
    let password = match &options.password {
        Some(given) => given.clone(),
        None if options.password_stdin => {
            let mut text = String::new();
            let read = io::stdin().lock().take(LONGEST).read_to_string(&mut text);
            read.context(|| "read the password from standard input".to_owned())?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => ask("Password: ", host, false)?,
    };
    if password.is_empty() {
        return Err(Error::usage(format!("log in at {host} without a password? Give one")));
    }
    Ok((username, password))
}

/// Asks at the terminal; `shown`: what is typed can be seen.
fn ask(prompt: &str, host: &str, shown: bool) -> Result<String> {
    let none = || {
        Error::usage(format!(
            "log in at {host}: there is no terminal to ask at: give --username, and the password with --password-stdin"
        ))
    };
    if !io::stdin().is_terminal() {
        return Err(none());
    }
    let terminal = terminal::open().map_err(|_| none())?;
    let line = if shown { terminal::ask(&terminal, prompt) } else { terminal::ask_hidden(&terminal, prompt) };
    line.context(|| "ask at the terminal".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_logs_in_must_be_said_once() {
        let given = |text: &str| Some(text.to_owned());
        for (options, why) in [
            (Options { username: given("u"), password: given("p"), password_stdin: true }, "both say the password"),
            (Options { username: None, password: None, password_stdin: true }, "give --username too"),
            (Options { username: given(""), password: given("p"), password_stdin: false }, "as whom?"),
            (Options { username: given("u"), password: given(""), password_stdin: false }, "without a password?"),
        ] {
            let error = who("r.example", &options).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
        let both = Options { username: given("u"), password: given("p"), password_stdin: false };
        assert_eq!(who("r.example", &both).unwrap(), ("u".to_owned(), "p".to_owned()));
    }
}
