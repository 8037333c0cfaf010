//! `--filter` of `volume ls` and `volume prune`.

use super::Volume;
use crate::error::{Error, Result};
use crate::record::has_label;

/// Which volumes are meant. Several values of one key: any of them; several keys: all of them; labels: all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    dangling: Option<bool>,
    drivers: Vec<String>,
    names: Vec<String>,
    labels: Vec<String>,
    without: Vec<String>,
}

impl Filter {
    /// From `key=value` texts.
    ///
    /// # Errors
    /// There is no such filter.
    pub fn parse(given: &[String]) -> Result<Self> {
        let mut filter = Self::default();
        for text in given {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Error::usage(format!(
                    "invalid argument {text:?} for --filter: a filter is KEY=VALUE, as in dangling=true"
                ))
            })?;
            match (key, value) {
                ("dangling", "true" | "1") => filter.dangling = Some(true),
                ("dangling", "false" | "0") => filter.dangling = Some(false),
                ("dangling", _) => {
                    return Err(Error::usage(format!("invalid filter 'dangling={value}': it is true or false")));
                }
                ("driver", _) => filter.drivers.push(value.to_owned()),
                ("name", _) => filter.names.push(value.to_owned()),
                ("label", _) => filter.labels.push(value.to_owned()),
                ("label!", _) => filter.without.push(value.to_owned()),
                _ => {
                    return Err(Error::usage(format!(
                        "invalid filter '{key}': there are dangling, driver, label, label! and name"
                    )));
                }
            }
        }
        Ok(filter)
    }

    pub(super) const fn asks_for_use(&self) -> bool {
        self.dangling.is_some()
    }

    pub(super) fn passes(&self, volume: &Volume, used: bool) -> bool {
        let has = |wanted: &String| volume.labels.as_ref().is_some_and(|labels| has_label(labels, wanted));
        self.dangling.is_none_or(|dangling| dangling != used)
            && (self.drivers.is_empty() || self.drivers.contains(&volume.driver))
            && (self.names.is_empty() || self.names.iter().any(|it| volume.name.contains(it.as_str())))
            && self.labels.iter().all(has)
            && !self.without.iter().any(has)
    }
}
