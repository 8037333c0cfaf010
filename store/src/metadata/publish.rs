//! The one transaction that makes a pull's, an import's or a commit's result visible: layers, and the images that stand on them.

use rusqlite::Transaction;

use super::{Image, Labels, Lease, Metadata, Namespace, images, labels, leases};
use crate::content;
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::fault;
use crate::snapshots::rows::{self, Row};
use crate::snapshots::{Kind, Layer};

/// What becomes visible together.
pub struct Publication<'a> {
    /// For whom.
    pub ns: &'a Namespace,
    /// The call's lease: it keeps the layers until the call ends.
    pub lease: Option<&'a Lease>,
    /// Extracted and synced, each after its parent.
    pub layers: Vec<Layer>,
    /// Labels to add to blobs that are there: what refers to what.
    pub blobs: Vec<(Digest, Labels)>,
    /// Names to give or to move.
    pub images: Vec<NewImage>,
}

/// A name to give or to move.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// The name.
    pub name: String,
    /// What it shall stand for.
    pub target: Descriptor,
    /// In place of the labels that it has.
    pub labels: Labels,
}

/// What became visible.
#[derive(Debug)]
pub struct Published {
    /// As they are now, in the order of the publication.
    pub images: Vec<Image>,
}

impl Metadata {
    /// Makes it visible, all or nothing, and durably. A layer that was there meanwhile is the same one: ours is removed.
    pub fn publish(&self, publication: Publication<'_>) -> Result<Published> {
        let Publication { ns, lease, layers, blobs, images } = publication;
        let lease = lease.map(Lease::id);
        fault::point("publish.begin")?;
        let (published, new) = self.durable(|transaction| {
            let now = self.now();
            let new = layers
                .iter()
                .map(|layer| insert_layer(transaction, ns, lease, layer, now))
                .collect::<Result<Vec<bool>>>()?;
            for (digest, labels) in &blobs {
                content::add_labels(transaction, ns, digest, labels, now)?;
            }
            let put = |it: &NewImage| images::put(transaction, ns, &it.name, &it.target, &it.labels, now);
            let images = images.iter().map(put).collect::<Result<_>>()?;
            fault::point("publish.before_commit")?;
            Ok((Published { images }, new))
        })?;
        fault::point("publish.committed")?;
        for (layer, _) in layers.into_iter().zip(new).filter(|(_, new)| *new) {
            layer.keep();
        }
        Ok(published)
    }
}

/// Whether the layer was not there.
fn insert_layer(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    lease: Option<&str>,
    layer: &Layer,
    now: i64,
) -> Result<bool> {
    labels::validate(&layer.labels)?;
    leases::keep(transaction, ns, lease, &format!("snapshots/{}", layer.snapshotter), &layer.chain_id)?;
    if rows::get(transaction, ns, layer.snapshotter, &layer.chain_id)?.is_some() {
        return Ok(false);
    }
    // Others may have it only if all that it stands on was verified too: native trees have what is below in them.
    let verified = match &layer.parent {
        None => true,
        Some(parent) => match rows::get(transaction, ns, layer.snapshotter, parent)? {
            Some(it) if it.kind == Kind::Committed => it.verified,
            _ => {
                return Err(Error::not_found(format!(
                    "layer {} stands on {parent}, which is not there",
                    layer.chain_id
                )));
            }
        },
    };
    let row = Row {
        name: layer.chain_id.clone(),
        kind: Kind::Committed,
        parent: layer.parent.clone(),
        tree: layer.tree,
        verified,
        diff_id: layer.diff_id.to_string(),
        usage: layer.usage,
        labels: layer.labels.clone(),
        created: now,
        updated: now,
    };
    rows::put(transaction, ns, layer.snapshotter, &row)?;
    Ok(true)
}
