//! `tag`: one more name for an image.

use tare_proto::store::TagRequest;

use super::{dangling, pull, reference, resolve};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::events;

/// Names the image that `word` means `target` as well; another one that has this name loses it.
///
/// # Errors
/// There is no such image, or `target` is no name.
pub async fn tag(client: &Client, word: &str, target: &str) -> Result<()> {
    let to = pull::parse(target)?;
    if to.digest.is_some() {
        return Err(Error::usage(format!(
            "{target} has a digest, which cannot be given: leave out what is behind the @"
        )));
    }
    let image = resolve::find(client, word).await?;
    let kept = dangling::keep(client, &to.to_string()).await?;
    let mut request = TagRequest::new();
    (request.source, request.target, request.force) = (image.name.clone(), to.to_string(), true);
    let store = client.store.store().await?;
    let tagged = store.tag(client.store.context(), &request).await;
    let tagged = tagged.context(|| client.store.call(&format!("tag image {word}"))).map(drop);
    // An image that had no name has one.
    let named = match &tagged {
        Ok(()) if dangling::is_nameless(&image.name) => dangling::delete(client, &image.name, false).await,
        _ => Ok(()),
    };
    let settled = dangling::settle(client, kept).await;
    tagged.and(named).and(settled)?;
    events::other(&client.paths, "image", "tag", &image.id, &[("name", &reference::familiar(&to.to_string()))]);
    Ok(())
}
