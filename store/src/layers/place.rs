//! A place among the extractions: the right to use a processor, put down while there is nothing to compute.
//!
//! An extraction computes on two threads. While one of them waits for bytes of a registry, or for a layer below, its place is
//! another's: else as many layers of a slow registry as there are places would hold up everybody. The second thread goes on
//! meanwhile with what lies in the buffers between the two, which is little.
//!
//! The place is held only while neither waits. So nobody holds one who needs another to go on, and extractions that wait for each
//! other never lock up for want of places.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Result;
use crate::fetch::closing;

/// One extraction's place.
pub(super) struct Place {
    places: Arc<Semaphore>,
    runtime: Handle,
    state: Mutex<State>,
    /// Held by the one thread that takes the place up again.
    taking: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Threads that wait for something.
    waiting: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits for a place. Call this on the runtime.
    pub(super) async fn take(places: &Arc<Semaphore>) -> Result<Self> {
        let permit = Arc::clone(places).acquire_owned().await.map_err(|_| closing())?;
        let state = Mutex::new(State { waiting: 0, permit: Some(permit) });
        Ok(Self { places: Arc::clone(places), runtime: Handle::current(), state, taking: Mutex::default() })
    }

    /// Waits for something on this (blocking) thread; the place is another's meanwhile.
    pub(super) fn without<T>(&self, wait: impl FnOnce() -> T) -> T {
        {
            let mut state = self.state();
            state.waiting += 1;
            state.permit = None;
        }
        let waited = wait();
        self.state().waiting -= 1;
        self.take_again();
        waited
    }

    fn take_again(&self) {
        // Guards nothing but the order.
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.state().is_wanted() {
            return;
        }
        // Without one, the store is closing: what goes on is little.
        let Ok(permit) = self.runtime.block_on(Arc::clone(&self.places).acquire_owned()) else { return };
        let mut state = self.state();
        if state.is_wanted() {
            state.permit = Some(permit);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the place has to be taken: nobody waits, and nobody has taken it.
    fn is_wanted(&self) -> bool {
        self.waiting == 0 && self.permit.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn who_waits_lets_another_in() {
        let places = Arc::new(Semaphore::new(1));
        let place = Place::take(&places).await.unwrap();
        assert_eq!(places.available_permits(), 0);
        let waiting = tokio::task::spawn_blocking(move || {
            let seen = place.without(|| place.places.available_permits());
            (seen, place.places.available_permits(), place)
        });
        let (while_waiting, afterwards, place) = waiting.await.unwrap();
        assert_eq!((while_waiting, afterwards), (1, 0));
        drop(place);
        assert_eq!(places.available_permits(), 1);
    }

    /// The one thread's end of waiting is no place while the other waits still: else both could stand still.
    #[tokio::test]
    async fn a_place_is_held_only_while_neither_waits() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::new(Place::take(&places).await.unwrap());
        let (go, gone) = channel::<()>();
        let (began, begun) = channel();
        let other = {
            let place = Arc::clone(&place);
            tokio::task::spawn_blocking(move || {
                place.without(|| {
                    began.send(()).unwrap();
                    gone.recv().unwrap();
                });
            })
        };
        let one = Arc::clone(&place);
        tokio::task::spawn_blocking(move || {
            begun.recv().unwrap();
            one.without(|| ());
        })
        .await
        .unwrap();
        assert_eq!(places.available_permits(), 1, "the other still waits");
        go.send(()).unwrap();
        other.await.unwrap();
        assert_eq!(places.available_permits(), 0);
    }

    /// Many of two threads each, with one place: all come to an end.
    #[tokio::test]
    async fn nobody_locks_up() {
        let places = Arc::new(Semaphore::new(1));
        let mut threads = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let place = Arc::new(Place::take(&places).await.unwrap());
            place.state().permit = None;
            for _ in 0..2 {
                let place = Arc::clone(&place);
                threads.spawn_blocking(move || (0..200).for_each(|_| place.without(std::thread::yield_now)));
            }
        }
        threads.join_all().await;
        assert_eq!(places.available_permits(), 1);
    }
}
