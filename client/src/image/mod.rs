//! Images: which one a word means, and the commands about them.
//!
//! ```text
//! word ── a name? ──> the store's image of that name        "debian" is "docker.io/library/debian:latest"
//!      └─ repository@digest? ──> the image of that digest   whatever it was pulled as
//!      └─ digits? ──> the image whose id begins with them   the id is the digest of the image's configuration, as docker's
//! ```
//!
//! An image that has lost its names (another took them while a container still needed it) is kept by the store under its digest, as
//! `sha256:…`: docker's `<none>`. The label [`PULLED`] says which repositories have it, so that its digest can be shown with them.
//! What an image says of itself is data: nothing here acts on it.

pub mod archive;
mod credentials;
mod dangling;
pub mod history;
pub mod inspect;
mod layers;
pub mod list;
pub mod login;
mod progress;
pub mod prune;
pub mod pull;
pub mod push;
pub mod reference;
pub mod remove;
mod resolve;
pub mod search;
mod stream;
pub mod tag;

use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;
use tare_proto::store::InspectResponse;

use crate::error::{Error, Result};
use crate::record::{self, ImageOf, Map};
use crate::time::Time;

pub use resolve::{find, find_for, resolve};

/// The repositories that an image came from or was sent to, with spaces between them.
const PULLED: &str = "tarectl.repositories";

/// What is done about an image that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It is asked for at its registry, also if it is here.
    Always,
    /// It is fetched.
    #[default]
    Missing,
    /// That is an error.
    Never,
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            other => Err(Error::usage(format!("--pull {other:?} is no way to pull: give always, missing or never"))),
        }
    }
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Image {
    /// As it was asked for.
    pub reference: String,
    /// The name by which it was found: `docker.io/library/debian:latest`, or `sha256:…`.
    pub name: String,
    /// All of its names.
    pub names: Vec<String>,
    /// The digest of its configuration, with `sha256:`.
    pub id: String,
    /// What its name stands for: its manifest, or an index.
    pub target: String,
    /// The digest of its manifest.
    pub manifest: String,
    /// The snapshot below a container's root; empty for an image without layers.
    pub chain_id: String,
    /// Of each layer's tar stream, the lowest first.
    pub diff_ids: Vec<String>,
    /// Whether the snapshots are there.
    pub unpacked: bool,
    /// Unpacked, in bytes; 0 where it is not.
    pub size: u64,
    /// How its containers are.
    pub config: record::Config,
    /// Its configuration whole, as its maker wrote it.
    pub document: Document,
    /// Of each layer as it is kept: media type and digest.
    pub layers: Vec<String>,
    /// The store's labels.
    pub labels: Map,
    /// When it came here, or was named last.
    pub updated: Time,
}

/// What an image's configuration says beside `config` (OCI image specification, config.md).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Document {
    /// When it was made.
    pub created: Time,
    /// Who made it.
    pub author: String,
    /// For which processor.
    pub architecture: String,
    /// For which system.
    pub os: String,
    /// Of the processor.
    pub variant: String,
    /// What was said as it was committed, by docker alone.
    pub comment: String,
    /// By which docker.
    pub docker_version: String,
    /// How it came to be, the first step first.
    pub history: Vec<Step>,
}

/// A step of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    /// When.
    pub created: Time,
    /// By what command.
    pub created_by: String,
    /// By whom.
    pub author: String,
    /// What was said of it.
    pub comment: String,
    /// It made no layer.
    pub empty_layer: bool,
}

impl Image {
    /// What a container's record keeps of it.
    #[must_use]
    pub fn of(&self) -> ImageOf {
        ImageOf {
            reference: self.reference.clone(),
            name: self.name.clone(),
            id: self.id.clone(),
            manifest: self.manifest.clone(),
            chain_id: self.chain_id.clone(),
        }
    }

    /// `os/architecture[/variant]`.
    #[must_use]
    pub fn platform(&self) -> String {
        let parts = [&self.document.os, &self.document.architecture, &self.document.variant];
        parts.map(String::as_str).into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// Its names with tags, as people write them: docker's `RepoTags`.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let tagged = self.names.iter().filter(|it| !dangling::is_nameless(it));
        let familiar = tagged.filter_map(|it| reference::Reference::parse(it)).filter(|it| it.digest.is_none());
        familiar.map(|it| it.familiar()).collect()
    }

    /// Its digest at each repository that has it: docker's `RepoDigests`.
    #[must_use]
    pub fn digests(&self) -> Vec<String> {
        let pulled = self.labels.get(PULLED).map_or("", String::as_str);
        let mut found: Vec<String> = pulled.split(' ').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        // Pulled by digest.
        let by_digest = self.names.iter().filter_map(|it| reference::Reference::parse(it));
        found.extend(by_digest.filter(|it| it.digest.is_some()).map(|it| it.repository()));
        let mut shown: Vec<String> = found
            .iter()
            .filter_map(|it| reference::Reference::parse(it))
            .map(|it| format!("{}@{}", it.familiar_repository(), self.target))
            .collect();
        shown.sort_unstable();
        shown.dedup();
        shown
    }

