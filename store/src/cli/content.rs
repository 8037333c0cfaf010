//! Blobs.

use std::io::Write;

use serde_json::json;
use tare_proto::MessageField;
use tare_proto::content::*;
use ttrpc::asynchronous::ClientStream;

use super::archive::stdin;
use super::args_parts as args;
use super::output::{self, Done, Failure, ago, json_time, label_paths, labels, size, table};
use super::{Client, Session};
use crate::content::digest::Algorithm;
use crate::error::{Error, Kind, Result};

pub(super) async fn run(session: &Session, command: args::Content) -> Done {
    match command {
        args::Content::Ls { filters } => list(session, filters).await,
        args::Content::Info { digest } => info(session, digest).await,
        args::Content::Get { digest, offset, size } => get(session, digest, offset, size).await,
        args::Content::Put { reference, digest, label, lease } => {
            let client = session.client.with_lease(lease);
            let labels = labels(&label)?;
            let stored = put(&client, reference, digest.unwrap_or_default(), labels).await?;
            if session.json { output::document(&json!({ "digest": stored })) } else { output::line(&stored) }
        }
        args::Content::Label { digest, labels } => label(session, digest, &labels).await,
        args::Content::Rm { digests } => {
            for digest in digests {
                let mut request = DeleteContentRequest::new();
                request.digest = digest;
                let response = session.client.content().delete(session.client.context(), &request).await;
                response.map_err(|error| session.client.failed(error))?;
            }
            Ok(())
        }
        args::Content::Ingests { filters } => ingests(session, filters).await,
        args::Content::Abort { reference } => {
            let mut request = AbortRequest::new();
            request.ref_ = reference;
            let response = session.client.content().abort(session.client.context(), &request).await;
            response.map(drop).map_err(|error| session.client.failed(error).into())
        }
    }
}

async fn list(session: &Session, filters: Vec<String>) -> Done {
    let mut request = ListContentRequest::new();
    request.filters = filters;
    let stream = session.client.content().list(session.client.context(), &request).await;
    let mut stream = stream.map_err(|error| session.client.failed(error))?;
    let mut all = Vec::new();
    while let Some(batch) = session.client.next(&mut stream).await? {
        all.extend(batch.info);
    }
    if session.json {
        return output::document(&all.iter().map(as_json).collect());
    }
    let row = |it: &Info| [it.digest.clone(), size(it.size), ago(&it.created_at), it.labels.len().to_string()];
    table(["DIGEST", "SIZE", "CREATED", "LABELS"], &all.iter().map(row).collect::<Vec<_>>())
}

fn as_json(it: &Info) -> serde_json::Value {
    json!({
        "digest": it.digest,
        "size": it.size,
        "labels": it.labels,
        "createdAt": json_time(&it.created_at),
        "updatedAt": json_time(&it.updated_at),
    })
}

async fn info(session: &Session, digest: String) -> Done {
    let mut request = InfoRequest::new();
    request.digest = digest;
    let response = session.client.content().info(session.client.context(), &request).await;
    let found = response.map_err(|error| session.client.failed(error))?.info.unwrap_or_default();
    show(session, &found)
}

fn show(session: &Session, found: &Info) -> Done {
    if session.json {
        return output::document(&as_json(found));
    }
    output::line(&format!("digest   {}", found.digest))?;
    output::line(&format!("size     {}", size(found.size)))?;
    output::line(&format!("created  {}", ago(&found.created_at)))?;
    output::line(&format!("updated  {}", ago(&found.updated_at)))?;
    let mut labels: Vec<_> = found.labels.iter().collect();
    labels.sort();
    labels.iter().try_for_each(|(key, value)| output::line(&format!("label    {key}={value}")))
}

async fn get(session: &Session, digest: String, offset: u64, size: Option<u64>) -> Done {
    let mut request = ReadContentRequest::new();
    request.digest = digest;
    let number = |it: u64| i64::try_from(it).map_err(|_| Failure::usage(format!("{it} is too large")));
    request.offset = number(offset)?;
    request.size = number(size.unwrap_or(0))?;
    if size == Some(0) {
        return Ok(());
    }
    let stream = session.client.content().read(session.client.context(), &request).await;
    let mut stream = stream.map_err(|error| session.client.failed(error))?;
    while let Some(part) = session.client.next(&mut stream).await? {
        let written = tokio::task::spawn_blocking(move || std::io::stdout().lock().write_all(&part.data)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Failure::output(&error)),
            Err(error) => return Err(Error::internal(format!("write to standard output: {error}")).into()),
        }
    }
    Ok(())
}

