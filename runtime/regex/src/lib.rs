//! oci-spec checks one short list of CPUs with one regular expression. The regex crate brings four hundred kilobytes of
//! automata and Unicode tables for it; regex-lite, by the same authors and with the same interface, brings forty. The
//! workspace's `[patch.crates-io]` puts this crate in the other's place.

pub use regex_lite::{Error, Regex};
