//! Trouble with the disk: one period, one line in the log, however many operations fail in it.

use super::Counters;
use crate::clock::Timestamp;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// After the disk refused a write, new fills pass through for so long.
const PAUSE: Duration = Duration::from_secs(10);
/// A period ends with the first entry that is committed so long after the last failure.
const QUIET: Duration = Duration::from_secs(60);

/// The current period, if any.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    lasts: AtomicBool,
    /// The last failure, in milliseconds since the epoch.
    failed: AtomicU64,
    /// In milliseconds since the epoch.
    paused_until: AtomicU64,
}

impl Trouble {
    /// Counts a failure; whether it is the first of a period, and thus logged.
    pub(super) fn begins(&self, counters: &Counters, what: &str, now: Timestamp) -> bool {
        counters.io_errors.fetch_add(1, Ordering::Relaxed);
        self.failed.store(now.as_millis(), Ordering::Relaxed);
        let first = !self.lasts.swap(true, Ordering::Relaxed);
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
        let quiet = now.since(Timestamp::from_millis(self.failed.load(Ordering::Relaxed))) >= QUIET;
        if self.lasts() && quiet && self.lasts.swap(false, Ordering::Relaxed) {
            tracing::info!("the cache's disk takes entries again");
        }
    }

    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        now.as_millis() < self.paused_until.load(Ordering::Relaxed)
    }

    pub(super) fn lasts(&self) -> bool {
        self.lasts.load(Ordering::Relaxed)
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
        assert!(trouble.lasts());
        trouble.ends(at(259));
        assert!(!trouble.lasts() && trouble.begins(&counters, "full", at(300)));
        assert_eq!(counters.io_errors.load(Ordering::Relaxed), 101);
    }
}
