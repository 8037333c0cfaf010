//! What a call is doing, for whoever watches it: told by the flows at any rate, passed on a few times a second.
//!
//! ```text
//! flows, on any thread ──Item::offset…──> one cell for each item ──Updates::next──> the client's stream
//! ```
//!
//! A cell holds the latest word only, so what is told between two looks is not kept: memory does not grow with a call's length
//! or with a slow client. Telling costs a store into the cell, and a lock once for each look.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Items of one call that are told of; a call with more moves documents that nobody wants to watch one by one.
const ITEMS: usize = 4096;

/// Sentences that wait for the next look.
const NOTICES: usize = 64;

/// Where an item is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// For its turn.
    Waiting,
    /// It comes from a registry or an archive.
    Fetching,
    /// All of it has come and is compared with its digest.
    Verifying,
    /// It becomes a tree of files.
    Extracting,
    /// It is put on the disk for good.
    Syncing,
    /// It is here.
    Done,
    /// It was here, or at the registry, before.
    Exists,
    /// It goes to a registry or an archive.
    Sending,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It is left out.
    Skipped,
    /// It failed; the call's error says why.
    Failed,
}

const PHASES: [Phase; 11] = [
    Phase::Waiting,
    Phase::Fetching,
    Phase::Verifying,
    Phase::Extracting,
    Phase::Syncing,
    Phase::Done,
    Phase::Exists,
    Phase::Sending,
    Phase::Mounted,
    Phase::Skipped,
    Phase::Failed,
];

/// The latest word of one item.
#[derive(Debug)]
struct Cell {
    id: Box<str>,
    kind: Mutex<&'static str>,
    phase: AtomicU8,
    offset: AtomicU64,
    total: AtomicU64,
    extracted: AtomicU64,
    /// It is among those that the next look takes.
    changed: AtomicBool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    something: Notify,
}

#[derive(Debug, Default)]
struct State {
    cells: HashMap<Box<str>, Arc<Cell>>,
    changed: Vec<Arc<Cell>>,
    notices: Vec<String>,
    /// Notices beyond the limit.
    untold: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, cell: &Arc<Cell>) {
        if !cell.changed.swap(true, Ordering::AcqRel) {
            self.lock().changed.push(Arc::clone(cell));
            self.something.notify_one();
        }
    }
}

/// Where a flow tells what it does; clones tell the same watcher.
#[derive(Debug, Clone)]
pub struct Progress(Option<Arc<Shared>>);

impl Progress {
    /// Nobody watches.
    #[must_use]
    pub fn silent() -> Self {
        Self(None)
    }

    /// A call's, and what its watcher sees of it.
    #[must_use]
    pub fn watched() -> (Self, Updates) {
        let shared = Arc::new(Shared::default());
        (Self(Some(Arc::clone(&shared))), Updates { shared, last: None })
    }

    /// An item by a name that stays the same: a digest, mostly. `kind` is a word of store.proto's `Item`; `total` in bytes, 0 if it is not
    /// known. The same name again is the same item, of which more may be known: what an archive has as a blob turns out to be a layer.
    #[must_use]
    pub fn item(&self, id: &str, kind: &'static str, total: u64) -> Item {
        let Some(shared) = &self.0 else { return Item(None) };
        let cell = {
            let mut state = shared.lock();
            match state.cells.get(id) {
                Some(cell) => {
                    *cell.kind.lock().unwrap_or_else(PoisonError::into_inner) = kind;
                    Arc::clone(cell)
                }
                None if state.cells.len() >= ITEMS => return Item(None),
                None => {
                    let cell = Arc::new(Cell {
                        id: id.into(),
                        kind: Mutex::new(kind),
                        phase: AtomicU8::new(Phase::Waiting as u8),
                        offset: AtomicU64::new(0),
                        total: AtomicU64::new(total),
                        extracted: AtomicU64::new(0),
                        changed: AtomicBool::new(false),
                    });
                    state.cells.insert(id.into(), Arc::clone(&cell));
                    cell
                }
            }
        };
        shared.tell(&cell);
        Item(Some((Arc::clone(shared), cell)))
    }

    /// A sentence for a person: a retry, a mirror that failed, an entry that was passed over.
    pub fn notice(&self, sentence: impl Into<String>) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock();
        if state.notices.len() < NOTICES {
            state.notices.push(sentence.into());
        } else {
            state.untold += 1;
        }
        drop(state);
        shared.something.notify_one();
    }
}

/// One thing on its way. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Item(Option<(Arc<Shared>, Arc<Cell>)>);

impl Item {
    /// Where it is now.
    pub fn phase(&self, phase: Phase) {
        self.set(|cell| cell.phase.store(phase as u8, Ordering::Relaxed));
    }

    /// How far what the phase is about has got, in bytes from the beginning.
    pub fn offset(&self, bytes: u64) {
        self.set(|cell| cell.offset.store(bytes, Ordering::Relaxed));
    }

    /// How far that goes, in bytes; 0: it is not known.
    pub fn total(&self, bytes: u64) {
        self.set(|cell| cell.total.store(bytes, Ordering::Relaxed));
    }

    /// Unpacked so far, in bytes.
    pub fn extracted(&self, bytes: u64) {
        self.set(|cell| cell.extracted.store(bytes, Ordering::Relaxed));
    }