    /// Reads what the store knows.
    fn read(asked: &str, found: InspectResponse) -> Result<Self> {
        let broken = |why: String| {
            Error::failed(format!("the configuration of image {asked} is not one: {why}; pull the image again"))
        };
        let whole: Value = serde_json::from_slice(&found.config_json).map_err(|error| broken(error.to_string()))?;
        let mut whole = without_nulls(whole);
        // An array of the right length would be read as one, too.
        if !whole.is_object() || whole.get("config").is_some_and(|it| !it.is_object()) {
            return Err(broken("it is no JSON object".to_owned()));
        }
        let config =
            whole.as_object_mut().and_then(|it| it.remove("config")).unwrap_or_else(|| Value::Object(<_>::default()));
        let config: record::Config = serde_json::from_value(config).map_err(|error| broken(error.to_string()))?;
        let document: Document = serde_json::from_value(whole).map_err(|error| broken(error.to_string()))?;
        let manifest: Value =
            serde_json::from_slice(&found.manifest_json).map_err(|error| broken(error.to_string()))?;
        let digest = |it: &Value| it.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        let layers = manifest.get("layers").and_then(Value::as_array).map(|it| it.iter().map(digest).collect());
        let updated = found.updated_at.as_ref();
        Ok(Self {
            reference: asked.to_owned(),
            name: found.name,
            names: found.names,
            id: found.config.digest.clone(),
            target: found.target.digest.clone(),
            manifest: found.manifest.digest.clone(),
            chain_id: found.chain_id,
            diff_ids: found.diff_ids,
            unpacked: found.unpacked,
            size: found.size,
            config,
            document,
            layers: layers.unwrap_or_default(),
            labels: found.labels.into_iter().collect(),
            updated: updated
                .map_or(Time::NEVER, |it| Time::since_epoch(it.seconds, u32::try_from(it.nanos).unwrap_or(0))),
        })
    }
}

/// Go writes `null` for what is empty.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tare_proto::MessageField;
    use tare_proto::types::Descriptor;

    use super::*;

    fn answer(config: &str) -> InspectResponse {
        let mut found = InspectResponse::new();
        let digest = |of: char| {
            let mut it = Descriptor::new();
            it.digest = format!("sha256:{}", of.to_string().repeat(64));
            MessageField::some(it)
        };
        (found.config, found.target, found.manifest) = (digest('c'), digest('d'), digest('d'));
        found.config_json = config.as_bytes().to_vec();
        found.manifest_json = br#"{"layers":[{"digest":"sha256:l"}]}"#.to_vec();
        found.name = "docker.io/library/app:1".to_owned();
        found.names = vec![found.name.clone(), format!("docker.io/library/app@sha256:{}", "d".repeat(64))];
        found.labels.insert(PULLED.to_owned(), "docker.io/library/app r.example/app".to_owned());
        found
    }

    #[test]
    fn an_images_configuration_is_read_as_go_writes_it() {
        let image = Image::read(
            "app:1",
            answer(
                r#"{"created":"2026-01-31T10:00:00.5Z","architecture":"amd64","os":"linux","history":[{"created_by":"x","empty_layer":true}],
                   "config":{"Env":null,"Cmd":["sh"],"Labels":null,"Volumes":{"/data":{}},"OnBuild":null,"Entrypoint":null,"Unknown":1}}"#,
            ),
        )
        .unwrap();
        assert_eq!(image.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert!(image.config.entrypoint.is_none() && image.config.volumes.is_some_and(|it| it.contains_key("/data")));
        assert_eq!(image.document.created.to_string(), "2026-01-31T10:00:00.5Z");
        assert!(image.document.history[0].empty_layer);
        assert_eq!(image.layers, ["sha256:l"]);
    }

    #[test]
    fn its_names_and_digests_are_dockers() {
        let image = Image::read("app:1", answer(r#"{"architecture":"amd64","os":"linux"}"#)).unwrap();
        let digest = format!("sha256:{}", "d".repeat(64));
        assert_eq!(image.tags(), ["app:1"]);
        assert_eq!(image.digests(), [format!("app@{digest}"), format!("r.example/app@{digest}")]);
        assert_eq!(image.platform(), "linux/amd64");
    }

    #[test]
    fn what_is_no_configuration_is_one_sentence() {
        for wrong in ["", "[]", r#"{"config":{"Env":"x"}}"#, r#"{"config":[]}"#, r#"{"created":"yesterday"}"#] {
            let error = Image::read("app:1", answer(wrong)).unwrap_err();
            assert!(error.message.starts_with("the configuration of image app:1 is not one"), "{wrong}: {error}");
        }
        assert!("sometimes".parse::<Policy>().is_err());
    }
}
