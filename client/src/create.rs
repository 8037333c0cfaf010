//! `create`: from what the user said to a container that can be started.
//!
//! ```text
//! image resolved ─> record completed and checked ─> directory, record "removing", visible ─> name ─> snapshot ─> volumes ─> record "created"
//! ```
//!
//! Until the last step the record says that the container is being removed: what a killed create leaves is removed by the next command.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use tare_proto::types::Mount;

use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::image::{self, Policy};
use crate::record::{Container, Status};
use crate::records::{self, Lock};
use crate::time::Time;
use crate::{events, names, network, rm, root, shim, spec, truth, volumes};

/// How many generated names are tried.
const ATTEMPTS: u32 = 1000;

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `config` and `host_config` as the user said them, merged with nothing.
    pub record: Container,
    /// When to ask the registry.
    pub pull: Policy,
    /// What is pulled then, and how.
    pub fetch: image::pull::Options,
    /// None: one is made up.
    pub name: Option<String>,
}

/// A container that was just made, with what its start would otherwise have to find out again.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) lock: Lock,
    pub(crate) record: Container,
    pub(crate) prepared: Prepared,
}

/// The root of a container.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What the shim mounts.
    pub(crate) mounts: Vec<Mount>,
    /// The same, detached, for looking at.
    pub(crate) root: OwnedFd,
}

/// Makes a container.
///
/// # Errors
/// A sentence about what the user said, or what failed; nothing is left behind.
pub async fn create(client: &Client, request: Request) -> Result<Container> {
    make(client, request).await.map(|made| made.record)
}

/// The same, still locked.
pub(crate) async fn make(client: &Client, request: Request) -> Result<Made> {
    let Request { mut record, pull, fetch, name } = request;
    if let Some(name) = &name {
        names::check("container", name)?;
        must_be_free(client, name).await?;
    }
    shim::check_runtime(client, &record)?;
    resolve_others(client, &mut record).await?;
    network::resolve(client, &mut record).await?;
    let image = image::resolve(client, &record.config.image, pull, &fetch).await?;
    record.image = image.of();
    record.id = records::new_id()?;
    record.created = Time::now();
    spec::complete(&mut record, &image.config)?;

    let mut lock = records::make(client, &record.id)?;
    record.state.status = Status::Removing;
    record.snapshot.clone_from(&record.id);
    lock.save(&record)?;
    lock.show(client)?;
    match fill(client, &lock, &mut record, name, &image.chain_id).await {
        Ok(prepared) => {
            events::container(&client.paths, "create", &record, &[]);
            Ok(Made { lock, record, prepared })
        }
        Err(error) => {
            // The first failure is the one to tell; what stays is removed by the next command.
            record.host_config.auto_remove = true;
            let _ = rm::destroy(client, lock, record).await;
            Err(error)
        }
    }
}

/// What belongs to a container beside its record.
async fn fill(
    client: &Client,
    lock: &Lock,
    record: &mut Container,
    name: Option<String>,
    chain_id: &str,
) -> Result<Prepared> {
    take_name(client, lock, record, name)?;
    let mounts = client.store.prepare(&record.snapshot, chain_id).await?;
    let root = root::view(&mounts)?;
    volumes::prepare(client, record, root.as_fd()).await?;
    write_id(record)?;
    record.state.status = Status::Created;
    lock.save(record)?;
    Ok(Prepared { mounts, root })
}

/// A name that is not free is told before an image is pulled for it.
async fn must_be_free(client: &Client, name: &str) -> Result<()> {
    match records::holder(client, name)? {
        // Which may be one that is just being removed.
        Some(id) => match truth::find(client, &id).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            _ => Err(records::taken(name, &id)),
        },
        None => Ok(()),
    }
}

/// The record says first what is taken: so what a killed create took is given back.
fn take_name(client: &Client, lock: &Lock, record: &mut Container, name: Option<String>) -> Result<()> {
    if let Some(name) = name {
        record.name = name;
        lock.save(record)?;
        return records::take_name(client, &record.name, &record.id);
    }
    for attempt in 0..ATTEMPTS {
        record.name = names::generate(attempt);
        lock.save(record)?;
        match records::take_name(client, &record.name, &record.id) {
            Err(error) if error.kind == Kind::Conflict => {}
            taken => return taken,
        }
    }
    Err(Error::failed(format!("make up a name: {ATTEMPTS} were all taken: give one with --name")))
}

/// Other containers are kept by their ids: their names may change.
async fn resolve_others(client: &Client, record: &mut Container) -> Result<()> {
    let host = &mut record.host_config;
    for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
        if let Some(name) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", truth::find(client, name).await?.id);
        }
    }
    for from in &mut host.volumes_from {
        let (name, options) =
            from.split_once(':').map_or((from.as_str(), None), |(name, options)| (name, Some(options)));
        let id = truth::find(client, name).await?.id;
        *from = options.map_or_else(|| id.clone(), |options| format!("{id}:{options}"));
    }
    Ok(())
}

/// `--cidfile`: a file that was there is somebody else's.
fn write_id(record: &Container) -> Result<()> {
    let path = &record.host_config.container_id_file;
    if path.is_empty() {
        return Ok(());
    }
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    opened.and_then(|mut file| file.write_all(record.id.as_bytes())).map_err(|error| {
        let why = if error.kind() == std::io::ErrorKind::AlreadyExists {
            "it is there already: remove it, or name another".to_owned()
        } else {
            error.to_string()
        };
        Error::failed(format!("write the container's id to {path}: {why}"))
    })
}

/// The root of a container that is there, asked of the store.
pub(crate) async fn prepared(client: &Client, snapshot: &str) -> Result<Prepared> {
    let mounts = client.store.mounts(snapshot).await?;
    let root = root::view(&mounts)?;
    Ok(Prepared { mounts, root })
}
