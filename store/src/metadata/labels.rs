//! Labels and namespaces: words of clients, checked as containerd checks them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// What is said of an object: collection follows some of them (`containerd.io/gc.…`).
pub type Labels = BTreeMap<String, String>;

/// Key and value together, in bytes.
const LONGEST: usize = 4096;

/// Fails if a label is longer than containerd allows.
pub(crate) fn validate(labels: &Labels) -> Result<()> {
    for (key, value) in labels {
        if key.is_empty() {
            return Err(Error::invalid("a label has no name"));
        }
        if key.len() + value.len() > LONGEST {
            let shown: String = key.chars().take(64).collect();
            return Err(Error::invalid(format!(
                "the label {shown:?} has {} bytes with its value: {LONGEST} are allowed",
                key.len() + value.len()
            )));
        }
    }
    Ok(())
}

/// As they are stored: an empty value is none.
pub(crate) fn kept(labels: &Labels) -> Labels {
    labels.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Out of a row. Most have none, and long lists are read.
pub(crate) fn from_column(text: &str) -> Result<Labels> {
    if text == "{}" { Ok(Labels::new()) } else { super::from_json(text) }
}

/// Applies changes in containerd's way: `paths` names what to take from `new`, as `labels` or `labels.<key>`; an empty value removes
/// a key. Without paths all labels are replaced. Returns the paths that name no label, for the caller to judge.
pub fn merge_labels<'a>(labels: &mut Labels, new: &Labels, paths: &'a [String]) -> Vec<&'a str> {
    let mut others = Vec::new();
    if paths.is_empty() {
        labels.clone_from(new);
    }
    for path in paths {
        match path.strip_prefix("labels.") {
            Some(key) => {
                labels.insert(key.to_owned(), new.get(key).cloned().unwrap_or_default());
            }
            None if path == "labels" => labels.clone_from(new),
            None => others.push(path.as_str()),
        }
    }
    labels.retain(|_, value| !value.is_empty());
    others
}

/// Separates what clients name: the same name in two namespaces is two things. Bytes on disk are shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for Namespace {
    type Err = Error;

    /// Words of ASCII letters and digits with single `.`, `_` or `-` between them, at most 76 bytes: containerd's rule.
    fn from_str(text: &str) -> Result<Self> {
        let words = text.split(['.', '_', '-']);
        let well = |word: &str| !word.is_empty() && word.bytes().all(|it| it.is_ascii_alphanumeric());
        if text.len() <= 76 && words.into_iter().all(well) {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(76).collect();
        Err(Error::invalid(format!(
            "{shown:?} is not a namespace: letters and digits, with single dots, underscores or hyphens between, at most 76 bytes"
        )))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn namespaces_follow_containerds_rule() {
        for good in ["default", "moby", "k8s.io", "a-b_c.d", "9"] {
            assert_eq!(good.parse::<Namespace>().unwrap().as_str(), good);
        }
        let long = "a".repeat(77);
        for bad in ["", ".", "a..b", "-a", "a-", "a/b", "..", "a b", "ä", long.as_str()] {
            assert_eq!(bad.parse::<Namespace>().unwrap_err().kind, Kind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn a_label_has_at_most_4096_bytes() {
        validate(&labels(&[("key", &"v".repeat(4093))])).unwrap();
        assert_eq!(validate(&labels(&[("key", &"v".repeat(4094))])).unwrap_err().kind, Kind::InvalidArgument);
        assert_eq!(validate(&labels(&[("", "v")])).unwrap_err().kind, Kind::InvalidArgument);
    }

    #[test]
    fn labels_are_changed_by_path() {
        let mut it = labels(&[("a", "1"), ("b", "2")]);
        let new = labels(&[("b", "3"), ("c.d", "4")]);
        assert!(merge_labels(&mut it, &new, &["labels.c.d".into()]).is_empty());
        assert_eq!(it, labels(&[("a", "1"), ("b", "2"), ("c.d", "4")]));
        // Named, and not there: the label goes.
        merge_labels(&mut it, &new, &["labels.a".into()]);
        assert_eq!(it, labels(&[("b", "2"), ("c.d", "4")]));
        assert_eq!(merge_labels(&mut it, &new, &["labels".into(), "size".into()]), ["size"]);
        assert_eq!(it, new);
        merge_labels(&mut it, &labels(&[]), &[]);
        assert!(it.is_empty());
    }
}
