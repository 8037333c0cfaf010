//! `search`: what a registry has under a word.

use serde_json::{Value, json};
use tare_proto::store::{SearchRequest, SearchResult};

use super::{credentials, progress};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::table::shortened;

/// Headings, and the fields below them.
pub const COLUMNS: &[(&str, &str)] = &[
    ("NAME", "Name"),
    ("DESCRIPTION", "Description"),
    ("STARS", "StarCount"),
    ("OFFICIAL", "IsOfficial"),
    ("AUTOMATED", "IsAutomated"),
];

/// What can be asked for with `--filter`.
pub const FILTERS: [&str; 3] = ["is-automated", "is-official", "stars"];

/// Characters of a description.
const SHORT: usize = 45;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// At most so many; 0: 25.
    pub limit: u32,
    /// Names of [`FILTERS`] with their values.
    pub filters: Vec<(String, String)>,
    /// Whole descriptions.
    pub no_trunc: bool,
}

/// Looks for `term`, which may have a registry before it: `localhost:5000/app`. Docker's own is asked otherwise.
///
/// # Errors
/// The registry cannot be asked or does not answer searches, or a filter cannot be read.
pub async fn rows(client: &Client, term: &str, options: &Options) -> Result<Vec<Value>> {
    let wanted = options.filters.iter().map(|(name, value)| Wanted::read(name, value)).collect::<Result<Vec<_>>>()?;
    let (host, word) = split(term);
    let mut request = SearchRequest::new();
    host.clone_into(&mut request.host);
    word.clone_into(&mut request.term);
    request.limit = options.limit;
    request.registry = credentials::options()?;
    let store = client.store.store().await?;
    let answer = store.search(client.store.context(), &request).await;
    let found = answer.context(|| client.store.call(&format!("search for {term}")))?.results;
    let found = found.iter().filter(|it| wanted.iter().all(|wanted| wanted.holds(it)));
    Ok(found.map(|it| row(it, host, options.no_trunc)).collect())
}

/// The registry, and what it is asked for.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, word)) if host.contains(['.', ':']) || host == "localhost" => (host, word),
        _ => ("", term),
    }
}

fn row(found: &SearchResult, host: &str, whole: bool) -> Value {
    let ok = |it: bool| if it { "[OK]" } else { "" };
    let name = if host.is_empty() { found.name.clone() } else { format!("{host}/{}", found.name) };
    let description = progress::printable(&found.description);
    json!({
        "Name": progress::printable(&name),
        "Description": if whole { description } else { shortened(&description, SHORT) },
        "StarCount": found.stars.to_string(),
        "IsOfficial": ok(found.official),
        "IsAutomated": ok(found.automated),
    })
}

enum Wanted {
    Stars(u64),
    Official(bool),
    Automated(bool),
}

impl Wanted {
    fn read(name: &str, value: &str) -> Result<Self> {
        let truth = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Error::usage(format!("--filter {name}={value} is no truth: give true or false"))),
        };
        match name {
            "stars" => value
                .parse()
                .map(Self::Stars)
                .map_err(|_| Error::usage(format!("--filter stars={value} is no number: give how many at least"))),
            "is-official" => truth().map(Self::Official),
            "is-automated" => truth().map(Self::Automated),
            other => Err(Error::usage(format!(
                "--filter {other}={value} asks for {other:?}, but there are only {}",
                FILTERS.join(", ")
            ))),
        }
    }

    fn holds(&self, found: &SearchResult) -> bool {
        match self {
            Self::Stars(least) => found.stars >= *least,
            Self::Official(wanted) => found.official == *wanted,
            Self::Automated(wanted) => found.automated == *wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_stand_before_the_word() {
        assert_eq!(split("app"), ("", "app"));
        assert_eq!(split("team/app"), ("", "team/app"));
        assert_eq!(split("localhost:5000/app"), ("localhost:5000", "app"));
        let mut found = SearchResult::new();
        (found.name, found.description, found.stars, found.official) = ("app".into(), "a\nb".into(), 3, true);
        let row = row(&found, "localhost:5000", false);
        assert_eq!((&row["Name"], &row["Description"]), (&json!("localhost:5000/app"), &json!("a b")));
        assert_eq!((&row["StarCount"], &row["IsOfficial"]), (&json!("3"), &json!("[OK]")));
        assert!(
            Wanted::read("stars", "2").unwrap().holds(&found) && !Wanted::read("stars", "4").unwrap().holds(&found)
        );
        assert!(Wanted::read("stars", "x").is_err() && Wanted::read("size", "1").is_err());
    }
}
