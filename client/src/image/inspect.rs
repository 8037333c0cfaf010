//! An image as docker's `inspect` has it.

use serde_json::{Value, json};

use super::{PULLED, resolve};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::Config;

/// Everything that is known of an image, under docker's names.
///
/// # Errors
/// There is no such image.
pub async fn document(client: &Client, word: &str) -> Result<Value> {
    let mut image = resolve::find(client, word).await?;
    // Each name remembers where it came from.
    for name in resolve::list(client).await?.into_iter().filter(|it| it.target.digest == image.target) {
        if let Some(more) = name.labels.get(PULLED) {
            let known = image.labels.entry(PULLED.to_owned()).or_default();
            known.push(' ');
            known.push_str(more);
        }
    }
    let plain = |config: &Config| {
        serde_json::to_value(config).map_err(|error| Error::failed(format!("show the image {word}: {error}")))
    };
    let document = &image.document;
    let mut shown = json!({
        "Id": image.id,
        "RepoTags": image.tags(),
        "RepoDigests": image.digests(),
        "Parent": "",
        "Comment": document.comment,
        "Created": document.created,
        "Container": "",
        "ContainerConfig": plain(&Config::default())?,
        "DockerVersion": document.docker_version,
        "Author": document.author,
        "Config": plain(&image.config)?,
        "Architecture": document.architecture,
        "Os": document.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": { "Data": { "ChainID": image.chain_id }, "Name": "overlayfs" },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids },
        "Metadata": { "LastTagTime": image.updated },
        "Descriptor": { "digest": image.target },
    });
    if !document.variant.is_empty() {
        shown["Variant"] = document.variant.clone().into();
    }
    Ok(shown)
}
