//! Turns: what several calls want at once, one does.
//!
//! A turn is the right to make one thing: to fetch the blob of a digest, or to unpack the layer of a chain id. Who waited for a
//! turn first *looks whether the thing is there by now*, and makes it only if it is not: so a hundred pulls of one image make one
//! fetch, and when the first fails or its client goes away, the next goes on from the bytes it left.
//!
//! A turn moves into the thread that does the work, so that it ends with the work and not with the call: a client that hangs up
//! lets nobody in while its thread still writes.
//!
//! # Why this can't lock up
//!
//! Turns of blobs are held one at a time by a task that waits for nothing but its registry. Turns of chains are taken from the
//! base upwards and held until the layers are published; a chain id says all that is below it, so any two calls take those that
//! they share in the same order. Nobody takes turns for a second image before those of the first are published.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::content::digest::Digest;

/// What can be made once only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A blob, into an ingest.
    Blob(Digest),
    /// A layer, by snapshotter and chain id.
    Chain(&'static str, Digest),
}

type Waiting = Arc<tokio::sync::Mutex<()>>;

/// Who makes what now, and who waits for it. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Flights {
    turns: Arc<Mutex<HashMap<Key, Waiting>>>,
}

impl Flights {
    /// Waits until nobody else makes this; in the order of asking.
    pub async fn turn(&self, key: Key) -> Turn {
        let waiting = Arc::clone(self.lock().entry(key.clone()).or_default());
        let forget = Forget { flights: self.clone(), key };
        Turn { _guard: waiting.lock_owned().await, _forget: forget }
    }

    /// Whether somebody makes this now; who asks for a turn then has to wait.
    #[must_use]
    pub fn busy(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|it| it.try_lock().is_err())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Waiting>> {
        // Nothing that could panic runs under this lock.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one thing, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    // Before `_forget`: who is last must find that nobody holds it.
    _guard: OwnedMutexGuard<()>,
    _forget: Forget,
}

/// Forgets a key that nobody wants any more: also that of a call which was dropped while it waited.
#[derive(Debug)]
struct Forget {
    flights: Flights,
    key: Key,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut turns = self.flights.lock();
        if turns.get(&self.key).is_some_and(|it| Arc::strong_count(it) == 1) {
            turns.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(bytes: &[u8]) -> Key {
        Key::Blob(Digest::of(bytes))
    }

    #[tokio::test]
    async fn a_hundred_make_one_thing_once() {
        let flights = Flights::default();
        let (made, there) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (flights, made, there) = (flights.clone(), made.clone(), there.clone());
            calls.spawn(async move {
                let _turn = flights.turn(key(b"blob")).await;
                if there.load(Ordering::Relaxed) == 0 {
                    tokio::task::yield_now().await;
                    made.fetch_add(1, Ordering::Relaxed);
                    there.store(1, Ordering::Relaxed);
                }
            });
        }
        calls.join_all().await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(flights.lock().is_empty(), "nothing is remembered once nobody waits");
    }

    #[tokio::test]
    async fn the_next_goes_on_when_the_first_goes_away() {
        let flights = Flights::default();
        let first = flights.turn(key(b"blob")).await;
        assert!(flights.busy(&key(b"blob")));
        assert!(!flights.busy(&key(b"other")));
        let mut second = Box::pin(flights.turn(key(b"blob")));
        assert!(futures_pending(&mut second).await);
        drop(first);
        let second = second.await;
        // Who is dropped while it waits leaves nothing.
        let mut third = Box::pin(flights.turn(key(b"blob")));
        assert!(futures_pending(&mut third).await);
        drop(third);
        drop(second);
        assert!(flights.lock().is_empty());
    }

    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
