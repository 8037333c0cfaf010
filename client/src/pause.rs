//! `pause` and `unpause`: a container's processes stop where they are, and go on.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::{Container, Status};
use crate::records::Lock;
use crate::shim::Shim;
use crate::{commit, events, truth};

/// Stops its processes where they are.
///
/// # Errors
/// There is no such container, it does not run, or is paused already.
pub async fn pause(client: &Client, name: &str) -> Result<()> {
    let (lock, mut record) = truth::hold(client, name).await?;
    match record.state.status {
        Status::Running => {}
        Status::Paused => return Err(Error::conflict(format!("container {} is paused already", record.name))),
        _ => return Err(not_running(&record.name)),
    }
    // What a killed one has left is not to end what is asked for now.
    commit::forget_killed(client, &record.id);
    Shim::of(&record).await?.pause().await?;
    record.state.status = Status::Paused;
    lock.save(&record)?;
    events::container(&client.paths, "pause", &record, &[]);
    Ok(())
}

/// Lets them go on.
///
/// # Errors
/// There is no such container, or it is not paused.
pub async fn unpause(client: &Client, name: &str) -> Result<()> {
    let (lock, mut record) = truth::hold(client, name).await?;
    match record.state.status {
        Status::Paused => {}
        Status::Running => return Err(Error::conflict(format!("container {} is not paused", record.name))),
        _ => return Err(not_running(&record.name)),
    }
    resume(client, &lock, &mut record).await
}

/// The same for one that is known to be paused.
pub(crate) async fn resume(client: &Client, lock: &Lock, record: &mut Container) -> Result<()> {
    Shim::of(record).await?.resume().await?;
    record.state.status = Status::Running;
    lock.save(record)?;
    events::container(&client.paths, "unpause", record, &[]);
    Ok(())
}

fn not_running(name: &str) -> Error {
    Error::conflict(format!("container {name} is not running: start it first"))
}
