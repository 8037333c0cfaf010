//! Documents: indexes, manifests, configurations. Strictly read, and bounded.
//!
//! A document is what its media type says, and nothing else as well: one that has the parts of a manifest and of an index
//! would be two images under one digest (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::content::digest::Digest;
use crate::descriptor::{Descriptor, Platform};
use crate::error::{Error, Result};
use crate::registry::{limit, media};

/// What a name at a registry leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A list of manifests.
    Index(Box<Index>),
    /// An image for one platform, or an artifact.
    Manifest(Box<Manifest>),
}

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// OCI's or docker's.
    pub media_type: String,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// What it refers to.
    pub subject: Option<Descriptor>,
    /// What kind of an artifact it is.
    pub artifact_type: Option<String>,
    /// What else is said.
    pub annotations: BTreeMap<String, String>,
}

/// An image for one platform, or an artifact in the form of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// OCI's or docker's.
    pub media_type: String,
    /// How it runs.
    pub config: Descriptor,
    /// What it consists of, the lowest first.
    pub layers: Vec<Descriptor>,
    /// What it refers to.
    pub subject: Option<Descriptor>,
    /// What kind of an artifact it is.
    pub artifact_type: Option<String>,
    /// What else is said.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Whether it can be unpacked: an artifact cannot.
    #[must_use]
    pub fn is_image(&self) -> bool {
        media::is_image_config(&self.config.media_type) && self.layers.iter().all(|it| media::is_layer(&it.media_type))
    }

    /// What kind of an artifact it is, however it says so.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.artifact_type.as_deref().unwrap_or(&self.config.media_type)
    }
}

/// What of a document decides which one it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    // Of schema 1.
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Document {
    /// Reads a document of this media type. Without a media type, the document itself must say or show what it is: archives
    /// and old registries leave it out.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self> {
        let said = Some(essence(media_type)).filter(|it| !it.is_empty() && *it != "application/json");
        if said.is_some_and(media::is_schema_1) {
            return Err(schema_1());
        }
        let what = said.unwrap_or("a document of an image");
        let mut raw: Raw = json(what, limit::DOCUMENT, bytes)?;
        let wrong = |why: &str| Error::data_loss(format!("{what} is broken: {why}"));
        if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
            return Err(schema_1());
        }
        if raw.schema_version != Some(2) {
            return Err(wrong("its schemaVersion is not 2"));
        }
        if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
            return Err(wrong("it is a manifest and an index at once, and would be two images under one digest"));
        }
        let own = raw.media_type.take();
        let own = own.as_deref().filter(|it| !it.is_empty());
        if let (Some(said), Some(own)) = (said, own)
            && said != own
        {
            return Err(wrong(&format!("it calls itself {:?}", crate::registry::shortened(own))));
        }
        match said.or(own) {
            Some(it) if media::is_index(it) => Index::of(it, raw, &wrong).map(|it| Self::Index(Box::new(it))),
            Some(it) if media::is_manifest(it) => Manifest::of(it, raw, &wrong).map(|it| Self::Manifest(Box::new(it))),
            Some(other) => Err(Error::data_loss(format!(
                "{:?} is neither a manifest nor an index that this store reads",
                crate::registry::shortened(other)
            ))),
            None if raw.manifests.is_some() => Index::of(media::INDEX, raw, &wrong).map(|it| Self::Index(Box::new(it))),
            None => Manifest::of(media::MANIFEST, raw, &wrong).map(|it| Self::Manifest(Box::new(it))),
        }
    }

    /// What it is.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Index(it) => &it.media_type,
            Self::Manifest(it) => &it.media_type,
        }
    }

    /// What it refers to.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Index(it) => it.subject.as_ref(),
            Self::Manifest(it) => it.subject.as_ref(),
        }
    }

    /// How it stands in the list of what refers to its subject (distribution specification, "Listing Referrers"): with its kind, and
    /// what it says of itself.
    #[must_use]
    pub fn as_referrer(&self, at: &Descriptor) -> Descriptor {
        let (kind, annotations) = match self {
            Self::Index(it) => (it.artifact_type.clone(), &it.annotations),
            Self::Manifest(it) => (Some(it.kind().to_owned()), &it.annotations),
        };
        let mut entry = Descriptor::new(&at.media_type, at.digest.clone(), at.size);
        entry.artifact_type = kind;
        entry.annotations.clone_from(annotations);
        entry
    }

    /// Everything that it is made of: children in the order in which they stand there.
    #[must_use]
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Index(it) => it.manifests.iter().collect(),
            Self::Manifest(it) => std::iter::once(&it.config).chain(&it.layers).collect(),
        }
    }
}

