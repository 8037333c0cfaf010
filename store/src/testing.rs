//! What several tests need: a store's parts, blobs and layers in it, a clock that jumps, file systems that fill.

use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::content::Content;
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::Result;
use crate::fs::Root;
use crate::metadata::{Labels, Lease, Metadata, Namespace, NewImage, Publication};
use crate::snapshots::changes::Request;
use crate::snapshots::{Driver, Extracted, Snapshots};

/// A skip that is printed past the test runner's capture, and counted in the file `TARE_SKIPS` names.
pub(crate) fn skip(why: &str) {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("a counted skip");
    }
}

thread_local! {
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Sets the clock of stores that this thread works on.
pub(crate) fn clock_ahead(by: Duration) {
    AHEAD.set(by);
}

/// The clock of tests.
pub(crate) fn clock() -> SystemTime {
    SystemTime::now() + AHEAD.get()
}

/// A store's parts, in a directory of their own.
pub(crate) struct Parts {
    pub(crate) metadata: Metadata,
    pub(crate) content: Content,
    pub(crate) snapshots: Snapshots,
    pub(crate) path: PathBuf,
    _root: Root,
    _dir: Option<tempfile::TempDir>,
}

impl Parts {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut parts = Self::at(&dir.path().join("root")).expect("a store");
        parts._dir = Some(dir);
        parts
    }

    pub(crate) fn at(path: &Path) -> Result<Self> {
        let root = Root::open(path)?;
        let metadata = Metadata::open_with(root.path(), clock)?;
        let content = Content::open(&root, &metadata)?;
        let snapshots = Snapshots::open(&root, &metadata, Some(Driver::Overlay))?;
        Ok(Self { metadata, content, snapshots, path: root.path().to_owned(), _root: root, _dir: None })
    }

    /// As after a daemon's end and another's start.
    pub(crate) fn again(self) -> Self {
        let Self { path, _dir, metadata, content, snapshots, _root } = self;
        drop((metadata, content, snapshots, _root));
        Self { _dir, ..Self::at(&path).expect("the store again") }
    }

    /// Files below a directory of the store, by name.
    pub(crate) fn list(&self, below: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path.join(below)).expect("a directory of the store");
        let mut names: Vec<String> =
            entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A tree extracted as a layer, with one file.
    pub(crate) fn extracted(&self, ns: &Namespace, chain: &str, parent: Option<&str>) -> Extracted {
        let extraction = self.snapshots.extraction(ns, "", chain, parent).expect("an extraction");
        std::fs::write(extraction.path().join(chain.replace(['/', ':'], "-")), chain).expect("a file in a layer");
        extraction.finish(Digest::of(chain.as_bytes()), Labels::new())
    }

    /// An image: a manifest that refers to a layer's blob, and to a snapshot `chain`.
    pub(crate) fn image(&self, ns: &Namespace, name: &str, layer: &[u8], chain: &str) -> Result<Descriptor> {
        let lease = self.metadata.hold(ns, "test")?;
        self.publish_image(ns, &lease, name, layer, chain)
    }

    pub(crate) fn publish_image(
        &self,
        ns: &Namespace,
        lease: &Lease,
        name: &str,
        layer: &[u8],
        chain: &str,
    ) -> Result<Descriptor> {
        let keep = Some(lease.id());
        let layer = self.content.put(ns, layer, &labels(&[]), keep)?;
        let refers = labels(&[
            ("containerd.io/gc.ref.content.l.0", &layer.to_string()),
            ("containerd.io/gc.ref.snapshot.overlayfs", chain),
        ]);
        let manifest = format!("manifest of {name}");
        let manifest_digest = self.content.put(ns, manifest.as_bytes(), &refers, keep)?;
        let target =
            Descriptor::new("application/vnd.oci.image.manifest.v1+json", manifest_digest, manifest.len() as u64);
        let layers = self.snapshots.sync(vec![self.extracted(ns, chain, None)])?;
        let images = vec![NewImage { name: name.to_owned(), target: target.clone(), labels: Labels::new() }];
        self.metadata.publish(Publication { ns, lease: Some(lease), layers, blobs: Vec::new(), images })?;
        Ok(target)
    }
}

/// A request for a snapshot of the default snapshotter, without labels.
pub(crate) fn request<'a>(ns: &'a Namespace, key: &'a str, parent: &'a str, labels: &'a Labels) -> Request<'a> {
    Request { ns, snapshotter: "", key, parent, labels, lease: None }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Runs the test on a file system in memory of this many bytes, in a mount namespace of its own.
pub(crate) fn on_small_disk(bytes: u64, test: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return skip("mounts need root");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let none = None::<&str>;
    let in_thread = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
        let size = format!("size={bytes}");
        mount(Some("test"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("a tmpfs");
        test(directory.path());
    };
    // A thread of its own, with which the namespace ends.
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(in_thread).join() {
            std::panic::resume_unwind(panic);
        }
    });
}
