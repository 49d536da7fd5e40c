//! How sure the node is that what it offers of a repo is current.
//!
//! The origin confirms a repo by answering a look at its repomd.xml, whatever it shows: an update that the node can't take yet, or
//! a state older than the one on offer, is no reason to stop offering what is verified. Silence is, in the end: clients should
//! learn that they get no updates here.

use crate::clock::Timestamp;
use crate::config::Push;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many looks may fail before answers say so.
const FEW_POLLS: u32 = 4;

/// When the origin last answered for a repo. Shared by all views of it; written by `push` alone.
#[derive(Debug, Default)]
pub struct Confirmed(AtomicU64);

impl Confirmed {
    /// When. The epoch: never, as far as is known.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// It answered at `now`.
    pub fn note(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::Relaxed);
    }
}

/// What may be said of a repo's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// The origin answered just now.
    Confirmed,
    /// Not for a few looks.
    Unconfirmed,
    /// Not for `push.stale`: what is on offer may no longer begin anything.
    Expired,
}

impl Currency {
    /// At `now`, given when the origin last answered. A look takes its time while a push is warmed.
    #[must_use]
    pub fn at(confirmed: Timestamp, push: &Push, now: Timestamp) -> Self {
        let silence = now.since(confirmed);
        let few_polls = push.poll * FEW_POLLS + push.warm_for;
        if silence <= few_polls {
            Self::Confirmed
        } else if silence <= push.stale.max(few_polls) {
            Self::Unconfirmed
        } else {
            Self::Expired
        }
    }

    /// The word for it in the status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Unconfirmed => "unconfirmed",
            Self::Expired => "expired",
        }
    }
}

/// How often a confirmation is written to disk: a restart may take so much of `push.stale` away, not more.
#[must_use]
pub fn persist_every(push: &Push) -> Duration {
    (push.stale / 64).clamp(Duration::from_secs(1), Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_then_ends_it() {
        let secs = Duration::from_secs;
        let push = |stale| Push { poll: secs(10), warm_for: secs(5), stale: secs(stale), ..Push::default() };
        for (stale, silence, expected) in [
            (100, 0, Currency::Confirmed),
            (100, 45, Currency::Confirmed),
            (100, 46, Currency::Unconfirmed),
            (100, 100, Currency::Unconfirmed),
            (100, 101, Currency::Expired),
            (0, 45, Currency::Confirmed),
            (0, 46, Currency::Expired),
        ] {
            let confirmed = Timestamp::from_secs(1000);
            let found = Currency::at(confirmed, &push(stale), confirmed.plus(secs(silence)));
            assert_eq!(found, expected, "{silence} s of {stale} s");
        }
        let since = Timestamp::from_secs(1000);
        assert_eq!(
            Currency::at(since, &push(0), Timestamp::EPOCH),
            Currency::Confirmed,
            "a clock that went back"
        );
        assert_eq!((persist_every(&push(0)), persist_every(&push(6400))), (secs(1), secs(100)));
    }
}
