//! Fetch: from a registry into the content store, several blobs at once, in the order in which they are wanted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::content::digest::Digest;
use crate::content::{Content, Info, Ingest};
use crate::descriptor::Descriptor;
use crate::documents::Transfer;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::flights::{Key, Turn};
use crate::follow::{self, Follow, State, Writer};
use crate::metadata::{Labels, Namespace};
use crate::progress::{Item, Phase};
use crate::registry::{self, Access, Reference, Repository, media};
use crate::store::{Call, Lane, blocking};

/// What may lie between the network and the disk, in pieces as the network gives them.
const QUEUE: usize = 4;
/// So often a blob is fetched again that was not what its digest says.
const TRIES: u32 = 3;

/// A document that is here and not asked for yet.
type First = Option<(Digest, Vec<u8>)>;

/// One repository of a registry, as this call reaches it.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) registry: registry::Remote,
    /// A document that came along with the answer to what a name means.
    first: Arc<Mutex<First>>,
    fetched: Arc<AtomicU64>,
}

impl Remote {
    pub(crate) async fn open(call: &Call, repository: &Repository, mut access: Access) -> Result<Self> {
        let progress = call.progress.clone();
        access.notice.get_or_insert_with(|| Arc::new(move |sentence| progress.notice(sentence)));
        let registry = call.store.registry.remote(repository, access).await?;
        Ok(Self { registry, first: Arc::default(), fetched: Arc::default() })
    }

    /// Bytes of blobs and documents that came over the network so far.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Says of a blob where it came from: push mounts from there, repair fetches from there.
    pub(crate) fn source_label(&self) -> Labels {
        let repository = self.registry.repository();
        Labels::from([(source_key(repository.registry()), repository.path().to_owned())])
    }

    /// What a name means now.
    pub(crate) async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let resolved = self.registry.resolve(reference).await?;
        if let Some(bytes) = resolved.bytes {
            self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            *self.first() = Some((resolved.descriptor.digest.clone(), bytes));
        }
        Ok(resolved.descriptor)
    }

    /// A document, verified.
    pub(crate) async fn document(&self, at: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        if let Some((_, bytes)) = self.first().take_if(|(digest, _)| *digest == at.digest) {
            return Ok(bytes);
        }
        let bytes = if media::is_index(&at.media_type) || media::is_manifest(&at.media_type) {
            self.registry.manifest(at).await?
        } else {
            self.registry.document(at, limit).await?
        };
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn first(&self) -> MutexGuard<'_, First> {
        // Nothing that could panic runs under this lock.
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The label that says where a blob came from, but for the repositories.
pub(crate) fn source_key(registry: &str) -> String {
    format!("containerd.io/distribution.source.{registry}")
}

/// The blobs that are on their way. Dropped, it cancels those that are not complete; their ingests stay.
pub(crate) struct Fetches {
    follows: HashMap<Digest, Follow>,
    running: JoinSet<Result<()>>,
}

/// Starts to fetch these, in this order.
pub(crate) fn start(call: &Call, remote: &Remote, transfers: Vec<Transfer>) -> Fetches {
    let mut fetches = Fetches { follows: HashMap::new(), running: JoinSet::new() };
    for transfer in transfers {
        let (writer, follow) = follow::pair();
        if fetches.follows.insert(transfer.at.digest.clone(), follow).is_none() {
            let (call, remote) = (call.clone(), remote.clone());
            fetches.running.spawn(async move { blob(&call, &remote, &transfer, writer).await });
        }
    }
    fetches
}

impl Fetches {
    /// None: everything is here.
    pub(crate) fn none() -> Self {
        Self { follows: HashMap::new(), running: JoinSet::new() }
    }

    /// Follows one blob; nothing, if it is not among them.
    pub(crate) fn follow(&self, digest: &Digest) -> Option<Follow> {
        self.follows.get(digest).cloned()
    }

    /// Waits until all are complete, or for the first that fails.
    pub(crate) async fn complete(&mut self) -> Result<()> {
        while let Some(ended) = self.running.join_next().await {
            ended.map_err(|error| Error::internal(format!("a fetch ended early: {error}")))??;
        }
        Ok(())
    }
}

/// Fetches one blob whether or not it is here: in place of one that is damaged.
pub(crate) async fn again(call: &Call, remote: &Remote, at: &Descriptor) -> Result<()> {
    let item = call.progress.item(&at.digest.to_string(), "blob", at.size);
    let turn = call.store.flights.turn(Key::Blob(at.digest.clone())).await;
    fetch_now(call, remote, at, &follow::pair().0, &item, turn).await
}

/// Fetches one blob, unless it is here.
async fn blob(call: &Call, remote: &Remote, transfer: &Transfer, writer: Writer) -> Result<()> {
    let Transfer { at, name, kind } = transfer;
    let item = call.progress.item(&at.digest.to_string(), kind, at.size);
    let result = blob_steps(call, remote, at, &writer, &item).await.map_err(|it| it.within(name));
    if let Err(error) = &result {
        item.phase(Phase::Failed);
        writer.send_replace(State::Failed(error.clone()));
    }
    result
}

async fn blob_steps(call: &Call, remote: &Remote, at: &Descriptor, writer: &Writer, item: &Item) -> Result<()> {
    let turn = call.store.flights.turn(Key::Blob(at.digest.clone())).await;
    if is_here(call, remote, at).await? {
        writer.send_replace(State::Stored);
        item.phase(Phase::Exists);
        return Ok(());
    }
    fetch_now(call, remote, at, writer, item, turn).await
}

async fn fetch_now(
    call: &Call,
    remote: &Remote,
    at: &Descriptor,
    writer: &Writer,
    item: &Item,
    turn: Turn,
) -> Result<()> {
    let lane = call.store.transfers.take(remote.registry.repository().registry()).await?;
    let mut held = (turn, lane);
    for tries in 1.. {
        let attempt = Attempt { call, remote, at, writer, item, tries };
        let error = match attempt.run(held).await? {
            (Ok(()), _) => break,
            (Err(error), back) => {
                held = back;
                error
            }
        };
        call.progress.notice(format!("{error}: fetching it again"));
        writer.send_replace(State::Waiting);
    }
    Ok(())
}

/// One try at a blob.
struct Attempt<'a> {
    call: &'a Call,
    remote: &'a Remote,
    at: &'a Descriptor,
    writer: &'a Writer,
    item: &'a Item,
    tries: u32,
}

