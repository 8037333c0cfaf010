use tare_proto::content::*;
use tare_proto::content_ttrpc::ContentClient;
use tare_proto::{FieldMask, MessageField};
use ttrpc::Code;

use super::*;

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn a_blob_comes_in_pieces_and_can_be_read_in_ranges() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let (mut stream, state) = begin(&client, "r", ABC).await.unwrap();
    assert_eq!((state.action.enum_value().unwrap(), state.offset), (WriteAction::STAT, 0));
    assert!(state.started_at.seconds > 0 && state.updated_at.seconds > 0);
    assert_eq!(exchange(&mut stream, piece(WriteAction::WRITE, 0, b"xx")).await.unwrap().offset, 2);
    // From the beginning again: what was there is discarded.
    assert_eq!(exchange(&mut stream, piece(WriteAction::WRITE, 0, b"a")).await.unwrap().offset, 1);
    assert_eq!(exchange(&mut stream, piece(WriteAction::WRITE, 1, b"b")).await.unwrap().offset, 2);
    let mut commit = piece(WriteAction::COMMIT, 2, b"c");
    commit.total = 3;
    commit.labels.insert("k".into(), "v".into());
    let done = exchange(&mut stream, commit).await.unwrap();
    assert_eq!((done.digest.as_str(), done.offset, done.total), (ABC, 3, 3));
    assert!(matches!(stream.recv().await, Err(ttrpc::Error::Eof)), "a commit ends the stream");

    let content = ContentClient::new(client);
    let mut asked = InfoRequest::new();
    asked.digest = ABC.into();
    let info = content.info(plain(), &asked).await.unwrap().info.unwrap();
    assert_eq!((info.size, info.labels["k"].as_str()), (3, "v"));
    assert_eq!(code(content.info(within("other"), &asked).await), Code::NOT_FOUND);

    for (offset, size, expected) in [(0, 0, "abc"), (1, 0, "bc"), (1, 1, "b"), (-5, 2, "ab"), (2, 99, "c"), (3, 0, "")]
    {
        let mut request = ReadContentRequest::new();
        (request.digest, request.offset, request.size) = (ABC.into(), offset, size);
        let mut stream = content.read(plain(), &request).await.unwrap();
        let mut got = Vec::new();
        while let Some(part) = stream.recv().await.unwrap() {
            assert_eq!(part.offset, offset.max(0) + i64::try_from(got.len()).unwrap());
            got.extend(part.data);
        }
        assert_eq!(got, expected.as_bytes(), "{offset} {size}");
    }
    let mut request = ReadContentRequest::new();
    (request.digest, request.offset) = (ABC.into(), 4);
    let error = content.read(plain(), &request).await.unwrap().recv().await;
    assert_eq!(code(error), Code::OUT_OF_RANGE);
    daemon.stop().await;
}

