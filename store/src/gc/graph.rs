//! Everything that exists and what refers to what, read in one transaction: for collection, usage and checks.
//!
//! Its cost grows linearly with the rows: each is read once and each edge followed once.

use std::collections::{HashMap, HashSet};

use rusqlite::Transaction;

use crate::content::digest::Digest;
use crate::error::Result;
use crate::fs::Usage;
use crate::metadata::{Labels, Namespace, failed, from_json};
use crate::snapshots::{Kind, rows};

/// One thing that a row stands for.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ns: Namespace,
    pub(crate) thing: Thing,
    pub(crate) labels: Labels,
}

#[derive(Debug)]
pub(crate) enum Thing {
    Image {
        name: String,
        target: Digest,
        created: i64,
    },
    Blob {
        digest: Digest,
        size: u64,
    },
    Snapshot {
        snapshotter: String,
        name: String,
        kind: Kind,
        parent: Option<String>,
        tree: u64,
        verified: bool,
        usage: Usage,
    },
}

/// By which rows refer to each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Image(String),
    Blob(String),
    Snapshot(String, String),
}

/// What is wrong with an edge: what refers, and to what that is not there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dangling {
    pub(crate) from: usize,
    pub(crate) to: Name,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    index: HashMap<Namespace, HashMap<Name, usize>>,
    /// Owned by the node: its target, its parent. A flat lease follows these.
    firm: Vec<Vec<usize>>,
    /// By labels.
    loose: Vec<Vec<usize>>,
    pub(crate) dangling: Vec<Dangling>,
}

/// How far references are followed from a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Reach {
    /// Not reached.
    #[default]
    Not,
    /// Targets and parents only.
    Flat,
    /// Labels too.
    Full,
}

impl Graph {
    /// Reads every row.
    pub(crate) fn load(transaction: &Transaction<'_>) -> Result<Self> {
        let mut graph = Self::default();
        graph.images(transaction)?;
        graph.blobs(transaction)?;
        graph.snapshots(transaction)?;
        graph.link();
        Ok(graph)
    }

    /// The node of this name.
    pub(crate) fn find(&self, ns: &Namespace, name: &Name) -> Option<usize> {
        self.index.get(ns)?.get(name).copied()
    }

    /// How far each node is reached from these.
    pub(crate) fn reach(&self, roots: impl IntoIterator<Item = (usize, Reach)>) -> Vec<Reach> {
        let mut reached = vec![Reach::Not; self.nodes.len()];
        let mut open: Vec<(usize, Reach)> = roots.into_iter().collect();
        while let Some((node, reach)) = open.pop() {
            if reached[node] >= reach {
                continue;
            }
            reached[node] = reach;
            open.extend(self.firm[node].iter().map(|to| (*to, reach)));
            if reach == Reach::Full {
                open.extend(self.loose[node].iter().map(|to| (*to, reach)));
            }
        }
        reached
    }

    /// All that is reached from one node, itself included: its cost is that of what is reached.
    pub(crate) fn closure(&self, node: usize) -> Vec<usize> {
        let mut seen = HashSet::from([node]);
        let mut open = vec![node];
        let mut found = Vec::new();
        while let Some(node) = open.pop() {
            found.push(node);
            open.extend(self.firm[node].iter().chain(&self.loose[node]).copied().filter(|it| seen.insert(*it)));
        }
        found
    }