/// Sends standard input; goes on where an earlier try with the same reference stopped.
async fn put(
    client: &Client,
    reference: String,
    digest: String,
    labels: std::collections::HashMap<String, String>,
) -> Result<String> {
    let stream = client.content().write(client.context()).await;
    let mut stream = stream.map_err(|error| client.failed(error))?;
    let mut request = WriteContentRequest::new();
    request.action = WriteAction::STAT.into();
    request.ref_ = reference;
    request.expected.clone_from(&digest);
    let state = match exchange(client, &mut stream, &request).await {
        Err(error) if error.kind == Kind::AlreadyExists => return Ok(digest),
        state => state?,
    };
    // The input begins at its beginning: what came before is only passed over.
    let (mut known, mut offset) = (u64::try_from(state.offset).unwrap_or(0), state.offset);
    let mut input = stdin();
    let algorithm = if digest.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 };
    let mut hasher = algorithm.hasher();
    while let Some(piece) = input.recv().await {
        let mut piece = piece?;
        hasher.update(&piece);
        let passed = known.min(piece.len() as u64);
        known -= passed;
        piece.drain(..usize::try_from(passed).unwrap_or(usize::MAX));
        if piece.is_empty() {
            continue;
        }
        let mut request = WriteContentRequest::new();
        request.action = WriteAction::WRITE.into();
        request.offset = offset;
        request.data = piece;
        offset = exchange(client, &mut stream, &request).await?.offset;
    }
    if known > 0 {
        return Err(Error::invalid(format!(
            "standard input has {known} bytes less than what came of this reference before: forget that with `content abort`"
        )));
    }
    let mut request = WriteContentRequest::new();
    request.action = WriteAction::COMMIT.into();
    (request.offset, request.total, request.labels) = (offset, offset, labels);
    // What was read here, and what it should be: the store has to agree with both.
    let read = hasher.finish().to_string();
    request.expected = if digest.is_empty() { read.clone() } else { digest };
    match exchange(client, &mut stream, &request).await {
        Err(error) if error.kind == Kind::AlreadyExists => Ok(read),
        response => Ok(response?.digest),
    }
}

async fn exchange(
    client: &Client,
    stream: &mut ClientStream<WriteContentRequest, WriteContentResponse>,
    request: &WriteContentRequest,
) -> Result<WriteContentResponse> {
    client.used();
    // If the store has ended the stream, what it says next is why.
    let sent = stream.send(request).await;
    match stream.recv().await {
        Ok(response) => Ok(response),
        Err(error) => Err(client.failed(sent.err().filter(|_| matches!(error, ttrpc::Error::Eof)).unwrap_or(error))),
    }
}

async fn label(session: &Session, digest: String, given: &[String]) -> Done {
    let mut new = Info::new();
    new.digest = digest;
    new.labels = labels(given)?;
    let mut request = UpdateRequest::new();
    request.update_mask = label_paths(&new.labels);
    request.info = MessageField::some(new);
    let response = session.client.content().update(session.client.context(), &request).await;
    let found = response.map_err(|error| session.client.failed(error))?.info.unwrap_or_default();
    show(session, &found)
}

async fn ingests(session: &Session, filters: Vec<String>) -> Done {
    let mut request = ListStatusesRequest::new();
    request.filters = filters;
    let response = session.client.content().list_statuses(session.client.context(), &request).await;
    let all = response.map_err(|error| session.client.failed(error))?.statuses;
    if session.json {
        let one = |it: &Status| {
            json!({
                "ref": it.ref_,
                "offset": it.offset,
                "total": it.total,
                "expected": it.expected,
                "startedAt": json_time(&it.started_at),
                "updatedAt": json_time(&it.updated_at),
            })
        };
        return output::document(&all.iter().map(one).collect());
    }
    let row = |it: &Status| [it.ref_.clone(), size(it.offset), size(it.total), ago(&it.updated_at)];
    table(["REF", "HERE", "TOTAL", "UPDATED"], &all.iter().map(row).collect::<Vec<_>>())
}