    fn set(&self, store: impl Fn(&Cell)) {
        if let Some((shared, cell)) = &self.0 {
            store(cell);
            shared.tell(cell);
        }
    }
}

/// An item as it was at a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Its name.
    pub id: String,
    /// What it is.
    pub kind: &'static str,
    /// Where it is.
    pub phase: Phase,
    /// In bytes.
    pub offset: u64,
    /// In bytes; 0: not known.
    pub total: u64,
    /// In bytes.
    pub extracted: u64,
}

/// What changed since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// In the order in which they first changed.
    pub items: Vec<Update>,
    /// In the order in which they were said.
    pub notices: Vec<String>,
}

impl Batch {
    /// Nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.notices.is_empty()
    }
}

/// A watcher.
#[derive(Debug)]
pub struct Updates {
    shared: Arc<Shared>,
    last: Option<Instant>,
}

impl Updates {
    /// Waits until something changed, and at least a tenth of a second since the last time. May be dropped where it waits.
    pub async fn next(&mut self) -> Batch {
        loop {
            self.shared.something.notified().await;
            // A wake-up is for what is there: it is put back if this future is dropped while it pauses.
            let again = Again(&self.shared.something);
            if let Some(last) = self.last {
                tokio::time::sleep_until(last + PAUSE).await;
            }
            std::mem::forget(again);
            let batch = self.rest();
            if !batch.is_empty() {
                self.last = Some(Instant::now());
                return batch;
            }
        }
    }

    /// What changed and was not seen yet: at the end of a call.
    #[must_use]
    pub fn rest(&self) -> Batch {
        let (cells, mut notices, untold) = {
            let mut state = self.shared.lock();
            let untold = std::mem::take(&mut state.untold);
            (std::mem::take(&mut state.changed), std::mem::take(&mut state.notices), untold)
        };
        if untold > 0 {
            notices.push(format!("{untold} more such notices"));
        }
        let look = |cell: Arc<Cell>| {
            // Before the values are read: what changes from here on is for the next look.
            cell.changed.store(false, Ordering::Release);
            Update {
                id: cell.id.to_string(),
                kind: *cell.kind.lock().unwrap_or_else(PoisonError::into_inner),
                phase: PHASES[usize::from(cell.phase.load(Ordering::Acquire))],
                offset: cell.offset.load(Ordering::Relaxed),
                total: cell.total.load(Ordering::Relaxed),
                extracted: cell.extracted.load(Ordering::Relaxed),
            }
        };
        Batch { items: cells.into_iter().map(look).collect(), notices }
    }
}

/// Gives a wake-up back.
struct Again<'a>(&'a Notify);

impl Drop for Again<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_latest_word_is_passed_on_ten_times_a_second() {
        let (progress, mut updates) = Progress::watched();
        let layer = progress.item("sha256:a", "layer", 100);
        let other = progress.item("sha256:b", "layer", 0);
        let first = updates.next().await;
        assert_eq!(first.items.len(), 2);
        assert_eq!((first.items[0].id.as_str(), first.items[0].phase), ("sha256:a", Phase::Waiting));
        for offset in 1..=100 {
            layer.offset(offset);
        }
        layer.phase(Phase::Extracting);
        let before = Instant::now();
        let second = updates.next().await;
        assert_eq!(before.elapsed(), PAUSE);
        let expected = Update {
            id: "sha256:a".into(),
            kind: "layer",
            phase: Phase::Extracting,
            offset: 100,
            total: 100,
            extracted: 0,
        };
        assert_eq!(second, Batch { items: vec![expected], notices: vec![] });
        other.extracted(5);
        other.total(9);
        let rest = updates.rest();
        assert_eq!((rest.items[0].extracted, rest.items[0].total), (5, 9));
        assert!(updates.rest().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_is_given_up_loses_nothing() {
        let (progress, mut updates) = Progress::watched();
        progress.notice("first");
        assert_eq!(updates.next().await.notices, ["first"]);
        progress.notice("second");
        // Dropped in its pause, as by a select.
        assert!(tokio::time::timeout(PAUSE / 2, updates.next()).await.is_err());
        assert_eq!(updates.next().await.notices, ["second"]);
    }

    #[tokio::test]
    async fn what_nobody_can_watch_is_counted() {
        let (progress, updates) = Progress::watched();
        for n in 0..NOTICES + 3 {
            progress.notice(format!("{n}"));
        }
        for n in 0..=ITEMS {
            progress.item(&n.to_string(), "blob", 0).phase(Phase::Done);
        }
        let batch = updates.rest();
        assert_eq!((batch.items.len(), batch.notices.len()), (ITEMS, NOTICES + 1));
        assert_eq!(batch.notices[NOTICES], "3 more such notices");
    }

    #[test]
    fn the_same_name_is_the_same_item_and_silence_costs_nothing() {
        let (progress, updates) = Progress::watched();
        progress.item("a", "blob", 7).offset(3);
        progress.item("a", "layer", 7).phase(Phase::Done);
        let batch = updates.rest();
        assert_eq!((batch.items.len(), batch.items[0].offset, batch.items[0].phase), (1, 3, Phase::Done));
        assert_eq!(batch.items[0].kind, "layer");
        assert!(PHASES.iter().enumerate().all(|(n, phase)| *phase as usize == n));
        Progress::silent().item("a", "layer", 7).phase(Phase::Done);
        Progress::silent().notice("unheard");
    }
}
