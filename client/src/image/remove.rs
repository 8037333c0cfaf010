//! `rmi`: takes names away, and with the last one the image.
//!
//! ```text
//! rmi NAME   the name goes; with an image's last name the image, unless a container was made of it: then that is an error,
//!            and with -f the image stays without a name
//! rmi ID     all names go and the image; names in several repositories and stopped containers want -f, running ones forbid it
//! ```

use std::collections::BTreeSet;
use std::io::Write;

use tare_proto::images::Image as Named;

use super::pull::said;
use super::reference::{Reference, familiar, short};
use super::{Image, PULLED, dangling, layers, resolve};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::{Container, Status};
use crate::{events, records, truth};

/// An image with all that hangs on it.
pub(super) struct Held {
    pub(super) image: Image,
    /// All of its names in the store.
    pub(super) names: Vec<Named>,
    /// What was made of it.
    pub(super) users: Vec<Container>,
}

impl Held {
    /// Names that people gave.
    pub(super) fn people(&self) -> impl Iterator<Item = &Named> {
        self.names.iter().filter(|it| !dangling::is_nameless(&it.name))
    }

    fn repositories(&self) -> BTreeSet<String> {
        self.people().filter_map(|it| Reference::parse(&it.name)).map(|it| it.repository()).collect()
    }
}

/// Removes what `word` means, and says what went.
///
/// # Errors
/// There is no such image, or something keeps it.
pub async fn remove(client: &Client, word: &str, force: bool, out: &mut dyn Write) -> Result<()> {
    let image = resolve::find(client, word).await?;
    let held = held(client, image).await?;
    let lines = match by_name(&held, word) {
        Some(names) => untag(client, &held, &names, word, force).await?,
        None => {
            may_go(&held, word, force)?;
            let chain = layers::chain(client, &held.image.chain_id).await?;
            let mut lines = take_names(client, &held, &held.names, true).await?;
            lines.extend(gone(client, &held.image, &chain).await?);
            lines
        }
    };
    lines.iter().try_for_each(|(what, which)| said(out, &format!("{what}: {which}")))
}

/// The names that are meant; none: the image itself.
fn by_name<'a>(held: &'a Held, word: &str) -> Option<Vec<&'a Named>> {
    let reference = Reference::parse(word).filter(|_| !dangling::is_nameless(word))?.by_digest();
    let whole = reference.to_string();
    if let Some(found) = held.names.iter().find(|it| it.name == whole) {
        return Some(vec![found]);
    }
    // By digest: what the repository has of it.
    reference.digest.as_ref()?;
    let of = |it: &&Named| Reference::parse(&it.name).is_some_and(|it| it.repository() == reference.repository());
    Some(held.people().filter(of).collect::<Vec<_>>()).filter(|it| !it.is_empty())
}

/// Takes some names away; the image stays if it has others.
async fn untag(client: &Client, held: &Held, names: &[&Named], word: &str, force: bool) -> Result<Vec<Line>> {
    let last = held.people().count() == names.len();
    if last
        && !force
        && let Some(user) = held.users.first()
    {
        return Err(Error::conflict(format!(
            "the image {word} is used by container {} ({}): remove that first, or take the name alone away with rmi -f",
            records::short(&user.id),
            user.name
        )));
    }
    let stays = last && !held.users.is_empty();
    if stays && let Some(name) = names.first() {
        dangling::keep_image(client, name).await?;
    }
    let goes = last && !stays;
    let chain = if goes { layers::chain(client, &held.image.chain_id).await? } else { Vec::new() };
    // With the last name for people also the one that is none.
    let doomed: Vec<Named> = if goes { held.names.clone() } else { names.iter().map(|it| (*it).clone()).collect() };
    let mut lines = take_names(client, held, &doomed, goes).await?;
    if goes {
        lines.extend(gone(client, &held.image, &chain).await?);
    }
    Ok(lines)
}

/// Whether an image may go with all of its names.
fn may_go(held: &Held, word: &str, force: bool) -> Result<()> {
    let running = |it: &&Container| !matches!(it.state.status, Status::Created | Status::Exited | Status::Dead);
    if let Some(user) = held.users.iter().find(running) {
        return Err(Error::conflict(format!(
            "the image {word} is used by the running container {} ({}): stop and remove that first",
            records::short(&user.id),
            user.name
        )));
    }
    if force {
        return Ok(());
    }
    let repositories = held.repositories();
    if repositories.len() > 1 {
        let named: Vec<String> = held.people().map(|it| familiar(&it.name)).collect();
        return Err(Error::conflict(format!(
            "the image {word} has names in several repositories ({}): remove these, or all at once with rmi -f",
            named.join(", ")
        )));
    }
    match held.users.first() {
        Some(user) => Err(Error::conflict(format!(
            "the image {word} is used by the stopped container {} ({}): remove that first, or force it with rmi -f",
            records::short(&user.id),
            user.name
        ))),
        None => Ok(()),
    }
}

