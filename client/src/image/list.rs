//! `images`: a row for each name, as objects with the fields that docker's templates know.

use std::collections::HashMap;

use glob::{MatchOptions, Pattern};
use serde_json::{Value, json};
use tare_proto::images::Image as Named;

use super::reference::{Reference, short};
use super::{Image, PULLED, dangling, resolve};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::has_label;
use crate::time::Time;
use crate::units::{human_duration, human_size_short};

/// Headings, and the fields below them.
pub const COLUMNS: &[(&str, &str)] =
    &[("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];

/// The same with the digests of the manifests.
pub const COLUMNS_WITH_DIGESTS: &[(&str, &str)] = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

/// What can be asked for with `--filter`.
pub const FILTERS: [&str; 5] = ["before", "dangling", "label", "reference", "since"];

/// Which images are listed, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Those of a name, or of a name and a tag, with `*` and `?`.
    pub name: Option<String>,
    /// Names of [`FILTERS`] with their values.
    pub filters: Vec<(String, String)>,
    /// Whole ids.
    pub no_trunc: bool,
}

/// The rows of the list; the newest image comes first.
///
/// # Errors
/// A filter cannot be read, or the store failed.
pub async fn rows(client: &Client, options: &Options) -> Result<Vec<Value>> {
    let mut wanted = Wanted::read(options)?;
    let named = resolve::list(client).await?;
    let images = resolve::all(client, "").await?;
    wanted.bound(client, options).await?;
    let mut names: HashMap<&str, Vec<&Named>> = HashMap::new();
    for name in &named {
        names.entry(&name.target.digest).or_default().push(name);
    }
    let mut rows = Vec::new();
    for image in images.iter().filter(|it| wanted.image(it)) {
        let names = names.get(image.target.as_str()).map_or(&[][..], Vec::as_slice);
        let people = names.iter().filter(|it| !dangling::is_nameless(&it.name)).count();
        for name in names {
            let nameless = dangling::is_nameless(&name.name);
            // The digest under which an image is kept shows only where it has no name.
            if (nameless && people > 0) || !wanted.name(&name.name, nameless) {
                continue;
            }
            rows.push(row(image, name, nameless, options.no_trunc));
        }
    }
    Ok(rows)
}

fn row(image: &Image, name: &Named, nameless: bool, whole: bool) -> Value {
    const NONE: &str = "<none>";
    let reference = Reference::parse(&name.name).filter(|_| !nameless);
    // One that has lost its tag is still known as its repository's.
    let lost = || name.labels.get(PULLED).and_then(|all| all.split(' ').next()).and_then(Reference::parse);
    let repository = reference.clone().or_else(lost).map_or_else(|| NONE.to_owned(), |it| it.familiar_repository());
    let tag = reference.as_ref().filter(|it| it.digest.is_none()).and_then(|it| it.tag.clone());
    // Known at a registry: the digest says something there.
    let pulled = reference.as_ref().is_some_and(|it| {
        let at = it.repository();
        it.digest.is_some() || name.labels.get(PULLED).is_some_and(|all| all.split(' ').any(|one| one == at))
    });
    let size = human_size_short(image.size);
    json!({
        "Containers": "N/A",
        "CreatedAt": go_time(image.document.created),
        "CreatedSince": since(image.document.created),
        "Digest": if pulled { image.target.as_str() } else { NONE },
        "ID": if whole { image.id.as_str() } else { short(&image.id) },
        "Repository": repository,
        "SharedSize": "N/A",
        "Size": size,
        "Tag": tag.as_deref().unwrap_or(NONE),
        "UniqueSize": "N/A",
        "VirtualSize": size,
    })
}

/// As Go prints a time of UTC.
pub(super) fn go_time(time: Time) -> String {
    if time.is_never() {
        return "N/A".to_owned();
    }
    let text = time.to_string();
    format!("{} +0000 UTC", text.get(..19).unwrap_or(&text).replace('T', " "))
}

pub(super) fn since(time: Time) -> String {
    if time.is_never() { "N/A".to_owned() } else { format!("{} ago", human_duration(time.ago())) }
}

/// What is asked for.
#[derive(Debug, Default)]
struct Wanted {
    patterns: Vec<Pattern>,
    labels: Vec<String>,
    dangling: Option<bool>,
    before: Option<Time>,
    since: Option<Time>,
}

impl Wanted {
    fn read(options: &Options) -> Result<Self> {
        let mut wanted = Self::default();
        let pattern = |text: &str| {
            Pattern::new(text)
                .map_err(|error| Error::usage(format!("{text:?} is no pattern of image names: {}", error.msg)))
        };
        if let Some(name) = &options.name {
            wanted.patterns.push(pattern(name)?);
        }
        for (name, value) in &options.filters {
            match name.as_str() {
                "reference" => wanted.patterns.push(pattern(value)?),
                "label" => wanted.labels.push(value.clone()),
                "dangling" => {
                    wanted.dangling = Some(match value.as_str() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        other => {
                            return Err(Error::usage(format!(
                                "--filter dangling={other} is no truth: give true or false"
                            )));
                        }
                    });
                }
                "before" | "since" => {}
                other => {
                    return Err(Error::usage(format!(
                        "--filter {other}={value} asks for {other:?}, but there are only {}",
                        FILTERS.join(", ")
                    )));
                }
            }
        }
        Ok(wanted)
    }

    /// Looks up the images that others must be older or newer than.
    async fn bound(&mut self, client: &Client, options: &Options) -> Result<()> {
        for (name, value) in &options.filters {
            match name.as_str() {
                "before" => self.before = Some(resolve::find(client, value).await?.document.created),
                "since" => self.since = Some(resolve::find(client, value).await?.document.created),
                _ => {}
            }
        }
        Ok(())
    }

    fn image(&self, image: &Image) -> bool {
        self.labels.iter().all(|wanted| has_label(&image.config.labels, wanted))
            && self.before.is_none_or(|it| image.document.created < it)
            && self.since.is_none_or(|it| image.document.created > it)
    }

    fn name(&self, name: &str, nameless: bool) -> bool {
        if self.dangling.is_some_and(|it| it != nameless) {
            return false;
        }
        // Go's path.Match: no star goes over a slash.
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let Some(reference) = Reference::parse(name) else { return self.patterns.is_empty() };
        let (whole, repository) = (reference.familiar(), reference.familiar_repository());
        let matches = |it: &Pattern| it.matches_with(&whole, options) || it.matches_with(&repository, options);
        self.patterns.is_empty() || (!nameless && self.patterns.iter().any(matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: Option<&str>, filters: &[(&str, &str)]) -> Result<Wanted> {
        let filters = filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Wanted::read(&Options { name: name.map(str::to_owned), filters, no_trunc: false })
    }

    #[test]
    fn names_are_matched_as_gos_paths() {
        for (pattern, name, matches) in [
            ("debian", "docker.io/library/debian:12", true),
            ("debian:12", "docker.io/library/debian:12", true),
            ("debian:1?", "docker.io/library/debian:12", true),
            ("deb*", "docker.io/library/debian:12", true),
            ("deb*", "docker.io/debian/app:12", false),
            ("*/app", "docker.io/debian/app:12", true),
            ("debian:13", "docker.io/library/debian:12", false),
        ] {
            assert_eq!(wanted(Some(pattern), &[]).unwrap().name(name, false), matches, "{pattern} {name}");
        }
        let nameless = format!("sha256:{}", "a".repeat(64));
        let dangling = wanted(None, &[("dangling", "true")]).unwrap();
        assert!(dangling.name(&nameless, true) && !dangling.name("docker.io/library/debian:12", false));
        assert!(wanted(None, &[("dangling", "perhaps")]).is_err());
        assert!(wanted(None, &[("size", "1")]).is_err());
        assert!(wanted(Some("[a"), &[]).is_err());
    }

    #[test]
    fn a_row_is_dockers() {
        let mut name = Named::new();
        name.name = "docker.io/library/app:1".to_owned();
        name.labels.insert(PULLED.to_owned(), "docker.io/library/app".to_owned());
        let image = Image {
            id: format!("sha256:{}", "c".repeat(64)),
            target: "sha256:d".to_owned(),
            size: 4_261_550,
            ..Image::default()
        };
        let row = row(&image, &name, false, false);
        for (field, value) in [
            ("Repository", "app"),
            ("Tag", "1"),
            ("ID", "cccccccccccc"),
            ("Size", "4.26MB"),
            ("CreatedSince", "N/A"),
            ("Digest", "sha256:d"),
        ] {
            assert_eq!(row[field], value, "{field}");
        }
        name.name = format!("sha256:{}", "d".repeat(64));
        let row = self::row(&image, &name, true, false);
        assert_eq!((&row["Repository"], &row["Tag"]), (&json!("app"), &json!("<none>")), "its tag has moved");
        assert_eq!(go_time(Time::since_epoch(1_000_000_000, 5)), "2001-09-09 01:46:40 +0000 UTC");
    }
}
