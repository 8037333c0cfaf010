//! The daemon's socket, from the other side.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tare_proto::gate::Gate;
use tare_proto::{
    Message, content_ttrpc, diff_ttrpc, images_ttrpc, leases_ttrpc, namespaces_ttrpc, snapshots_ttrpc, store_ttrpc,
};
use tokio::net::UnixStream;
use ttrpc::asynchronous::ClientStreamReceiver;
use ttrpc::context::Context;

use crate::error::{Error, Kind, Result};
use crate::service::session::{LEASE, NAMESPACE};

/// A connection to the daemon, in one namespace.
#[derive(Clone)]
pub(crate) struct Client {
    client: ttrpc::asynchronous::Client,
    socket: PathBuf,
    namespace: String,
    lease: Option<String>,
    gate: Arc<Gate>,
}

macro_rules! services {
    ($($name:ident: $module:ident::$client:ident;)*) => {
        $(pub(crate) fn $name(&self) -> $module::$client { $module::$client::new(self.client.clone()) })*
    };
}

impl Client {
    pub(crate) async fn connect(socket: &Path, namespace: String) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.map_err(|error| absent(socket, &error))?;
        let (client, gate) = Gate::client(stream);
        Ok(Self { client, socket: socket.to_owned(), namespace, lease: None, gate })
    }

    /// The same connection for calls that add to a lease.
    pub(crate) fn with_lease(&self, lease: Option<String>) -> Self {
        Self { lease, ..self.clone() }
    }

    services! {
        content: content_ttrpc::ContentClient;
        images: images_ttrpc::ImagesClient;
        snapshots: snapshots_ttrpc::SnapshotsClient;
        leases: leases_ttrpc::LeasesClient;
        diff: diff_ttrpc::DiffClient;
        namespaces: namespaces_ttrpc::NamespacesClient;
        store: store_ttrpc::StoreClient;
    }

    /// A call's metadata. Calls have no deadline here: a person can interrupt them.
    pub(crate) fn context(&self) -> Context {
        self.gate.open();
        let mut metadata = HashMap::from([(NAMESPACE.to_owned(), vec![self.namespace.clone()])]);
        if let Some(lease) = &self.lease {
            metadata.insert(LEASE.to_owned(), vec![lease.clone()]);
        }
        ttrpc::context::with_metadata(metadata)
    }

    /// What a call's failure means here.
    pub(crate) fn failed(&self, error: ttrpc::Error) -> Error {
        match error {
            ttrpc::Error::RpcStatus(status) => Error::new(Kind::from_code(status.code.value()), status.message),
            // The library speaks of channels and packets then; all of it means that nobody answers.
            other => {
                tracing::debug!(error = %other, "a call was cut off");
                Error::unavailable(format!(
                    "the store at {} went away before it answered: see its log, start it again and repeat the call",
                    self.socket.display()
                ))
            }
        }
    }

    /// What came so far is used up; more may come.
    pub(crate) fn used(&self) {
        self.gate.open();
    }

    /// The next message of a stream. While the caller uses it, no more than a few megabytes come after it.
    pub(crate) async fn next<M: Message>(&self, stream: &mut ClientStreamReceiver<M>) -> Result<Option<M>> {
        self.gate.next(stream).await.map_err(|error| self.failed(error))
    }
}

fn absent(socket: &Path, error: &io::Error) -> Error {
    let shown = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::unavailable(format!(
            "no store listens on {shown}: start one with `tare-store serve`, or name its socket with --socket"
        )),
        io::ErrorKind::PermissionDenied => {
            Error::new(Kind::PermissionDenied, format!("{shown} belongs to another user: run this as that user"))
        }
        _ => Error::internal(format!("connect to {shown}: {error}")),
    }
}
