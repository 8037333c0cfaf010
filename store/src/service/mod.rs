//! The ttrpc services: requests in, messages and status codes out.
//!
//! ```text
//! server      the socket; one small server for each connection
//! session     whose call it is; ends streams whose client has gone
//! content write images snapshots leases namespaces diff      containerd's services: one call of the core each
//! whole archive upkeep progress                             tare.store.v1: one call of a flow each, with its progress
//! wire        our types and those of the messages
//! ```
//!
//! Nothing is decided here: a handler reads the request's metadata, turns messages into our types, calls, and turns back. What
//! waits for a disk runs on a blocking thread.

mod archive;
mod content;
mod diff;
mod images;
mod leases;
mod namespaces;
mod progress;
pub mod server;
pub mod session;
mod snapshots;
mod upkeep;
mod whole;
pub(crate) mod wire;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use tare_proto::{
    content_ttrpc, diff_ttrpc, images_ttrpc, leases_ttrpc, namespaces_ttrpc, snapshots_ttrpc, store_ttrpc,
    version_ttrpc,
};
use ttrpc::r#async::Service;

use self::session::{Running, Session};
use crate::collector::Collector;
use crate::store::Store;

/// What all connections are served from.
#[derive(Clone)]
pub struct Shared {
    /// The store.
    pub store: Store,
    /// What collects by itself.
    pub collector: Collector,
    /// What runs.
    pub running: Running,
}

/// All services, for one connection.
fn services(session: Session) -> HashMap<String, Service> {
    let session = Arc::new(session);
    let mut all = content_ttrpc::create_content(session.clone());
    all.extend(images_ttrpc::create_images(session.clone()));
    all.extend(snapshots_ttrpc::create_snapshots(session.clone()));
    all.extend(leases_ttrpc::create_leases(session.clone()));
    all.extend(diff_ttrpc::create_diff(session.clone()));
    all.extend(namespaces_ttrpc::create_namespaces(session.clone()));
    all.extend(version_ttrpc::create_version(session.clone()));
    all.extend(store_ttrpc::create_store(session));
    all
}

#[cfg(test)]
mod tests;
