//! Names of images, and what is known of one.

use std::io::Write;

use serde_json::json;
use tare_proto::images::{DeleteImageRequest, Image, ListImagesRequest};
use tare_proto::store::{
    InspectRequest, InspectResponse, ReferrersRequest, SearchRequest, SearchResult, TagRequest, TagsRequest,
};

use super::args::{self, Document};
use super::output::{self, Done, Failure, ago, json_time, short, size, table};
use super::transfer::descriptor;
use super::watch::printable;
use super::{Session, args_parts, credentials};
use crate::error::{Error, Kind, Result};
use crate::registry::reference::Reference;

pub(super) async fn list(session: &Session, args: args::Images) -> Done {
    let mut request = ListImagesRequest::new();
    request.filters = args.filters;
    let response = session.client.images().list(session.client.context(), &request).await;
    let images = response.map_err(|error| session.client.failed(error))?.images;
    if session.json {
        return output::document(&images.iter().map(as_json).collect());
    }
    if args.names {
        return images.iter().try_for_each(|it| output::line(&it.name));
    }
    let row = |it: &Image| {
        [
            it.name.clone(),
            short(&it.target.digest).to_owned(),
            kind(&it.target.media_type).to_owned(),
            ago(&it.updated_at),
        ]
    };
    table(["NAME", "DIGEST", "KIND", "UPDATED"], &images.iter().map(row).collect::<Vec<_>>())
}

fn as_json(it: &Image) -> serde_json::Value {
    json!({
        "name": it.name,
        "target": descriptor(&it.target),
        "labels": it.labels,
        "createdAt": json_time(&it.created_at),
        "updatedAt": json_time(&it.updated_at),
    })
}

/// What a media type says in one word.
fn kind(media_type: &str) -> &str {
    match media_type {
        it if it.contains("index") || it.contains("manifest.list") => "index",
        it if it.contains("manifest") => "manifest",
        other => other,
    }
}

pub(super) async fn remove(session: &Session, args: args::Rmi) -> Done {
    let last = args.names.len() - 1;
    for (n, name) in args.names.into_iter().enumerate() {
        // One collection, after the last name.
        let name = remove_one(session, &name, args.sync && n == last).await?;
        if !session.json && !session.quiet {
            output::line(&name)?;
        }
    }
    Ok(())
}

/// A name as it is, or else the one that people mean by it: `debian` is `docker.io/library/debian:latest`. The name that is gone.
async fn remove_one(session: &Session, name: &str, sync: bool) -> Result<String> {
    let meant = name.parse::<Reference>().ok().map(|it| it.to_string()).filter(|it| it != name);
    let mut missing = None;
    for name in std::iter::once(name.to_owned()).chain(meant) {
        let mut request = DeleteImageRequest::new();
        (request.name, request.sync) = (name.clone(), sync);
        match session.client.images().delete(session.client.context(), &request).await {
            Ok(_) => return Ok(name),
            Err(error) => match session.client.failed(error) {
                error if error.kind == Kind::NotFound => missing = missing.or(Some(error)),
                error => return Err(error),
            },
        }
    }
    Err(missing.unwrap_or_else(|| Error::not_found(format!("there is no image {name:?}"))))
}

pub(super) async fn tag(session: &Session, args: args::Tag) -> Done {
    let mut request = TagRequest::new();
    (request.source, request.target, request.force) = (args.source, args.target, args.force);
    let response = session.client.store().tag(session.client.context(), &request).await;
    let name = response.map_err(|error| session.client.failed(error))?.name;
    if session.json { output::document(&json!({ "name": name })) } else { output::line(&name) }
}

