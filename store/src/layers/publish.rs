//! The last step: what is complete becomes visible, on the disk first.

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::{Image, Tree};
use crate::error::Result;
use crate::flights::Turn;
use crate::metadata::{Labels, NewImage, Publication};
use crate::progress::{Item, Phase};
use crate::registry::media;
use crate::snapshots::Extracted;
use crate::store::{Away, Call, blocking};

/// Layers of one image that are complete and not shown yet. Dropped, their trees are removed.
#[derive(Default)]
pub(crate) struct Ready {
    /// Each after its parent. The turn ends when it shows, or will not.
    layers: Vec<(Away<Extracted>, Turn, Item)>,
    /// What collection follows from the configuration to the snapshots, and from there downwards.
    labels: Vec<(Digest, Labels)>,
}

impl Ready {
    pub(super) fn of(image: &Image, snapshotter: &str) -> Self {
        let root = image.chain_id().map(|chain| {
            let key = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
            (image.config.digest.clone(), Labels::from([(key, chain.to_string())]))
        });
        Self { layers: Vec::new(), labels: root.into_iter().collect() }
    }

    /// Nothing is new.
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    pub(super) fn push(&mut self, layer: Away<Extracted>, turn: Turn, item: Item) {
        self.layers.push((layer, turn, item));
    }

    /// Shows the layers alone: what stands on them will not come, or comes later.
    pub(crate) async fn publish_layers(&mut self, call: &Call) -> Result<()> {
        if self.layers.is_empty() {
            return Ok(());
        }
        self.write(call, Vec::new(), Vec::new()).await
    }

    /// Shows the layers and the names. `keep` says of a layer's blob that the image keeps it.
    pub(crate) async fn publish(mut self, call: &Call, tree: &Tree, images: Vec<NewImage>, keep: bool) -> Result<()> {
        let mut labels = std::mem::take(&mut self.labels);
        for (document, refers) in &tree.documents {
            let mut refers = refers.clone();
            if !keep {
                refers.retain(|key, _| !key.starts_with("containerd.io/gc.ref.content.l."));
            }
            labels.push((document.digest.clone(), refers));
        }
        if keep {
            for image in &tree.images {
                let here = |layer: &&Descriptor| !media::is_foreign(&layer.media_type);
                for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids).filter(|(layer, _)| here(layer)) {
                    let label = ("containerd.io/uncompressed".to_owned(), diff_id.to_string());
                    labels.push((layer.digest.clone(), Labels::from([label])));
                }
            }
        }
        self.write(call, labels, images).await
    }

    async fn write(&mut self, call: &Call, blobs: Vec<(Digest, Labels)>, images: Vec<NewImage>) -> Result<()> {
        let (mut extracted, mut turns, mut items) = (Vec::new(), Vec::new(), Vec::new());
        for (layer, turn, item) in self.layers.drain(..) {
            item.phase(Phase::Syncing);
            extracted.extend(layer.take());
            turns.push(turn);
            items.push(item);
        }
        let call = call.clone();
        blocking(move || {
            // The trees, before a row says that they are there; the turns end after.
            let layers = call.store.snapshots.sync(extracted)?;
            call.store.metadata.publish(Publication {
                ns: &call.ns,
                lease: Some(&*call.lease),
                layers,
                blobs,
                images,
            })?;
            drop(turns);
            Ok(())
        })
        .await?;
        items.iter().for_each(|item| item.phase(Phase::Done));
        Ok(())
    }
}
