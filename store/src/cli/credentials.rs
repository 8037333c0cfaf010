//! Credentials: docker's config.json, which is the client's and not the daemon's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;
use tare_proto::MessageField;
use tare_proto::login::{self, Kept, terminal};
use tare_proto::store::{Credentials, LoginRequest, RegistryOptions};

use super::Session;
use super::archive::small_stdin;
use super::args;
use super::output::{self, Done, apart};
use crate::error::{Context, Error, Kind, Result, kind_of};
use crate::registry::reference::Reference;

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
    // Who gives credentials may be about to make the file.
    let must_be = args.docker_config.is_some() && args.user.is_none();
    if let Some(path) = args.docker_config.clone().or_else(login::path) {
        options.docker_config = apart(move || read(&path, must_be)).await?;
    }
    Ok(MessageField::some(options))
}

fn read(path: &Path, must_be: bool) -> Result<String> {
    match login::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !must_be => Ok(String::new()),
        read => read.map_err(failed),
    }
}

/// What went wrong with it, which is a sentence.
fn failed(error: std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::InvalidData => Kind::InvalidArgument,
        ErrorKind::FileTooLarge => Kind::ResourceExhausted,
        _ => kind_of(&error),
    };
    Error::new(kind, error.to_string())
}

async fn password(from_stdin: bool) -> Result<String> {
    if from_stdin {
        return Ok(small_stdin("the password").await?.trim_end_matches(['\r', '\n']).to_owned());
    }
    apart(ask).await
}

/// From the terminal, without showing it.
fn ask() -> Result<String> {
    let terminal = terminal::open().map_err(|_| {
        Error::invalid("a password is needed and there is no terminal to ask for it: use --password-stdin")
    })?;
    terminal::ask_hidden(&terminal, "Password: ").context(|| "ask for the password".to_owned())
}

pub(super) async fn login(session: &Session, args: args::Login) -> Done {
    let host = login::registry(&args.host).to_owned();
    let mut request = LoginRequest::new();
    request.registry = options(&args.registry, &host).await?;
    let Some(credentials) = request.registry.credentials.clone().into_option() else {
        return Err(output::Failure::usage("whom to log in as? Name a user with --user"));
    };
    let response = session.client.store().login(session.client.context(), &request).await;
    let token = response.map_err(|error| session.client.failed(error))?.identity_token;
    let path = to_write(args.registry.docker_config)?;
    let Credentials { username, password, .. } = credentials;
    apart(move || {
        let kept = Kept { user: &username, password: &password, token: &token };
        login::store(&path, &host, kept).map_err(failed)
    })
    .await?;
    if session.json { output::document(&json!({ "loggedIn": true })) } else { output::line("logged in") }
}

pub(super) fn logout(args: &args::Logout) -> Done {
    let (path, host) = (to_write(args.docker_config.clone())?, login::registry(&args.host));
    match login::forget(&path, host).map_err(failed)? {
        true => Ok(()),
        false => Err(Error::not_found(format!("{} has no credentials for {host}", path.display())).into()),
    }
}

fn to_write(flag: Option<PathBuf>) -> Result<PathBuf> {
    flag.or_else(login::path).ok_or_else(|| {
        Error::invalid("there is no HOME that credentials are kept in: name a file with --docker-config")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_registry() {
        assert_eq!((host_of("debian").as_str(), host_of("r.example:5/a").as_str()), ("docker.io", "r.example:5"));
    }
}
