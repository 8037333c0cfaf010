use std::sync::Arc;
use std::time::Duration;

use tare_proto::content_ttrpc::ContentClient;
use tare_proto::store::{ImportOptions, ImportRequest, InfoRequest};
use tare_proto::store_ttrpc::StoreClient;
use tare_proto::{Empty, MessageField, version_ttrpc::VersionClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::Code;
use ttrpc::asynchronous::TtrpcContext;
use ttrpc::asynchronous::transport::Socket;

use super::*;
use crate::service::session::{End, Session};

#[tokio::test]
async fn the_socket_is_private_and_one_daemons_alone() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start().await;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&daemon.socket), mode(daemon.socket.parent().unwrap())), (0o600, 0o700));
    let again = serving::listen(&daemon.socket).unwrap_err();
    assert!(again.message.contains("another daemon listens"), "{again}");
    assert!(serving::listen("ttrpc.sock".as_ref()).unwrap_err().message.contains("with its directory"));

    // What a daemon left that was killed is replaced; what is no socket is not.
    let dir = tempfile::tempdir().unwrap();
    let (old, file) = (dir.path().join("old"), dir.path().join("file"));
    drop(std::os::unix::net::UnixListener::bind(&old).unwrap());
    serving::listen(&old).unwrap();
    std::fs::write(&file, "mine").unwrap();
    serving::listen(&file).unwrap_err();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    daemon.stop().await;
}

