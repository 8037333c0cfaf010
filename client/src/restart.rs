//! `restart`: a container is stopped, if it runs, and started.

use crate::client::Client;
use crate::error::Result;
use crate::record::Status;
use crate::{events, records, start, stop, truth};

/// Stops and starts a container; `seconds` and `signal` as with [`stop::stop`].
///
/// # Errors
/// There is none, or it cannot be started.
pub async fn restart(client: &Client, name: &str, seconds: Option<i64>, signal: Option<&str>) -> Result<()> {
    let (lock, mut record) = truth::hold(client, name).await?;
    let removes = record.host_config.auto_remove;
    if removes {
        // This end is none that it would be removed at.
        record.host_config.auto_remove = false;
        lock.save(&record)?;
    }
    drop(lock);
    let stopped = if matches!(record.state.status, Status::Running | Status::Paused | Status::Restarting) {
        stop::stop(client, &record.id, seconds, signal).await
    } else {
        Ok(())
    };
    if removes {
        let lock = records::lock(client, &record.id)?;
        let mut record = lock.load()?;
        record.host_config.auto_remove = true;
        lock.save(&record)?;
    }
    // Not before: one that goes on is to be removed at its end.
    stopped?;
    start::start(client, &record.id, &start::Options::default()).await?;
    events::container(&client.paths, "restart", &record, &[]);
    Ok(())
}