/// What a fetch has from its beginning to its end, whoever waits for it.
type Held = (Turn, Lane);

impl Attempt<'_> {
    /// Fails for good, or fails so that another try is worth it: what came was not what it should be, and it came from a mirror or
    /// lay here from before.
    async fn run(&self, held: Held) -> Result<(Result<()>, Held)> {
        let Self { call, remote, at, .. } = *self;
        let ingest = open_ingest(call, at).await?;
        self.item.phase(Phase::Fetching);
        let (to_disk, from_network) = mpsc::channel(QUEUE);
        let job = Job {
            call: call.clone(),
            at: at.clone(),
            source: remote.source_label(),
            file: Arc::new(ingest.follow()?),
            writer: self.writer.clone(),
            item: self.item.clone(),
            tries: self.tries,
        };
        let offset = ingest.offset();
        // On its own thread: hashing and writing go on while the network is waited for, and to their end if this future is dropped.
        let writing = tokio::task::spawn_blocking(move || (job.write(ingest, from_network), held));
        let mut host = String::new();
        let sent = send(remote, at, offset, to_disk, &mut host).await;
        let joined = writing.await;
        let (written, held) =
            joined.map_err(|it| Error::internal(format!("a thread of the store ended early: {it}")))?;
        // If the disk failed, the network was only told to stop; if the network failed, the disk has nothing to say.
        match (sent, written) {
            (_, Err(error)) if error.kind == Kind::DataLoss && self.tries <= TRIES => {
                let resumed = self.tries == 1 && offset > 0;
                if resumed || remote.registry.avoid(&host) { Ok((Err(error), held)) } else { Err(error) }
            }
            (_, Err(error)) | (Err(error), Ok(false)) => Err(error),
            (Ok(()), Ok(true)) => Ok((Ok(()), held)),
            (_, Ok(_)) => Err(Error::internal(format!("blob {} was written and not sent", at.digest))),
        }
    }
}

