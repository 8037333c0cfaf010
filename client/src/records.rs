//! The containers' records on disk: who may change one, how one becomes visible, and which one a user means.
//!
//! ```text
//! containers/.new-<id>/  <─ rename ─>  containers/<id>/container.json         (0700)     flock on the directory: the lock
//! names/<name> ──> <id>                                                                   a link: taken by whoever makes it
//! ```
//!
//! A record is read without the lock (it is replaced in one step) and changed only with it. The lock goes with the process
//! that holds it, so that a killed one holds nobody up. A name whose container is gone is free. What is hidden is not there yet, or no
//! more, and is removed by whoever finds that nobody is at it.

mod names;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

pub(crate) use self::names::taken;
pub use self::names::{free_name, free_names, holder, rename, take_name};
use crate::client::Client;
use crate::disk::{Reserve, flock, gone, make_private, private, sync};
use crate::error::{Context, Error, Kind, Result};
use crate::record::{self, Container};

/// More is no record.
const RECORD_LIMIT: u64 = 16 << 20;
/// The file of a record in its directory.
const FILE: &str = "container.json";
/// What the name of a directory begins with until its container is whole, and when it is being removed.
const HIDDEN: &str = ".new-";

/// The right to change one container's record; it ends when this is dropped.
#[derive(Debug)]
pub struct Lock {
    directory: PathBuf,
    id: String,
    file: Flock<File>,
}

impl Lock {
    /// Whose.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The record as it is now.
    ///
    /// # Errors
    /// There is none any more: the container was removed while the lock was waited for.
    pub fn load(&self) -> Result<Container> {
        read(&self.directory, &self.id)
    }

    /// Replaces the record, also on a full disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, record: &Container) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::failed(format!("write a record: {error}")))?;
        Reserve::of(&self.directory).replace(&self.directory.join(FILE), &text, 0o600)
    }

    /// Lets a new container's directory be seen, under its id.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn show(&mut self, client: &Client) -> Result<()> {
        let place = client.paths.container(&self.id);
        fs::rename(&self.directory, &place).context(|| format!("make {}", place.display()))?;
        self.directory = place;
        sync(&client.paths.containers())
    }

    /// Removes the directory with all that is in it: the last step of a removal.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(self) -> Result<()> {
        // In one step there is no container any more, and what is not removed by us is nobody's.
        let hidden = self.directory.with_file_name(format!("{HIDDEN}{}", self.id));
        gone(fs::rename(&self.directory, &hidden))
            .and_then(|()| gone(fs::remove_dir_all(&hidden)))
            .context(|| format!("remove {}", hidden.display()))?;
        drop(self.file);
        Ok(())
    }
}

/// Makes the directory of a new container, locked and not visible yet.
///
/// # Errors
/// It cannot be made.
pub fn make(client: &Client, id: &str) -> Result<Lock> {
    make_private(&client.paths.root)?;
    make_private(&client.paths.containers())?;
    make_private(&client.paths.names())?;
    let directory = client.paths.containers().join(format!("{HIDDEN}{id}"));
    // So that none that is seen here is nobody's because its maker has not come to lock it yet.
    let turn = flock(&client.paths.containers())?;
    private().create(&directory).context(|| format!("make {}", directory.display()))?;
    let file = flock(&directory)?;
    drop(turn);
    Ok(Lock { directory, id: id.to_owned(), file })
}

/// Takes the lock of a container, when whoever has it lets it go.
///
/// # Errors
/// There is no such container.
pub fn lock(client: &Client, id: &str) -> Result<Lock> {
    let directory = client.paths.container(id);
    let file = flock(&directory).map_err(|error| none(error, id))?;
    Ok(Lock { directory, id: id.to_owned(), file })
}

/// Takes the lock of a container, and what its record says then. None: it is no more.
///
/// # Errors
/// The record cannot be read.
pub fn hold(client: &Client, id: &str) -> Result<Option<(Lock, Container)>> {
    match lock(client, id).and_then(|lock| lock.load().map(|record| (lock, record))) {
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        held => held.map(Some),
    }
}

/// Takes it if nobody has it; None if somebody has, or there is no such container.
///
/// # Errors
/// The directory cannot be opened.
pub fn try_lock(client: &Client, id: &str) -> Result<Option<Lock>> {
    let directory = client.paths.container(id);
    let opened = match File::open(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context(|| format!("open {}", directory.display()))?,
    };
    match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Some(Lock { directory, id: id.to_owned(), file })),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).context(|| format!("lock {}", directory.display())),
    }
}

/// The record of one container, of which the id is known.
///
/// # Errors
/// There is none.
pub fn load(client: &Client, id: &str) -> Result<Container> {
    read(&client.paths.container(id), id)
}

