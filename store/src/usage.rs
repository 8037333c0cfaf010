//! What takes how much disk.

use std::collections::{HashMap, HashSet};

use crate::content::Content;
use crate::content::digest::Digest;
use crate::error::{Error, Result};
use crate::gc::graph::{Graph, Name, Node, Thing};
use crate::gc::{self, Options};
use crate::metadata::{Metadata, Namespace};
use crate::snapshots::{Kind, Snapshots};

/// What one image takes. Names of the same target are one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// One of its names.
    pub name: String,
    /// What it stands for.
    pub digest: Digest,
    /// Its blobs, in bytes.
    pub blob_bytes: u64,
    /// Its layers unpacked, in bytes.
    pub snapshot_bytes: u64,
    /// Of both, what other images have too.
    pub shared_bytes: u64,
}

/// What all of it takes; each thing counts once, whoever sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the namespace that was asked for.
    pub images: Vec<ImageUsage>,
    /// Blobs, in bytes.
    pub blob_bytes: u64,
    /// Trees of snapshots, in bytes.
    pub snapshot_bytes: u64,
    /// What is still coming, in bytes.
    pub ingest_bytes: u64,
    /// What a collection would free now, in bytes.
    pub reclaimable_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Trees.
    pub snapshots: u64,
    /// Of these, active ones and views.
    pub active_snapshots: u64,
}

/// What takes disk and may be shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Unit {
    Blob(Digest),
    Tree(u64),
}

/// Measures: all images of a namespace, or only one.
pub fn usage(
    metadata: &Metadata,
    content: &Content,
    snapshots: &Snapshots,
    ns: &Namespace,
    image: Option<&str>,
) -> Result<Usage> {
    let graph = metadata.read(Graph::load)?;
    if let Some(image) = image.filter(|it| graph.find(ns, &Name::Image((*it).to_owned())).is_none()) {
        return Err(Error::not_found(format!("there is no image {image:?} in namespace {ns}")));
    }
    let mut total = totals(&graph, snapshots);
    total.images = images(&graph, ns, image);
    total.ingest_bytes = content.ingest_bytes()?;
    let options = Options { dry_run: true, prune: None };
    total.reclaimable_bytes = gc::collect(metadata, content, snapshots, &options)?.bytes;
    Ok(total)
}

fn totals(graph: &Graph, snapshots: &Snapshots) -> Usage {
    let mut total = Usage::default();
    let mut seen = HashSet::new();
    for node in &graph.nodes {
        let Some((unit, bytes)) = unit(node).filter(|(unit, _)| !seen.contains(unit)) else { continue };
        match (&unit, &node.thing) {
            (Unit::Tree(tree), Thing::Snapshot { kind, .. }) => {
                total.snapshots += 1;
                let active = *kind != Kind::Committed;
                total.active_snapshots += u64::from(active);
                // One that is being removed right now takes nothing.
                let bytes = if active { snapshots.measure(*tree).map_or(0, |it| it.size) } else { bytes };
                total.snapshot_bytes += bytes;
            }
            _ => {
                total.blobs += 1;
                total.blob_bytes += bytes;
            }
        }
        seen.insert(unit);
    }
    total
}

fn images(graph: &Graph, ns: &Namespace, only: Option<&str>) -> Vec<ImageUsage> {
    // Everything by image first: what is shared is known when all have been looked at.
    let mut all: Vec<(String, Digest, HashMap<Unit, u64>)> = Vec::new();
    let mut targets = HashSet::new();
    let mut owners: HashMap<Unit, u32> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.ns == *ns) {
        let Thing::Image { name, target, .. } = &node.thing else { continue };
        let units: HashMap<Unit, u64> =
            graph.closure(index).into_iter().filter_map(|it| unit(&graph.nodes[it])).collect();
        if targets.insert(target.clone()) {
            for unit in units.keys() {
                *owners.entry(unit.clone()).or_default() += 1;
            }
        }
        all.push((name.clone(), target.clone(), units));
    }
    all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let wanted = all.into_iter().filter(|(name, ..)| only.is_none_or(|it| it == name));
    let measured = wanted.map(|(name, digest, units)| {
        let sum = |which: &dyn Fn(&Unit) -> bool| units.iter().filter(|it| which(it.0)).map(|it| *it.1).sum();
        ImageUsage {
            name,
            digest,
            blob_bytes: sum(&|it| matches!(it, Unit::Blob(_))),
            snapshot_bytes: sum(&|it| matches!(it, Unit::Tree(_))),
            shared_bytes: sum(&|it| owners.get(it).is_some_and(|it| *it > 1)),
        }
    });
    measured.collect()
}

fn unit(node: &Node) -> Option<(Unit, u64)> {
    match &node.thing {
        Thing::Image { .. } => None,
        Thing::Blob { digest, size } => Some((Unit::Blob(digest.clone()), *size)),
        Thing::Snapshot { tree, usage, .. } => Some((Unit::Tree(*tree), usage.size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind as Failure;
    use crate::testing::{Parts, labels, request};

    #[test]
    fn each_thing_counts_once_and_what_is_shared_is_said() {
        let (parts, ns) = (Parts::new(), Namespace::default());
        let one = parts.image(&ns, "one", b"base layer", "chain").unwrap();
        let two = parts.image(&ns, "other", b"base layer", "chain").unwrap();
        parts.metadata.create_image(&ns, "one-more-name", &one, &labels(&[])).unwrap();
        parts.snapshots.prepare(&request(&ns, "key", "chain", &labels(&[]))).unwrap();
        parts.content.put(&ns, b"nobody's", &labels(&[]), None).unwrap();
        parts.content.ingest(&ns, "coming", None, None).unwrap().write(b"12345").unwrap();
        let all = usage(&parts.metadata, &parts.content, &parts.snapshots, &ns, None).unwrap();
        let layer = parts.snapshots.usage(&ns, "", "chain").unwrap().size;
        let shared = 10 + layer;
        assert_eq!(all.blob_bytes, one.size + two.size + 10 + 8);
        assert_eq!((all.blobs, all.snapshots, all.active_snapshots, all.ingest_bytes), (4, 2, 1, 5));
        assert!(layer > 0 && all.snapshot_bytes >= layer);
        assert_eq!(all.images[0].snapshot_bytes, layer);
        assert_eq!(all.reclaimable_bytes, 4096, "the blob that is nobody's");
        let named: Vec<_> = all.images.iter().map(|it| (it.name.as_str(), it.blob_bytes, it.shared_bytes)).collect();
        let (first, second) = (one.size + 10, two.size + 10);
        assert_eq!(named, [("one", first, shared), ("one-more-name", first, shared), ("other", second, shared)]);
        let only = usage(&parts.metadata, &parts.content, &parts.snapshots, &ns, Some("other")).unwrap();
        assert_eq!(only.images, all.images[2..]);
        let missing = usage(&parts.metadata, &parts.content, &parts.snapshots, &ns, Some("x")).unwrap_err();
        assert_eq!(missing.kind, Failure::NotFound);
    }
}
