//! Volumes: directories that outlive containers.
//!
//! ```text
//! ROOT/volumes/
//!   _.lock              held by who makes, fills or removes one
//!   <name>/volume.json  the record; a directory without it is none, and is taken over by the next who makes one of that name
//!   <name>/data/        what containers see
//!   <name>/filling      there while it is filled from an image: a fill that was cut off is done again
//! ```

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::record::{Container, Map};
use crate::records;
use crate::time::Time;
use crate::{disk, events, names, paths, truth};

mod fill;
mod filter;
mod prepare;
mod subpath;

pub use filter::Filter;
pub use prepare::{prepare, remove_anonymous};
pub use subpath::{Held, hold};

/// A record is no longer.
const LIMIT: u64 = 1 << 20;

/// One volume, with docker's names of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// When it was made.
    pub created_at: Time,
    /// Always `local`.
    pub driver: String,
    /// What people say of it.
    pub labels: Option<Map>,
    /// Where it is on this host.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// None: there are no other kinds.
    pub options: Option<Map>,
    /// Always `local`.
    pub scope: String,
    /// Nobody gave it a name: it goes with its container.
    #[serde(skip_serializing_if = "is_false")]
    pub anonymous: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(it: &bool) -> bool {
    !*it
}

/// What a new volume is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// None: a name is made up.
    pub name: Option<String>,
    /// What people say of it.
    pub labels: Map,
    /// Empty or `local`.
    pub driver: String,
    /// Of the driver; there are none.
    pub options: Map,
}

/// Makes a volume, unless there is one of that name. Gives it as it is.
///
/// # Errors
/// The name is none, the driver is another, or it cannot be made.
pub async fn create(client: &Client, options: &Options) -> Result<Volume> {
    if !matches!(options.driver.as_str(), "" | "local") {
        return Err(Error::usage(format!(
            "there is no volume driver {:?}: the one there is, is local",
            options.driver
        )));
    }
    if let Some(name) = options.options.keys().next() {
        return Err(Error::usage(format!(
            "the volume driver local has no option {name:?} here: mount what it shall be on this host, and give its path with -v"
        )));
    }
    let (name, anonymous) = match &options.name {
        Some(name) => (name.clone(), false),
        None => (records::new_id()?, true),
    };
    let _lock = lock(client)?;
    make(client, &name, &options.labels, anonymous)
}

/// Makes one, unless it is there. The lock is held.
fn make(client: &Client, name: &str, labels: &Map, anonymous: bool) -> Result<Volume> {
    check(name)?;
    if let Some(volume) = load(client, name)? {
        return Ok(volume);
    }
    let directory = directory(client, name);
    let data = directory.join("data");
    let private = |path: &Path, mode: u32| match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.context(|| format!("make the volume {name:?} in {}", path.display())),
    };
    private(&directory, 0o700)?;
    private(&data, 0o755)?;
    let volume = Volume {
        created_at: Time::now(),
        driver: "local".to_owned(),
        labels: (!labels.is_empty()).then(|| labels.clone()),
        mountpoint: paths::text(&data),
        name: name.to_owned(),
        options: None,
        scope: "local".to_owned(),
        anonymous,
    };
    let text = serde_json::to_vec(&volume).map_err(|error| Error::failed(format!("write down a volume: {error}")))?;
    disk::replace(&directory.join("volume.json"), &text, 0o600)?;
    events::other(&client.paths, "volume", "create", name, &[("driver", "local")]);
    Ok(volume)
}

