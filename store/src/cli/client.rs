//! The daemon's socket, from the other side.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Waker, Poll};

use futures::FutureExt;
use futures::task::AtomicWaker;
use tare_proto::{
    Message, content_ttrpc, diff_ttrpc, images_ttrpc, leases_ttrpc, namespaces_ttrpc, snapshots_ttrpc, store_ttrpc,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use ttrpc::asynchronous::ClientStreamReceiver;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::Context;

use crate::error::{Error, Kind, Result};
use crate::service::session::{LEASE, NAMESPACE};

/// What may have come of a stream and not be used yet. ttrpc itself holds nobody back.
const AHEAD: usize = 8 << 20;

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
        let gate = Arc::new(Gate::default());
        let client = ttrpc::asynchronous::Client::new(Socket::new(Gated { stream, gate: Arc::clone(&gate) }));
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
        if let Some(message) = stream.recv().now_or_never() {
            return message.map_err(|error| self.failed(error));
        }
        // All that came is used up.
        self.gate.open();
        stream.recv().await.map_err(|error| self.failed(error))
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

/// Counts what came since the caller last had nothing to do.
#[derive(Default)]
struct Gate {
    ahead: AtomicUsize,
    reader: AtomicWaker,
}

impl Gate {
    fn open(&self) {
        self.ahead.store(0, Ordering::Release);
        self.reader.wake();
    }
}

struct Gated {
    stream: UnixStream,
    gate: Arc<Gate>,
}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gate.ahead.load(Ordering::Acquire) > AHEAD {
            self.gate.reader.register(waker.waker());
            // It may have been opened in between.
            if self.gate.ahead.load(Ordering::Acquire) > AHEAD {
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(waker, buf);
        self.gate.ahead.fetch_add(buf.filled().len() - before, Ordering::AcqRel);
        polled
    }
}

impl AsyncWrite for Gated {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(waker, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(waker)
    }
}
