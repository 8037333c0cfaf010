//! Documents and lists: what a name leads to, manifests, tags.

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::content::digest::{Algorithm, Digest};
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::registry::client::{Call, Remote};
use crate::registry::exchange::{Answer, Ask, Host, To};
use crate::registry::http::{location, origin};
use crate::registry::manifest::essence;
use crate::registry::reference::Reference;
use crate::registry::retry::Tries;
use crate::registry::{body, challenge, limit, media, shortened};

/// In which header a registry says what it sends.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Of the document.
    pub descriptor: Descriptor,
    /// The document, verified, if it came along.
    pub bytes: Option<Vec<u8>>,
}

impl Remote {
    /// What a tag or a digest of this repository leads to.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let call = &self.0;
        if reference.repository() != &call.repository {
            return Err(Error::internal(format!("{reference} was asked of {}", call.repository)));
        }
        let by_digest = reference.digest().is_some();
        let mut failure = None;
        // What a digest names can come from wherever it is; what a tag names, only from those who are asked to say it.
        for (host, is_last) in call.hosts(|it| if by_digest { it.pull } else { it.resolve })? {
            match call.resolve(host, reference, call.tries(is_last)).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) if is_last => failure = Some(error),
                Err(error) => call.passed_over(&error),
            }
        }
        Err(failure.unwrap_or_else(nobody))
    }

    /// A manifest or an index, verified.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let call = &self.0;
        if descriptor.size > limit::DOCUMENT {
            return Err(Error::data_loss(format!(
                "the manifest {} of {} has {} bytes; {} is the most",
                descriptor.digest,
                call.repository,
                descriptor.size,
                limit::DOCUMENT
            )));
        }
        let mut failure = None;
        for (host, is_last) in call.hosts(|it| it.pull)? {
            match call.manifest(host, descriptor, call.tries(is_last)).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if is_last => failure = Some(error),
                Err(error) => call.passed_over(&error),
            }
        }
        Err(failure.unwrap_or_else(nobody))
    }

    /// A small blob as a whole, verified: a configuration. At most `limit` bytes.
    pub async fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let what = || format!("the blob {} of {}", descriptor.digest, self.0.repository);
        if descriptor.size > limit {
            return Err(Error::data_loss(format!("{} has {} bytes; {limit} is the most", what(), descriptor.size)));
        }
        loop {
            let mut stream = self.blob(descriptor, 0).await?;
            let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or_default());
            while let Some(piece) = stream.next().await? {
                bytes.extend_from_slice(&piece);
            }
            match verified(&descriptor.digest, &bytes) {
                Ok(()) => return Ok(bytes),
                Err(why) => {
                    let error = Error::data_loss(format!("registry {}: {}: {why}", stream.host(), what()));
                    if !self.avoid(stream.host()) {
                        return Err(error);
                    }
                    self.0.passed_over(&error);
                }
            }
        }
    }

    /// All tags, as the registry orders them.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let call = &self.0;
        let mut failure = None;
        for (host, is_last) in call.hosts(|it| it.resolve)? {
            match call.tags(host, call.tries(is_last)).await {
                Ok(tags) => return Ok(tags),
                Err(error) if is_last => failure = Some(error),
                Err(error) => call.passed_over(&error),
            }
        }
        Err(failure.unwrap_or_else(nobody))
    }

    /// Whether the registry has this blob.
    pub async fn blob_exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let path = format!("/{}/blobs/{}", self.0.repository.path(), descriptor.digest);
        self.exists(path, format!("look for the blob {}", descriptor.digest)).await
    }

    /// Whether the registry has this manifest or index, under this digest.
    pub async fn manifest_exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let path = format!("/{}/manifests/{}", self.0.repository.path(), descriptor.digest);
        self.exists(path, format!("look for the manifest {}", descriptor.digest)).await
    }

    /// Asked of who takes pushes: what a mirror has is not there yet.
    async fn exists(&self, path: String, what: String) -> Result<bool> {
        let call = &self.0;
        let host = call.takes_pushes()?;
        let mut ask = Ask::new(Method::HEAD, path, call.scope(true), format!("{what} in {}", call.repository.path()));
        ask.accepted = &[StatusCode::NOT_FOUND];
        let ask = ask.header(ACCEPT, &media::DOCUMENTS.join(", "))?;
        Ok(call.ask(host, &ask, call.tries(true)).await?.status() != StatusCode::NOT_FOUND)
    }
}

