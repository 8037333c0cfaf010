//! The services through a socket, as a client meets them.

mod content;
mod diff;
mod images;
mod server;
mod snapshots;
mod whole;

use std::collections::HashMap;
use std::path::PathBuf;

use tare_proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use tare_proto::content_ttrpc::ContentClient;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use ttrpc::Code;
use ttrpc::asynchronous::{Client, ClientStream};
use ttrpc::context::Context;

use super::session::{LEASE, NAMESPACE, Running};
use super::{Shared, server as serving};
use crate::collector::Collector;
use crate::config::Config;
use crate::content::digest::Digest;
use crate::error::Result;
use crate::store::Store;

/// A daemon within the test.
struct Daemon {
    store: Store,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<()>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    async fn start() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::in_dir(dir.path());
        change(&mut config);
        let socket = config.socket.clone();
        let store = Store::open(config).unwrap();
        let listener = serving::listen(&socket).unwrap();
        let shared = Shared { store: store.clone(), collector: Collector::start(&store), running: Running::default() };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let until = async {
                let _ = stopped.await;
            };
            serving::serve(listener, &shared, until).await
        });
        Self { store, socket, stop: Some(stop), served, _dir: dir }
    }

    async fn client(&self) -> Client {
        Client::connect(&format!("unix://{}", self.socket.display())).await.unwrap()
    }

    async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.served.await.unwrap().unwrap();
    }
}

/// No namespace, no lease, no deadline.
fn plain() -> Context {
    Context::default()
}

fn within(namespace: &str) -> Context {
    ttrpc::context::with_metadata(HashMap::from([(NAMESPACE.into(), vec![namespace.into()])]))
}

fn with_lease(lease: &str) -> Context {
    ttrpc::context::with_metadata(HashMap::from([(LEASE.into(), vec![lease.into()])]))
}

/// The code and the sentence of a refusal.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code.enum_value().unwrap(), status.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
    refused(result).0
}

type Writing = ClientStream<WriteContentRequest, WriteContentResponse>;

/// A stream of a write, after its first message.
async fn begin(client: &Client, reference: &str, expected: &str) -> ttrpc::Result<(Writing, WriteContentResponse)> {
    let mut stream = ContentClient::new(client.clone()).write(plain()).await?;
    let mut request = WriteContentRequest::new();
    (request.ref_, request.expected) = (reference.into(), expected.into());
    stream.send(&request).await?;
    let response = stream.recv().await?;
    Ok((stream, response))
}

fn piece(action: WriteAction, offset: i64, data: &[u8]) -> WriteContentRequest {
    let mut request = WriteContentRequest::new();
    (request.action, request.offset, request.data) = (action.into(), offset, data.into());
    request
}

async fn exchange(stream: &mut Writing, request: WriteContentRequest) -> ttrpc::Result<WriteContentResponse> {
    stream.send(&request).await?;
    stream.recv().await
}

/// Stores a blob through the service.
async fn stored(client: &Client, bytes: &[u8]) -> String {
    let (mut stream, _) = begin(client, &format!("ref-{}", Digest::of(bytes)), "").await.unwrap();
    exchange(&mut stream, piece(WriteAction::COMMIT, 0, bytes)).await.unwrap().digest
}
