//! `--filter NAME=VALUE`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::record::{Map, has_label};

/// What `prune` knows, of whatever kind.
pub(super) const PRUNE: [&str; 3] = crate::image::prune::FILTERS;

/// What must be true. Values of one name are alternatives, names are not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads them; `known` are the names there are.
    pub(super) fn parse(given: &[String], known: &[&str]) -> Result<Self> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in given {
            let known_names = known.join(", ");
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Error::usage(format!("--filter {text:?} has no =: give NAME=VALUE, NAME one of {known_names}"))
            })?;
            // As in label!=tier.
            let name = name.trim().to_ascii_lowercase();
            if !known.contains(&name.as_str()) {
                return Err(Error::usage(format!(
                    "--filter {text:?} asks for {name:?}, but there are only {known_names}"
                )));
            }
            all.entry(name).or_default().push(value.trim().to_owned());
        }
        Ok(Self(all))
    }

    /// Whether one of the values of this name is true; also if there is none.
    pub(super) fn matches(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.iter().any(|value| test(value)))
    }

    /// Whether all of the values of this name are true.
    pub(super) fn all(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        self.values(name).iter().all(|value| test(value))
    }

    /// All of them, as they were given.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let of = |(name, values): (&String, &Vec<String>)| -> Vec<(String, String)> {
            values.iter().map(|value| (name.clone(), value.clone())).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Whether it is asked for at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of this name.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// `label=name` and `label=name=value`: all of them.
    pub(super) fn labels(&self, labels: &Map) -> bool {
        self.all("label", |wanted| has_label(labels, wanted)) && self.all("label!", |wanted| !has_label(labels, wanted))
    }

    /// A truth, if it is asked for.
    pub(super) fn truth(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.values(name).last() else { return Ok(None) };
        match value.as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            other => Err(Error::usage(format!("--filter {name}={other} is no truth: give true or false"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_asked() {
        let texts = ["label=a", "label=b=2", "Name=web", "name=db"].map(str::to_owned);
        let filters = Filters::parse(&texts, &["label", "name", "status"]).unwrap();
        let labels =
            |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Map>();
        assert!(filters.labels(&labels(&[("a", "x"), ("b", "2")])));
        assert!(!filters.labels(&labels(&[("a", "x"), ("b", "3")])));
        assert!(filters.matches("name", |it| it == "db") && !filters.matches("name", |it| it == "x"));
        assert!(filters.matches("status", |_| false), "nobody asked");
        for wrong in ["name", "nope=1"] {
            assert!(Filters::parse(&[wrong.to_owned()], &["name"]).is_err(), "{wrong}");
        }
    }
}
