//! Checks: everything is read again and compared with its digest and with what refers to it.
//!
//! What is found is told at once, with what it takes to repair it: a flow fetches the blob again from where it came, and its commit puts the
//! good file in place of the damaged one.

mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Mutex;

use crate::content::digest::Digest;
use crate::content::{Content, Reader};
use crate::error::{Error, Kind, Result};
use crate::gc::graph::{Graph, Name, Node, Thing};
use crate::metadata::{Labels, Metadata, Namespace, failed, lock};
use crate::snapshots::{self, Snapshots};

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `blob`, `snapshot`, `image`, `ingest` or `metadata`.
    pub kind: &'static str,
    /// Which one.
    pub object: String,
    /// What is wrong with it, and what helps.
    pub message: String,
    /// What would make it good again.
    pub repair: Option<Repair>,
}

/// What would make something good again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Fetch this blob again.
    Fetch {
        /// For whom.
        ns: Namespace,
        /// Which.
        digest: Digest,
        /// In bytes.
        size: u64,
        /// Registries and repositories that it came from, by `containerd.io/distribution.source.<host>`.
        sources: Vec<(String, String)>,
    },
    /// Remove this snapshot, and those upon it, and unpack its image again.
    Unpack {
        /// For whom.
        ns: Namespace,
        /// Whose.
        snapshotter: String,
        /// Its chain id.
        name: String,
    },
}

/// Who is told. All may be called by several threads at once.
pub trait Listener: Sync {
    /// Something is wrong.
    fn problem(&self, problem: Problem);
    /// So many bytes of this blob were read; `false` ends the check.
    fn read(&self, digest: &Digest, offset: u64, size: u64) -> bool;
}

/// Where blobs came from, by their labels.
pub(crate) fn sources(labels: &Labels) -> Vec<(String, String)> {
    let host = |key: &str| key.strip_prefix("containerd.io/distribution.source.").map(str::to_owned);
    let labelled = labels.iter().filter_map(|(key, value)| Some((host(key)?, value)));
    labelled.flat_map(|(host, value)| value.split(',').map(move |it| (host.clone(), it.to_owned()))).collect()
}

/// Checks everything; `quick` follows references only and reads no blob but documents.
pub fn check(
    metadata: &Metadata,
    content: &Content,
    snapshots: &Snapshots,
    quick: bool,
    listener: &dyn Listener,
) -> Result<()> {
    let graph = metadata.read(|transaction| {
        integrity(transaction, listener)?;
        Graph::load(transaction)
    })?;
    let blobs = blobs(&graph);
    check_blobs(content, &blobs, quick, listener)?;
    images::check(&graph, content, listener)?;
    check_snapshots(&graph, snapshots, quick, listener);
    for reference in content.lost_ingests()? {
        let message = "its file is not there; abort it, or let it begin anew".to_owned();
        listener.problem(Problem { kind: "ingest", object: reference, message, repair: None });
    }
    Ok(())
}

fn integrity(transaction: &rusqlite::Transaction<'_>, listener: &dyn Listener) -> Result<()> {
    let reading = |it| failed("check itself", it);
    let mut statement = transaction.prepare("PRAGMA integrity_check(20)").map_err(reading)?;
    let mut rows = statement.query([]).map_err(reading)?;
    while let Some(row) = rows.next().map_err(reading)? {
        let found: String = row.get(0).map_err(reading)?;
        if found != "ok" {
            listener.problem(Problem {
                kind: "metadata",
                object: "metadata.db".to_owned(),
                message: found,
                repair: None,
            });
        }
    }
    Ok(())
}

/// Each blob once: who sees it, its size, and where it came from.
struct Blob {
    ns: Namespace,
    size: u64,
    sources: BTreeSet<(String, String)>,
}

