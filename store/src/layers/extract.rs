//! One layer: from its blob, or from what has come of it, to a tree.

use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::place::Place;
use super::{Room, flush};
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Context as _, Error, Result};
use crate::follow::{self, Begun, Follow};
use crate::metadata::Labels;
use crate::progress::{Item, Phase};
use crate::snapshots::{Driver, Extracted};
use crate::store::{Away, Call, blocking};
use crate::unpack::{self, Form, Options};

/// The root of a layer's tree, once the layer is complete.
pub(super) type Root = watch::Receiver<Option<Arc<OwnedFd>>>;

/// What one extraction needs.
pub(super) struct Job {
    pub(super) call: Call,
    /// Which layer, counted from the base.
    pub(super) n: usize,
    /// "layer 2 of 4 (sha256:…)".
    pub(super) name: String,
    pub(super) blob: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) chain: String,
    pub(super) parent: Option<String>,
    pub(super) snapshotter: &'static str,
    pub(super) below: Below,
    pub(super) root: watch::Sender<Option<Arc<OwnedFd>>>,
    pub(super) stop: StopHandle,
    pub(super) flush: flush::Handle,
    pub(super) item: Item,
    pub(super) _room: Room,
}

impl Job {
    /// Extracts, and verifies both digests.
    pub(super) async fn run(self, follow: Option<Follow>) -> Result<Away<Extracted>> {
        let job = Arc::new(self);
        let begun = match follow.clone() {
            Some(mut follow) => follow.begun().await?,
            None => Begun::Stored,
        };
        let place = Arc::new(Place::take(&job.call.store.extractions).await?);
        let source = match (begun, &follow) {
            (Begun::Growing, Some(follow)) => {
                Box::new(Behind { reader: follow.clone().reader(), place: Arc::clone(&place) }) as Box<dyn Read + Send>
            }
            _ => job.stored().await?,
        };
        let extracted = job.extract(source, place).await;
        // A blob that is not what its digest says is no layer's fault: its verdict goes first.
        let Some(mut follow) = follow else { return extracted };
        let again = follow.complete().await?;
        match extracted {
            Err(_) if again => {
                let place = Arc::new(Place::take(&job.call.store.extractions).await?);
                job.extract(job.stored().await?, place).await
            }
            extracted => extracted,
        }
    }

    async fn extract(self: &Arc<Self>, source: Box<dyn Read + Send>, place: Arc<Place>) -> Result<Away<Extracted>> {
        let job = Arc::clone(self);
        blocking(move || job.extract_now(source, &place)).await
    }

    async fn stored(&self) -> Result<Box<dyn Read + Send>> {
        self.item.phase(Phase::Extracting);
        let (call, digest) = (self.call.clone(), self.blob.digest.clone());
        let reader = blocking(move || call.store.content.reader(&call.ns, &digest)).await;
        Ok(Box::new(reader.map_err(|error| error.within(&self.name))?))
    }

    fn extract_now(&self, source: Box<dyn Read + Send>, place: &Place) -> Result<Away<Extracted>> {
        let snapshots = &self.call.store.snapshots;
        let extraction = snapshots.extraction(&self.call.ns, self.snapshotter, &self.chain, self.parent.as_deref())?;
        self.flush.on(extraction.root())?;
        let lowers = || place.without(|| self.below.roots());
        let form = match extraction.driver() {
            Driver::Overlay => Form::Overlay { lowers: &lowers, userxattr: snapshots.userxattr() },
            Driver::Native => {
                if let Some(below) = lowers()?.first() {
                    extraction.fill(below.as_fd())?;
                }
                Form::Tree
            }
        };
        let options =
            Options { source: self.name.clone(), rootless: !nix::unistd::geteuid().is_root(), ..Options::default() };
        let source = Stoppable { source, n: self.n, stop: self.stop.clone() };
        let told = AtomicU64::new(0);
        let progress = |read: u64| {
            self.item.extracted(read);
            self.flush.extracted(read.saturating_sub(told.swap(read, Ordering::Relaxed)));
        };
        let extracted = unpack::extract(source, &self.blob.media_type, extraction.root(), &form, &options, &progress)?;
        crate::fault::point("extract.complete")?;
        if extracted.diff_id != self.diff_id {
            return Err(Error::data_loss(format!(
                "{}: it holds {}, and the image's configuration says that it holds {}",
                self.name, extracted.diff_id, self.diff_id
            )));
        }
        let root = extraction.root().try_clone_to_owned().context(|| format!("keep {}", self.name))?;
        self.root.send_replace(Some(Arc::new(root)));
        Ok(Away::new(extraction.finish(extracted.diff_id, Labels::new())))
    }
}

/// What of a blob has come, and what comes. The place is put down while nothing does.
struct Behind {
    reader: follow::Reader,
    place: Arc<Place>,
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.reader.is_ready() {
            self.place.without(|| self.reader.wait());
        }
        self.reader.read(buffer)
    }
}

/// The layers below one: those that were there, and those that are being extracted.
pub(super) struct Below {
    pub(super) call: Call,
    pub(super) snapshotter: &'static str,
    /// The highest that was there, if any.
    pub(super) base: Option<String>,
    /// Lowest first.
    pub(super) roots: Vec<Root>,
    pub(super) runtime: Handle,
}

impl Below {
    /// The roots of all layers below, top first. Waits until they are complete.
    fn roots(&self) -> Result<Vec<OwnedFd>> {
        let mut roots = Vec::new();
        for root in self.roots.iter().rev() {
            let mut root = root.clone();
            let complete = self.runtime.block_on(root.wait_for(Option::is_some));
            let complete = complete.map_err(|_| Error::cancelled("a layer below failed"))?.clone();
            if let Some(complete) = complete {
                roots.push(complete.try_clone().context(|| "open a layer below".into())?);
            }
        }
        if let Some(base) = &self.base {
            roots.extend(self.call.store.snapshots.lowers(&self.call.ns, self.snapshotter, base)?);
        }
        Ok(roots)
    }
}

/// Stops extractions from a layer on upwards: at the failure of one, or when it is dropped, all.
#[derive(Debug)]
pub(super) struct Stop(StopHandle);

pub(super) type StopHandle = Arc<AtomicUsize>;

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Stop {
    pub(super) fn handle(&self) -> StopHandle {
        Arc::clone(&self.0)
    }

    pub(super) fn from(&self, n: usize) {
        self.0.fetch_min(n, Ordering::Relaxed);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.from(0);
    }
}

/// A source that ends with an error when its extraction is to stop.
struct Stoppable<R> {
    source: R,
    n: usize,
    stop: StopHandle,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.n >= self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::cancelled("the call was cancelled, or another layer failed")));
        }
        self.source.read(buffer)
    }
}
