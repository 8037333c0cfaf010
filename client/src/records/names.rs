//! Whose a name is: that of the container that its link leads to, if that has it still.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use super::{Lock, is_id, load, short};
use crate::client::Client;
use crate::disk::{flock, gone, sync};
use crate::error::{Context, Error, Kind, Result};
use crate::record::Container;

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
        Some(other) => return Err(taken(name, &other)),
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

/// Gives back the names of a container whose record does not tell them.
///
/// # Errors
/// A link cannot be removed.
pub fn free_names(client: &Client, id: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(client.paths.names()) else { return Ok(()) };
    let leads_to_it = |it: &fs::DirEntry| fs::read_link(it.path()).is_ok_and(|target| target.as_os_str() == id);
    for link in entries.flatten().filter(leads_to_it) {
        free_name(client, &link.file_name().to_string_lossy(), id)?;
    }
    Ok(())
}

/// Somebody else has it.
pub(crate) fn taken(name: &str, by: &str) -> Error {
    Error::conflict(format!(
        "the name {name:?} is that of container {}: remove or rename that one, or choose another name",
        short(by)
    ))
}