pub(super) async fn inspect(session: &Session, args: args::Inspect) -> Done {
    let mut request = InspectRequest::new();
    request.image = args.image;
    request.platform = args.platform.unwrap_or_default();
    request.snapshotter = args.snapshotter.unwrap_or_default();
    let response = session.client.store().inspect(session.client.context(), &request).await;
    let found = response.map_err(|error| session.client.failed(error))?;
    if let Some(which) = args.raw {
        let bytes = match which {
            Document::Manifest => &found.manifest_json,
            Document::Config => &found.config_json,
        };
        return std::io::stdout().lock().write_all(bytes).map_err(|error| Failure::output(&error));
    }
    if session.json {
        return output::document(&everything(&found));
    }
    let platform = [&found.platform.os, &found.platform.architecture, &found.platform.variant];
    let platform = platform.map(String::as_str).into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join("/");
    let rows = [
        ("name", found.name.clone()),
        ("names", found.names.join(", ")),
        ("target", found.target.digest.clone()),
        ("manifest", found.manifest.digest.clone()),
        ("config", found.config.digest.clone()),
        ("platform", platform),
        ("layers", found.diff_ids.len().to_string()),
        ("unpacked", if found.unpacked { output::bytes(found.size) } else { "no".to_owned() }),
        ("chain id", found.chain_id.clone()),
        ("created", ago(&found.created_at)),
        ("updated", ago(&found.updated_at)),
    ];
    rows.iter().try_for_each(|(name, value)| output::line(&format!("{name:<10}{value}")))?;
    let mut labels: Vec<_> = found.labels.iter().collect();
    labels.sort();
    labels.iter().try_for_each(|(key, value)| output::line(&format!("label     {key}={value}")))
}

fn everything(found: &InspectResponse) -> serde_json::Value {
    // What is not JSON, an index of ours never has.
    let parsed = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap_or_default();
    json!({
        "name": found.name,
        "names": found.names,
        "target": descriptor(&found.target),
        "manifestDescriptor": descriptor(&found.manifest),
        "configDescriptor": descriptor(&found.config),
        "manifest": parsed(&found.manifest_json),
        "config": parsed(&found.config_json),
        "platform": {
            "os": found.platform.os,
            "architecture": found.platform.architecture,
            "variant": found.platform.variant,
        },
        "diffIds": found.diff_ids,
        "chainId": found.chain_id,
        "unpacked": found.unpacked,
        "size": found.size,
        "labels": found.labels,
        "createdAt": json_time(&found.created_at),
        "updatedAt": json_time(&found.updated_at),
    })
}

pub(super) async fn referrers(session: &Session, args: args::Referrers) -> Done {
    let mut request = ReferrersRequest::new();
    request.registry = credentials::options(&args.registry, &credentials::host_of(&args.image)).await?;
    request.image = args.image;
    request.artifact_type = args.artifact_type.unwrap_or_default();
    request.remote = args.remote;
    let response = session.client.store().referrers(session.client.context(), &request).await;
    let found = response.map_err(|error| session.client.failed(error))?.referrers;
    if session.json {
        let one = |it: &tare_proto::store::Referrer| json!({ "descriptor": descriptor(&it.descriptor), "artifactType": it.artifact_type });
        return output::document(&found.iter().map(one).collect());
    }
    let row = |it: &tare_proto::store::Referrer| {
        [it.descriptor.digest.clone(), size(it.descriptor.size), it.artifact_type.clone()]
    };
    table(["DIGEST", "SIZE", "TYPE"], &found.iter().map(row).collect::<Vec<_>>())
}

pub(super) async fn tags(session: &Session, args: args_parts::Tags) -> Done {
    let mut request = TagsRequest::new();
    request.registry = credentials::options(&args.registry, &credentials::host_of(&args.repository)).await?;
    request.repository = args.repository;
    let response = session.client.store().tags(session.client.context(), &request).await;
    let tags = response.map_err(|error| session.client.failed(error))?.tags;
    if session.json {
        return output::document(&json!(tags));
    }
    tags.iter().try_for_each(|it| output::line(&printable(it)))
}

pub(super) async fn search(session: &Session, args: args_parts::Search) -> Done {
    let mut request = SearchRequest::new();
    request.registry = credentials::options(&args.registry, &args.host).await?;
    (request.host, request.term, request.limit) = (args.host, args.term, args.limit);
    let response = session.client.store().search(session.client.context(), &request).await;
    let found = response.map_err(|error| session.client.failed(error))?.results;
    if session.json {
        let one = |it: &SearchResult| {
            json!({
                "name": it.name,
                "description": it.description,
                "stars": it.stars,
                "official": it.official,
                "automated": it.automated,
            })
        };
        return output::document(&found.iter().map(one).collect());
    }
    let row = |it: &SearchResult| [printable(&it.name), it.stars.to_string(), printable(&it.description)];
    table(["NAME", "STARS", "DESCRIPTION"], &found.iter().map(row).collect::<Vec<_>>())
}
