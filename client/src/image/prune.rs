//! `image prune`: images that nobody uses.

use tare_proto::images::Image as Named;
use tare_proto::store::CollectRequest;

use super::remove::{Held, gone, take_names, unknown};
use super::{Image, dangling, layers, resolve};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::record::has_label;
use crate::time::Time;
use crate::truth;

/// What can be asked for with `--filter`.
pub const FILTERS: [&str; 3] = ["label", "label!", "until"];

/// Which images go.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// All that no container was made of; otherwise only those without a name.
    pub all: bool,
    /// Names of [`FILTERS`] with their values.
    pub filters: Vec<(String, String)>,
}

/// What went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// `untagged: NAME` and `deleted: ID`.
    pub lines: Vec<String>,
    /// That became free.
    pub bytes: u64,
}

/// Removes images that no container was made of.
///
/// # Errors
/// A filter cannot be read, or the store failed; what went until then is gone.
pub async fn prune(client: &Client, options: &Options) -> Result<Pruned> {
    let wanted = Wanted::read(&options.filters)?;
    let used = truth::users(client, |_| true).await.map_err(unknown)?;
    let named = resolve::list(client).await?;
    let mut removed = Vec::new();
    let mut lines = Vec::new();
    for image in resolve::all(client, "").await? {
        let names: Vec<Named> = named.iter().filter(|it| it.target.digest == image.target).cloned().collect();
        let nameless = names.iter().all(|it| dangling::is_nameless(&it.name));
        let users = used.iter().any(|it| it.image.id == image.id);
        if users || !(options.all || nameless) || !wanted.image(&image) {
            continue;
        }
        let chain = layers::chain(client, &image.chain_id).await?;
        let held = Held { image, names, users: Vec::new() };
        lines.extend(take_names(client, &held, &held.names, false).await?);
        removed.push((held.image, chain));
    }
    let store = client.store.store().await?;
    let collected = store.collect(client.store.context(), &CollectRequest::new()).await;
    let bytes = collected.context(|| client.store.call("remove what no image needs"))?.bytes;
    for (image, chain) in &removed {
        lines.extend(gone(client, image, chain).await?);
    }
    let lower = |what: &str| what.to_ascii_lowercase();
    Ok(Pruned { lines: lines.into_iter().map(|(what, which)| format!("{}: {which}", lower(what))).collect(), bytes })
}

#[derive(Debug, Default)]
struct Wanted {
    with: Vec<String>,
    without: Vec<String>,
    until: Option<Time>,
}

impl Wanted {
    fn read(filters: &[(String, String)]) -> Result<Self> {
        let mut wanted = Self::default();
        for (name, value) in filters {
            match name.as_str() {
                "label" => wanted.with.push(value.clone()),
                "label!" => wanted.without.push(value.clone()),
                "until" => wanted.until = Some(Time::parse(value)?),
                other => {
                    return Err(Error::usage(format!(
                        "--filter {other}={value} asks for {other:?}, but there are only label, label! and until"
                    )));
                }
            }
        }
        Ok(wanted)
    }

    fn image(&self, image: &Image) -> bool {
        let has = |wanted: &String| has_label(&image.config.labels, wanted);
        self.with.iter().all(has)
            && !self.without.iter().any(has)
            && self.until.is_none_or(|it| image.document.created < it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose() {
        let mut image = Image::default();
        image.config.labels.insert("tier".to_owned(), "web".to_owned());
        image.document.created = Time::parse("2026-01-31").unwrap();
        for (name, value, chosen) in [
            ("label", "tier", true),
            ("label", "tier=db", false),
            ("label!", "tier=web", false),
            ("label!", "other", true),
            ("until", "2026-02-01", true),
            ("until", "2026-01-01", false),
        ] {
            let wanted = Wanted::read(&[(name.to_owned(), value.to_owned())]).unwrap();
            assert_eq!(wanted.image(&image), chosen, "{name}={value}");
        }
        assert!(Wanted::read(&[("until".to_owned(), "soon".to_owned())]).is_err());
        assert!(Wanted::read(&[("size".to_owned(), "1".to_owned())]).is_err());
    }
}
