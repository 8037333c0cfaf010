//! Collection: what nothing refers to goes.
//!
//! ```text
//! one durable transaction:  read every row -> roots -> mark -> delete the rows that were not reached
//! then, for each:           no row names the digest (under its lock) -> unlink       no row names the tree -> rename away, remove
//! ```
//!
//! Roots are images, leases that have not ended, snapshots that are active or views, whatever is labelled `containerd.io/gc.root`, and namespaces
//! that are labelled so. Whoever publishes does it in one transaction too, in which a lease or an image refers to what is new: so collection
//! sees it with what keeps it, or not at all. No clock ends the lease of a call that runs.

pub(crate) mod graph;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::Transaction;

use crate::content::Content;
use crate::content::digest::Digest;
use crate::error::Result;
use crate::fault;
use crate::metadata::{Labels, Metadata, Namespace, failed, from_json, leases, nanoseconds};
use crate::snapshots::{Kind, Snapshots, rows};
use graph::{Graph, Name, Reach, Thing};

/// What shall go.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only say what would go.
    pub dry_run: bool,
    /// Images too.
    pub prune: Option<Prune>,
}

/// Which images go: of one namespace, and none that is labelled `containerd.io/gc.root` or on which an active snapshot or a view stands.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Whose.
    pub ns: Namespace,
    /// Only those that have no name but a digest.
    pub dangling_only: bool,
    /// Only those that were made before.
    pub before: Option<SystemTime>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files of blobs.
    pub blobs: u64,
    /// Trees of snapshots.
    pub snapshots: u64,
    /// Blobs that nobody went on with.
    pub ingests: u64,
    /// Those that had ended.
    pub leases: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Names.
    pub images: Vec<String>,
}

/// What shall be deleted.
#[derive(Default)]
struct Doomed {
    nodes: Vec<usize>,
    leases: Vec<(Namespace, String)>,
    images: Vec<String>,
    digests: BTreeSet<Digest>,
    /// Numbers, and what they take.
    trees: HashMap<u64, u64>,
    /// Ingests that a lease keeps.
    kept_ingests: HashSet<(Namespace, String)>,
}

/// Collects.
pub fn collect(metadata: &Metadata, content: &Content, snapshots: &Snapshots, options: &Options) -> Result<Collected> {
    let now = metadata.now();
    let mut doomed = if options.dry_run {
        metadata.read(|transaction| mark(metadata, transaction, now, options).map(|(_, doomed)| doomed))?
    } else {
        metadata.freeing(|transaction| {
            let (graph, doomed) = mark(metadata, transaction, now, options)?;
            fault::point("gc.marked")?;
            sweep(transaction, &graph, &doomed)?;
            fault::point("gc.swept")?;
            Ok(doomed)
        })?
    };
    let mut collected = Collected {
        leases: doomed.leases.len() as u64,
        images: std::mem::take(&mut doomed.images),
        ..Collected::default()
    };
    let (ingests, bytes) = content.expire_ingests(crate::metadata::time(now), &doomed.kept_ingests, options.dry_run)?;
    collected.ingests = ingests;
    collected.bytes += bytes;
    unlink(content, snapshots, &doomed, options, &mut collected)?;
    Ok(collected)
}

/// After the transaction: what no row names any more.
fn unlink(
    content: &Content,
    snapshots: &Snapshots,
    doomed: &Doomed,
    options: &Options,
    collected: &mut Collected,
) -> Result<()> {
    for digest in &doomed.digests {
        let bytes = if options.dry_run { content.bytes_on_disk(digest) } else { content.unlink_unnamed(digest)? };
        // It may have been published again meanwhile.
        collected.blobs += u64::from(bytes.is_some());
        collected.bytes += bytes.unwrap_or(0);
        fault::point("gc.unlinked_one")?;
    }
    for (tree, bytes) in &doomed.trees {
        collected.snapshots += 1;
        collected.bytes += bytes;
        if !options.dry_run {
            snapshots.trees().remove(*tree)?;
        }
    }
    // What is said to be free is free.
    snapshots.trees().flush();
    fault::point("gc.unlinked")
}

