//! `push`: an image, or all of a repository's, to its registry.

use std::io::Write;

use tare_proto::MessageField;
use tare_proto::images::UpdateImageRequest;
use tare_proto::store::PushRequest;

use super::progress::{Show, To, Verb};
use super::pull::{parse, said};
use super::reference::{Reference, short};
use super::{Image, PULLED, credentials, resolve, stream};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::events;

/// What is sent.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Every tag of the repository that is here.
    pub all_tags: bool,
    /// Only the names are printed.
    pub quiet: bool,
}

/// Sends what `word` names, and prints what docker prints.
///
/// # Errors
/// It is not here, or the registry did not take it.
pub async fn push(client: &Client, word: &str, options: &Options, out: &mut dyn Write) -> Result<()> {
    let reference = parse(word)?;
    let explicit = word.rsplit('/').next().is_some_and(|it| it.contains([':', '@']));
    if reference.digest.is_some() || (options.all_tags && explicit) {
        let what = if options.all_tags { "a repository: leave out the tag" } else { "a tag: leave out the digest" };
        return Err(Error::usage(format!("{word} cannot be pushed: push takes {what}")));
    }
    let mut show = Show::new(Verb::Push, To::Stdout, options.quiet);
    if !options.all_tags && !explicit {
        show.line("Using default tag: latest");
    }
    show.line(&format!("The push refers to repository [{}]", reference.repository()));
    let tags = if options.all_tags { tags(client, &reference).await? } else { vec![reference] };
    for reference in tags {
        one(client, &reference, &mut show).await?;
        if options.quiet {
            said(out, &reference.to_string())?;
        }
    }
    Ok(())
}

/// Those of a repository that are here.
async fn tags(client: &Client, repository: &Reference) -> Result<Vec<Reference>> {
    let named = resolve::list(client).await?;
    let here: Vec<Reference> = named
        .iter()
        .filter_map(|it| Reference::parse(&it.name))
        .filter(|it| it.digest.is_none() && it.repository() == repository.repository())
        .collect();
    if here.is_empty() {
        return Err(absent(&repository.familiar_repository()));
    }
    Ok(here)
}

async fn one(client: &Client, reference: &Reference, show: &mut Show) -> Result<()> {
    let name = reference.to_string();
    if resolve::named(client, &name).await?.is_none() {
        return Err(absent(&reference.familiar()));
    }
    let image = resolve::find(client, &name).await?;
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        show.call(layer, short(diff_id));
    }
    let mut request = PushRequest::new();
    request.source.clone_from(&name);
    request.registry = credentials::options()?;
    let doing = format!("push {}", reference.familiar());
    let store = client.store.store().await?;
    let stream = store.push(client.store.context(), &request).await.context(|| client.store.call(&doing))?;
    let ended = stream::follow(client, &doing, stream, show, |_, _| {}).await?;
    if ended.images.first().is_some_and(|it| it.unchanged) {
        image.layers.iter().for_each(|layer| show.exists(layer));
        show.end();
    }
    let sent = ended.images.first().and_then(|it| it.target.as_ref());
    if let Some(sent) = sent {
        let tag = reference.tag.as_deref().unwrap_or_default();
        show.line(&format!("{tag}: digest: {} size: {}", sent.digest, sent.size));
        if sent.digest == image.target {
            note(client, &image, &reference.repository()).await?;
        }
    }
    events::other(&client.paths, "image", "push", &reference.familiar(), &[("name", &reference.familiar_repository())]);
    Ok(())
}

/// The repository has it: its digest is shown with it from here on.
async fn note(client: &Client, image: &Image, repository: &str) -> Result<()> {
    let known = image.labels.get(PULLED).map_or("", String::as_str);
    if known.split(' ').any(|it| it == repository) {
        return Ok(());
    }
    let mut changed = tare_proto::images::Image::new();
    changed.name.clone_from(&image.name);
    changed.labels.insert(PULLED.to_owned(), format!("{known} {repository}").trim_start().to_owned());
    let mut request = UpdateImageRequest::new();
    request.image = MessageField::some(changed);
    let mask = request.update_mask.mut_or_insert_default();
    mask.paths.push(format!("labels.{PULLED}"));
    let images = client.store.images().await?;
    let noted = images.update(client.store.context(), &request).await;
    noted.context(|| client.store.call(&format!("note where image {} is", image.name))).map(drop)
}

fn absent(name: &str) -> Error {
    Error::not_found(format!("there is no image {name} here to push: tag one so with `tarectl tag IMAGE {name}`"))
}
