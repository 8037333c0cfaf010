//! The containers' records on disk: who may change one, how one becomes visible, and which one a user means.
//!
//! ```text
//! containers/.new-<id>/   ─ rename ─>   containers/<id>/container.json        (0700)     flock on the directory: the lock
//! names/<name> ──> <id>                                                                   a link: taken by whoever makes it
//! ```
//!
//! A record is read without the lock (it is replaced in one step) and changed only with it. The lock goes with the process
//! that holds it, so that a killed one holds nobody up. A name whose container is gone is free.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::record::{self, Container};

/// More is no record.
const RECORD_LIMIT: u64 = 16 << 20;
/// The file of a record in its directory.
const FILE: &str = "container.json";
/// What a directory is called until its container is whole.
const NEW: &str = ".new-";

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

    /// Replaces the record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, record: &Container) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::failed(format!("write a record: {error}")))?;
        replace(&self.directory.join(FILE), &text, 0o600)
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
        // The record first: without it there is no container.
        gone(fs::remove_file(self.directory.join(FILE)))
            .and_then(|()| gone(fs::remove_dir_all(&self.directory)))
            .context(|| format!("remove {}", self.directory.display()))?;
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
    let directory = client.paths.containers().join(format!("{NEW}{id}"));
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

/// All records, the oldest first. One that goes away meanwhile is left out.
///
/// # Errors
/// The directory or a record cannot be read.
pub fn list(client: &Client) -> Result<Vec<Container>> {
    let mut records = Vec::new();
    for id in ids(client)? {
        match load(client, &id) {
            Err(error) if error.kind == Kind::NotFound => {}
            record => records.push(record?),
        }
    }
    records.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    Ok(records)
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
    let missing = || Error::not_found(format!("there is no container {name_or_id:?}: tarectl ps -a lists all"));
    if name_or_id.is_empty() || !name_or_id.bytes().all(is_hex) {
        return Err(missing());
    }
    let mut found = ids(client)?.into_iter().filter(|id| id.starts_with(name_or_id));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(missing()),
        (Some(_), Some(_)) => Err(Error::usage(format!(
            "several containers' ids begin with {name_or_id:?}: give more digits, or the name"
        ))),
    }
}

/// Who has this name; a name that is left over from a removed container is nobody's.
///
/// # Errors
/// The link cannot be read.
pub fn holder(client: &Client, name: &str) -> Result<Option<String>> {
    if crate::names::check("container", name).is_err() {
        return Ok(None);
    }
    let link = client.paths.names().join(name);
    let id = match fs::read_link(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        target => target.context(|| format!("read {}", link.display()))?,
    };
    let id = id.to_string_lossy().into_owned();
    if !is_id(&id) {
        return Ok(None);
    }
    match load(client, &id) {
        Ok(record) => Ok((record.name == name).then_some(id)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        // It cannot be read, and may be its.
        Err(_) => Ok(Some(id)),
    }
}

/// Takes a name for a container that is visible already.
///
/// # Errors
/// Another container has it.
pub fn take_name(client: &Client, name: &str, id: &str) -> Result<()> {
    let link = client.paths.names().join(name);
    let what = || format!("make {}", link.display());
    match symlink(id, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Replacing what is left over is done by one at a time; no lock is needed to find a name free.
            let _turn = flock(&client.paths.names())?;
            replace_name(client, name, id)?;
        }
        made => made.context(what)?,
    }
    sync(&client.paths.names())
}

/// Takes a name that is there, if it is nobody's. Nobody else replaces one meanwhile.
fn replace_name(client: &Client, name: &str, id: &str) -> Result<()> {
    let link = client.paths.names().join(name);
    match holder(client, name)? {
        Some(other) if other == id => return Ok(()),
        Some(other) => {
            return Err(Error::conflict(format!(
                "the name {name:?} is that of container {}: remove or rename that one, or choose another name",
                short(&other)
            )));
        }
        None => {}
    }
    gone(fs::remove_file(&link)).and_then(|()| symlink(id, &link)).context(|| format!("make {}", link.display()))
}

/// Gives a container another name; the one it had.
///
/// # Errors
/// Another container has the new one.
pub fn rename(client: &Client, lock: &Lock, record: &mut Container, new: &str) -> Result<String> {
    // Until the record has the new name, whoever else wants it finds a link that says nothing.
    let turn = flock(&client.paths.names())?;
    replace_name(client, new, &record.id)?;
    let old = std::mem::replace(&mut record.name, new.to_owned());
    lock.save(record)?;
    sync(&client.paths.names())?;
    drop(turn);
    free_name(client, &old, &record.id)?;
    Ok(old)
}

/// Gives a name back, if it is this container's.
///
/// # Errors
/// The link cannot be removed.
pub fn free_name(client: &Client, name: &str, id: &str) -> Result<()> {
    let link = client.paths.names().join(name);
    let _turn = flock(&client.paths.names())?;
    match fs::read_link(&link) {
        Ok(target) if target.as_os_str() == id => {
            gone(fs::remove_file(&link)).context(|| format!("remove {}", link.display()))
        }
        _ => Ok(()),
    }
}