fn mark(metadata: &Metadata, transaction: &Transaction<'_>, now: i64, options: &Options) -> Result<(Graph, Doomed)> {
    let graph = Graph::load(transaction)?;
    let mut doomed = Doomed::default();
    let pruned = options.prune.as_ref().map(|prune| prunable(&graph, prune)).unwrap_or_default();
    let external = external(transaction)?;
    let mut roots: Vec<(usize, Reach)> = (0..graph.nodes.len())
        .filter(|it| {
            !pruned.contains(it) && (external.contains(&graph.nodes[*it].ns) || is_root(&graph.nodes[*it], now))
        })
        .map(|it| (it, Reach::Full))
        .collect();
    leased(metadata, transaction, &graph, now, &mut roots, &mut doomed)?;
    let reached = graph.reach(roots);
    let mut digests: HashMap<&Digest, bool> = HashMap::new();
    let mut trees: HashMap<u64, (bool, u64)> = HashMap::new();
    for (node, reach) in graph.nodes.iter().zip(&reached) {
        let lives = *reach > Reach::Not;
        match &node.thing {
            Thing::Image { .. } => {}
            Thing::Blob { digest, .. } => *digests.entry(digest).or_default() |= lives,
            Thing::Snapshot { tree, usage, .. } => trees.entry(*tree).or_insert((false, usage.size)).0 |= lives,
        }
    }
    doomed.digests = digests.into_iter().filter(|(_, lives)| !lives).map(|(digest, _)| digest.clone()).collect();
    doomed.trees = trees.into_iter().filter(|(_, (lives, _))| !lives).map(|(tree, (_, bytes))| (tree, bytes)).collect();
    doomed.nodes = (0..graph.nodes.len()).filter(|it| reached[*it] == Reach::Not).collect();
    for node in &doomed.nodes {
        if let Thing::Image { name, .. } = &graph.nodes[*node].thing {
            doomed.images.push(name.clone());
        }
    }
    doomed.images.sort_unstable();
    Ok((graph, doomed))
}

/// Whether a thing is kept for its own sake.
fn is_root(node: &graph::Node, now: i64) -> bool {
    let expiry = leases::expiry(&node.labels);
    let labelled = is_labelled_root(&node.labels) || expiry.is_some_and(|it| it > now);
    match &node.thing {
        Thing::Image { .. } => labelled || expiry.is_none(),
        Thing::Snapshot { kind, .. } => labelled || *kind != Kind::Committed,
        Thing::Blob { .. } => labelled,
    }
}

fn is_labelled_root(labels: &Labels) -> bool {
    labels.keys().any(|it| it.starts_with("containerd.io/gc.root"))
}

/// Namespaces whose owner collects himself: a containerd that has its own metadata and uses this store as a plugin.
fn external(transaction: &Transaction<'_>) -> Result<HashSet<Namespace>> {
    let reading = |it| failed("read namespaces", it);
    let mut statement = transaction.prepare("SELECT name, labels FROM namespaces").map_err(reading)?;
    let mut found = statement.query([]).map_err(reading)?;
    let mut external = HashSet::new();
    while let Some(row) = found.next().map_err(reading)? {
        let (name, labels): (String, String) = row.try_into().map_err(reading)?;
        if is_labelled_root(&from_json(&labels)?) {
            external.insert(name.parse()?);
        }
    }
    Ok(external)
}