    /// Which nodes reach one of these.
    pub(crate) fn reaching(&self, targets: &[usize]) -> Vec<bool> {
        let mut referrers = vec![Vec::new(); self.nodes.len()];
        for from in 0..self.nodes.len() {
            for to in self.firm[from].iter().chain(&self.loose[from]) {
                referrers[*to].push(from);
            }
        }
        let mut reaching = vec![false; self.nodes.len()];
        let mut open = targets.to_vec();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut reaching[node], true) {
                open.extend(&referrers[node]);
            }
        }
        reaching
    }

    fn add(&mut self, ns: &Namespace, name: Name, thing: Thing, labels: Labels) {
        self.index.entry(ns.clone()).or_default().insert(name, self.nodes.len());
        self.nodes.push(Node { ns: ns.clone(), thing, labels });
    }

    /// Draws all edges, once all nodes are there.
    fn link(&mut self) {
        self.firm = vec![Vec::new(); self.nodes.len()];
        self.loose = vec![Vec::new(); self.nodes.len()];
        for from in 0..self.nodes.len() {
            let node = &self.nodes[from];
            let owned = match &node.thing {
                Thing::Image { target, .. } => Some(Name::Blob(target.to_string())),
                Thing::Snapshot { snapshotter, parent: Some(parent), .. } => {
                    Some(Name::Snapshot(snapshotter.clone(), parent.clone()))
                }
                _ => None,
            };
            let labelled: Vec<Reference> =
                node.labels.iter().filter_map(|(key, value)| reference(key, value)).collect();
            let ns = node.ns.clone();
            if let Some(to) = owned {
                match self.find(&ns, &to) {
                    Some(to) => self.firm[from].push(to),
                    None => self.dangling.push(Dangling { from, to }),
                }
            }
            for it in labelled {
                match (self.find(&ns, it.name()), it) {
                    (Some(to), Reference::To(_)) => self.loose[from].push(to),
                    (Some(parent), Reference::By(_)) => self.loose[parent].push(from),
                    (None, Reference::To(to)) => self.dangling.push(Dangling { from, to }),
                    // A child may come before its parent.
                    (None, Reference::By(_)) => {}
                }
            }
        }
    }

    fn images(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        let reading = |it| failed("read images", it);
        let mut statement =
            transaction.prepare("SELECT ns, name, digest, labels, created FROM images").map_err(reading)?;
        let mut rows = statement.query([]).map_err(reading)?;
        while let Some(row) = rows.next().map_err(reading)? {
            let (ns, name, digest, labels, created): (String, String, String, String, i64) =
                row.try_into().map_err(reading)?;
            let thing = Thing::Image { name: name.clone(), target: digest.parse()?, created };
            self.add(&ns.parse()?, Name::Image(name), thing, from_json(&labels)?);
        }
        Ok(())
    }

    fn blobs(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        let reading = |it| failed("read blobs", it);
        let mut statement = transaction.prepare("SELECT ns, digest, size, labels FROM content").map_err(reading)?;
        let mut rows = statement.query([]).map_err(reading)?;
        while let Some(row) = rows.next().map_err(reading)? {
            let (ns, digest, size, labels): (String, String, i64, String) = row.try_into().map_err(reading)?;
            let thing = Thing::Blob { digest: digest.parse()?, size: size.cast_unsigned() };
            self.add(&ns.parse()?, Name::Blob(digest), thing, from_json(&labels)?);
        }
        Ok(())
    }

    fn snapshots(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        let reading = |it| failed("read snapshots", it);
        let text = format!("SELECT {}, ns, snapshotter FROM snapshots", rows::COLUMNS);
        let mut statement = transaction.prepare(&text).map_err(reading)?;
        let mut found = statement.query([]).map_err(reading)?;
        while let Some(row) = found.next().map_err(reading)? {
            let ns: String = row.get("ns").map_err(reading)?;
            let snapshotter: String = row.get("snapshotter").map_err(reading)?;
            let rows::Row { name, kind, parent, tree, verified, usage, labels, .. } = rows::from_row(row)?;
            let key = Name::Snapshot(snapshotter.clone(), name.clone());
            self.add(
                &ns.parse()?,
                key,
                Thing::Snapshot { snapshotter, name, kind, parent, tree, verified, usage },
                labels,
            );
        }
        Ok(())
    }
}

enum Reference {
    /// This object keeps that one.
    To(Name),
    /// That one keeps this object.
    By(Name),
}

impl Reference {
    fn name(&self) -> &Name {
        match self {
            Self::To(name) | Self::By(name) => name,
        }
    }
}

/// What a label refers to: containerd's `containerd.io/gc.ref.…` and `gc.bref.…`; after a `.` or `/` any word distinguishes several.
fn reference(key: &str, value: &str) -> Option<Reference> {
    let rest = key.strip_prefix("containerd.io/gc.")?;
    let (rest, back) = match rest.strip_prefix("bref.") {
        Some(rest) => (rest, true),
        None => (rest.strip_prefix("ref.")?, false),
    };
    let named = |rest: &str| rest.is_empty() || rest.starts_with(['.', '/']);
    let name = if let Some(rest) = rest.strip_prefix("content") {
        named(rest).then(|| Name::Blob(value.to_owned()))
    } else if let Some(rest) = rest.strip_prefix("image") {
        named(rest).then(|| Name::Image(value.to_owned()))
    } else {
        let snapshotter = rest.strip_prefix("snapshot.")?.split('/').next()?;
        Some(Name::Snapshot(snapshotter.to_owned(), value.to_owned()))
    }?;
    Some(if back { Reference::By(name) } else { Reference::To(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_refer_as_in_containerd() {
        let to = |key: &str| match reference(key, "x") {
            Some(Reference::To(name)) => Some(("to", name)),
            Some(Reference::By(name)) => Some(("by", name)),
            None => None,
        };
        let (blob, image) = (Name::Blob("x".into()), Name::Image("x".into()));
        let snapshot = Name::Snapshot("overlayfs".into(), "x".into());
        for (key, wanted) in [
            ("containerd.io/gc.ref.content", Some(("to", blob.clone()))),
            ("containerd.io/gc.ref.content.l.0", Some(("to", blob.clone()))),
            ("containerd.io/gc.ref.content/m", Some(("to", blob.clone()))),
            ("containerd.io/gc.ref.contents", None),
            ("containerd.io/gc.ref.image", Some(("to", image))),
            ("containerd.io/gc.ref.snapshot.overlayfs", Some(("to", snapshot.clone()))),
            ("containerd.io/gc.ref.snapshot.overlayfs/a", Some(("to", snapshot.clone()))),
            ("containerd.io/gc.bref.content.up", Some(("by", blob))),
            ("containerd.io/gc.bref.snapshot.overlayfs", Some(("by", snapshot))),
            ("containerd.io/gc.root", None),
            ("gc.ref.content", None),
        ] {
            assert_eq!(to(key), wanted, "{key}");
        }
    }
}
