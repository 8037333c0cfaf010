//! Files in containers, and images made of them.

use std::path::Path;

use super::args::{Commit, Cp, Export, Import, One};
use super::output;
use crate::client::Client;
use crate::error::Result;
use crate::{commit, cp, diff, export, import};

/// `cp`. It says nothing, with `-q` and without, and keeps the owners that are kept, with `-a` and without.
pub(super) async fn cp(client: &Client, args: Cp) -> Result<u8> {
    let options = cp::Options { follow_link: args.follow_link };
    cp::copy(client, &args.source, &args.destination, &options).await.map(|()| 0)
}

/// `diff`.
pub(super) async fn diff(client: &Client, args: One) -> Result<u8> {
    let changes = diff::diff(client, &args.container).await?;
    let lines: String = changes.iter().map(|it| format!("{it}\n")).collect();
    output::text(&lines).map(|()| 0)
}

/// `export`.
pub(super) async fn export(client: &Client, args: Export) -> Result<u8> {
    export::export(client, &args.container, args.output.as_deref().map(Path::new)).await.map(|()| 0)
}

/// `commit`.
pub(super) async fn commit(client: &Client, args: Commit) -> Result<u8> {
    let options = commit::Options {
        author: args.author.unwrap_or_default(),
        message: args.message.unwrap_or_default(),
        changes: args.change,
        pause: args.pause,
    };
    let id = commit::commit(client, &args.container, args.name.as_deref(), &options).await?;
    output::line(&id).map(|()| 0)
}

/// `import`.
pub(super) async fn import(client: &Client, args: Import) -> Result<u8> {
    let options = import::Options {
        message: args.message.unwrap_or_default(),
        changes: args.change,
        platform: args.platform.unwrap_or_default(),
    };
    let id = import::import(client, &args.file, args.name.as_deref(), &options).await?;
    output::line(&id).map(|()| 0)
}
