//! `wait`: until a container runs no more.

use crate::client::Client;
use crate::error::{Kind, Result};
use crate::record::Status;
use crate::shim::Shim;
use crate::watch::Watch;
use crate::{ended, records, truth};

/// Waits until a container has ended for good; its exit code.
///
/// # Errors
/// There is none.
pub async fn wait(client: &Client, name: &str) -> Result<i64> {
    let mut record = truth::find(client, name).await?;
    let id = record.id.clone();
    let mut code = record.state.exit_code;
    loop {
        match record.state.status {
            Status::Running | Status::Paused => {
                let ended = match Shim::of(&record).await {
                    Ok(shim) => shim.wait("").await.ok(),
                    Err(_) => None,
                };
                code = match (ended::settle(client, &id).await?, ended) {
                    (Some(code), _) => code,
                    (None, Some(exit)) => exit.code,
                    (None, None) => code,
                };
            }
            Status::Restarting => {
                let mut changes = Watch::new(&client.paths.container(&id))?;
                let waits = records::load(client, &id).is_ok_and(|it| it.state.status == Status::Restarting);
                if waits {
                    changes.changed().await?;
                }
            }
            Status::Created | Status::Exited | Status::Dead | Status::Removing => return Ok(code),
        }
        record = match truth::find(client, &id).await {
            // Removed at its end.
            Err(error) if error.kind == Kind::NotFound => return Ok(code),
            record => record?,
        };
        if !matches!(record.state.status, Status::Running | Status::Paused) {
            code = record.state.exit_code;
        }
    }
}
