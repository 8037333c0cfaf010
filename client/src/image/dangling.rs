//! Images without a name: the store keeps them under their digest.
//!
//! A name that moves leaves the image it stood for behind, as docker does: containers may have been made of it. It is kept before the
//! name moves, so that no collection comes in between, and let go of afterwards if another name has it.

use std::collections::HashSet;

use tare_proto::MessageField;
use tare_proto::images::{CreateImageRequest, DeleteImageRequest, Image as Named};

use super::resolve;
use crate::client::Client;
use crate::error::{Context, Kind, Result};
use crate::records;

/// Whether a name in the store is none for people.
pub(super) fn is_nameless(name: &str) -> bool {
    name.split_once(':').is_some_and(|(algorithm, hex)| {
        matches!(algorithm, "sha256" | "sha512")
            && hex.len() >= 64
            && hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// An image that a name stands for and that may be about to lose it.
pub(super) struct Kept {
    image: Named,
    /// It was not kept under its digest already.
    made: bool,
}

/// Keeps what `name` stands for, if it stands for anything.
pub(super) async fn keep(client: &Client, name: &str) -> Result<Option<Kept>> {
    let Some(image) = resolve::named(client, name).await? else { return Ok(None) };
    let made = keep_image(client, &image).await?;
    Ok(Some(Kept { image, made }))
}

/// Keeps what containers were made of, as far as it is here. A container whose record cannot be read may have been made of any image.
pub(super) async fn keep_used(client: &Client) -> Result<Vec<Kept>> {
    let used: HashSet<String> = match records::list(client)?.whole() {
        Ok(records) => records.into_iter().map(|it| it.image.name).collect(),
        Err(_) => resolve::list(client).await?.into_iter().map(|it| it.name).collect(),
    };
    let mut kept = Vec::new();
    for name in used.iter().filter(|it| !is_nameless(it)) {
        kept.extend(keep(client, name).await?);
    }
    Ok(kept)
}

/// Keeps an image under its digest; false if it is so already.
pub(super) async fn keep_image(client: &Client, image: &Named) -> Result<bool> {
    let mut nameless = image.clone();
    nameless.name.clone_from(&image.target.digest);
    let mut request = CreateImageRequest::new();
    request.image = MessageField::some(nameless);
    let images = client.store.images().await?;
    let made = images.create(client.store.context(), &request).await;
    match made.context(|| client.store.call(&format!("keep image {}", image.target.digest))) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name has moved, or it has not: an image that has a name needs no other.
pub(super) async fn settle(client: &Client, kept: Option<Kept>) -> Result<()> {
    let Some(Kept { image, made: true }) = kept else { return Ok(()) };
    let digest = &image.target.digest;
    let named = resolve::list(client).await?;
    if named.iter().any(|it| it.target.digest == *digest && !is_nameless(&it.name)) {
        delete(client, digest, false).await?;
    }
    Ok(())
}

/// Takes a name away. `collect`: and return when nothing is left that it alone led to.
pub(super) async fn delete(client: &Client, name: &str, collect: bool) -> Result<()> {
    let mut request = DeleteImageRequest::new();
    name.clone_into(&mut request.name);
    request.sync = collect;
    let images = client.store.images().await?;
    let deleted = images.delete(client.store.context(), &request).await;
    deleted.context(|| client.store.call(&format!("remove image {name}"))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_no_name() {
        assert!(is_nameless(&format!("sha256:{}", "a".repeat(64))));
        for named in ["docker.io/library/debian:latest", "sha256:beef", &format!("sha256:{}", "G".repeat(64))] {
            assert!(!is_nameless(named), "{named}");
        }
    }
}
