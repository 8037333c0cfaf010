//! What refers to something: signatures, attestations, artifacts. By the API, or by a tag where a registry does not know that
//! (distribution specification, "Listing Referrers" and "Referrers Tag Schema").

use http::Method;
use serde::Deserialize;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::registry::client::{Call, Remote};
use crate::registry::exchange::{Ask, Host};
use crate::registry::fetch::nobody;
use crate::registry::manifest::Document;
use crate::registry::retry::Tries;
use crate::registry::{limit, media, shortened};

#[derive(Deserialize)]
struct Page {
    manifests: Option<Vec<Descriptor>>,
}

impl Remote {
    /// What refers to this digest.
    pub async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let call = &self.0;
        let mut failure = None;
        for (host, is_last) in call.hosts(|it| it.referrers && it.pull)? {
            match call.referrers(host, digest, artifact_type, call.tries(is_last)).await {
                Ok(found) => return Ok(found),
                Err(error) if is_last => failure = Some(error),
                Err(error) => call.passed_over(&error),
            }
        }
        Err(failure.unwrap_or_else(nobody))
    }

    /// Enters what was sent into the list of what refers to its subject, where the registry keeps none by itself: it did not say
    /// so when it took the manifest ([`crate::registry::Put::lists_referrers`]). Two who do this at once may lose one.
    pub async fn list_referrer(&self, subject: &Digest, referrer: &Descriptor) -> Result<()> {
        let call = &self.0;
        let host = call.takes_pushes()?;
        let tag = tag(subject);
        let mut manifests = call.tagged(host, &tag, call.tries(true)).await?;
        if manifests.iter().any(|it| it.digest == referrer.digest) {
            return Ok(());
        }
        manifests.push(referrer.clone());
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": manifests});
        self.put_manifest(Some(&tag), media::INDEX, index.to_string().as_bytes()).await?;
        Ok(())
    }
}

impl Call {
    async fn referrers(
        &self,
        host: &Host,
        digest: &Digest,
        artifact_type: Option<&str>,
        tries: Tries,
    ) -> Result<Vec<Descriptor>> {
        let encoded = artifact_type
            .map(|it| {
                format!(
                    "?artifactType={}",
                    percent_encoding::utf8_percent_encode(it, percent_encoding::NON_ALPHANUMERIC)
                )
            })
            .unwrap_or_default();
        let path = format!("/{}/referrers/{digest}{encoded}", self.repository.path());
        let what = format!("list what refers to {digest} in {}", self.repository.path());
        let mut ask = Ask::new(Method::GET, path, self.scope(false), what);
        let mut found = Vec::new();
        loop {
            let (page, next) = match self.page::<Page>(host, &ask, tries).await {
                Ok(page) => page,
                // Who does not know the question keeps the list under a tag, if at all.
                Err(error) if found.is_empty() && matches!(error.kind, Kind::NotFound | Kind::FailedPrecondition) => {
                    found = self.tagged(host, &tag(digest), tries).await?;
                    break;
                }
                Err(error) => return Err(error),
            };
            found.extend(page.manifests.unwrap_or_default());
            if found.len() > limit::REFERRERS {
                return Err(self.too_many(host, &ask.what, limit::REFERRERS));
            }
            match next {
                Some(next) => ask.to = next,
                None => break,
            }
        }
        // A registry need not filter, and a tag cannot.
        found.retain(|it| artifact_type.is_none_or(|wanted| it.artifact_type.as_deref() == Some(wanted)));
        Ok(found)
    }

    /// The list under a tag; an empty one if there is none.
    async fn tagged(&self, host: &Host, tag: &str, tries: Tries) -> Result<Vec<Descriptor>> {
        let bytes = match self.get(host, tag, None, &[], tries).await {
            Ok((_, bytes)) => bytes,
            Err(error) if error.kind == Kind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        match Document::parse("", &bytes)? {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(_) => Err(Error::data_loss(format!(
                "registry {}: what {} has under the tag {} is no list of what refers to something",
                host.endpoint.authority,
                self.repository.path(),
                shortened(tag)
            ))),
        }
    }
}

/// `sha256-<hex>`, no longer than a tag may be.
fn tag(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}-{}", digest.algorithm().name(), &hex[..hex.len().min(64)])
}
