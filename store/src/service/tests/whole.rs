use std::sync::atomic::Ordering;
use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use tare_proto::MessageField;
use tare_proto::store::{Result as Ended, *};
use tare_proto::store_ttrpc::StoreClient;
use tokio::sync::mpsc;
use ttrpc::Code;

use super::{Daemon, Digest, code, plain, refused, stored};

/// The next message that is not only about items.
async fn until_result(stream: &mut ttrpc::asynchronous::ClientStreamReceiver<Progress>) -> ttrpc::Result<Ended> {
    loop {
        match stream.recv().await? {
            Some(progress) if progress.result.is_some() => return Ok(progress.result.unwrap()),
            Some(_) => {}
            None => panic!("the stream ended without a result"),
        }
    }
}

/// A tar archive with one file, as an archive of images that has none in it.
fn archive(name: &str, length: usize) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{length:011o}").as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|it| u32::from(*it)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut all = header.to_vec();
    all.resize(512 + length.next_multiple_of(512) + 1024, 0);
    all
}

#[tokio::test]
async fn an_import_says_how_much_it_took_and_takes_no_end_that_was_not_said() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let name = format!("blobs/sha256/{}", Digest::of(&vec![0; 3 << 20]).hex());
    let bytes = archive(&name, 3 << 20);
    for complete in [true, false] {
        let stream = StoreClient::new(client.clone()).import(plain()).await.unwrap();
        let (sender, mut receiver) = stream.split();
        let (mut sent, mut received) = (0, 0);
        let mut first = ImportRequest::new();
        first.options = MessageField::some(ImportOptions::new());
        sender.send(&first).await.unwrap();
        let length = if complete { bytes.len() } else { bytes.len() / 2 };
        for piece in bytes[..length].chunks(256 << 10) {
            let mut request = ImportRequest::new();
            request.data = piece.into();
            sender.send(&request).await.unwrap();
            sent += piece.len() as u64;
            // As a client does: never far ahead.
            while received + (1 << 20) < sent {
                received = received.max(receiver.recv().await.unwrap().received);
            }
        }
        if complete {
            let mut last = ImportRequest::new();
            last.end = true;
            sender.send(&last).await.unwrap();
        } else {
            sender.close_send().await.unwrap();
        }
        let (refusal, sentence) = loop {
            match receiver.recv().await {
                Ok(_) => {}
                Err(error) => break refused(Err::<(), _>(error)),
            }
        };
        if complete {
            assert!(sentence.contains("import"), "no image is in it: {sentence}");
            assert!(!sentence.contains("cut off"), "{sentence}");
        } else {
            assert_eq!(refusal, Code::INVALID_ARGUMENT);
            assert!(sentence.contains("cut off"), "{sentence}");
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_words() {
    let daemon = Daemon::start().await;
    let store = StoreClient::new(daemon.client().await);
    let mut pull = PullRequest::new();
    pull.reference = "UPPER CASE".into();
    let error = until_result(&mut store.pull(plain(), &pull).await.unwrap()).await;
    assert_eq!(code(error), Code::INVALID_ARGUMENT);
    (pull.reference, pull.platform) = ("a".into(), "linux".into());
    let error = until_result(&mut store.pull(plain(), &pull).await.unwrap()).await;
    assert!(refused(error).1.contains("os/architecture"));
    let mut inspect = InspectRequest::new();
    inspect.image = "none".into();
    assert_eq!(code(store.inspect(plain(), &inspect).await), Code::NOT_FOUND);
    let mut tag = TagRequest::new();
    (tag.source, tag.target) = ("none".into(), "b".into());
    assert_eq!(code(store.tag(plain(), &tag).await), Code::NOT_FOUND);
    assert_eq!(code(store.login(plain(), &LoginRequest::new()).await), Code::INVALID_ARGUMENT);
    let mut export = ExportRequest::new();
    export.images = vec!["none".into()];
    let error = until_result(&mut store.export(plain(), &export).await.unwrap()).await;
    assert_eq!(code(error), Code::NOT_FOUND);
    let mut usage = UsageRequest::new();
    usage.image = "none".into();
    assert_eq!(code(store.usage(plain(), &usage).await), Code::NOT_FOUND);
    let mut import = store.import(plain()).await.unwrap();
    let mut first = ImportRequest::new();
    let mut options = ImportOptions::new();
    options.path = "/no/such/archive".into();
    (first.options, first.end) = (MessageField::some(options), true);
    import.send(&first).await.unwrap();
    let (_, sentence) = loop {
        match import.recv().await {
            Ok(_) => {}
            Err(error) => break refused(Err::<(), _>(error)),
        }
    };
    assert!(sentence.contains("/no/such/archive"), "{sentence}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_check_finds_what_was_damaged_and_usage_and_collection_answer() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let store = StoreClient::new(client.clone());
    let digest = stored(&client, b"good").await;
    let clean = until_result(&mut store.check(plain(), &CheckRequest::new()).await.unwrap()).await.unwrap();
    assert_eq!(clean.problems, 0);
    let usage = store.usage(plain(), &UsageRequest::new()).await.unwrap();
    assert_eq!(usage.blobs, 1);
    assert!(usage.blob_bytes > 0);

    let hex = digest.strip_prefix("sha256:").unwrap();
    let path = daemon.store.root.path().join("content/blobs/sha256").join(hex);
    std::fs::write(&path, b"evil").unwrap();
    let mut stream = store.check(plain(), &CheckRequest::new()).await.unwrap();
    let (mut problems, mut ended) = (Vec::new(), None);
    while let Some(progress) = stream.recv().await.unwrap() {
        problems.extend(progress.problems);
        ended = progress.result.into_option().or(ended);
    }
    assert_eq!((problems.len(), ended.unwrap().problems), (1, 1));
    assert!(problems[0].kind == "blob" && problems[0].object.contains(hex), "{problems:?}");

    let mut dry = CollectRequest::new();
    dry.dry_run = true;
    assert_eq!(store.collect(plain(), &dry).await.unwrap().blobs, 1);
    assert!(path.try_exists().unwrap());
    assert_eq!(store.collect(plain(), &CollectRequest::new()).await.unwrap().blobs, 1);
    assert!(!path.try_exists().unwrap());
    daemon.stop().await;
}

/// A client that reads nothing holds the flow back: no more than a few pieces are taken from it.
#[tokio::test]
async fn a_slow_client_slows_the_call() {
    use super::super::progress::{Also, Out, tell};
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    struct Endless(Arc<AtomicU64>);
    #[async_trait::async_trait]
    impl tare_proto::store_ttrpc::Store for Endless {
        async fn export(
            &self,
            _: &ttrpc::asynchronous::TtrpcContext,
            _: ExportRequest,
            stream: ttrpc::asynchronous::ServerStreamSender<Progress>,
        ) -> ttrpc::Result<()> {
            let (pieces, data) = mpsc::channel(2);
            let (_, updates) = crate::progress::Progress::watched();
            let work = async {
                while pieces.send(Bytes::from(vec![7; 3 << 20])).await.is_ok() {
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            Ok(tell(&Out::Plain(stream), updates, Also::Data(data), work, |()| Ended::new()).await?)
        }
    }
    let one = futures::StreamExt::chain(
        futures::stream::once(async { std::io::Result::Ok(ours) }),
        futures::stream::pending(),
    );
    let mut server = ttrpc::r#async::Server::new()
        .add_listener(ttrpc::asynchronous::transport::Listener::new(one))
        .register_service(tare_proto::store_ttrpc::create_store(Arc::new(Endless(taken.clone()))));
    server.start().await.unwrap();
    // By hand, so that nothing is read of what comes: a request of the method, and its payload of nothing.
    let mut request = ttrpc::Request::new();
    (request.service, request.method) = ("tare.store.v1.Store".into(), "Export".into());
    let body = tare_proto::Message::write_to_bytes(&request).unwrap();
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(1u32.to_be_bytes());
    frame.extend([1, 1]);
    frame.extend(body);
    let mut theirs = theirs;
    tokio::io::AsyncWriteExt::write_all(&mut theirs, &frame).await.unwrap();
    theirs.readable().await.unwrap();
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    let pieces = taken.load(Ordering::Relaxed);
    assert!((1..=4).contains(&pieces), "{pieces} pieces were taken and nobody reads");
    server.shutdown().await.unwrap();
}
