//! How much a container has written, and how much its image has below that: the store's own count.

use tare_proto::snapshots::UsageRequest;

use crate::client::Client;
use crate::error::{Context, Kind, Result};
use crate::record::Container;
use crate::units;

/// In bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// What it has written.
    pub(super) own: u64,
    /// That and its image.
    pub(super) whole: u64,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (virtual {})", units::human_size_short(self.own), units::human_size_short(self.whole))
    }
}

/// Of one container.
pub(super) async fn of(client: &Client, record: &Container) -> Result<Size> {
    let own = usage(client, &record.snapshot).await?;
    let (mut whole, mut below) = (own, record.image.chain_id.clone());
    // Each snapshot counts what it adds to the one below.
    while !below.is_empty() {
        whole += usage(client, &below).await?;
        below = parent(client, &below).await?;
    }
    Ok(Size { own, whole })
}

/// Of one snapshot alone; nothing, when it is gone.
pub(super) async fn usage(client: &Client, key: &str) -> Result<u64> {
    if key.is_empty() {
        return Ok(0);
    }
    let request = UsageRequest { key: key.to_owned(), ..UsageRequest::default() };
    let answer = client.store.snapshots().await?.usage(client.store.context(), &request).await;
    match answer.context(|| client.store.call("measure a snapshot")) {
        Ok(usage) => Ok(u64::try_from(usage.size).unwrap_or(0)),
        Err(error) if error.kind == Kind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

async fn parent(client: &Client, key: &str) -> Result<String> {
    let request = tare_proto::snapshots::StatSnapshotRequest {
        key: key.to_owned(),
        ..tare_proto::snapshots::StatSnapshotRequest::default()
    };
    let answer = client.store.snapshots().await?.stat(client.store.context(), &request).await;
    match answer.context(|| client.store.call("look at a snapshot")) {
        Ok(answer) => Ok(answer.info.unwrap_or_default().parent),
        Err(error) if error.kind == Kind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}