/// Removes directories of containers that were never finished, when nobody is at them.
///
/// # Errors
/// One cannot be removed.
pub fn sweep(client: &Client) -> Result<()> {
    let directory = client.paths.containers();
    let Ok(entries) = fs::read_dir(&directory) else { return Ok(()) };
    let unfinished = entries.flatten().filter(|it| it.file_name().to_string_lossy().starts_with(NEW));
    for path in unfinished.map(|it| it.path()) {
        let _turn = flock(&directory)?;
        if let Ok(file) = File::open(&path)
            && let Ok(_held) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        {
            gone(fs::remove_dir_all(&path)).context(|| format!("remove {}", path.display()))?;
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

/// A lock on a file or directory, made as a file if it is not there; waits for whoever has it.
///
/// # Errors
/// It cannot be opened.
pub fn flock(path: &Path) -> Result<Flock<File>> {
    let what = || format!("lock {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.extension().is_some_and(|it| it == "lock") => {
            OpenOptions::new().create(true).append(true).mode(0o600).open(path).context(what)?
        }
        file => file.context(what)?,
    };
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context(what)
}

/// Makes a directory that only we enter, if it is not there, and those above it.
///
/// # Errors
/// It cannot be made.
pub fn make_private(path: &Path) -> Result<()> {
    private().recursive(true).create(path).context(|| format!("make {}", path.display()))
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Replaces a file in one step: nobody sees half of it, and a power cut leaves the old or the new.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}~", std::process::id()));
    let fresh = path.with_file_name(name);
    let write = || {
        gone(fs::remove_file(&fresh))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(content)?;
        // What is renamed over the old one is on the disk; that the rename itself is not yet leaves the old one.
        file.sync_data()?;
        fs::rename(&fresh, path)
    };
    write().context(|| format!("write {}", path.display())).inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&fresh);
    })
}

/// What was made in a directory outlives a power cut.
fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|it| it.sync_all()).context(|| format!("sync {}", directory.display()))
}

/// That it was gone already is as well.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn none(error: Error, name: &str) -> Error {
    match error.kind {
        Kind::NotFound => Error::not_found(format!("there is no container {name:?}: tarectl ps -a lists all")),
        _ => error,
    }
}

fn read(directory: &Path, id: &str) -> Result<Container> {
    let path = directory.join(FILE);
    let mut text = Vec::new();
    let opened = File::open(&path).and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut text));
    opened.context(|| format!("read {}", path.display())).map_err(|error| none(error, id))?;
    let record: Container = serde_json::from_slice(&text).map_err(|error| {
        Error::failed(format!(
            "read {}: {error}: it is damaged; tarectl rm -f {} removes the container",
            path.display(),
            short(id)
        ))
    })?;
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
mod tests {
    use super::*;
    use crate::client::Programs;
    use crate::paths::Paths;

    fn instance() -> (tempfile::TempDir, Client) {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let paths = Paths { root: place("root"), run: place("run"), store: place("store.sock") };
        let programs = Programs { store: place("no"), shim: place("no"), runtime: place("no"), tarectl: place("no") };
        let client = Client::new(paths, programs);
        (dir, client)
    }

    fn made(client: &Client, id: &str, name: &str) -> Lock {
        let mut lock = make(client, id).unwrap();
        lock.save(&Container { id: id.into(), name: name.into(), ..Container::default() }).unwrap();
        lock.show(client).unwrap();
        take_name(client, name, id).unwrap();
        lock
    }

    #[test]
    fn a_container_is_found_by_name_id_and_beginning() {
        let (_dir, client) = instance();
        let (one, other) = ("ab".repeat(32), format!("abc{}", "0".repeat(61)));
        drop(made(&client, &one, "web"));
        drop(made(&client, &other, "db"));
        for (word, id) in [("web", &one), ("/web", &one), (one.as_str(), &one), ("aba", &one), ("abc", &other)] {
            assert_eq!(&find(&client, word).unwrap().id, id, "{word}");
        }
        assert!(find(&client, "ab").unwrap_err().message.contains("several"));
        for word in ["", "nobody", "ff", "../web", "a/b"] {
            assert_eq!(find(&client, word).unwrap_err().kind, Kind::NotFound, "{word}");
        }
        assert_eq!(list(&client).unwrap().len(), 2);
    }

    #[test]
    fn a_name_is_one_containers_and_free_when_that_is_gone() {
        let (_dir, client) = instance();
        let (one, other) = ("1".repeat(64), "2".repeat(64));
        let lock = made(&client, &one, "web");
        assert_eq!(take_name(&client, "web", &other).unwrap_err().kind, Kind::Conflict);
        take_name(&client, "web", &one).unwrap();
        lock.remove().unwrap();
        assert_eq!(holder(&client, "web").unwrap(), None);
        drop(made(&client, &other, "web"));
        free_name(&client, "web", &one).unwrap();
        assert_eq!(holder(&client, "web").unwrap().unwrap(), other);
    }

    #[test]
    fn one_at_a_time_changes_a_record() {
        let (_dir, client) = instance();
        let id = "3".repeat(64);
        let held = made(&client, &id, "web");
        assert!(try_lock(&client, &id).unwrap().is_none());
        drop(held);
        let lock = try_lock(&client, &id).unwrap().unwrap();
        lock.remove().unwrap();
        assert_eq!(super::lock(&client, &id).unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn what_is_not_finished_is_nobodys() {
        let (_dir, client) = instance();
        let lock = make(&client, &"4".repeat(64)).unwrap();
        let place = client.paths.containers().join(format!("{NEW}{}", lock.id()));
        assert!(ids(&client).unwrap().is_empty());
        sweep(&client).unwrap();
        assert!(place.is_dir(), "somebody is at it");
        drop(lock);
        sweep(&client).unwrap();
        assert!(!place.is_dir());
    }

    #[test]
    fn a_record_of_another_time_or_none_is_said() {
        let (_dir, client) = instance();
        let id = "5".repeat(64);
        let lock = made(&client, &id, "web");
        lock.save(&Container { record_version: record::VERSION + 1, id: id.clone(), ..Container::default() }).unwrap();
        assert!(lock.load().unwrap_err().message.contains("newer tarectl"));
        fs::write(client.paths.container(&id).join(FILE), b"{").unwrap();
        assert!(lock.load().unwrap_err().message.contains("damaged"));
    }
}