#[tokio::test]
async fn refusals_have_the_codes_that_containerds_clients_know() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    assert_eq!(code(begin(&client, "", "").await.map(|it| it.1)), Code::INVALID_ARGUMENT);
    assert_eq!(code(begin(&client, "r", "sha256:../x").await.map(|it| it.1)), Code::INVALID_ARGUMENT);

    let (mut stream, _) = begin(&client, "r", "").await.unwrap();
    assert_eq!(code(begin(&client, "r", "").await.map(|it| it.1)), Code::UNAVAILABLE, "somebody writes it");
    assert_eq!(code(exchange(&mut stream, piece(WriteAction::WRITE, 7, b"x")).await), Code::OUT_OF_RANGE);

    let (mut stream, _) = begin(&client, "wrong", ABC).await.unwrap();
    let (refusal, sentence) = refused(exchange(&mut stream, piece(WriteAction::COMMIT, 0, b"abd")).await);
    assert_eq!(refusal, Code::FAILED_PRECONDITION, "{sentence}");
    let mut asked = StatusRequest::new();
    asked.ref_ = "wrong".into();
    let content = ContentClient::new(client.clone());
    assert_eq!(code(content.status(plain(), &asked).await), Code::NOT_FOUND, "wrong bytes are not resumed");

    let (mut stream, _) = begin(&client, "short", "").await.unwrap();
    let mut commit = piece(WriteAction::COMMIT, 0, b"abc");
    commit.total = 4;
    assert_eq!(code(exchange(&mut stream, commit).await), Code::FAILED_PRECONDITION);
    let (mut stream, state) = begin(&client, "short", "").await.unwrap();
    assert_eq!(state.offset, 3, "too few bytes are resumed");
    let mut more = piece(WriteAction::WRITE, 3, b"");
    more.total = 3;
    exchange(&mut stream, more).await.unwrap();
    let mut contradiction = piece(WriteAction::WRITE, 3, b"");
    contradiction.total = 5;
    assert_eq!(code(exchange(&mut stream, contradiction).await), Code::FAILED_PRECONDITION);

    assert_eq!(stored(&client, b"abc").await, ABC);
    assert_eq!(code(begin(&client, "again", ABC).await.map(|it| it.1)), Code::ALREADY_EXISTS);
    let (mut stream, _) = begin(&client, "again", "").await.unwrap();
    let (refusal, sentence) = refused(exchange(&mut stream, piece(WriteAction::COMMIT, 0, b"abc")).await);
    assert_eq!(refusal, Code::ALREADY_EXISTS);
    assert!(sentence.contains(ABC), "{sentence}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_its_bytes_and_frees_the_reference() {
    let daemon = Daemon::start().await;
    {
        let client = daemon.client().await;
        let (mut stream, _) = begin(&client, "r", "").await.unwrap();
        exchange(&mut stream, piece(WriteAction::WRITE, 0, b"half")).await.unwrap();
    }
    let client = daemon.client().await;
    let resumed = async {
        loop {
            match begin(&client, "r", "").await {
                Ok((_, state)) => return state.offset,
                Err(error) => assert_eq!(code(Err::<(), _>(error)), Code::UNAVAILABLE),
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(20), resumed).await.unwrap(), 4);
    daemon.stop().await;
}

#[tokio::test]
async fn lists_labels_and_leases() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let content = ContentClient::new(client.clone());
    let mut digests = Vec::new();
    for n in 0..205 {
        digests.push(
            daemon
                .store
                .content
                .put(&"default".parse().unwrap(), format!("{n}").as_bytes(), &<_>::default(), None)
                .unwrap()
                .to_string(),
        );
    }
    let list = async |filters: &[&str]| {
        let mut request = ListContentRequest::new();
        request.filters = filters.iter().map(|it| (*it).to_owned()).collect();
        let mut stream = content.list(plain(), &request).await.unwrap();
        let mut all = Vec::new();
        while let Some(batch) = stream.recv().await.unwrap() {
            all.extend(batch.info.into_iter().map(|it| it.digest));
        }
        all
    };
    digests.sort();
    assert_eq!(list(&[]).await, digests);

    let mut new = Info::new();
    new.digest.clone_from(&digests[7]);
    new.labels = HashMap::from([("a".into(), "b".into()), ("c".into(), "d".into())]);
    let mut update = UpdateRequest::new();
    update.info = MessageField::some(new);
    let mut mask = FieldMask::new();
    mask.paths = vec!["labels.a".into()];
    update.update_mask = MessageField::some(mask);
    let labels = content.update(plain(), &update).await.unwrap().info.unwrap().labels;
    assert_eq!(labels, HashMap::from([("a".into(), "b".into())]), "only what the mask names");
    assert_eq!(list(&["labels.a==b"]).await, [digests[7].clone()]);
    update.update_mask.as_mut().unwrap().paths = vec!["size".into()];
    assert_eq!(code(content.update(plain(), &update).await), Code::INVALID_ARGUMENT);

    let ns = "default".parse().unwrap();
    daemon.store.metadata.create_lease(&ns, "l", &<_>::default()).unwrap();
    let mut stream = content.write(with_lease("l")).await.unwrap();
    let mut commit = piece(WriteAction::COMMIT, 0, b"leased");
    commit.ref_ = "leased".into();
    let digest = exchange(&mut stream, commit).await.unwrap().digest;
    let kept = daemon.store.metadata.resources(&ns, "l").unwrap();
    assert!(kept.iter().any(|it| it.kind == "content" && it.id == digest), "{kept:?}");

    let mut gone = DeleteContentRequest::new();
    gone.digest = digest;
    content.delete(plain(), &gone).await.unwrap();
    assert_eq!(code(content.delete(plain(), &gone).await), Code::NOT_FOUND);

    let (_stream, _) = begin(&client, "coming", "").await.unwrap();
    let all = content.list_statuses(plain(), &ListStatusesRequest::new()).await.unwrap().statuses;
    assert_eq!(all.iter().map(|it| it.ref_.as_str()).collect::<Vec<_>>(), ["coming"]);
    daemon.stop().await;
}
