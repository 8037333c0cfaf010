//! `boot`: after the host was booted, what should run is started again, and what a boot swept away is recorded.

use crate::client::Client;
use crate::error::{Kind, Result};
use crate::record::Status;
use crate::{policy, records, start, truth};

/// Starts every container that its `--restart` policy wants to run; their names, and how it went.
///
/// # Errors
/// The records cannot be listed.
pub async fn boot(client: &Client) -> Result<Vec<(String, Result<()>)>> {
    let mut started = Vec::new();
    // In the order in which they were made: a container's links and namespaces are those of earlier ones.
    let records::Listed { records, damaged } = records::list(client)?;
    started.extend(damaged.into_iter().map(|(id, error)| (records::short(&id).to_owned(), Err(error))));
    for record in records {
        let (lock, record) = match truth::hold(client, &record.id).await {
            Ok(held) => held,
            // It was to be removed at its end, and the boot was that.
            Err(error) if error.kind == Kind::NotFound => continue,
            Err(error) => {
                started.push((record.name, Err(error)));
                continue;
            }
        };
        if !policy::should_run(&record) || record.state.status == Status::Restarting {
            continue;
        }
        let name = record.name.clone();
        let went = match start::begin(client, lock, record, None).await {
            Ok(ready) => ready.go(client).await.map(drop),
            Err(error) => Err(error),
        };
        started.push((name, went));
    }
    Ok(started)
}
