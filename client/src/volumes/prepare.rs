//! A container's mounts: what -v, --mount, --volumes-from and the image's volumes come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{fill, load, lock, make, users, volumes_of};
use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::record::{Container, Map, Mount, MountSpec};
use crate::{beneath, paths, records};

/// One mount to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) mount: Mount,
    /// For a new volume.
    labels: Map,
    anonymous: bool,
    /// What the image has there is copied into a volume that is empty.
    copy: bool,
    /// The host's directory is made if it is not there.
    make_source: bool,
}

/// Fills `record.mounts`, makes the volumes that are not there, and fills the empty ones with what the image has in their place.
/// `root` is the container's root, which is only read.
///
/// # Errors
/// Two mounts have one place, a source is not there, or a volume cannot be made. What was made until then is in `record.mounts`.
pub async fn prepare(client: &Client, record: &mut Container, root: BorrowedFd<'_>) -> Result<()> {
    let inherited = inherited(client, &record.host_config.volumes_from)?;
    let wanted = plan(record, inherited)?;
    for it in wanted.iter().filter(|it| it.mount.kind == "bind") {
        source(&it.mount.source, it.make_source)?;
    }
    record.mounts = wanted.iter().map(|it| it.mount.clone()).collect();
    if !wanted.iter().any(|it| it.mount.kind == "volume") {
        return Ok(());
    }
    let _lock = lock(client)?;
    for (it, mount) in wanted.iter().zip(&mut record.mounts).filter(|(it, _)| it.mount.kind == "volume") {
        let volume = make(client, &it.mount.name, &it.labels, it.anonymous)?;
        mount.source.clone_from(&volume.mountpoint);
        if it.copy {
            fill::fill(client, &volume, root, &mount.destination)?;
        }
    }
    Ok(())
}

/// Removes the volumes without a name that this container has and no other. That one is gone already is as well. While another container's
/// record cannot be read they stay, for a later prune: it may have them too, and this container is to go all the same.
///
/// # Errors
/// One cannot be removed.
pub async fn remove_anonymous(client: &Client, record: &Container) -> Result<()> {
    let mine: Vec<&str> = volumes_of(record).collect();
    if mine.is_empty() {
        return Ok(());
    }
    let _lock = lock(client)?;
    let Ok(all) = records::list(client)?.whole() else { return Ok(()) };
    let used = users(&all);
    for name in mine {
        let by_others = used.iter().any(|(volume, container)| volume == name && *container != record.id);
        if !by_others && load(client, name)?.is_some_and(|it| it.anonymous) {
            super::delete(client, name)?;
        }
    }
    Ok(())
}

/// The mounts of the containers of `--volumes-from`, by place.
fn inherited(client: &Client, from: &[String]) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for text in from {
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if name.is_empty() {
            return Err(Error::usage(format!("--volumes-from {text:?} names no container: give NAME or NAME:ro")));
        }
        let parts: Vec<&str> = mode.split(',').collect();
        if parts.iter().any(|it| !matches!(*it, "ro" | "rw" | "z" | "Z")) {
            return Err(Error::usage(format!("invalid mode: {mode}: --volumes-from takes NAME, NAME:ro or NAME:rw")));
        }
        let other = records::find(client, name)?;
        for mount in other.mounts.into_iter().filter(|it| it.kind != "tmpfs") {
            let writable = mount.writable && !parts.contains(&"ro");
            mounts.push(Mount { writable, ..mount });
        }
    }
    Ok(mounts)
}

/// What the record comes to. Pure, but that names for new volumes are made up.
pub(super) fn plan(record: &Container, inherited: Vec<Mount>) -> Result<Vec<Wanted>> {
    let host = &record.host_config;
    let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
    for mount in inherited {
        // What it shares was filled by who made it.
        let wanted = Wanted { mount, labels: Map::new(), anonymous: false, copy: false, make_source: false };
        all.insert(wanted.mount.destination.clone(), wanted);
    }
    let tmpfs: BTreeSet<String> = host.tmpfs.keys().map(|it| clean(it)).collect();
    let mut asked = BTreeSet::new();
    let binds = host.binds.iter().map(|it| bind(it));
    for wanted in binds.chain(host.mounts.iter().map(from_mount)) {
        let wanted = wanted?;
        let place = wanted.mount.destination.clone();
        if tmpfs.contains(&place) || !asked.insert(place.clone()) {
            return Err(Error::usage(format!("duplicate mount point: {place}: give each place in the container once")));
        }
        all.insert(place, wanted);
    }
    for place in record.config.volumes.iter().flat_map(BTreeMap::keys) {
        let place = destination(place)?;
        if !all.contains_key(&place) && !tmpfs.contains(&place) {
            let mount = volume(records::new_id()?, &place, true, "");
            all.insert(place, Wanted { mount, labels: Map::new(), anonymous: true, copy: true, make_source: false });
        }
    }
    Ok(all.into_values().collect())
}