/// The volumes that pass the filter, by name.
///
/// # Errors
/// A directory cannot be read.
pub async fn list(client: &Client, filter: &Filter) -> Result<Vec<Volume>> {
    let mut names = Vec::new();
    match fs::read_dir(client.paths.volumes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => {
            for entry in entries.context(|| "list the volumes".to_owned())? {
                names.push(entry.context(|| "list the volumes".to_owned())?.file_name().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    let used = if filter.asks_for_use() { in_use(client).await? } else { Vec::new() };
    let mut volumes = Vec::new();
    for name in names {
        if check(&name).is_ok()
            && let Some(volume) = load(client, &name)?
            && filter.passes(&volume, used.iter().any(|(used, _)| *used == name))
        {
            volumes.push(volume);
        }
    }
    Ok(volumes)
}

/// One volume.
///
/// # Errors
/// There is none of that name.
pub async fn inspect(client: &Client, name: &str) -> Result<Volume> {
    let found = if check(name).is_ok() { load(client, name)? } else { None };
    found.ok_or_else(|| missing(name))
}

/// Removes one. With `force`, that there is none is as well.
///
/// # Errors
/// There is none, or a container has it.
pub async fn remove(client: &Client, name: &str, force: bool) -> Result<()> {
    settle(client).await?;
    let _lock = lock(client)?;
    let found = if check(name).is_ok() { load(client, name)? } else { None };
    if found.is_none() {
        return if force { Ok(()) } else { Err(missing(name)) };
    }
    let users: Vec<String> =
        recorded(client)?.into_iter().filter(|(used, _)| used == name).map(|(_, container)| container).collect();
    if !users.is_empty() {
        return Err(Error::conflict(format!(
            "remove {name}: volume is in use - [{}]: remove the containers first",
            users.join(", ")
        )));
    }
    delete(client, name)
}

/// The lock is held and nobody uses it.
fn delete(client: &Client, name: &str) -> Result<()> {
    let directory = directory(client, name);
    let what = || format!("remove the volume {name:?} in {}", directory.display());
    // Without its record it is no volume any more, however far this comes.
    match fs::remove_file(directory.join("volume.json")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.context(what)?,
    }
    fs::remove_dir_all(&directory).context(what)?;
    events::other(&client.paths, "volume", "destroy", name, &[("driver", "local")]);
    Ok(())
}

/// What a prune took away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Their names.
    pub volumes: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Removes the volumes that no container has and that pass the filter; with `anonymous_only`, only those without a name of their own.
///
/// # Errors
/// One cannot be removed; those before it are gone.
pub async fn prune(client: &Client, filter: &Filter, anonymous_only: bool) -> Result<Pruned> {
    settle(client).await?;
    let all = list(client, filter).await?;
    let _lock = lock(client)?;
    let used = recorded(client)?;
    let mut pruned = Pruned::default();
    for volume in all {
        if used.iter().any(|(name, _)| *name == volume.name) || anonymous_only && !volume.anonymous {
            continue;
        }
        pruned.bytes += size(Path::new(&volume.mountpoint))?;
        delete(client, &volume.name)?;
        pruned.volumes.push(volume.name);
    }
    Ok(pruned)
}

/// How much disk a volume takes, in bytes of its files.
///
/// # Errors
/// It cannot be read.
pub fn size(directory: &Path) -> Result<u64> {
    let what = || format!("measure {}", directory.display());
    let mut bytes = 0;
    for entry in fs::read_dir(directory).context(what)? {
        let entry = entry.context(what)?;
        // Containers may be at work in it.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Which containers have which volume: (volume, container's id). What was left of one by a killed command is gone then.
async fn in_use(client: &Client) -> Result<Vec<(String, String)>> {
    truth::list(client).await?.whole().map(|all| users(&all)).map_err(unknown)
}

/// Ends what a killed command left of containers with volumes. Without our lock: it is taken there.
async fn settle(client: &Client) -> Result<()> {
    truth::users(client, |it| volumes_of(it).next().is_some()).await.map(drop).map_err(unknown)
}

/// The same as the records have it, for who holds a lock that whoever settles a container may wait for.
fn recorded(client: &Client) -> Result<Vec<(String, String)>> {
    records::list(client)?.whole().map(|all| users(&all)).map_err(unknown)
}

/// One may be that of the container about which nothing is known.
fn unknown(error: Error) -> Error {
    error.within("it is not known which volumes are in use")
}

/// Which of these containers have which volume: (volume, container's id).
#[must_use]
pub fn users(all: &[Container]) -> Vec<(String, String)> {
    all.iter().flat_map(|it| volumes_of(it).map(|name| (name.to_owned(), it.id.clone()))).collect()
}

fn volumes_of(record: &Container) -> impl Iterator<Item = &str> {
    record.mounts.iter().filter(|it| it.kind == "volume").map(|it| it.name.as_str())
}

fn directory(client: &Client, name: &str) -> PathBuf {
    client.paths.volumes().join(name)
}

/// Whoever makes, fills or removes volumes does it alone.
fn lock(client: &Client) -> Result<Flock<fs::File>> {
    disk::make_private(&client.paths.volumes())?;
    disk::flock(&client.paths.volumes().join("_.lock"))
}

/// The record; none if there is no such volume.
fn load(client: &Client, name: &str) -> Result<Option<Volume>> {
    let path = directory(client, name).join("volume.json");
    let mut text = Vec::new();
    let read = fs::File::open(&path).and_then(|file| file.take(LIMIT).read_to_end(&mut text));
    match read.context(|| format!("read {}", path.display())) {
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(_) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::failed(format!("read {}: {error}: it is damaged; remove it, or write it again", path.display()))
        }),
    }
}

fn check(name: &str) -> Result<()> {
    names::check("volume", name).map_err(|error| {
        let remedy = "; if you intended to pass a host directory, use an absolute path";
        if name.contains('/') { Error::usage(format!("{error}{remedy}")) } else { error }
    })
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume: tarectl volume ls lists all"))
}

#[cfg(test)]
mod tests;