impl Call {
    /// What a token must allow.
    pub(super) fn scope(&self, push: bool) -> String {
        format!("repository:{}:{}", self.repository.path(), if push { "pull,push" } else { "pull" })
    }

    /// The host that takes pushes: the first that may.
    pub(super) fn takes_pushes(&self) -> Result<&Host> {
        self.hosts(|it| it.push)?.first().map(|(host, _)| *host).ok_or_else(nobody)
    }

    async fn resolve(&self, host: &Host, reference: &Reference, tries: Tries) -> Result<Resolved> {
        // A tag by HEAD: hubs count what is fetched, and often the image is here already. Who cannot say it so is asked
        // for the document.
        if reference.digest().is_none()
            && let Some(descriptor) = self.head(host, reference, tries).await?
        {
            return Ok(Resolved { descriptor, bytes: None });
        }
        let (descriptor, bytes) = self.get(host, &reference.wanted(), reference.digest(), &[], tries).await?;
        Ok(Resolved { descriptor, bytes: Some(bytes) })
    }

    async fn head(&self, host: &Host, reference: &Reference, tries: Tries) -> Result<Option<Descriptor>> {
        let mut ask = self.ask_manifest(Method::HEAD, &reference.wanted(), &[])?;
        // The refusal of a HEAD has no body to say why.
        ask.accepted =
            &[StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST];
        let answer = self.ask(host, &ask, tries).await?;
        let media_type = answer.header(CONTENT_TYPE.as_str()).map(essence).unwrap_or_default();
        let known = media::is_index(media_type) || media::is_manifest(media_type);
        let digest = answer.header(CONTENT_DIGEST).and_then(|it| it.parse::<Digest>().ok());
        let size = answer.header(CONTENT_LENGTH.as_str()).and_then(|it| it.parse::<u64>().ok());
        match (digest, size) {
            (Some(digest), Some(size)) if known && answer.status() == StatusCode::OK && size > 0 => {
                Ok(Some(Descriptor::new(media_type, digest, size)))
            }
            _ => Ok(None),
        }
    }

    async fn manifest(&self, host: &Host, descriptor: &Descriptor, tries: Tries) -> Result<Vec<u8>> {
        let wanted = descriptor.digest.to_string();
        let (_, bytes) = self.get(host, &wanted, Some(&descriptor.digest), &[&descriptor.media_type], tries).await?;
        if bytes.len() as u64 != descriptor.size {
            return Err(self.broken(
                host,
                &wanted,
                &format!("it has {} bytes, and not {}", bytes.len(), descriptor.size),
            ));
        }
        Ok(bytes)
    }

    /// A document by tag or digest, verified, and what describes it.
    pub(super) async fn get(
        &self,
        host: &Host,
        wanted: &str,
        digest: Option<&Digest>,
        types: &[&str],
        tries: Tries,
    ) -> Result<(Descriptor, Vec<u8>)> {
        let ask = self.ask_manifest(Method::GET, wanted, types)?;
        let mut next = 1;
        loop {
            let mut answer = self.ask(host, &ask, tries).await?;
            let patience = self.shared.http.patience.stall;
            let bytes = match body::whole(answer.response.body_mut(), limit::DOCUMENT, patience).await {
                Ok(bytes) => bytes,
                Err(why) if why.starts_with("it is larger") => return Err(self.broken(host, wanted, &why)),
                // Cut off: from the beginning.
                Err(why) => match tries.pause(next, None) {
                    Some(pause) => {
                        tokio::time::sleep(pause).await;
                        next += 1;
                        continue;
                    }
                    None => {
                        let error = format!("registry {}: {}: {why}", host.endpoint.authority, ask.what);
                        return Err(Error::unavailable(error));
                    }
                },
            };
            let media_type = answer.header(CONTENT_TYPE.as_str()).map(essence).unwrap_or_default().to_owned();
            let said = answer.header(CONTENT_DIGEST).and_then(|it| it.parse::<Digest>().ok());
            let digest = match digest.cloned().or(said) {
                Some(digest) => {
                    verified(&digest, &bytes).map_err(|why| self.broken(host, wanted, &why))?;
                    digest
                }
                None => Digest::of(&bytes),
            };
            let media_type = types.first().map_or(media_type, |it| (*it).to_owned());
            return Ok((Descriptor::new(media_type, digest, bytes.len() as u64), bytes));
        }
    }

