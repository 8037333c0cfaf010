//! The snapshots that an image consists of.

use tare_proto::snapshots::{StatSnapshotRequest, UsageRequest};

use crate::client::Client;
use crate::error::{Context, Kind, Result};

/// More layers than a kernel can stack are none.
const MOST: usize = 1000;

/// The snapshots from `chain_id` down to the lowest, as far as they are there.
pub(super) async fn chain(client: &Client, chain_id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut next = chain_id.to_owned();
    while !next.is_empty() && found.len() < MOST {
        match parent(client, &next).await? {
            Some(parent) => found.push(std::mem::replace(&mut next, parent)),
            None => break,
        }
    }
    Ok(found)
}

/// What a snapshot stands on; nothing: there is no such snapshot.
pub(super) async fn parent(client: &Client, name: &str) -> Result<Option<String>> {
    let mut request = StatSnapshotRequest::new();
    name.clone_into(&mut request.key);
    let snapshots = client.store.snapshots().await?;
    let found = snapshots.stat(client.store.context(), &request).await;
    match found.context(|| client.store.call("look at a layer")) {
        Ok(found) => Ok(Some(found.info.parent.clone())),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much a layer takes, in bytes, without what is below it; nothing if it is not there.
pub(super) async fn size(client: &Client, name: &str) -> Result<u64> {
    let mut request = UsageRequest::new();
    name.clone_into(&mut request.key);
    let snapshots = client.store.snapshots().await?;
    let used = snapshots.usage(client.store.context(), &request).await;
    match used.context(|| client.store.call("measure a layer")) {
        Ok(used) => Ok(u64::try_from(used.size).unwrap_or(0)),
        Err(error) if error.kind == Kind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
