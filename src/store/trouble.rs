//! Trouble with the disk: one period, one line in the log, however many operations fail in it.

use super::Counters;
use crate::clock::Timestamp;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After the disk refused a write, new fills pass through for so long.
const PAUSE: Duration = Duration::from_secs(10);
/// A period ends with the first entry that is committed so long after the last failure.
const QUIET: Duration = Duration::from_secs(60);

/// A period of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskTrouble {
    /// Its first failure.
    pub since: Timestamp,
    /// Its latest failure.
    pub last: Timestamp,
    /// What that was, in words.
    pub why: String,
}

/// The current period, if any.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Spares whoever commits the lock in peace.
    lasts: AtomicBool,
    current: Mutex<Option<DiskTrouble>>,
    /// In milliseconds since the epoch.
    paused_until: AtomicU64,
}

impl Trouble {
    /// Counts a failure; whether it is the first of a period, and thus logged.
    pub(super) fn begins(&self, counters: &Counters, what: &str, now: Timestamp) -> bool {
        counters.io_errors.fetch_add(1, Ordering::Relaxed);
        let mut current = self.lock();
        let since = current.as_ref().map_or(now, |current| current.since);
        let first = current.replace(DiskTrouble { since, last: now, why: what.to_owned() }).is_none();
        self.lasts.store(true, Ordering::Relaxed);
        if first {
            tracing::warn!("the cache's disk: {what}");
        }
        first
    }

    /// Nothing is written for a while.
    pub(super) fn pauses(&self, now: Timestamp) {
        self.paused_until.store(now.plus(PAUSE).as_millis(), Ordering::Relaxed);
    }

    /// An entry was committed.
    pub(super) fn ends(&self, now: Timestamp) {
        if !self.lasts.load(Ordering::Relaxed) {
            return;
        }
        let mut current = self.lock();
        if current.take_if(|current| now.since(current.last) >= QUIET).is_some() {
            self.lasts.store(false, Ordering::Relaxed);
            tracing::info!("the cache's disk takes entries again");
        }
    }

    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        now.as_millis() < self.paused_until.load(Ordering::Relaxed)
    }

    pub(super) fn current(&self) -> Option<DiskTrouble> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<DiskTrouble>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_period_is_logged_once_and_ends_with_a_commit_in_peace() {
        let (trouble, counters) = (Trouble::default(), Counters::default());
        let at = Timestamp::from_secs;
        assert!(trouble.begins(&counters, "full", at(100)));
        for second in 101..200 {
            trouble.ends(at(second));
            assert!(!trouble.begins(&counters, "full", at(second)), "{second}");
        }
        trouble.pauses(at(200));
        assert!(trouble.is_paused(at(209)) && !trouble.is_paused(at(210)));
        trouble.ends(at(258));
        let current = DiskTrouble { since: at(100), last: at(199), why: "full".to_owned() };
        assert_eq!(trouble.current(), Some(current));
        trouble.ends(at(259));
        assert!(trouble.current().is_none() && trouble.begins(&counters, "full", at(300)));
        assert_eq!(counters.io_errors.load(Ordering::Relaxed), 101);
    }
}
