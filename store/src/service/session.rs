//! One client's connection, as the handlers of its calls see it: whose call it is, and when nobody waits for it any more.
//!
//! The server drops the handler of a plain call when its client hangs up, but not that of a stream. Those run in
//! [`Session::stream`], which ends them when the client has gone, when their time is over, or when the daemon stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use ttrpc::asynchronous::TtrpcContext;

use crate::collector::Collector;
use crate::content::Content;
use crate::error::{Error, Kind, Result};
use crate::gc;
use crate::metadata::{Metadata, Namespace};
use crate::snapshots::Snapshots;
use crate::store::Store;

/// The request's metadata that names a namespace.
pub const NAMESPACE: &str = "containerd-namespace-ttrpc";
/// What gRPC clients, and the proxies behind them, send in its place.
const NAMESPACE_GRPC: &str = "containerd-namespace";
/// The request's metadata that names a lease.
pub const LEASE: &str = "containerd-lease";

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Not,
    /// The client hung up.
    Gone,
    /// The daemon stops.
    Stopping,
}

/// The connection.
#[derive(Clone)]
pub struct Session {
    /// What it is served from.
    pub store: Store,
    /// Who is told that something was removed.
    pub collector: Collector,
    /// What runs beside this client's calls.
    pub running: Running,
    pub(super) end: watch::Receiver<End>,
}

/// How many calls run now, of all clients together.
#[derive(Clone, Default)]
pub struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(&self) -> Runs {
        self.0.fetch_add(1, Ordering::Relaxed);
        Runs(self.clone())
    }
}

/// One call that runs; a copy in a thread is one more.
struct Runs(Running);

impl Runs {
    fn alone(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) == 1
    }
}

impl Clone for Runs {
    fn clone(&self) -> Self {
        self.0.begin()
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a call is about besides its request.
#[derive(Clone)]
pub struct Call {
    /// In this namespace.
    pub ns: Namespace,
    /// What the call makes is kept by this lease.
    lease: Option<Arc<str>>,
    store: Store,
    collector: Collector,
    runs: Runs,
}

impl Call {
    /// The lease's name.
    #[must_use]
    pub fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    /// The store's database.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.store.metadata
    }

    /// The store's blobs.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.store.content
    }

    /// The store's snapshots.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.store.snapshots
    }

    /// All of the store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Collects, and returns when it is done.
    pub fn collect(&self, options: &gc::Options) -> Result<gc::Collected> {
        self.collector.collect(options)
    }

    /// Something was removed that may have kept other things: they are collected by and by, or with `sync` before this returns.
    pub fn removed(&self, sync: bool) -> Result<()> {
        if sync {
            return self.collector.collect(&gc::Options::default()).map(drop);
        }
        self.collector.soon();
        Ok(())
    }

    /// Runs what waits for a disk on a thread of its own.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let call = self.clone();
        crate::store::blocking(move || work(&call)).await
    }
}

impl Session {
    /// Reads the request's metadata.
    pub fn call(&self, context: &TtrpcContext) -> Result<Call> {
        let first = |key: &str| context.metadata.get(key).and_then(|it| it.first()).filter(|it| !it.is_empty());
        let ns = match first(NAMESPACE).or_else(|| first(NAMESPACE_GRPC)) {
            Some(name) => name.parse()?,
            None => Namespace::default(),
        };
        let lease = first(LEASE).map(|it| it.as_str().into());
        let runs = self.running.begin();
        Ok(Call { ns, lease, store: self.store.clone(), collector: self.collector.clone(), runs })
    }

    /// Answers a plain call, on a thread that may wait for the disk.
    pub async fn answer<T: Send + 'static>(
        &self,
        context: &TtrpcContext,
        work: impl FnOnce(&Call) -> Result<T> + Send + 'static,
    ) -> ttrpc::Result<T> {
        Ok(self.call(context)?.blocking(work).await?)
    }

    /// Answers a plain call that takes no longer than a transaction and a rename. One that comes alone is answered where it came in: to
    /// hand it to a thread, and its answer back, takes longer than the call. Whoever comes meanwhile waits no longer than for the database.
    pub async fn answer_soon<T: Send + 'static>(
        &self,
        context: &TtrpcContext,
        work: impl FnOnce(&Call) -> Result<T> + Send + 'static,
    ) -> ttrpc::Result<T> {
        let call = self.call(context)?;
        if call.runs.alone() && self.store.metadata.is_free() && !self.store.snapshots.removes_much() {
            return Ok(work(&call)?);
        }
        Ok(call.blocking(work).await?)
    }

    /// Runs a call that has a stream, for as long as somebody waits for it.
    pub async fn stream<T>(&self, context: &TtrpcContext, work: impl Future<Output = Result<T>>) -> ttrpc::Result<T> {
        let mut end = self.end.clone();
        let patience = u64::try_from(context.timeout_nano).ok().filter(|it| *it > 0).map(Duration::from_nanos);
        let too_late = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match end.wait_for(|it| *it != End::Not).await {
                Ok(it) => *it,
                Err(_) => End::Gone,
            }
        };
        let result = tokio::select! {
            biased;
            result = work => result,
            end = ended => Err(interrupted(end)),
            () = too_late => Err(Error::new(Kind::DeadlineExceeded, "the call's time is over; what is done stays")),
        };
        Ok(result?)
    }
}

fn interrupted(end: End) -> Error {
    match end {
        End::Stopping => {
            Error::unavailable("the store is being stopped: call again once it runs, and it goes on from here")
        }
        End::Not | End::Gone => Error::cancelled("the client went away"),
    }
}

/// A message could not be sent: mostly because nobody reads it any more.
pub(super) fn unsent(error: &ttrpc::Error) -> Error {
    Error::cancelled(format!("the client takes no answer: {error}"))
}