    fn ask_manifest(&self, method: Method, wanted: &str, types: &[&str]) -> Result<Ask> {
        let path = format!("/{}/manifests/{wanted}", self.repository.path());
        let what = format!("fetch the manifest {wanted} of {}", self.repository.path());
        let others = media::DOCUMENTS.iter().filter(|it| !types.contains(it));
        let accept = types.iter().chain(others).copied().chain(["*/*;q=0.1"]).collect::<Vec<_>>().join(", ");
        Ask::new(method, path, self.scope(false), what).header(ACCEPT, &accept)
    }

    fn broken(&self, host: &Host, wanted: &str, why: &str) -> Error {
        Error::data_loss(format!(
            "registry {}: the manifest {wanted} of {}: {why}",
            host.endpoint.authority,
            self.repository.path()
        ))
    }

    async fn tags(&self, host: &Host, tries: Tries) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let path = format!("/{}/tags/list?n=1000", self.repository.path());
        let mut ask =
            Ask::new(Method::GET, path, self.scope(false), format!("list the tags of {}", self.repository.path()));
        let mut found = Vec::new();
        loop {
            let (page, next) = self.page::<Page>(host, &ask, tries).await?;
            found.extend(page.tags.unwrap_or_default());
            if found.len() > limit::TAGS {
                return Err(self.too_many(host, &ask.what, limit::TAGS));
            }
            match next {
                Some(next) => ask.to = next,
                None => return Ok(found),
            }
        }
    }

    /// One page of a list, and where the next one is.
    pub(super) async fn page<T: serde::de::DeserializeOwned>(
        &self,
        host: &Host,
        ask: &Ask,
        tries: Tries,
    ) -> Result<(T, Option<To>)> {
        let mut answer = self.ask(host, ask, tries).await?;
        let patience = self.shared.http.patience.stall;
        let within = |why: String| format!("registry {}: {}: {why}", host.endpoint.authority, ask.what);
        let bytes = body::whole(answer.response.body_mut(), limit::DOCUMENT, patience)
            .await
            .map_err(|why| Error::unavailable(within(why)))?;
        let page = serde_json::from_slice(&bytes).map_err(|error| {
            Error::data_loss(within(format!("the list is broken: {}", shortened(&error.to_string()))))
        })?;
        Ok((page, next_page(&answer)))
    }

    pub(super) fn too_many(&self, host: &Host, what: &str, most: usize) -> Error {
        Error::new(
            Kind::ResourceExhausted,
            format!("registry {}: {what}: the list does not end after {most}", host.endpoint.authority),
        )
    }
}

/// Only at the same host: a list goes on where it began.
fn next_page(answer: &Answer) -> Option<To> {
    let said = challenge::next_page(answer.header("link")?)?;
    let next = location(&answer.from, said).filter(|it| origin(it) == origin(&answer.from))?;
    (next != answer.from).then_some(To::At(next))
}

/// Whether these are the bytes that a digest names.
pub(super) fn verified(digest: &Digest, bytes: &[u8]) -> std::result::Result<(), String> {
    let found = match digest.algorithm() {
        Algorithm::Sha256 => Digest::of(bytes),
        Algorithm::Sha512 => {
            let mut hasher = Algorithm::Sha512.hasher();
            hasher.update(bytes);
            hasher.finish()
        }
    };
    if &found == digest { Ok(()) } else { Err(format!("what came has the digest {found}, and not {digest}")) }
}

pub(super) fn nobody() -> Error {
    Error::new(Kind::FailedPrecondition, "no host is left that may be asked")
}
