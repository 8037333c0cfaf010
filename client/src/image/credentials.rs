//! Who this user is at registries, as docker's config.json has it.

use std::io::ErrorKind;
use std::path::PathBuf;

use tare_proto::MessageField;
use tare_proto::login;
use tare_proto::store::RegistryOptions;

use crate::error::{Error, Result};

/// How registries are reached: with what this user's config.json says.
pub(super) fn options() -> Result<MessageField<RegistryOptions>> {
    let mut options = RegistryOptions::new();
    if let Some(path) = login::path() {
        options.docker_config = match login::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(failed)?,
        };
    }
    Ok(MessageField::some(options))
}

/// Where credentials are kept.
pub(super) fn path_to_write() -> Result<PathBuf> {
    login::path()
        .ok_or_else(|| Error::failed("there is no HOME to keep credentials in: name a directory in DOCKER_CONFIG"))
}

/// What went wrong with it, which is a sentence.
pub(super) fn failed(error: std::io::Error) -> Error {
    Error::failed(error.to_string())
}
