//! `pull`: an image, or all of a repository's.
//!
//! What was fetched and verified stays in the store when the call ends early (^C, a cut connection): the next one goes on from there.

use std::io::Write;

use tare_proto::store::{PullRequest, TagsRequest};

use super::progress::{To, Verb};
use super::reference::Reference;
use super::{PULLED, credentials, dangling, stream};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::events;

pub use super::progress::Show;

/// How it is fetched.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Only its name is printed.
    pub quiet: bool,
    /// `os/architecture[/variant]`; empty: this machine's.
    pub platform: String,
}

impl Show {
    /// For a command whose result is what it fetched.
    #[must_use]
    pub fn pull(quiet: bool) -> Self {
        Self::new(Verb::Pull, To::Stdout, quiet)
    }

    /// For a command that needs an image on its way to something else.
    #[must_use]
    pub fn pull_for_container(quiet: bool) -> Self {
        Self::new(Verb::Pull, To::Stderr, quiet)
    }
}

/// Fetches what `word` names, and prints what docker prints.
///
/// # Errors
/// It is no name, or the store could not fetch it: its sentence.
pub async fn pull(client: &Client, word: &str, options: &Options, out: &mut dyn Write) -> Result<()> {
    let reference = parse(word)?;
    let mut show = Show::pull(options.quiet);
    let explicit = word.rsplit('/').next().is_some_and(|it| it.contains([':', '@']));
    if options.all_tags {
        if explicit {
            return Err(Error::usage(format!(
                "pull --all-tags takes a repository, and {word} names one image of it: leave out what is behind the name"
            )));
        }
        return all(client, &reference, options, &mut show, out).await;
    }
    if !explicit {
        show.line("Using default tag: latest");
    }
    one(client, &reference, options, &mut show).await?;
    said(out, &reference.by_digest().to_string())
}

async fn all(
    client: &Client,
    repository: &Reference,
    options: &Options,
    show: &mut Show,
    out: &mut dyn Write,
) -> Result<()> {
    let mut request = TagsRequest::new();
    request.repository = repository.repository();
    request.registry = credentials::options()?;
    let store = client.store.store().await?;
    let answer = store.tags(client.store.context(), &request).await;
    let tags = answer.context(|| client.store.call(&format!("list the tags of {}", repository.repository())))?.tags;
    if tags.is_empty() {
        return Err(Error::not_found(format!("{} has no tags at its registry", repository.familiar_repository())));
    }
    for tag in tags {
        one(client, &Reference { tag: Some(tag), ..repository.clone() }, options, show).await?;
    }
    said(out, &repository.repository())
}

/// Fetches one, shows how, and ends with docker's two lines.
pub(super) async fn one(client: &Client, reference: &Reference, options: &Options, show: &mut Show) -> Result<()> {
    let reference = reference.clone().by_digest();
    let kept = dangling::keep(client, &reference.to_string()).await?;
    let result = fetch(client, &reference, options, show).await;
    let settled = dangling::settle(client, kept).await;
    result.and(settled)
}

async fn fetch(client: &Client, reference: &Reference, options: &Options, show: &mut Show) -> Result<()> {
    let mut request = PullRequest::new();
    request.reference = reference.to_string();
    request.platform.clone_from(&options.platform);
    request.registry = credentials::options()?;
    request.labels.insert(PULLED.to_owned(), reference.repository());
    let doing = format!("pull {}", reference.familiar());
    let store = client.store.store().await?;
    let stream = store.pull(client.store.context(), &request).await.context(|| client.store.call(&doing))?;
    let mut begun = false;
    let ended = stream::follow(client, &doing, stream, show, |show, progress| {
        if !begun && (progress.result.is_some() || progress.items.iter().any(|it| it.kind == "layer")) {
            begun = true;
            let what = match (&reference.digest, &reference.tag) {
                (None, Some(tag)) => tag.clone(),
                _ => reference.to_string(),
            };
            show.line(&format!("{what}: Pulling from {}", reference.path));
        }
    })
    .await?;
    let image = ended.images.first();
    let name = reference.familiar();
    show.line(&format!("Digest: {}", image.map_or("", |it| &it.target.digest)));
    show.line(&if image.is_some_and(|it| it.unchanged) {
        format!("Status: Image is up to date for {name}")
    } else {
        format!("Status: Downloaded newer image for {name}")
    });
    events::other(&client.paths, "image", "pull", &name, &[("name", &reference.familiar_repository())]);
    Ok(())
}

/// A name that a registry can be asked for.
pub(super) fn parse(word: &str) -> Result<Reference> {
    Reference::parse(word).filter(|_| !dangling::is_nameless(word)).ok_or_else(|| {
        Error::usage(format!(
            "{word:?} is not the name of an image: give one as in debian, debian:12 or host:5000/app:1"
        ))
    })
}

/// One line of a command's result.
pub(super) fn said(out: &mut dyn Write, line: &str) -> Result<()> {
    writeln!(out, "{line}").context(|| "write to standard output".to_owned())
}
