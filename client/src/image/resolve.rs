//! Which image a word means, and fetching it if it is not here.

use tare_proto::images::{GetImageRequest, Image as Named, ListImagesRequest};
use tare_proto::store::{InspectRequest, UnpackRequest};

use super::reference::{Reference, id_prefix};
use super::{Image, Policy, dangling, pull};
use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};

/// The image for a container: found here, or fetched as `policy` says, and unpacked. What is fetched is shown on standard error,
/// unless it shall be quiet.
///
/// # Errors
/// There is none here and it may or can not be fetched, or the word means several.
pub async fn resolve(client: &Client, word: &str, policy: Policy, fetch: &pull::Options) -> Result<Image> {
    let platform = fetch.platform.as_str();
    let here = match policy {
        Policy::Always => None,
        Policy::Missing | Policy::Never => match find_for(client, word, platform).await {
            Ok(image) => Some(image),
            Err(error) if error.kind == Kind::NotFound && policy == Policy::Missing => None,
            Err(error) => return Err(error),
        },
    };
    let image = match here {
        Some(image) => image,
        None => {
            let Some(reference) = Reference::parse(word).filter(|_| !word.starts_with("sha256:")) else {
                return Err(missing(word));
            };
            if policy == Policy::Missing && !fetch.quiet {
                eprintln!("Unable to find image '{}' locally", reference.familiar());
            }
            pull::one(client, &reference, fetch, &mut pull::Show::pull_for_container(fetch.quiet)).await?;
            find_for(client, word, platform).await?
        }
    };
    if !image.unpacked && !image.chain_id.is_empty() {
        unpack(client, &image).await?;
    }
    Ok(image)
}

/// The image that is meant, for this machine if it has several.
///
/// # Errors
/// There is none, or the word means several.
pub async fn find(client: &Client, word: &str) -> Result<Image> {
    find_for(client, word, "").await
}

/// As [`find`], for a machine: `os/architecture[/variant]`.
///
/// # Errors
/// There is none, or the word means several.
pub async fn find_for(client: &Client, word: &str, platform: &str) -> Result<Image> {
    if let Some(reference) = Reference::parse(word).filter(|_| !dangling::is_nameless(word)) {
        let reference = reference.by_digest();
        if named(client, &reference.to_string()).await?.is_some() {
            return inspect(client, &reference.to_string(), word, platform).await;
        }
        if let Some(digest) = &reference.digest {
            let name = by_digest(client, &reference.repository(), digest).await?.ok_or_else(|| missing(word))?;
            return inspect(client, &name, word, platform).await;
        }
    }
    let prefix = id_prefix(word).ok_or_else(|| missing(word))?;
    let mut found = all(client, platform).await?;
    found.retain(|it| hex(&it.id).starts_with(prefix) || hex(&it.target).starts_with(prefix));
    // An id that is meant whole or in part goes before the digest of another's manifest.
    if found.iter().any(|it| hex(&it.id).starts_with(prefix)) {
        found.retain(|it| hex(&it.id).starts_with(prefix));
    }
    if let Some(other) = found.iter().find(|it| it.id != found[0].id) {
        return Err(Error::usage(format!(
            "{word:?} begins the ids of several images, as {} and {}: write more of it",
            found[0].id, other.id
        )));
    }
    found.into_iter().next().map(|it| Image { reference: word.to_owned(), ..it }).ok_or_else(|| missing(word))
}

/// Every image once, however many names it has, with the names of all that have its id. The newest comes first.
pub(super) async fn all(client: &Client, platform: &str) -> Result<Vec<Image>> {
    let mut targets: Vec<Named> = Vec::new();
    for image in list(client).await? {
        if targets.iter().all(|it| it.target.digest != image.target.digest) {
            targets.push(image);
        }
    }
    let asked = targets.iter().map(|it| inspect(client, &it.name, &it.name, platform));
    let mut found: Vec<Image> = Vec::new();
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(image) => found.push(image),
            // Gone meanwhile, for another machine, or no image at all: an artifact.
            Err(error) if matches!(error.kind, Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    found.retain(|it| !it.id.is_empty());
    found.sort_by(|one, other| other.document.created.cmp(&one.document.created).then(one.name.cmp(&other.name)));
    Ok(found)
}

/// The store's names.
pub(super) async fn list(client: &Client) -> Result<Vec<Named>> {
    let images = client.store.images().await?;
    let response = images.list(client.store.context(), &ListImagesRequest::new()).await;
    Ok(response.context(|| client.store.call("list the images"))?.images)
}

/// The store's record of a name, in full.
pub(super) async fn named(client: &Client, name: &str) -> Result<Option<Named>> {
    let mut request = GetImageRequest::new();
    name.clone_into(&mut request.name);
    let images = client.store.images().await?;
    match images
        .get(client.store.context(), &request)
        .await
        .context(|| client.store.call(&format!("look for image {name}")))
    {
        Ok(response) => Ok(response.image.into_option()),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of what a repository has under a digest.
async fn by_digest(client: &Client, repository: &str, digest: &str) -> Result<Option<String>> {
    let of = |image: &Named| {
        let pulled = image.labels.get(super::PULLED).is_some_and(|it| it.split(' ').any(|it| it == repository));
        pulled || Reference::parse(&image.name).is_some_and(|it| it.repository() == repository)
    };
    let images = list(client).await?;
    Ok(images.into_iter().find(|it| it.target.digest == digest && of(it)).map(|it| it.name))
}

async fn inspect(client: &Client, name: &str, word: &str, platform: &str) -> Result<Image> {
    let mut request = InspectRequest::new();
    name.clone_into(&mut request.image);
    platform.clone_into(&mut request.platform);
    let store = client.store.store().await?;
    let response = store.inspect(client.store.context(), &request).await;
    let found = response.context(|| client.store.call(&format!("look at image {word}")))?;
    if found.config.is_none() {
        return Err(Error::not_found(format!("{word} is no image that can be run, but an artifact")));
    }
    Image::read(word, found)
}

/// Makes the snapshots of an image whose blobs alone are here.
async fn unpack(client: &Client, image: &Image) -> Result<()> {
    let mut request = UnpackRequest::new();
    (request.image, request.platform) = (image.name.clone(), image.platform());
    let doing = format!("unpack image {}", image.reference);
    let store = client.store.store().await?;
    let mut stream = store.unpack(client.store.context(), &request).await.context(|| client.store.call(&doing))?;
    while client.store.next(&mut stream).await?.is_some() {}
    Ok(())
}

fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

pub(super) fn missing(word: &str) -> Error {
    let pull = match Reference::parse(word) {
        // Nothing can be pulled by an id.
        Some(_) if word.starts_with("sha256:") => String::new(),
        Some(_) => format!(", or pull it with `tarectl pull {word}`"),
        None => ", and write a name in small letters, as in debian:12".to_owned(),
    };
    Error::not_found(format!("there is no image {word:?}: see `tarectl images`{pull}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_pulled_only_if_it_can_be() {
        for (word, remedy) in [
            ("debian:12", ", or pull it with `tarectl pull debian:12`"),
            ("sha256:0123", ""),
            ("Debian", ", and write a name in small letters, as in debian:12"),
        ] {
            let sentence = format!("there is no image {word:?}: see `tarectl images`{remedy}");
            assert_eq!(missing(word).message, sentence);
        }
    }
}
