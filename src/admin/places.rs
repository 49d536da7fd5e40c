//! The places for connections to the admin listener, and who gives one up where all are taken.
//!
//! A connection that has sent no whole request yet is silent. Where all places are taken, the one that has been silent longest
//! gives its place to the next that comes, after a second at first, and the sooner the more do. So connections that are opened
//! and left, or that send half a head, can't keep a scraper or a health check out. Those that have asked keep their places.

use crate::clock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How long a connection may be silent where others wait for its place.
const SILENCE: Duration = Duration::from_secs(1);
/// The shortest that this becomes while they go on coming: time for a request that was sent with the connection.
const LEAST_SILENCE: Duration = Duration::from_millis(20);

/// The places.
pub(super) struct Places {
    permits: Arc<Semaphore>,
    silent: Arc<Mutex<Silent>>,
}

/// The connections that have asked for nothing yet.
struct Silent {
    /// In the order of their coming: since when, and who ends it where its place is needed.
    by_number: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    next: u64,
    /// How long one may be silent at present.
    patience: Duration,
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    silent: Arc<Mutex<Silent>>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// For so many connections.
    pub(super) fn new(most: usize) -> Self {
        let silent = Silent { by_number: BTreeMap::new(), next: 0, patience: SILENCE };
        Self { permits: Arc::new(Semaphore::new(most)), silent: Arc::new(Mutex::new(silent)) }
    }

    /// A place for a connection that is there, once there is one; it ends when the receiver says so. Nothing is lost where this
    /// is dropped before its end.
    pub(super) async fn take(&self) -> (Place, oneshot::Receiver<()>) {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            lock(&self.silent).patience = SILENCE;
            return self.place(permit);
        }
        loop {
            let wait = lock(&self.silent).yield_one(clock::monotonic());
            if let Ok(Ok(permit)) = tokio::time::timeout(wait, self.permits.clone().acquire_owned()).await {
                return self.place(permit);
            }
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> (Place, oneshot::Receiver<()>) {
        let (end, ends) = oneshot::channel();
        let mut silent = lock(&self.silent);
        let number = silent.next;
        silent.next += 1;
        silent.by_number.insert(number, (clock::monotonic(), end));
        (Place { silent: Arc::clone(&self.silent), number, _permit: permit }, ends)
    }
}

impl Silent {
    /// Ends the connection that has been silent longest, if that is long enough. How long to wait for a place before the next
    /// look.
    fn yield_one(&mut self, now: Instant) -> Duration {
        let Some(oldest) = self.by_number.first_entry() else { return SILENCE };
        let left = self.patience.saturating_sub(now.saturating_duration_since(oldest.get().0));
        if left.is_zero() {
            let (_, (_, end)) = oldest.remove_entry();
            // Gone already, if it doesn't listen.
            let _ = end.send(());
            self.patience = (self.patience / 2).max(LEAST_SILENCE);
            return SILENCE;
        }
        left
    }
}

impl Place {
    /// The connection has sent a whole request: it keeps its place.
    pub(super) fn has_asked(&self) {
        lock(&self.silent).by_number.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.has_asked();
    }
}

fn lock(silent: &Mutex<Silent>) -> MutexGuard<'_, Silent> {
    silent.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silent_yields_first_and_the_sooner_the_more_come() {
        let (mut silent, begun) =
            (Silent { by_number: BTreeMap::new(), next: 0, patience: SILENCE }, clock::monotonic());
        let mut ends: Vec<_> = (0..8)
            .map(|number| {
                let (end, ends) = oneshot::channel();
                silent.by_number.insert(number, (begun, end));
                ends
            })
            .collect();
        let ended = |ends: &mut Vec<oneshot::Receiver<()>>| {
            ends.iter_mut().map(|ends| ends.try_recv().is_ok()).filter(|ended| *ended).count()
        };
        let after = |millis| begun + Duration::from_millis(millis);
        assert_eq!(silent.yield_one(after(400)), Duration::from_millis(600));
        assert_eq!(ended(&mut ends), 0);
        silent.yield_one(after(1000));
        assert!(ends[0].try_recv().is_ok());
        for _ in 0..10 {
            silent.yield_one(after(1001));
        }
        assert_eq!((ended(&mut ends), silent.patience), (7, LEAST_SILENCE));
        assert_eq!(silent.yield_one(after(1002)), SILENCE, "there is none left to yield");
    }
}
