//! `import`: a tar archive of a root becomes an image of one layer.
//!
//! ```text
//! ROOT/imports/<key> made and locked ─> snapshot <key> ─> extracted ─> committed ─> the snapshot removed, then the file
//! ```
//!
//! Whoever is killed before the end leaves a file that nobody has a lock on: the next command that lists containers removes the
//! snapshot. It is extracted into a snapshot that stands on nothing, beneath its directory (see [`crate::archive`]), and committed by the store.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;
use tare_proto::store::CommitRequest;

use crate::background::Turn;
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::record::Config;
use crate::{archive, beneath, changes, commit, disk, events, image, records, root};

/// How.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Why.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// What it is for, `os/architecture[/variant]`; empty: this host.
    pub platform: String,
}

/// Makes an image of the archive `source`, a file or `-` for standard input, by this name or without one. Gives its id.
///
/// # Errors
/// The archive is none, the name or a change is none, or the store failed.
pub async fn import(client: &Client, source: &str, name: Option<&str>, options: &Options) -> Result<String> {
    name.map(commit::check_name).transpose()?;
    let mut config = Config::default();
    changes::apply(&mut config, &options.changes)?;
    let input: Box<dyn Read> = if source == "-" {
        Box::new(io::stdin())
    } else if source.starts_with("http://") || source.starts_with("https://") {
        return Err(Error::usage(format!(
            "import {source}: URLs are not fetched: fetch it, and pipe it in, as in curl {source} | tarectl import -"
        )));
    } else {
        Box::new(open(source)?)
    };
    let key = format!("import-{}", records::new_id()?);
    let turn = begin(client, &key)?;
    let made = extract_and_commit(client, &key, input, config, options).await;
    let removed = end(client, &key, turn).await;
    let made = made.map_err(|error| error.within(format!("import {source}")))?;
    removed?;
    if let Some(name) = name {
        image::tag::tag(client, &made, name).await?;
    }
    events::other(&client.paths, "image", "import", &made, &[("name", &made)]);
    Ok(made)
}

/// Says which snapshot is to come, and that we are at it.
fn begin(client: &Client, key: &str) -> Result<Option<Turn>> {
    let directory = client.paths.imports();
    disk::make_private(&directory)?;
    let turn = Turn::take(&directory.join(key))?;
    // Whoever finds the snapshot after a power cut finds whose it was.
    disk::sync(&directory)?;
    Ok(turn)
}

async fn end(client: &Client, key: &str, turn: Option<Turn>) -> Result<()> {
    client.store.remove_snapshot(key).await?;
    let place = client.paths.imports().join(key);
    disk::gone(fs::remove_file(&place)).context(|| format!("remove {}", place.display()))?;
    drop(turn);
    Ok(())
}

/// Removes what imports that were killed had extracted.
///
/// # Errors
/// Something cannot be removed.
pub(crate) async fn sweep(client: &Client) -> Result<()> {
    let Ok(entries) = fs::read_dir(client.paths.imports()) else { return Ok(()) };
    for entry in entries.flatten() {
        if let Some(turn) = Turn::take(&entry.path())? {
            end(client, &entry.file_name().to_string_lossy(), Some(turn)).await?;
        }
    }
    Ok(())
}

fn open(source: &str) -> Result<File> {
    let file = File::open(source).context(|| format!("open {source}"))?;
    if file.metadata().context(|| format!("look at {source}"))?.is_dir() {
        return Err(Error::usage(format!(
            "import {source}: it is a directory: pipe it in, as in tar -C {source} -c . | tarectl import -"
        )));
    }
    Ok(file)
}

async fn extract_and_commit(
    client: &Client,
    key: &str,
    input: impl Read,
    config: Config,
    options: &Options,
) -> Result<String> {
    let mounts = client.store.prepare(key, "").await?;
    let tree = root::writable(&mounts)?;
    let dir = beneath::open(&tree, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)
        .context(|| "open the new root".to_owned())?;
    archive::extract(input, dir.as_fd(), Path::new("/"))?;
    drop((dir, tree));
    let mut request = CommitRequest::new();
    key.clone_into(&mut request.snapshot);
    request.message.clone_from(&options.message);
    request.config = changes::image_config(&config).to_string();
    request.platform.clone_from(&options.platform);
    commit::make(client, &request).await.map(|made| made.config)
}
