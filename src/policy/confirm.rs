//! How sure the node is that what it offers of a repo is current.
//!
//! The origin confirms a repo by answering a poll of its repomd.xml, whatever it shows: an update that the node can't take yet, or
//! a state older than the one on offer, is no reason to stop offering what is verified. But where the origin shows a newer state
//! for longer than a few polls, and the node can't offer it, the repo is not current, and that is reported. Silence ends the
//! offer: after `push.stale` clients should learn that they get no updates here.

use crate::clock::Timestamp;
use crate::config::Push;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many looks may fail before answers say so.
const FEW_POLLS: u32 = 4;

/// What the origin's polls say of a repo's currency. Shared by all views of it; written by `push` alone.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// When the origin last answered.
    answered: AtomicU64,
    /// Since when it has shown a newer state than the one on offer; 0: it doesn't.
    behind: AtomicU64,
}

impl Confirmed {
    /// When the origin last answered. The epoch: never, as far as is known.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.answered.load(Ordering::Relaxed))
    }

    /// Since when the origin has shown a newer state than the one on offer.
    #[must_use]
    pub fn behind_since(&self) -> Option<Timestamp> {
        Some(self.behind.load(Ordering::Relaxed)).filter(|since| *since > 0).map(Timestamp::from_millis)
    }

    /// It answered at `now`.
    pub fn note(&self, now: Timestamp) {
        self.answered.store(now.as_millis(), Ordering::Relaxed);
    }

    /// It shows a newer state since `since`, which can't be offered yet. The first such time counts, whatever follows.
    pub fn note_behind(&self, since: Timestamp) {
        let first = since.as_millis().max(1);
        // Where it is behind already, it stays so.
        let _ = self.behind.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What is on offer is what it shows.
    pub fn note_current(&self) {
        self.behind.store(0, Ordering::Relaxed);
    }
}

/// What may be said of a repo's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// The origin answered just now, and what is on offer is the newest that it shows, or has been until just now.
    Confirmed,
    /// The origin shows a newer state, which can't be offered for longer than a few polls.
    NotCurrent,
    /// The origin hasn't answered for a few polls.
    Unconfirmed,
    /// Nor for `push.stale`: what is on offer may no longer begin anything.
    Expired,
}

impl Currency {
    /// At `now`. A poll takes its time while a push is warmed.
    #[must_use]
    pub fn at(confirmed: &Confirmed, push: &Push, now: Timestamp) -> Self {
        let silence = now.since(confirmed.at());
        let few_polls = push.poll * FEW_POLLS + push.warm_for;
        if silence > push.stale.max(few_polls) {
            Self::Expired
        } else if confirmed.behind_since().is_some_and(|since| now.since(since) > few_polls) {
            Self::NotCurrent
        } else if silence > few_polls {
            Self::Unconfirmed
        } else {
            Self::Confirmed
        }
    }

    /// The word for it in the status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::NotCurrent => "not-current",
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
            let answered = Timestamp::from_secs(1000);
            let confirmed = confirmed_at(answered);
            let found = Currency::at(&confirmed, &push(stale), answered.plus(secs(silence)));
            assert_eq!(found, expected, "{silence} s of {stale} s");
        }
        assert_eq!(
            Currency::at(&confirmed_at(Timestamp::from_secs(1000)), &push(0), Timestamp::EPOCH),
            Currency::Confirmed,
            "a clock that went back"
        );
        assert_eq!((persist_every(&push(0)), persist_every(&push(6400))), (secs(1), secs(100)));
    }

    #[test]
    fn a_newer_state_that_cant_be_offered_is_not_current() {
        let push = Push { poll: Duration::from_secs(10), warm_for: Duration::ZERO, ..Push::default() };
        let at = Timestamp::from_secs;
        let confirmed = confirmed_at(at(1000));
        let currency = |now| Currency::at(&confirmed, &push, at(now));
        confirmed.note_behind(at(990));
        confirmed.note_behind(at(1020));
        assert_eq!((currency(1030), currency(1031)), (Currency::Confirmed, Currency::NotCurrent));
        assert_eq!(currency(1041), Currency::NotCurrent, "silence says no more");
        confirmed.note(at(1040));
        confirmed.note_current();
        assert_eq!((currency(1041), confirmed.behind_since()), (Currency::Confirmed, None));
        confirmed.note_behind(at(1040));
        assert_eq!(currency(1040 + 8 * 24 * 3600), Currency::Expired);
    }

    fn confirmed_at(answered: Timestamp) -> Confirmed {
        let confirmed = Confirmed::default();
        confirmed.note(answered);
        confirmed
    }
}