/// What leases keep; those that have ended are doomed.
fn leased(
    metadata: &Metadata,
    transaction: &Transaction<'_>,
    graph: &Graph,
    now: i64,
    roots: &mut Vec<(usize, Reach)>,
    doomed: &mut Doomed,
) -> Result<()> {
    let reading = |it| failed("read leases", it);
    let mut statement = transaction.prepare("SELECT ns, id, labels, hold FROM leases").map_err(reading)?;
    let mut found = statement.query([]).map_err(reading)?;
    let mut reaches = HashMap::new();
    while let Some(row) = found.next().map_err(reading)? {
        let (ns, id, labels, hold): (String, String, String, bool) = row.try_into().map_err(reading)?;
        let (ns, labels): (Namespace, Labels) = (ns.parse()?, from_json(&labels)?);
        let lives =
            if hold { metadata.is_running(&ns, &id) } else { leases::expiry(&labels).is_none_or(|it| it > now) };
        let flat = labels.contains_key("containerd.io/gc.flat");
        match lives {
            true => drop(reaches.insert((ns, id), if flat { Reach::Flat } else { Reach::Full })),
            false => doomed.leases.push((ns, id)),
        }
    }
    let mut statement = transaction.prepare("SELECT ns, lease, type, id FROM lease_resources").map_err(reading)?;
    let mut found = statement.query([]).map_err(reading)?;
    while let Some(row) = found.next().map_err(reading)? {
        let (ns, lease, kind, id): (String, String, String, String) = row.try_into().map_err(reading)?;
        let key = (ns.parse::<Namespace>()?, lease);
        let Some(reach) = reaches.get(&key) else { continue };
        let name = match kind.split_once('/') {
            Some(("snapshots", snapshotter)) => Name::Snapshot(snapshotter.to_owned(), id),
            None if kind == "content" => Name::Blob(id),
            None if kind == "images" => Name::Image(id),
            _ => {
                doomed.kept_ingests.insert((key.0, id));
                continue;
            }
        };
        roots.extend(graph.find(&key.0, &name).map(|it| (it, *reach)));
    }
    Ok(())
}

/// Images that a prune takes.
fn prunable(graph: &Graph, prune: &Prune) -> HashSet<usize> {
    let in_use = graph.nodes.iter().filter_map(|node| match &node.thing {
        Thing::Snapshot { snapshotter, kind, parent: Some(parent), .. } if *kind != Kind::Committed => {
            graph.find(&node.ns, &Name::Snapshot(snapshotter.clone(), parent.clone()))
        }
        _ => None,
    });
    let used = graph.reaching(&in_use.collect::<Vec<_>>());
    let before = prune.before.map_or(i64::MAX, nanoseconds);
    let wanted = |node: &graph::Node| match &node.thing {
        Thing::Image { name, created, .. } => {
            node.ns == prune.ns
                && *created < before
                && !is_labelled_root(&node.labels)
                && (!prune.dangling_only || name.parse::<Digest>().is_ok())
        }
        _ => false,
    };
    (0..graph.nodes.len()).filter(|it| wanted(&graph.nodes[*it]) && !used[*it]).collect()
}

fn sweep(transaction: &Transaction<'_>, graph: &Graph, doomed: &Doomed) -> Result<()> {
    let deleting = |it| failed("collect", it);
    for node in &doomed.nodes {
        let node = &graph.nodes[*node];
        match &node.thing {
            Thing::Image { name, .. } => {
                let text = "DELETE FROM images WHERE ns = ?1 AND name = ?2";
                let mut statement = transaction.prepare_cached(text).map_err(deleting)?;
                statement.execute([node.ns.as_str(), name]).map_err(deleting)?;
            }
            Thing::Blob { digest, .. } => {
                let text = "DELETE FROM content WHERE ns = ?1 AND digest = ?2";
                let mut statement = transaction.prepare_cached(text).map_err(deleting)?;
                statement.execute([node.ns.as_str(), &digest.to_string()]).map_err(deleting)?;
            }
            Thing::Snapshot { snapshotter, name, .. } => rows::delete(transaction, &node.ns, snapshotter, name)?,
        }
    }
    for (ns, id) in &doomed.leases {
        leases::remove(transaction, ns, id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
