//! Whether each image has what its documents say: a configuration, and its layers as blobs or unpacked.

use std::collections::HashSet;

use super::{Listener, Problem, Repair, sources};
use crate::content::Content;
use crate::descriptor::Descriptor;
use crate::error::{Kind, Result};
use crate::gc::graph::{Graph, Name, Node, Thing};
use crate::metadata::{Labels, Namespace};
use crate::registry::limit;
use crate::registry::manifest::{Document, Manifest};

/// Follows every image of every namespace.
pub(super) fn check(graph: &Graph, content: &Content, listener: &dyn Listener) -> Result<()> {
    let mut seen = HashSet::new();
    for Node { ns, thing, .. } in &graph.nodes {
        let Thing::Image { name, target, .. } = thing else { continue };
        let mut follow = Follow { graph, content, listener, ns, image: name, seen: &mut seen };
        let size = match graph.find(ns, &Name::Blob(target.to_string())).map(|it| &graph.nodes[it].thing) {
            Some(Thing::Blob { size, .. }) => *size,
            _ => 0,
        };
        let target = Descriptor::new("", target.clone(), size);
        if follow.is_there(&target) {
            follow.document(&target, 0)?;
        } else {
            follow.missing("what it stands for", &target, &Labels::new());
        }
    }
    Ok(())
}

struct Follow<'a> {
    graph: &'a Graph,
    content: &'a Content,
    listener: &'a dyn Listener,
    ns: &'a Namespace,
    image: &'a str,
    seen: &'a mut HashSet<(Namespace, String)>,
}

impl Follow<'_> {
    fn document(&mut self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        let key = (self.ns.clone(), descriptor.digest.to_string());
        if depth > limit::NESTING || !self.seen.insert(key) {
            return Ok(());
        }
        let bytes = match self.content.read(self.ns, descriptor, limit::DOCUMENT) {
            Ok(bytes) => bytes,
            // That it is damaged was told when it was read as a blob.
            Err(error) if matches!(error.kind, Kind::DataLoss | Kind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        match Document::parse(&descriptor.media_type, &bytes) {
            Ok(Document::Index(index)) => {
                // Of other platforms there may be nothing; of one there must be something.
                let here: Vec<_> = index.manifests.iter().filter(|it| self.is_there(it)).cloned().collect();
                if here.is_empty() && !index.manifests.is_empty() {
                    self.tell("none of the manifests that its index lists is there: pull it again".to_owned(), None);
                }
                here.iter().try_for_each(|it| self.document(it, depth + 1))
            }
            Ok(Document::Manifest(manifest)) => {
                self.manifest(descriptor, &manifest);
                Ok(())
            }
            Err(error) => {
                self.tell(format!("its document {} cannot be read: {}", descriptor.digest, error.message), None);
                Ok(())
            }
        }
    }

    fn manifest(&self, descriptor: &Descriptor, manifest: &Manifest) {
        let own = self.labels(descriptor);
        if !self.is_there(&manifest.config) {
            return self.missing("its configuration", &manifest.config, &own);
        }
        // Compressed layers may have been discarded by policy once they were unpacked.
        let unpacked = self.labels(&manifest.config).iter().any(|(key, value)| {
            let snapshotter = key.strip_prefix("containerd.io/gc.ref.snapshot.").and_then(|it| it.split('/').next());
            let named = snapshotter.map(|it| Name::Snapshot(it.to_owned(), value.clone()));
            named.is_some_and(|it| self.graph.find(self.ns, &it).is_some())
        });
        for layer in manifest.layers.iter().filter(|it| !unpacked && !self.is_there(it)) {
            self.missing("its layer", layer, &own);
        }
    }

    fn is_there(&self, descriptor: &Descriptor) -> bool {
        self.graph.find(self.ns, &Name::Blob(descriptor.digest.to_string())).is_some()
    }

    fn labels(&self, descriptor: &Descriptor) -> Labels {
        let found = self.graph.find(self.ns, &Name::Blob(descriptor.digest.to_string()));
        found.map(|it| self.graph.nodes[it].labels.clone()).unwrap_or_default()
    }

    /// `referrer`: labels of what refers to it, which came from the same place.
    fn missing(&self, what: &str, descriptor: &Descriptor, referrer: &Labels) {
        let Descriptor { digest, size, .. } = descriptor.clone();
        let repair = Repair::Fetch { ns: self.ns.clone(), digest, size, sources: sources(referrer) };
        self.tell(format!("{what}, {}, is not there: pull it again", descriptor.digest), Some(repair));
    }

    fn tell(&self, message: String, repair: Option<Repair>) {
        self.listener.problem(Problem { kind: "image", object: self.image.to_owned(), message, repair });
    }
}
