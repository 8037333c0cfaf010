//! Calls that make or move a whole image, with progress: pull, push, commit, unpack.

use serde_json::{Value, json};
use tare_proto::store::{
    CommitRequest, ImageResult, Progress, PullRequest, PushRequest, Result as Ended, UnpackRequest,
};
use tare_proto::{MessageField, Timestamp};
use ttrpc::asynchronous::ClientStreamReceiver;

use super::args;
use super::credentials;
use super::output::{self, Done, Failure, apart, bytes, labels};
use super::{Session, config};
use crate::error::{Context, Error, Result};

/// Watches a stream to its end, and gives how it ended.
pub(super) async fn follow(
    session: &Session,
    mut stream: ClientStreamReceiver<Progress>,
) -> std::result::Result<Ended, Failure> {
    let mut watch = session.watch();
    let mut ended = None;
    let result = loop {
        match session.client.next(&mut stream).await {
            Ok(Some(progress)) => {
                if let Err(failure) = watch.show(&progress) {
                    break Err(failure);
                }
                ended = progress.result.into_option().or(ended);
            }
            Ok(None) => break ended.ok_or_else(|| without_result().into()),
            Err(error) => break Err(error.into()),
        }
    };
    watch.end();
    result
}

pub(super) fn without_result() -> Error {
    Error::internal("the store ended the call without a result: its log says more")
}

pub(super) async fn pull(session: &Session, args: args::Pull) -> Done {
    let mut request = PullRequest::new();
    request.registry = credentials::options(&args.registry, &credentials::host_of(&args.reference)).await?;
    request.reference = args.reference;
    request.platform = args.platform.platform.unwrap_or_default();
    request.all_platforms = args.platform.all_platforms;
    request.no_unpack = args.no_unpack;
    request.snapshotter = args.snapshotter.unwrap_or_default();
    request.labels = labels(&args.label)?;
    request.discard_blobs = args.discard_blobs;
    request.skip_foreign_layers = args.skip_foreign_layers;
    request.referrers = args.referrers;
    let stream = session.client.store().pull(session.client.context(), &request).await;
    let ended = follow(session, stream.map_err(|error| session.client.failed(error))?).await?;
    print(session, &ended, &format!("{} fetched", bytes(ended.fetched)))
}

pub(super) async fn push(session: &Session, args: args::Push) -> Done {
    let mut request = PushRequest::new();
    let target = args.target.as_ref().unwrap_or(&args.source);
    request.registry = credentials::options(&args.registry, &credentials::host_of(target)).await?;
    request.source = args.source;
    request.target = args.target.unwrap_or_default();
    request.platform = args.platform.platform.unwrap_or_default();
    request.all_platforms = args.platform.all_platforms;
    let stream = session.client.store().push(session.client.context(), &request).await;
    let ended = follow(session, stream.map_err(|error| session.client.failed(error))?).await?;
    print(session, &ended, &format!("{} sent", bytes(ended.sent)))
}

pub(super) async fn commit(session: &Session, args: args::Commit) -> Done {
    let mut request = CommitRequest::new();
    request.snapshot = args.snapshot;
    request.snapshotter = args.snapshotter.unwrap_or_default();
    request.base = args.base.unwrap_or_default();
    request.name = args.name.unwrap_or_default();
    request.author = args.author.unwrap_or_default();
    request.message = args.message.unwrap_or_default();
    request.created_by = args.created_by.unwrap_or_default();
    if let Some(path) = args.config {
        let read = move || std::fs::read_to_string(&path).context(|| format!("read {}", path.display()));
        request.config = apart(read).await?;
    }
    request.source_date = source_date(args.source_date)?;
    request.compression = args.compression.unwrap_or_default();
    request.platform = args.platform.unwrap_or_default();
    request.empty_layer = args.empty_layer;
    request.labels = labels(&args.label)?;
    let stream = session.client.store().commit(session.client.context(), &request).await;
    let ended = follow(session, stream.map_err(|error| session.client.failed(error))?).await?;
    print(session, &ended, "committed")
}

pub(super) async fn unpack(session: &Session, args: args::Unpack) -> Done {
    let mut request = UnpackRequest::new();
    request.image = args.image;
    request.platform = args.platform.unwrap_or_default();
    request.snapshotter = args.snapshotter.unwrap_or_default();
    let stream = session.client.store().unpack(session.client.context(), &request).await;
    let ended = follow(session, stream.map_err(|error| session.client.failed(error))?).await?;
    print(session, &ended, "unpacked")
}

/// As said, or as `SOURCE_DATE_EPOCH` says.
pub(super) fn source_date(flag: Option<i64>) -> std::result::Result<MessageField<Timestamp>, Failure> {
    let seconds = match (flag, config::environment("SOURCE_DATE_EPOCH")) {
        (Some(seconds), _) => seconds,
        (None, Some(text)) => text.to_str().and_then(|it| it.parse().ok()).ok_or_else(|| {
            Failure::usage(format!("SOURCE_DATE_EPOCH is {}: it must be seconds since 1970", text.display()))
        })?,
        (None, None) => return Ok(MessageField::none()),
    };
    let mut time = Timestamp::new();
    time.seconds = seconds;
    Ok(MessageField::some(time))
}

/// What became of a call: for people one line for each image.
pub(super) fn print(session: &Session, ended: &Ended, what: &str) -> Done {
    if session.json {
        return output::document(&json!({ "result": result(ended) }));
    }
    for image in &ended.images {
        let target = &image.target.digest;
        let what = if image.unchanged { "unchanged" } else { what };
        let name = if image.name.is_empty() { "" } else { " " };
        output::line(&format!("{}{name}{target} ({what})", image.name))?;
    }
    Ok(())
}

fn result(ended: &Ended) -> Value {
    json!({
        "images": ended.images.iter().map(image).collect::<Vec<_>>(),
        "fetched": ended.fetched,
        "sent": ended.sent,
        "problems": ended.problems,
        "repaired": ended.repaired,
    })
}

fn image(it: &ImageResult) -> Value {
    json!({
        "name": it.name,
        "target": descriptor(&it.target),
        "manifest": it.manifest,
        "config": it.config,
        "chainId": it.chain_id,
        "unchanged": it.unchanged,
    })
}

/// In the form of OCI's documents.
pub(super) fn descriptor(it: &MessageField<tare_proto::types::Descriptor>) -> Value {
    let Some(it) = it.as_ref() else { return Value::Null };
    let mut value = json!({ "mediaType": it.media_type, "digest": it.digest, "size": it.size });
    if !it.annotations.is_empty() {
        value["annotations"] = json!(it.annotations);
    }
    value
}

/// What a person's word for a path means to the daemon, which is elsewhere.
pub(super) fn absolute(path: &std::path::Path) -> Result<String> {
    let full = std::path::absolute(path).context(|| format!("find {}", path.display()))?;
    full.into_os_string()
        .into_string()
        .map_err(|it| Error::invalid(format!("{} is not UTF-8: name it otherwise, or use a pipe", it.display())))
}