fn clean(path: &str) -> String {
    paths::text(&beneath::lexical(Path::new(path)))
}

fn destination(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::usage(format!("invalid mount path: '{path}': a path in the container must be absolute")));
    }
    match clean(path) {
        place if place == "/" => {
            Err(Error::usage("invalid specification: destination can't be '/': mount below the container's root"))
        }
        place => Ok(place),
    }
}

fn volume(name: String, destination: &str, writable: bool, mode: &str) -> Mount {
    Mount {
        kind: "volume".to_owned(),
        name,
        source: String::new(),
        destination: destination.to_owned(),
        driver: "local".to_owned(),
        mode: mode.to_owned(),
        writable,
        propagation: String::new(),
    }
}

/// `source:target[:options]`.
fn bind(text: &str) -> Result<Wanted> {
    let mut parts = text.splitn(3, ':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return Err(Error::usage(format!("invalid volume specification: '{text}': give SOURCE:TARGET[:OPTIONS]")));
    };
    let options = parts.next().unwrap_or_default();
    let mut propagation = "";
    let (mut writable, mut copy) = (true, true);
    for option in options.split(',').filter(|it| !it.is_empty()) {
        match option {
            "ro" => writable = false,
            "nocopy" | "volume-nocopy" => copy = false,
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => propagation = option,
            // Labels matter with SELinux, consistency on other systems.
            "rw" | "z" | "Z" | "copy" | "consistent" | "cached" | "delegated" => {}
            _ => return Err(Error::usage(format!("invalid mode: {options}: -v {text:?} has an option that is none"))),
        }
    }
    let destination = destination(target)?;
    let wanted = |mount, copy, make_source| Wanted { mount, labels: Map::new(), anonymous: false, copy, make_source };
    if source.starts_with('/') {
        let mount = host_mount(source, &destination, writable, options, propagation);
        return Ok(wanted(mount, false, true));
    }
    super::check(source)?;
    let mode = if options.is_empty() { "z" } else { options };
    Ok(wanted(volume(source.to_owned(), &destination, writable, mode), copy, false))
}

fn host_mount(source: &str, destination: &str, writable: bool, mode: &str, propagation: &str) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        name: String::new(),
        source: clean(source),
        destination: destination.to_owned(),
        driver: String::new(),
        mode: mode.to_owned(),
        writable,
        propagation: if propagation.is_empty() { "rprivate" } else { propagation }.to_owned(),
    }
}

fn from_mount(spec: &MountSpec) -> Result<Wanted> {
    let destination = destination(&spec.target)?;
    let writable = !spec.read_only;
    let wanted =
        |mount, anonymous, copy| Wanted { mount, labels: spec.labels.clone(), anonymous, copy, make_source: false };
    match spec.kind.as_str() {
        "bind" if spec.source.starts_with('/') => {
            Ok(wanted(host_mount(&spec.source, &destination, writable, "", &spec.propagation), false, false))
        }
        "bind" => Err(Error::usage(format!(
            "invalid mount config for type \"bind\": source {:?} is not an absolute path",
            spec.source
        ))),
        "volume" | "" => {
            let anonymous = spec.source.is_empty();
            let name = if anonymous { records::new_id()? } else { spec.source.clone() };
            super::check(&name)?;
            // A part of a volume is somebody's already, or not there.
            let copy = !spec.no_copy && spec.subpath.is_empty();
            Ok(wanted(volume(name, &destination, writable, "z"), anonymous, copy))
        }
        "tmpfs" => {
            Ok(wanted(Mount { kind: "tmpfs".to_owned(), destination, writable, ..Mount::default() }, false, false))
        }
        other => Err(Error::usage(format!(
            "invalid mount config for type {other:?}: mount type unknown: there are bind, volume and tmpfs"
        ))),
    }
}

/// A directory of the host that is bound: -v makes it as docker does, --mount wants it to be there.
fn source(path: &str, make: bool) -> Result<()> {
    match Path::new(path).metadata().context(|| format!("look at {path}, which is to be mounted")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::NotFound && make => DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .context(|| format!("make {path}, which is to be mounted and is not there")),
        Err(error) if error.kind == Kind::NotFound => Err(Error::usage(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {path}: make it first"
        ))),
        Err(error) => Err(error),
    }
}