#[tokio::test]
async fn a_hostile_client_hurts_nobody_but_itself() {
    let daemon = Daemon::start().await;
    let frames: &[&[u8]] = &[
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        // A frame of 4 GiB, one of 4 MiB that never comes, an even stream, an unknown type, garbage in a request.
        b"\xff\xff\xff\xff\0\0\0\x01\x01\0xxxx",
        b"\0\x40\0\0\0\0\0\x01\x01\0",
        b"\0\0\0\0\0\0\0\x02\x01\0",
        b"\0\0\0\0\0\0\0\x01\x09\xff",
        b"\0\0\0\x04\0\0\0\x01\x01\0\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\x01\x03\x05",
    ];
    for frame in frames {
        let mut peer = UnixStream::connect(&daemon.socket).await.unwrap();
        peer.write_all(frame).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
    }
    let version = VersionClient::new(daemon.client().await).version(plain(), &Empty::new()).await.unwrap();
    assert_eq!(version.version, env!("CARGO_PKG_VERSION"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_word_and_lets_answers_out() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let stream = StoreClient::new(client.clone()).import(plain()).await.unwrap();
    let (sender, mut receiver) = stream.split();
    let mut first = ImportRequest::new();
    first.options = MessageField::some(ImportOptions::new());
    first.data = vec![0; 100];
    sender.send(&first).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().received, 100, "it runs");
    let ended = tokio::spawn(async move {
        loop {
            match receiver.recv().await {
                Ok(_) => {}
                Err(error) => return refused(Err::<(), _>(error)),
            }
        }
    });
    let socket = daemon.socket.clone();
    daemon.stop().await;
    let (refusal, sentence) = ended.await.unwrap();
    assert_eq!(refusal, Code::UNAVAILABLE);
    assert!(sentence.contains("being stopped"), "{sentence}");
    assert!(UnixStream::connect(&socket).await.is_err());
}

#[tokio::test]
async fn a_streams_time_can_be_over() {
    let daemon = Daemon::start().await;
    let mut stream = ContentClient::new(daemon.client().await)
        .write(ttrpc::context::with_duration(Duration::from_millis(20)))
        .await
        .unwrap();
    let mut request = WriteContentRequest::new();
    request.ref_ = "r".into();
    stream.send(&request).await.unwrap();
    // The answer to the first message may come before.
    let answered = stream.recv().await;
    let ended = if answered.is_ok() { stream.recv().await } else { answered };
    assert_eq!(code(ended), Code::DEADLINE_EXCEEDED);
    daemon.stop().await;
}

#[tokio::test]
async fn it_ends_by_itself_when_nobody_is_there() {
    let daemon = Daemon::with(|config| config.idle = Some(Duration::from_millis(50))).await;
    let client = daemon.client().await;
    StoreClient::new(client.clone()).info(plain(), &InfoRequest::new()).await.unwrap();
    assert!(!daemon.served.is_finished());
    drop(client);
    let socket = daemon.socket.clone();
    daemon.served.await.unwrap().unwrap();
    assert!(UnixStream::connect(&socket).await.is_err());
}

#[tokio::test]
async fn who_connects_as_it_would_end_is_served() {
    let idle = Duration::from_secs(3600);
    let daemon = Daemon::with(|config| config.idle = Some(idle)).await;
    // It listens, and its time runs.
    tokio::task::yield_now().await;
    tokio::time::pause();
    // Waits in the socket's queue: the daemon has no turn before its time is over too.
    let early = std::os::unix::net::UnixStream::connect(&daemon.socket).unwrap();
    early.set_nonblocking(true).unwrap();
    tokio::time::advance(idle).await;
    tokio::time::resume();
    let client = Client::new(Socket::from(UnixStream::from_std(early).unwrap()));
    VersionClient::new(client).version(plain(), &Empty::new()).await.unwrap();
    daemon.stop().await;
}

/// More than the server has read when a handler fails: its word is the first that the client hears all the same.
const PIPELINED: usize = 300;

#[tokio::test]
async fn a_write_that_fails_says_why_to_who_goes_on_sending() {
    let daemon = Daemon::start().await;
    let service = ContentClient::new(daemon.client().await);
    let gap = piece(WriteAction::WRITE, 10, b"far");
    for _ in 0..20 {
        let (sender, mut receiver) = service.write(plain()).await.unwrap().split();
        let mut first = gap.clone();
        first.ref_ = "gap".into();
        sender.send(&first).await.unwrap();
        for _ in 0..PIPELINED {
            sender.send(&gap).await.unwrap();
        }
        let (refusal, sentence) = refused(receiver.recv().await);
        assert_eq!(refusal, Code::OUT_OF_RANGE, "{sentence}");
        assert!(sentence.contains("only 0 bytes came before"), "{sentence}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn an_import_that_fails_says_why_to_who_goes_on_sending() {
    let daemon = Daemon::start().await;
    let service = StoreClient::new(daemon.client().await);
    for _ in 0..20 {
        let (sender, mut receiver) = service.import(plain()).await.unwrap().split();
        let mut request = ImportRequest::new();
        request.options = MessageField::some(ImportOptions::new());
        request.data = vec![b'x'; 4096];
        for _ in 0..PIPELINED {
            sender.send(&request).await.unwrap();
        }
        let (refusal, sentence) = loop {
            match receiver.recv().await {
                Ok(_) => {}
                ended => break refused(ended),
            }
        };
        assert_eq!(refusal, Code::DATA_LOSS, "{sentence}");
        assert!(sentence.contains("archive"), "{sentence}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_quick_call_that_comes_alone_is_answered_where_it_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::in_dir(dir.path())).unwrap();
    let running = Running::default();
    let collector = Collector::start(&store);
    let end = tokio::sync::watch::channel(End::Not).1;
    let session = Session { store: store.clone(), collector, running, end };
    let context = TtrpcContext {
        mh: ttrpc::MessageHeader::default(),
        metadata: HashMap::default(),
        timeout_nano: 0,
        connection_data: Arc::default(),
    };
    let here = std::thread::current().id();
    let answered = async || session.answer_soon(&context, |_| Ok(std::thread::current().id())).await.unwrap();
    assert_eq!(answered().await, here);
    // Another one runs, in this connection or in its thread.
    let other = session.call(&context).unwrap();
    assert_ne!(answered().await, here);
    drop(other);
    assert_eq!(answered().await, here);
    // The database is busy.
    let (begun, wait) = std::sync::mpsc::channel();
    let (go_on, end) = std::sync::mpsc::channel();
    let metadata = store.metadata.clone();
    let busy = tokio::task::spawn_blocking(move || {
        metadata.read(|_| {
            begun.send(()).unwrap();
            end.recv().unwrap();
            Ok(())
        })
    });
    wait.recv().unwrap();
    assert_ne!(answered().await, here);
    go_on.send(()).unwrap();
    busy.await.unwrap().unwrap();
    assert_eq!(answered().await, here);
}