fn blobs(graph: &Graph) -> BTreeMap<Digest, Blob> {
    let mut blobs = BTreeMap::new();
    for Node { ns, thing, labels } in &graph.nodes {
        if let Thing::Blob { digest, size } = thing {
            let new = || Blob { ns: ns.clone(), size: *size, sources: BTreeSet::new() };
            blobs.entry(digest.clone()).or_insert_with(new).sources.extend(sources(labels));
        }
    }
    blobs
}

/// Reads all of them, as many at once as there are processors.
fn check_blobs(content: &Content, blobs: &BTreeMap<Digest, Blob>, quick: bool, listener: &dyn Listener) -> Result<()> {
    let queue = Mutex::new(blobs.iter());
    let work = || -> Result<()> {
        while let Some((digest, blob)) = { lock(&queue).next() } {
            if let Err(error) = check_blob(content, digest, blob, quick, listener) {
                if error.kind == Kind::Cancelled {
                    return Err(error);
                }
                let sources = blob.sources.iter().cloned().collect();
                let repair = Repair::Fetch { ns: blob.ns.clone(), digest: digest.clone(), size: blob.size, sources };
                let (kind, object) = ("blob", digest.to_string());
                listener.problem(Problem { kind, object, message: error.message, repair: Some(repair) });
            }
        }
        Ok(())
    };
    let threads = if quick { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined = others
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| Err(Error::internal("a thread that read blobs has panicked"))));
        joined.fold(own, Result::and)
    })
}

fn check_blob(content: &Content, digest: &Digest, blob: &Blob, quick: bool, listener: &dyn Listener) -> Result<()> {
    let mut reader = Reader::open(&content.path(digest), digest, blob.size)?;
    if quick {
        return Ok(());
    }
    let reading = |error| Error::data_loss(format!("blob {digest} cannot be read: {error}"));
    let mut hasher = digest.algorithm().hasher();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = reader.read(&mut buffer).map_err(reading)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
        if !listener.read(digest, offset, blob.size) {
            return Err(Error::cancelled("the check was cancelled"));
        }
    }
    match hasher.finish() {
        found if found == *digest => Ok(()),
        found => Err(Error::data_loss(format!("blob {digest} is damaged on disk: its bytes are {found}"))),
    }
}

fn check_snapshots(graph: &Graph, snapshots: &Snapshots, quick: bool, listener: &dyn Listener) {
    let mut measured = BTreeMap::new();
    for Node { ns, thing, .. } in &graph.nodes {
        let Thing::Snapshot { snapshotter, name, kind, parent, tree, verified, usage } = thing else { continue };
        let mut wrong = Vec::new();
        let above = parent.clone().map(|it| graph.find(ns, &Name::Snapshot(snapshotter.clone(), it)));
        let committed =
            |node: usize| matches!(&graph.nodes[node].thing, Thing::Snapshot { kind: snapshots::Kind::Committed, .. });
        match above {
            Some(None) => {
                wrong.push(format!("it stands on {}, which is not there", parent.as_deref().unwrap_or_default()))
            }
            Some(Some(node)) if !committed(node) => wrong.push("it stands on one that is not committed".to_owned()),
            _ => {}
        }
        if let Err(error) = snapshots.look(*tree, *kind, snapshotter) {
            wrong.push(error.message);
        } else if *verified && !quick {
            // A file that is lost shows in their number.
            let found = measured.entry(*tree).or_insert_with(|| snapshots.measure(*tree).map(|it| it.inodes));
            match found {
                Err(error) => wrong.push(error.message.clone()),
                Ok(found) if *found != usage.inodes => {
                    wrong.push(format!("its tree has {found} files, and had {} when it was unpacked", usage.inodes));
                }
                Ok(_) => {}
            }
        }
        for message in wrong {
            let (ns, snapshotter) = (ns.clone(), snapshotter.clone());
            let repair = verified.then(|| Repair::Unpack { ns, snapshotter, name: name.clone() });
            listener.problem(Problem { kind: "snapshot", object: name.clone(), message, repair });
        }
    }
}

#[cfg(test)]
mod tests;
