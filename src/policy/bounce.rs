//! Bounces: a client that comes back for what it was redirected for was failed by the mirror.
//!
//! librepo ends a transaction at the fourth failed transfer, and retries at the node's URL at once. So a node may never
//! have more than three redirects of one client in the air that are not known to have worked, and must stop at the
//! first sign of failure. A client proves success only by silence: it goes on to other files.

use crate::clock::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// A repeat within this time after a redirect is a bounce. Longer than librepo's timeouts (30 s to connect, 30 s below
/// 1000 B/s) take to show.
const HORIZON: Duration = Duration::from_secs(120);
/// No redirects for this long after a certain bounce: the mirror failed this very client.
const COOL_OFF_CERTAIN: Duration = Duration::from_secs(600);
/// The same after a mere suspicion (a repeat on another connection, which another host behind the same address may have
/// sent). Long enough for the probe that the bounce sets off to take a bad mirror out.
const COOL_OFF_SUSPECTED: Duration = Duration::from_secs(60);
/// Redirects in the air that a client may have at most: its failure budget is three.
const MOST_UNCONFIRMED: usize = 3;
/// Other files that a client must have asked for until a redirect counts as having worked: it has three transfers in
/// parallel, so by then one of its places was free again, and a failure would have come back first.
const CONFIRMED_AFTER: u8 = 3;
/// Redirects that are remembered for each client.
const REMEMBERED: usize = 64;

/// What a client's past says of redirecting it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be redirected.
    Clear,
    /// Its earlier redirects aren't known to have worked.
    SlowStart,
    /// It was failed lately.
    CoolingOff,
    /// This very request is the return from a mirror that failed it.
    Bounced {
        /// The number of that mirror.
        mirror: usize,
        /// On the connection that was redirected: no other host can have sent it.
        certain: bool,
    },
}

/// A bounce as the server tells it to the prober, which then looks at that mirror at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceReport {
    /// The mirror's number.
    pub mirror: usize,
    /// The path that the client was redirected for, below the mirror's URL.
    pub path: String,
}

/// The redirects of one client.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    redirects: VecDeque<Redirected>,
    confirmed: usize,
    cool_until: Timestamp,
}

#[derive(Clone, Debug)]
struct Redirected {
    file: u64,
    mirror: usize,
    connection: u64,
    at: Timestamp,
    others_since: u8,
}

impl Redirected {
    const fn is_confirmed(&self) -> bool {
        self.others_since >= CONFIRMED_AFTER
    }
}

impl Trail {
    /// Takes note of a request for `file` (path and, where a client fetches one file in parts, the part; as a hash) on
    /// `connection`, and says how the client stands.
    pub fn asks(&mut self, file: u64, connection: u64, now: Timestamp) -> Standing {
        self.redirects.retain(|redirect| now.since(redirect.at) < HORIZON);
        if let Some(index) = self.redirects.iter().rposition(|redirect| redirect.file == file) {
            let failed = self.redirects.remove(index).expect("its index was just found");
            let certain = failed.connection == connection;
            let rest = if certain { COOL_OFF_CERTAIN } else { COOL_OFF_SUSPECTED };
            self.cool_until = self.cool_until.max(now.plus(rest));
            self.confirmed = 0;
            return Standing::Bounced { mirror: failed.mirror, certain };
        }
        for redirect in &mut self.redirects {
            if !redirect.is_confirmed() {
                redirect.others_since += 1;
                if redirect.is_confirmed() {
                    self.confirmed = (self.confirmed + 1).min(MOST_UNCONFIRMED);
                }
            }
        }
        let unconfirmed = self.redirects.iter().filter(|redirect| !redirect.is_confirmed()).count();
        if now < self.cool_until {
            Standing::CoolingOff
        } else if unconfirmed > self.confirmed.min(MOST_UNCONFIRMED - 1) {
            Standing::SlowStart
        } else {
            Standing::Clear
        }
    }

    /// Takes note that the request was redirected to mirror number `mirror`.
    pub fn redirected(&mut self, file: u64, mirror: usize, connection: u64, now: Timestamp) {
        if self.redirects.len() == REMEMBERED {
            self.redirects.pop_front();
        }
        self.redirects.push_back(Redirected { file, mirror, connection, at: now, others_since: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn later(secs: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(secs))
    }

    #[test]
    fn starts_with_one_redirect_and_earns_more() {
        let mut trail = Trail::default();
        let mut redirected = Vec::new();
        for file in 0..20 {
            if trail.asks(file, 1, NOW) == Standing::Clear {
                trail.redirected(file, 0, 1, NOW);
                redirected.push(file);
            }
        }
        assert_eq!(redirected[0], 0);
        assert!(
            !redirected.contains(&1) && !redirected.contains(&2),
            "one in the air at the start: {redirected:?}"
        );
        assert!(redirected.len() >= 14, "it speeds up: {redirected:?}");
    }

    #[test]
    fn a_repeat_is_a_bounce_and_cools_off() {
        // (connection of the repeat, certain, seconds of cool-off)
        for (connection, certain, rest) in [(1, true, 600), (2, false, 60)] {
            let mut trail = Trail::default();
            assert_eq!(trail.asks(7, 1, NOW), Standing::Clear);
            trail.redirected(7, 3, 1, NOW);
            assert_eq!(trail.asks(7, connection, later(1)), Standing::Bounced { mirror: 3, certain });
            assert_eq!(trail.asks(8, 1, later(rest)), Standing::CoolingOff);
            assert_eq!(trail.asks(9, 1, later(rest + 1)), Standing::Clear);
        }
    }

    #[test]
    fn what_lies_beyond_the_horizon_is_no_bounce() {
        let mut trail = Trail::default();
        trail.asks(7, 1, NOW);
        trail.redirected(7, 3, 1, NOW);
        assert_eq!(trail.asks(7, 1, later(121)), Standing::Clear);
    }

    proptest! {
        /// A client with three parallel transfers that retries a failure before it goes on, and a mirror that dies at any
        /// time for good: the client never sees a fourth failure.
        #[test]
        fn a_dying_mirror_costs_at_most_three_failures(dies_after in 0..60usize, order in prop::collection::vec(0..3usize, 200)) {
            let mut trail = Trail::default();
            let (mut failures, mut succeeded) = (0, 0);
            let mut next = 0u64;
            let mut active: Vec<(u64, bool)> = Vec::new(); // (file, redirected)
            let ask = |trail: &mut Trail, file: u64| {
                let clear = trail.asks(file, 1, NOW) == Standing::Clear;
                if clear {
                    trail.redirected(file, 0, 1, NOW);
                }
                (file, clear)
            };
            for pick in order {
                while active.len() < 3 {
                    active.push(ask(&mut trail, next));
                    next += 1;
                }
                let (file, redirected) = active.remove(pick);
                if redirected && succeeded >= dies_after {
                    failures += 1;
                    active.push(ask(&mut trail, file));
                } else {
                    succeeded += 1;
                }
            }
            prop_assert!(failures <= 3, "{failures} failures");
        }
    }
}
