//! What is so, as against what records say: for every command that shows containers or acts on them.
//!
//! A record that nothing speaks against is believed (its shim listens, its process is there: two system calls). Of any other the shim
//! is asked, and what is left to be done is done; see [`crate::ended`].

use crate::client::Client;
use crate::error::{Kind, Result};
use crate::record::{Container, Status};
use crate::records::{self, Listed, Lock};
use crate::{ended, import};

/// The container that a user means, as it is.
///
/// # Errors
/// There is none.
pub async fn find(client: &Client, name_or_id: &str) -> Result<Container> {
    let record = records::find(client, name_or_id)?;
    if ended::is_plausible(client, &record) {
        return Ok(record);
    }
    hold(client, name_or_id).await.map(|(_, record)| record)
}

/// All containers as they are, the oldest first, and those that nothing is known of. Those that another command is at are shown as
/// their records have them.
///
/// # Errors
/// The records cannot be listed.
pub async fn list(client: &Client) -> Result<Listed> {
    records::sweep(client)?;
    import::sweep(client).await?;
    let mut found = Vec::new();
    let Listed { records, mut damaged } = records::list(client)?;
    for record in records {
        if ended::is_plausible(client, &record) {
            found.push(record);
            continue;
        }
        let Some(lock) = records::try_lock(client, &record.id)? else {
            // What is just being made or removed is not there yet, or no more.
            if record.state.status != Status::Removing {
                found.push(record);
            }
            continue;
        };
        let id = record.id.clone();
        match lock.load() {
            Ok(now) => match ended::check(client, lock, now).await {
                Ok(Some((_, record))) => found.push(record),
                Ok(None) => {}
                // What cannot be cleaned up now is told by the command that needs it.
                Err(_) => found.extend(records::load(client, &id).ok()),
            },
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => damaged.push((id, error)),
        }
    }
    Ok(Listed { records: found, damaged })
}

/// Those containers for which this holds, as they are when whoever is at one is done: for what may go only if nobody has it. What is
/// just being made has it already.
///
/// # Errors
/// A record cannot be read: it may be that of one of them.
pub async fn users(client: &Client, of: impl Fn(&Container) -> bool) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    for record in records::list(client)?.whole()?.into_iter().filter(of) {
        match find(client, &record.id).await {
            Ok(record) => found.push(record),
            Err(error) if error.kind == Kind::NotFound => {}
            // What cannot be cleaned up now still has it.
            Err(_) => found.push(record),
        }
    }
    Ok(found)
}

/// The container that a user means, as it is, with the right to change it.
///
/// # Errors
/// There is none.
pub(crate) async fn hold(client: &Client, name_or_id: &str) -> Result<(Lock, Container)> {
    let id = records::find_id(client, name_or_id)?;
    let lock = records::lock(client, &id)?;
    let record = lock.load()?;
    ended::check(client, lock, record).await?.ok_or_else(|| records::missing(name_or_id))
}
