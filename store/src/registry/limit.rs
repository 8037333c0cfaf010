//! How much is believed of an answer: what is larger ends in an error, not in memory.

/// Of a manifest or an index, in bytes; registries agree on it.
pub const DOCUMENT: u64 = 4 << 20;
/// Of an image's configuration, in bytes: histories grow long.
pub const CONFIG: u64 = 8 << 20;
/// Of layers in a manifest. An overlay of the kernel has at most 500.
pub const LAYERS: usize = 500;
/// Of manifests in an index.
pub const MANIFESTS: usize = 1000;
/// Of indexes in indexes.
pub const NESTING: usize = 4;
/// Of an answer that is JSON but no document: tokens, tags, errors; in bytes.
pub const ANSWER: u64 = 1 << 20;
/// Of what a registry says of an error, in characters, as far as it is shown.
pub const MESSAGE: usize = 300;
/// Of tags in a repository, over all pages.
pub const TAGS: usize = 100_000;
/// Of repositories in a catalog, over all pages.
pub const CATALOG: usize = 100_000;
/// Of referrers, over all pages.
pub const REFERRERS: usize = 10_000;
/// Of redirects in a row.
pub const REDIRECTS: usize = 5;
/// Of hosts.toml and docker's config.json, in bytes.
pub const CONFIGURATION: u64 = 1 << 20;
