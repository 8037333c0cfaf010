//! `restart`: a container is stopped, if it runs, and started.
//!
//! The end of one that is to be removed then (`--rm`) is none while somebody holds `restart.lock` in its directory. Whoever is killed between
//! the end and the start leaves one that has ended, and that the next command removes.

use std::path::PathBuf;

use crate::background::{self, Turn};
use crate::client::Client;
use crate::error::Result;
use crate::record::{Container, Status};
use crate::{events, records, start, stop, truth};

/// Stops and starts a container; `seconds` and `signal` as with [`stop::stop`].
///
/// # Errors
/// There is none, or it cannot be started.
pub async fn restart(client: &Client, name: &str, seconds: Option<i64>, signal: Option<&str>) -> Result<()> {
    let mut record = truth::find(client, name).await?;
    let mut _turn = None;
    if record.host_config.auto_remove {
        let held = Turn::wait(&turn(client, &record.id))?;
        _turn = Some(held.ok_or_else(|| records::missing(name))?);
        // Another may have restarted it, or removed it, meanwhile.
        record = truth::find(client, &record.id).await?;
    }
    if matches!(record.state.status, Status::Running | Status::Paused | Status::Restarting) {
        stop::stop(client, &record.id, seconds, signal).await?;
    }
    start::start(client, &record.id, &start::Options::default()).await?;
    events::container(&client.paths, "restart", &record, &[]);
    Ok(())
}

/// Whether a container that ends is at the end that it is to be removed at.
pub(crate) fn is_last_end(client: &Client, record: &Container) -> bool {
    record.host_config.auto_remove && !background::is_taken(&turn(client, &record.id))
}

/// What whoever restarts it holds.
fn turn(client: &Client, id: &str) -> PathBuf {
    client.paths.container(id).join("restart.lock")
}
