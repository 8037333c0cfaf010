//! A pod without a pause container.

use std::collections::HashMap;

use ttrpc::r#async::Service;

use crate::tasks::Tasks;

/// The place of the shim's one sandbox.
#[derive(Debug, Default)]
pub struct Slot {}

impl Slot {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        true
    }
}

/// The sandbox service.
pub fn services(_tasks: Tasks) -> HashMap<String, Service> {
    HashMap::new()
}