impl Index {
    fn of(media_type: &str, raw: Raw, wrong: &dyn Fn(&str) -> Error) -> Result<Self> {
        if raw.config.is_some() || raw.layers.is_some() {
            return Err(wrong("an index has no config and no layers"));
        }
        let manifests = raw.manifests.unwrap_or_default();
        if manifests.len() > limit::MANIFESTS {
            return Err(wrong(&format!("it lists {} manifests; {} is the most", manifests.len(), limit::MANIFESTS)));
        }
        Ok(Self {
            media_type: media_type.to_owned(),
            manifests,
            subject: raw.subject,
            artifact_type: raw.artifact_type.filter(|it| !it.is_empty()),
            annotations: raw.annotations.unwrap_or_default(),
        })
    }
}

impl Manifest {
    fn of(media_type: &str, raw: Raw, wrong: &dyn Fn(&str) -> Error) -> Result<Self> {
        if raw.manifests.is_some() {
            return Err(wrong("a manifest lists no manifests"));
        }
        let config = raw.config.ok_or_else(|| wrong("it has no config"))?;
        let layers = raw.layers.unwrap_or_default();
        if layers.len() > limit::LAYERS {
            return Err(wrong(&format!("it has {} layers; {} is the most", layers.len(), limit::LAYERS)));
        }
        Ok(Self {
            media_type: media_type.to_owned(),
            config,
            layers,
            subject: raw.subject,
            artifact_type: raw.artifact_type.filter(|it| !it.is_empty()),
            annotations: raw.annotations.unwrap_or_default(),
        })
    }
}

/// What the store itself reads of an image's configuration; the rest stays as it is, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What it runs on.
    pub platform: Platform,
    /// The digests of the layers' tar streams, the lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Option<Vec<Digest>>,
}

impl ImageConfig {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw: RawConfig = json("the image's configuration", limit::CONFIG, bytes)?;
        let wrong = |why: &str| Error::data_loss(format!("the image's configuration is broken: {why}"));
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if raw.rootfs.kind != "layers" {
            return Err(wrong("its rootfs is not of type \"layers\""));
        }
        if diff_ids.len() > limit::LAYERS {
            return Err(wrong(&format!("it has {} diff ids; {} is the most", diff_ids.len(), limit::LAYERS)));
        }
        Ok(Self { platform: raw.platform, diff_ids })
    }

    /// The same, and that it belongs to these layers.
    pub fn parse_for(manifest: &Manifest, bytes: &[u8]) -> Result<Self> {
        let config = Self::parse(bytes)?;
        if config.diff_ids.len() != manifest.layers.len() {
            return Err(Error::data_loss(format!(
                "the image's configuration does not belong to its manifest: it has {} diff ids, the manifest has {} layers",
                config.diff_ids.len(),
                manifest.layers.len()
            )));
        }
        Ok(config)
    }
}

/// `type/subtype` without parameters.
pub(super) fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn json<T: DeserializeOwned>(what: &str, limit: u64, bytes: &[u8]) -> Result<T> {
    if bytes.len() as u64 > limit {
        return Err(Error::data_loss(format!("{what} is too large: {} bytes; {limit} is the most", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let error = crate::registry::shortened(&error.to_string());
        Error::data_loss(format!("{what} is broken: {error}"))
    })
}

fn schema_1() -> Error {
    Error::unimplemented(
        "the registry has the image only in docker's schema 1, which nothing covers with a digest and nobody makes any more: \
         push it again with a tool of today",
    )
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
