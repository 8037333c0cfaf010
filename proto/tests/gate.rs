//! A server is held back by a client that is slow to use what came, and by nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tare_proto::gate::Gate;
use tare_proto::store::{ExportRequest, Progress};
use tare_proto::store_ttrpc::{Store, StoreClient, create_store};
use tare_proto::ttrpc::asynchronous::transport::Listener;
use tare_proto::ttrpc::asynchronous::{Server, ServerStreamSender, TtrpcContext};
use tare_proto::ttrpc::{self, context::Context};
use tokio::net::UnixStream;

/// Messages of 1 MiB.
const MESSAGES: usize = 64;

/// Sends them all, and counts what the connection took.
struct Sends(Arc<AtomicUsize>);

#[async_trait]
impl Store for Sends {
    async fn export(
        &self,
        _: &TtrpcContext,
        _: ExportRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        for _ in 0..MESSAGES {
            stream.send(&Progress { data: vec![7; 1 << 20], ..Progress::default() }).await?;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

// With its time paused a runtime sleeps through only when nothing else can go on.
#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_not_fetched() {
    let (here, there) = UnixStream::pair().unwrap();
    let one = futures::stream::iter([std::io::Result::Ok(there)]).chain(futures::stream::pending());
    let sent = Arc::<AtomicUsize>::default();
    let service = create_store(Arc::new(Sends(sent.clone())));
    let mut server = Server::new().add_listener(Listener::new(one)).register_service(service);
    server.start().await.unwrap();

    let (client, gate) = Gate::client(here);
    let client = StoreClient::new(client);
    let mut stream = client.export(Context::default(), &ExportRequest::new()).await.unwrap();
    for received in 0..MESSAGES {
        assert_eq!(gate.next(&mut stream).await.unwrap().unwrap().data.len(), 1 << 20);
        // The clock is paused: this returns when nobody has anything left to do, and takes no time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ahead = sent.load(Ordering::Relaxed) - received - 1;
        assert!(ahead <= 20, "after {received} messages {ahead} more were sent");
    }
    assert!(gate.next(&mut stream).await.unwrap().is_none());
}
