//! What takes how much disk, and whether everything is as it should be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tare_proto::store::{CheckRequest, ImageUsage, Problem, Progress, Result as Ended, UsageRequest, UsageResponse};
use tokio::sync::mpsc;
use ttrpc::asynchronous::ServerStreamSender;

use super::progress::{Also, Out, tell};
use super::session::Call;
use super::whole::access;
use crate::check::{self, Listener};
use crate::content::digest::Digest;
use crate::error::{Kind, Result};
use crate::progress::{self, Item, Phase};
use crate::registry::Reference;
use crate::repair;
use crate::usage;

/// Answers what takes how much.
pub(super) fn usage(call: &Call, request: &UsageRequest) -> Result<UsageResponse> {
    let image = if request.image.is_empty() { None } else { Some(full_name(call, &request.image)?) };
    let it = usage::usage(call.metadata(), call.content(), call.snapshots(), &call.ns, image.as_deref())?;
    let mut response = UsageResponse::new();
    let one = |it: usage::ImageUsage| {
        let mut message = ImageUsage::new();
        (message.name, message.digest) = (it.name, it.digest.to_string());
        message.blob_bytes = it.blob_bytes;
        message.snapshot_bytes = it.snapshot_bytes;
        message.shared_bytes = it.shared_bytes;
        message
    };
    response.images = it.images.into_iter().map(one).collect();
    response.blob_bytes = it.blob_bytes;
    response.snapshot_bytes = it.snapshot_bytes;
    response.ingest_bytes = it.ingest_bytes;
    response.reclaimable_bytes = it.reclaimable_bytes;
    response.blobs = it.blobs;
    response.snapshots = it.snapshots;
    response.active_snapshots = it.active_snapshots;
    Ok(response)
}

/// As people write it, or in full.
fn full_name(call: &Call, name: &str) -> Result<String> {
    match call.metadata().image(&call.ns, name) {
        Ok(image) => Ok(image.name),
        Err(error) if error.kind == Kind::NotFound => {
            let full = name.parse::<Reference>().map_err(|_| error)?.to_string();
            call.metadata().image(&call.ns, &full).map(|it| it.name)
        }
        Err(error) => Err(error),
    }
}

/// Checks, tells, and repairs if it is asked to.
pub(super) async fn check(call: &Call, request: CheckRequest, stream: ServerStreamSender<Progress>) -> Result<()> {
    let (progress, updates) = progress::Progress::watched();
    let (found, problems) = mpsc::unbounded_channel();
    let access = access(request.registry, &progress);
    let later = request.repair.then(Mutex::default);
    let watcher = Arc::new(Watcher { progress, found, last: Mutex::default(), count: AtomicU64::new(0), later });
    let (quick, repaired) = (request.quick, AtomicU64::new(0));
    let work = async {
        // When the client goes away nobody receives problems any more, and the thread ends at its next piece.
        let listener = Arc::clone(&watcher);
        let reading =
            move |call: &Call| check::check(call.metadata(), call.content(), call.snapshots(), quick, &*listener);
        call.blocking(reading).await?;
        for problem in watcher.to_repair() {
            let Some(wanted) = &problem.repair else { continue };
            let done = repair::repair(call.store(), wanted, &access, &watcher.progress).await;
            repaired.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
            watcher.tell(&problem, Some(done));
        }
        Ok(())
    };
    let ended = |()| {
        let mut ended = Ended::new();
        ended.problems = watcher.count.load(Ordering::Relaxed);
        ended.repaired = repaired.load(Ordering::Relaxed);
        ended
    };
    tell(&Out::Plain(stream), updates, Also::Problems(problems), work, ended).await
}

/// Passes on what a check finds.
struct Watcher {
    progress: progress::Progress,
    found: mpsc::UnboundedSender<Problem>,
    /// The blob that is being read.
    last: Mutex<Option<(Digest, Item)>>,
    count: AtomicU64,
    /// What is told once it was tried to repair it.
    later: Option<Mutex<Vec<check::Problem>>>,
}

impl Watcher {
    fn to_repair(&self) -> Vec<check::Problem> {
        let later =
            self.later.as_ref().map(|it| std::mem::take(&mut *it.lock().unwrap_or_else(PoisonError::into_inner)));
        later.unwrap_or_default()
    }

    fn tell(&self, problem: &check::Problem, repaired: Option<Result<()>>) {
        let mut message = Problem::new();
        message.kind = problem.kind.to_owned();
        (message.object, message.message) = (problem.object.clone(), problem.message.clone());
        match repaired {
            Some(Ok(())) => message.repaired = true,
            Some(Err(error)) => message.message = format!("{}; {error}", message.message),
            None => {}
        }
        // Nobody listens any more: `read` ends the check.
        let _ = self.found.send(message);
    }
}

impl Listener for Watcher {
    fn problem(&self, problem: check::Problem) {
        self.count.fetch_add(1, Ordering::Relaxed);
        match &self.later {
            Some(later) if problem.repair.is_some() => {
                later.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
            }
            _ => self.tell(&problem, None),
        }
    }

    fn read(&self, digest: &Digest, offset: u64, size: u64) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((it, item)) if it == digest => item.offset(offset),
            _ => {
                let item = self.progress.item(&digest.to_string(), "blob", size);
                item.phase(Phase::Verifying);
                item.offset(offset);
                *last = Some((digest.clone(), item));
            }
        }
        if let Some((_, item)) = last.as_ref().filter(|_| offset >= size) {
            item.phase(Phase::Done);
        }
        !self.found.is_closed()
    }
}