/// The records that there are.
#[derive(Debug)]
pub struct Listed {
    /// Those that can be read, the oldest first.
    pub records: Vec<Container>,
    /// The ids of the others, and the sentence about each.
    pub damaged: Vec<(String, Error)>,
}

impl Listed {
    /// The records, if these are all: for what may be done only if no container has something.
    ///
    /// # Errors
    /// One cannot be read, so that nobody knows what its container has.
    pub fn whole(self) -> Result<Vec<Container>> {
        match self.damaged.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.records),
        }
    }
}

/// All records. One that goes away meanwhile is left out.
///
/// # Errors
/// The directory cannot be read.
pub fn list(client: &Client) -> Result<Listed> {
    let mut listed = Listed { records: Vec::new(), damaged: Vec::new() };
    for id in ids(client)? {
        match load(client, &id) {
            Ok(record) => listed.records.push(record),
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => listed.damaged.push((id, error)),
        }
    }
    listed.records.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    listed.damaged.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(listed)
}

/// The ids of all containers.
///
/// # Errors
/// The directory cannot be read.
pub fn ids(client: &Client) -> Result<Vec<String>> {
    let directory = client.paths.containers();
    let what = || format!("list {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(what)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.context(what)?.file_name().into_string()
            && is_id(&name)
        {
            ids.push(name);
        }
    }
    Ok(ids)
}

/// The container that a user means: by its whole id, its name, or the beginning of its id.
///
/// # Errors
/// There is none, or the beginning is that of several.
pub fn find(client: &Client, name_or_id: &str) -> Result<Container> {
    let id = find_id(client, name_or_id)?;
    load(client, &id).map_err(|error| none(error, name_or_id))
}

/// As [`find`], the id only.
///
/// # Errors
/// As [`find`].
pub fn find_id(client: &Client, name_or_id: &str) -> Result<String> {
    if is_id(name_or_id) && client.paths.container(name_or_id).is_dir() {
        return Ok(name_or_id.to_owned());
    }
    // Docker's names begin with a slash where programs show them.
    let name = name_or_id.strip_prefix('/').unwrap_or(name_or_id);
    if let Some(id) = holder(client, name)? {
        return Ok(id);
    }
    if name_or_id.is_empty() || !name_or_id.bytes().all(is_hex) {
        return Err(missing(name_or_id));
    }
    let mut found = ids(client)?.into_iter().filter(|id| id.starts_with(name_or_id));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(missing(name_or_id)),
        (Some(_), Some(_)) => Err(Error::usage(format!(
            "several containers' ids begin with {name_or_id:?}: give more digits, or the name"
        ))),
    }
}

/// Removes directories of containers that were never finished, or not removed to the end, when nobody is at them.
///
/// # Errors
/// The lock of all containers cannot be taken.
pub fn sweep(client: &Client) -> Result<()> {
    let directory = client.paths.containers();
    let Ok(entries) = fs::read_dir(&directory) else { return Ok(()) };
    let hidden = entries.flatten().filter(|it| it.file_name().to_string_lossy().starts_with(HIDDEN));
    for path in hidden.map(|it| it.path()) {
        let _turn = flock(&directory)?;
        if let Ok(file) = File::open(&path)
            && let Ok(_held) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        {
            // What cannot be removed now is in nobody's way, and may be another time.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

/// A new id: 64 hexadecimal digits by chance.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context(|| "read /dev/urandom".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The twelve digits that people read.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Whether this has the form of a whole id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

const fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// There is no such container.
pub(crate) fn missing(name_or_id: &str) -> Error {
    Error::not_found(format!("there is no container {name_or_id:?}: tarectl ps -a lists all"))
}

fn none(error: Error, name: &str) -> Error {
    if error.kind == Kind::NotFound { missing(name) } else { error }
}

fn read(directory: &Path, id: &str) -> Result<Container> {
    let path = directory.join(FILE);
    let damaged = |why: &dyn std::fmt::Display| {
        let (short, path) = (short(id), path.display());
        Error::failed(format!(
            "the record of container {short} is damaged: {path}: {why}: put a copy of it back, or remove the container \
             with tarectl rm -f {short}"
        ))
    };
    let mut text = Vec::new();
    match File::open(&path).and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut text)) {
        // A directory is there only as long as its record: it goes away under this name as a whole.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.is_dir() => return Err(missing(id)),
        opened => opened.map_err(|error| damaged(&error))?,
    };
    let record: Container = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
    if record.record_version > record::VERSION {
        return Err(Error::failed(format!(
            "{} was written by a newer tarectl (version {} of the record, this one knows {}): use that one",
            path.display(),
            record.record_version,
            record::VERSION
        )));
    }
    Ok(record)
}

#[cfg(test)]
mod tests;
