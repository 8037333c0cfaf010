//! Layers onto snapshots, and snapshots to layers.

use serde_json::json;
use tare_proto::content::InfoRequest;
use tare_proto::diff::{ApplyRequest, DiffRequest};
use tare_proto::types::Descriptor;
use tare_proto::{MessageField, types};

use super::Session;
use super::args_parts as args;
use super::output::{self, Done};
use super::snapshots::mounts;
use super::transfer::{descriptor, source_date};

pub(super) async fn run(session: &Session, command: args::Diff) -> Done {
    let client = &session.client;
    match command {
        args::Diff::Apply { digest, key, media_type, of } => {
            let mut asked = InfoRequest::new();
            asked.digest.clone_from(&digest);
            let found = client.content().info(client.context(), &asked).await.map_err(|error| client.failed(error))?;
            let mut layer = Descriptor::new();
            (layer.media_type, layer.digest, layer.size) = (media_type, digest, found.info.size);
            let mut request = ApplyRequest::new();
            request.diff = MessageField::some(layer);
            request.mounts = mounts(session, &key, &of).await?;
            request.sync_fs = true;
            let response = client.diff().apply(client.context(), &request).await;
            print(session, &response.map_err(|error| client.failed(error))?.applied)
        }
        args::Diff::Create { key, below, media_type, source_date: date, of } => {
            let mut request = DiffRequest::new();
            request.right = mounts(session, &key, &of).await?;
            if let Some(below) = below {
                request.left = mounts(session, &below, &of).await?;
            }
            request.media_type = media_type;
            request.source_date_epoch = source_date(date)?;
            let response = client.diff().diff(client.context(), &request).await;
            print(session, &response.map_err(|error| client.failed(error))?.diff)
        }
    }
}

fn print(session: &Session, made: &MessageField<types::Descriptor>) -> Done {
    if session.json { output::document(&json!(descriptor(made))) } else { output::line(&made.digest) }
}