/// What happened, and to whom.
pub(super) type Line = (&'static str, String);

/// Takes names away; the last one waits, with `collect`, until nothing is left that it led to.
pub(super) async fn take_names(client: &Client, held: &Held, names: &[Named], collect: bool) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let last = at + 1 == names.len();
        dangling::delete(client, &name.name, collect && last).await?;
        if dangling::is_nameless(&name.name) {
            continue;
        }
        let shown = familiar(&name.name);
        events::other(&client.paths, "image", "untag", &held.image.id, &[("name", &shown)]);
        lines.push(("Untagged", shown));
        // With a repository's last name its digest there is not known any more.
        if let Some(reference) = Reference::parse(&name.name).filter(|it| it.digest.is_none()) {
            let repository = reference.repository();
            let pulled = name.labels.get(PULLED).is_some_and(|it| it.split(' ').any(|it| it == repository));
            let taken = &names[..=at];
            let left = held.people().any(|it| {
                taken.iter().all(|taken| taken.name != it.name)
                    && Reference::parse(&it.name).is_some_and(|it| it.repository() == repository)
            });
            if pulled && !left {
                lines.push(("Untagged", format!("{}@{}", reference.familiar_repository(), name.target.digest)));
            }
        }
    }
    Ok(lines)
}

/// The image, and those of its layers that nobody else has.
pub(super) async fn gone(client: &Client, image: &Image, chain: &[String]) -> Result<Vec<Line>> {
    events::other(&client.paths, "image", "delete", &image.id, &[("name", short(&image.id))]);
    let mut lines = vec![("Deleted", image.id.clone())];
    for layer in chain {
        if layers::parent(client, layer).await?.is_some() {
            break;
        }
        lines.push(("Deleted", layer.clone()));
    }
    Ok(lines)
}

/// One may be that of the container about which nothing is known.
pub(super) fn unknown(error: Error) -> Error {
    error.within("it is not known which images are in use")
}

/// Finds what hangs on an image.
async fn held(client: &Client, image: Image) -> Result<Held> {
    let same: BTreeSet<String> = resolve::all(client, "")
        .await?
        .into_iter()
        .filter(|it| it.id == image.id)
        .map(|it| it.target)
        .chain([image.target.clone()])
        .collect();
    let mut names = resolve::list(client).await?;
    names.retain(|it| same.contains(&it.target.digest));
    let users = truth::users(client, |it| it.image.id == image.id).await.map_err(unknown)?;
    Ok(Held { image, names, users })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(names: &[&str], status: Option<Status>) -> Held {
        let names = names.iter().map(|name| {
            let mut it = Named::new();
            (*name).clone_into(&mut it.name);
            it
        });
        let user = status.map(|status| {
            let mut it = Container { id: "ab".repeat(32), name: "web".to_owned(), ..Container::default() };
            it.state.status = status;
            it
        });
        Held { image: Image::default(), names: names.collect(), users: user.into_iter().collect() }
    }

    #[test]
    fn what_keeps_an_image_is_said() {
        let one = &["docker.io/library/app:1", "docker.io/library/app:2"];
        let two = &["docker.io/library/app:1", "r.example/app:1"];
        for (names, status, force, why) in [
            (one, None, false, None),
            (two, None, false, Some("several repositories (app:1, r.example/app:1)")),
            (two, None, true, None),
            (one, Some(Status::Exited), false, Some("stopped container abababababab (web)")),
            (one, Some(Status::Exited), true, None),
            (one, Some(Status::Running), true, Some("running container abababababab (web)")),
            (one, Some(Status::Paused), true, Some("running container")),
        ] {
            let result = may_go(&held_by(names, status), "app", force);
            match why {
                Some(why) => assert!(result.unwrap_err().message.contains(why), "{names:?} {status:?} {force}"),
                None => assert!(result.is_ok(), "{names:?} {status:?} {force}"),
            }
        }
    }

    #[test]
    fn a_word_means_a_name_or_the_image() {
        let held = held_by(&["docker.io/library/app:1", "docker.io/library/app:2", "r.example/app:1"], None);
        let meant = |word: &str| by_name(&held, word).map(|it| it.len());
        assert_eq!(meant("app:1"), Some(1));
        assert_eq!(meant(&format!("app@sha256:{}", "a".repeat(64))), Some(2));
        assert_eq!(meant("abab"), None);
        assert_eq!(meant(&format!("sha256:{}", "a".repeat(64))), None);
    }
}
