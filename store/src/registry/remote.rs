//! One repository in one call.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::registry::access::Access;
use crate::registry::reference::{Reference, Repository};

/// How all registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Directories of containerd's form, `<host>/hosts.toml`, and of docker's, `<host>/{ca.crt,client.cert,client.key}`;
    /// of the first that knows a host.
    pub hosts_dirs: Vec<PathBuf>,
    /// Docker's configuration, when a call brings none of its own.
    pub docker_config: Option<PathBuf>,
}

/// The registries.
#[derive(Clone)]
pub struct Registry(Arc<RegistryConfig>);

impl Registry {
    /// Speaks to nobody yet.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        Ok(Self(Arc::new(config)))
    }

    /// A repository, for one call.
    pub async fn remote(&self, repository: &Repository, access: Access) -> Result<Remote> {
        let _ = access;
        Ok(Remote { repository: repository.clone() })
    }

    /// Tries credentials; gives the identity token that the registry wants to be kept in place of the password, if any.
    pub async fn login(&self, host: &str, access: Access) -> Result<Option<String>> {
        let _ = (host, access);
        Err(unfinished())
    }
}

/// A repository, for one call. Clones share its tokens.
#[derive(Debug, Clone)]
pub struct Remote {
    repository: Repository,
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Of the document.
    pub descriptor: Descriptor,
    /// The document, verified, if it came along.
    pub bytes: Option<Vec<u8>>,
}

/// Opens a blob that is to be sent, from this offset on: called again for each try. It may block.
pub type Open = Arc<dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Send + Sync>;

impl Remote {
    /// Which repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What a tag or a digest of this repository leads to.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let _ = reference;
        Err(unfinished())
    }

    /// A manifest or an index, verified.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let _ = descriptor;
        Err(unfinished())
    }

    /// A small blob as a whole, verified: a configuration. At most `limit` bytes.
    pub async fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let _ = (descriptor, limit);
        Err(unfinished())
    }

    /// A blob from this offset on. Its bytes are not verified: who stores them does that.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        let _ = (descriptor, offset);
        Err(unfinished())
    }

    /// What a host sent was not what it should be: ask it for nothing more in this call. False if no other is left.
    pub fn avoid(&self, host: &str) -> bool {
        let _ = host;
        false
    }

    /// What refers to this digest.
    pub async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let _ = (digest, artifact_type);
        Err(unfinished())
    }

    /// All tags, as the registry orders them.
    pub async fn tags(&self) -> Result<Vec<String>> {
        Err(unfinished())
    }

    /// Whether the registry has this blob.
    pub async fn blob_exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let _ = descriptor;
        Err(unfinished())
    }

    /// Whether the registry has this manifest or index, under this digest.
    pub async fn manifest_exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let _ = descriptor;
        Err(unfinished())
    }

    /// Takes a blob over from another repository of the same registry, without sending it. False: it must be sent.
    pub async fn mount(&self, descriptor: &Descriptor, from: &Repository) -> Result<bool> {
        let _ = (descriptor, from);
        Err(unfinished())
    }

    /// Sends a blob; `progress` gets the bytes that the registry has, which may go back.
    pub async fn upload(&self, descriptor: &Descriptor, open: Open, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let _ = (descriptor, open, progress);
        Err(unfinished())
    }

    /// Sends a manifest or an index: under its digest, or under a tag as well.
    pub async fn put_manifest(&self, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let _ = (tag, media_type, bytes);
        Err(unfinished())
    }
}

/// A blob that is coming. It goes on by itself after a cut, and at another host when one fails for good.
pub struct BlobStream(());

impl BlobStream {
    /// The next bytes, or nothing at the blob's end: then exactly as many came as its descriptor says.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        Err(unfinished())
    }

    /// Where the next bytes belong.
    #[must_use]
    pub fn offset(&self) -> u64 {
        0
    }

    /// Who sends it, for messages and for [`Remote::avoid`].
    #[must_use]
    pub fn host(&self) -> &str {
        ""
    }
}

fn unfinished() -> Error {
    Error::unimplemented("this part of the registry client is not written yet")
}