/// From the network to the thread that writes. `end` is said at the end alone, so that an early end is never taken for it.
async fn send(
    remote: &Remote,
    at: &Descriptor,
    offset: u64,
    to_disk: mpsc::Sender<Piece>,
    host: &mut String,
) -> Result<()> {
    if offset < at.size {
        let mut stream = remote.registry.blob(at, offset).await?;
        while let Some(bytes) = stream.next().await? {
            remote.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if to_disk.send(Piece::Bytes(bytes)).await.is_err() {
                break;
            }
        }
        stream.host().clone_into(host);
    }
    // Whether the thread is there still, it says itself.
    let _ = to_disk.send(Piece::End).await;
    Ok(())
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// What the thread that writes one blob has.
struct Job {
    call: Call,
    at: Descriptor,
    source: Labels,
    file: Arc<std::fs::File>,
    writer: Writer,
    item: Item,
    tries: u32,
}

impl Job {
    /// Whether the blob is complete. `false`: its bytes stopped coming, and what came stays in the ingest.
    fn write(self, mut ingest: Ingest, mut from: mpsc::Receiver<Piece>) -> Result<bool> {
        self.grown(&ingest);
        loop {
            match from.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    ingest.write(&bytes)?;
                    self.grown(&ingest);
                }
                Some(Piece::End) => break,
                None => return Ok(false),
            }
        }
        self.item.phase(Phase::Verifying);
        fault::point("fetch.complete")?;
        ingest.commit(Some(self.at.size), Some(&self.at.digest), &self.source, Some(self.call.lease.id()))?;
        self.writer.send_replace(State::Complete(Arc::clone(&self.file), self.tries));
        self.item.phase(Phase::Done);
        Ok(true)
    }

    fn grown(&self, ingest: &Ingest) {
        self.writer.send_replace(State::Growing(Arc::clone(&self.file), ingest.offset()));
        self.item.offset(ingest.offset());
    }
}

/// Whether the blob is here; then it is held, and known to be at this registry too.
async fn is_here(call: &Call, remote: &Remote, at: &Descriptor) -> Result<bool> {
    let (call, source, digest) = (call.clone(), remote.source_label(), at.digest.clone());
    blocking(move || {
        let content = &call.store.content;
        let Some(info) = content.hold(&call.ns, &digest, Some(call.lease.id()))? else { return Ok(false) };
        // One whose file is gone or cut off is fetched again, and takes its place.
        match content.reader(&call.ns, &digest) {
            Err(error) if error.kind == Kind::DataLoss => return Ok(false),
            reader => drop(reader?),
        }
        note_source(content, &call.ns, &info, &source)?;
        Ok(true)
    })
    .await
}

/// Labels a blob with one more repository that has it.
pub(crate) fn note_source(content: &Content, ns: &Namespace, info: &Info, source: &Labels) -> Result<()> {
    let more = more_sources(&info.labels, source);
    if more.is_empty() {
        return Ok(());
    }
    let paths: Vec<String> = more.keys().map(|it| format!("labels.{it}")).collect();
    content.update(ns, &info.digest, &more, &paths).map(drop)
}

/// What to change so that the labels name this source too: repositories are listed with commas.
fn more_sources(labels: &Labels, source: &Labels) -> Labels {
    let mut more = Labels::new();
    for (key, repository) in source {
        match labels.get(key) {
            Some(known) if known.split(',').any(|it| it == repository) => {}
            Some(known) if !known.is_empty() => {
                more.insert(key.clone(), format!("{known},{repository}"));
            }
            _ => {
                more.insert(key.clone(), repository.clone());
            }
        }
    }
    more
}

async fn open_ingest(call: &Call, at: &Descriptor) -> Result<Ingest> {
    let (call, at) = (call.clone(), at.clone());
    blocking(move || {
        let reference = format!("blob-{}", at.digest);
        call.store.content.ingest(&call.ns, &reference, Some(at.size), Some(&at.digest))
    })
    .await
}

pub(crate) fn closing() -> Error {
    Error::unavailable("the store is closing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_collected_once_each() {
        let source = Labels::from([("k".to_owned(), "team/app".to_owned())]);
        let labels = |text: &str| Labels::from([("k".to_owned(), text.to_owned())]);
        assert_eq!(more_sources(&Labels::new(), &source), source);
        assert_eq!(more_sources(&labels("a"), &source), labels("a,team/app"));
        assert_eq!(more_sources(&labels("a,team/app,b"), &source), Labels::new());
        assert_eq!(more_sources(&labels("team/application"), &source), labels("team/application,team/app"));
    }
}
