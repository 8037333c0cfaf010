//! What refers to an image: signatures, attestations, and other artifacts that name it as their subject.

use std::collections::HashSet;

use super::{From, Tree, Wanted};
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::Result;
use crate::fetch::Remote;
use crate::store::Call;

/// Keeps a referrer for as long as its subject.
pub(crate) const SUBJECT: &str = "containerd.io/gc.bref.content.subject";

impl Tree {
    /// Fetches the documents of what refers to the image, or to one of its manifests; their blobs are transfers like others.
    pub(crate) async fn add_referrers(&mut self, call: &Call, remote: &Remote) -> Result<()> {
        let subjects: HashSet<Digest> = [&self.root]
            .into_iter()
            .chain(self.images.iter().map(|it| &it.manifest))
            .map(|it| it.digest.clone())
            .collect();
        for subject in subjects {
            for referrer in remote.registry.referrers(&subject, None).await? {
                self.add_referrer(call, remote, referrer, &subject).await?;
            }
        }
        Ok(())
    }

    async fn add_referrer(&mut self, call: &Call, remote: &Remote, at: Descriptor, subject: &Digest) -> Result<()> {
        let digest = at.digest.clone();
        let found = Self::read(call, From::Registry(remote), at, &Wanted::All).await?;
        for (document, mut labels) in found.documents {
            if document.digest == digest {
                labels.insert(SUBJECT.to_owned(), subject.to_string());
            }
            self.documents.push((document, labels));
        }
        self.blobs.extend(found.blobs);
        // An image that refers to another is kept, and not unpacked.
        for image in found.images {
            self.blobs.extend(image.layers);
        }
        Ok(())
    }
}
