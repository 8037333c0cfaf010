//! Of a stream that a handler gives up, its client hears the handler's word, whatever it still sends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tare_proto::stream::Stream;
use tare_proto::streaming_ttrpc::{Streaming, StreamingClient, create_streaming};
use tare_proto::ttrpc::asynchronous::transport::{Listener, Socket};
use tare_proto::ttrpc::asynchronous::{Client, Server, ServerStream, TtrpcContext};
use tare_proto::ttrpc::{self, Code, Request, Response, context::Context};
use tare_proto::{Any, Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

const WORD: &str = "this will not do";

/// Takes one message.
struct Fails;

#[async_trait]
impl Streaming for Fails {
    async fn stream(&self, _: &TtrpcContext, stream: ServerStream<Any, Any>) -> ttrpc::Result<()> {
        let mut stream = Stream::from(stream);
        stream.recv().await?;
        Err(ttrpc::Error::RpcStatus(ttrpc::get_status(Code::DATA_LOSS, WORD)))
    }
}

/// The server, and a connection to it.
async fn serve() -> (Server, DuplexStream) {
    let (here, there) = tokio::io::duplex(1 << 16);
    let one = futures::stream::iter([std::io::Result::Ok(there)]).chain(futures::stream::pending());
    let mut server = Server::new().add_listener(Listener::new(one)).register_service(create_streaming(Arc::new(Fails)));
    server.start().await.unwrap();
    (server, here)
}

#[tokio::test]
async fn the_handlers_word_is_the_first_that_its_client_hears() {
    let (_server, connection) = serve().await;
    let client = StreamingClient::new(Client::new(Socket::new(connection)));
    for round in 0..50 {
        let (sender, mut receiver) = client.stream(Context::default()).await.unwrap().split();
        let sending = tokio::spawn(async move {
            for _ in 0..500 {
                sender.send(&Any::new()).await.unwrap();
            }
        });
        let Err(ttrpc::Error::RpcStatus(status)) = receiver.recv().await else { panic!("round {round}: no status") };
        assert_eq!(status.message, WORD, "round {round}");
        sending.await.unwrap();
    }
}

/// A frame's kinds and flags, as ttrpc's protocol numbers them.
const REQUEST: u8 = 1;
const DATA: u8 = 3;
const REMOTE_OPEN: u8 = 2;
const NO_DATA: u8 = 4;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(1u32.to_be_bytes());
    frame.extend([kind, flags]);
    frame.extend(payload);
    frame
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_on_sending_for_ever_is_forgotten() {
    let (_server, connection) = serve().await;
    let (mut from, mut to) = tokio::io::split(connection);
    let request = Request {
        service: "containerd.services.streaming.v1.Streaming".into(),
        method: "Stream".into(),
        ..Request::default()
    };
    to.write_all(&frame(REQUEST, REMOTE_OPEN | NO_DATA, &request.write_to_bytes().unwrap())).await.unwrap();
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        // Never as long as any silence could be that ends it; what is no message of this stream counts as well.
        for round in 0..1000 {
            let payload: &[u8] = if round % 2 == 0 { b"" } else { b"\xff" };
            to.write_all(&frame(DATA, 0, payload)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        to
    });
    let mut said = Vec::new();
    while said.len() < 2 {
        let mut header = [0; 10];
        from.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes(header[..4].try_into().unwrap()) as usize];
        from.read_exact(&mut payload).await.unwrap();
        said.push(Response::parse_from_bytes(&payload).unwrap().status.message.clone());
    }
    assert_eq!(said, [WORD, "Stream is no longer active"]);
    let known = begun.elapsed();
    assert!(known > Duration::from_secs(1) && known < Duration::from_secs(10), "known for {known:?}");
    sending.abort();
}
