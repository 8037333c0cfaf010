//! Images by a word: docker's search where a registry has it, or else the catalog of its repositories.
//!
//! ```text
//! GET /v1/search?q=TERM&n=25   {"results": [{"name": …, "description": …, "star_count": …, "is_official": …}]}
//! GET /v2/_catalog?n=1000      {"repositories": [NAME, …]}, in pages (distribution specification, "Listing Repositories")
//! ```

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::registry::access::Access;
use crate::registry::client::{Call, Registry};
use crate::registry::exchange::{Ask, Host, To};
use crate::registry::reference::DEFAULT_REGISTRY;
use crate::registry::retry::Tries;
use crate::registry::{limit, shortened};

/// Where docker's registry answers searches.
const HUB: &str = "https://index.docker.io";
/// Results, if nothing is said.
const FEW: usize = 25;
/// The most that docker gives.
const MANY: usize = 100;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Without the registry.
    pub name: String,
    /// What its makers say of it.
    pub description: String,
    /// How many like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Docker's own.
    pub is_official: bool,
    /// Built by the registry.
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Page {
    repositories: Option<Vec<String>>,
}

impl Registry {
    /// Looks for `term` at a registry; at most `most` results, 25 if that is 0.
    pub async fn search(&self, host: &str, term: &str, most: usize, access: Access) -> Result<Vec<Found>> {
        let most = match most {
            0 => FEW,
            1..=MANY => most,
            _ => return Err(Error::invalid(format!("{most} results are too many: ask for {MANY} at most"))),
        };
        let remote = self.whole(host, "search", access).await?;
        let call = &remote.0;
        let at = call.hosts.last().ok_or_else(|| Error::internal("the registry has no host"))?;
        let mut found = match call.search(at, host, term, most, call.tries(true)).await {
            // Who does not know the question may have a list.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::FailedPrecondition | Kind::DataLoss) => {
                call.catalog(at, term, call.tries(true)).await?
            }
            answer => answer?,
        };
        found.truncate(most);
        Ok(found)
    }
}

impl Call {
    async fn search(&self, at: &Host, host: &str, term: &str, most: usize, tries: Tries) -> Result<Vec<Found>> {
        let path = format!("/v1/search?q={}&n={most}", utf8_percent_encode(term, NON_ALPHANUMERIC));
        let mut ask = Ask::new(Method::GET, String::new(), String::new(), format!("search for {:?}", shortened(term)));
        ask.to = if host == DEFAULT_REGISTRY {
            let uri = format!("{HUB}{path}").parse();
            To::At(uri.map_err(|_| Error::invalid(format!("{:?} cannot be searched for", shortened(term))))?)
        } else {
            To::Root(path)
        };
        Ok(self.page::<Answer>(at, &ask, tries).await?.0.results)
    }

    /// The repositories that have the term in their names.
    async fn catalog(&self, at: &Host, term: &str, tries: Tries) -> Result<Vec<Found>> {
        let scope = "registry:catalog:*".to_owned();
        let mut ask = Ask::new(Method::GET, "/_catalog?n=1000".to_owned(), scope, "list the repositories".to_owned());
        let (mut found, mut seen) = (Vec::new(), 0);
        loop {
            let (page, next) = self.page::<Page>(at, &ask, tries).await?;
            let names = page.repositories.unwrap_or_default();
            seen += names.len();
            if seen > limit::CATALOG {
                return Err(self.too_many(at, &ask.what, limit::CATALOG));
            }
            let matching = names.into_iter().filter(|it| it.contains(term));
            found.extend(matching.map(|name| Found { name, ..Found::default() }));
            match next {
                Some(next) => ask.to = next,
                None => return Ok(found),
            }
        }
    }
}
