//! Which connections end first when there isn't enough memory for all: those whose bodies progressed least for what they hold.
//!
//! Progress is measured over a second or two, since a client that stalls may have been fast before. A connection that hasn't been
//! measured yet, and one that the node keeps waiting, counts as one with a usual pace: those that trickle go before it, and of its
//! kind those that hold most. A pace below 1 kB/s is none. Of connections that are equally slow, the one goes first whose body
//! has stood still for longest, then the one that has held something for longest, and then the one that holds most.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Progress is measured over so much at least, and over twice as much at most while [`Slowest::look`] is called as often.
pub const WINDOW: Duration = Duration::from_secs(1);
/// What kernels take of a body that no client has read yet, in bytes: the first bytes of a connection are no progress.
const AHEAD: u64 = 128 << 10;
/// So long after it began to hold something, a connection is measured in any case: two looks lie behind it, the first of which had
/// what kernels take.
const MEASURED_AFTER: Duration = Duration::from_secs(3);
/// The pace that counts for one that hasn't been measured, in bytes a second: as much as a client has at least that takes what it
/// is sent, while the capacity is used up.
const USUAL: f64 = 32_000.0;
/// A pace below this is none, in bytes a second: librepo gives a transfer up that is slower for 30 s.
const LEAST: u64 = 1000;

/// A connection, and the memory that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its number.
    pub id: u64,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// Bytes of bodies that were sent since `since`.
    pub progress: u64,
    /// When it began to hold something.
    pub since: Duration,
    /// The node is to go on, not the client.
    pub awaits_node: bool,
}

/// What connections did lately.
#[derive(Debug, Default)]
pub struct Slowest(HashMap<u64, Mark>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The beginning of what is measured: when, and the progress until then.
    before: (Duration, u64),
    latest: (Duration, u64),
    /// When it was last seen to have progressed by [`LEAST`].
    moved: Duration,
}

impl Mark {
    const fn new(holding: &Holding) -> Self {
        let latest = (holding.since, holding.progress);
        Self { before: (holding.since, AHEAD), latest, moved: holding.since }
    }

    /// Whether it is of the same time of holding: a connection may hold nothing in between.
    fn is_of(&self, holding: &Holding) -> bool {
        self.before.0 >= holding.since && holding.progress >= self.latest.1
    }

    /// It has progressed since the latest look. One that takes a byte now and then stands still.
    const fn has_moved(&self, holding: &Holding) -> bool {
        holding.progress >= self.latest.1 + LEAST
    }
}

impl Slowest {
    /// Takes note of the progress of all connections that hold something; once a second.
    pub fn look(&mut self, holdings: &[Holding], now: Duration) {
        let known: HashSet<u64> = holdings.iter().map(|holding| holding.id).collect();
        self.0.retain(|id, _| known.contains(id));
        for holding in holdings {
            let mut mark = self.mark(holding);
            if mark.has_moved(holding) {
                mark.moved = now;
            }
            if now.saturating_sub(mark.latest.0) >= WINDOW {
                if mark.latest.0 > holding.since {
                    mark.before = mark.latest;
                }
                mark.latest = (now, holding.progress);
            }
            self.0.insert(holding.id, mark);
        }
    }

    /// The connections that have to end so that `excess` bytes become free, the slowest first; all, if they hold less.
    #[must_use]
    pub fn choose(&self, holdings: &[Holding], excess: u64, now: Duration) -> Vec<u64> {
        let mut order: Vec<_> = holdings.iter().map(|holding| (self.rank(holding, now), holding)).collect();
        order.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut free = 0_u64;
        let is_needed = |holding: &&Holding| {
            let is_needed = free < excess;
            free += holding.bytes;
            is_needed
        };
        order
            .into_iter()
            .map(|(_, holding)| holding)
            .take_while(is_needed)
            .map(|holding| holding.id)
            .collect()
    }

    fn mark(&self, holding: &Holding) -> Mark {
        let known = self.0.get(&holding.id).filter(|mark| mark.is_of(holding));
        known.copied().unwrap_or_else(|| Mark::new(holding))
    }

    fn rank(&self, holding: &Holding, now: Duration) -> Rank {
        let mark = self.mark(holding);
        let (from, before) = mark.before;
        let time = now.saturating_sub(from).max(WINDOW);
        let progress = holding.progress.saturating_sub(before);
        let moved = if mark.has_moved(holding) { now } else { mark.moved };
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let (progress, least, bytes) = (progress as f64, LEAST as f64, holding.bytes.max(1) as f64);
        let measured = progress / time.as_secs_f64();
        let is_known = !holding.awaits_node && now.saturating_sub(holding.since) >= MEASURED_AFTER;
        let pace = match is_known {
            false => measured.max(USUAL),
            true if measured < least => 0.0,
            true => measured,
        };
        Rank { pace: pace / bytes, then: (moved, holding.since, Reverse(holding.bytes), holding.id) }
    }
}

/// The least goes first.
struct Rank {
    /// Bytes of bodies a second, for each byte that is held.
    pace: f64,
    then: (Duration, Duration, Reverse<u64>, u64),
}

impl Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.pace.total_cmp(&other.pace).then_with(|| self.then.cmp(&other.then))
    }
}

#[cfg(test)]
#[path = "slowest_tests.rs"]
mod tests;
