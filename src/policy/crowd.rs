//! The connections of one client key: whether it is one client or many hosts behind one address, and how many transfers a
//! client may have at a time.
//!
//! librepo opens a connection for each parallel transfer, all of them at once when a batch begins, and reuses them until its
//! end. So connections that appear together are one client's, and the connections that are open tell how many transfers it may
//! have in the air. Over HTTP/2 curl begins with a connection for each transfer, too, and goes on with one of them for all
//! (measured: librepo with 10 transfers): the others are idle until an end closes them.
//!
//! The connections of a burst don't reach the node in one moment: one of its threads may be behind. For [`SETTLES_AFTER`] their
//! number is a lower bound.

use crate::clock::Timestamp;
use std::time::Duration;

/// Connections count for a crowd for this long after their last request.
const SEEN_FOR: Duration = Duration::from_secs(120);
/// One that is open, and may be busy with a long transfer, is known for so long.
const OPEN_FOR: Duration = Duration::from_secs(3600);
/// Connections remembered; more would only prove the crowd again.
const REMEMBERED: usize = 48;
/// More distinct connections than this, of more bursts than [`BURSTS_OF_ONE`], are a crowd.
const MOST_OF_ONE: usize = 8;
/// One client has a burst of connections for metadata and another one for packages.
const BURSTS_OF_ONE: u32 = 2;
/// From the first burst of a crowd to the last it takes so long at least: a busy node may see one client's in pieces.
const CROWD_WITHIN: Duration = Duration::from_secs(1);
/// A connection that appears so soon after another one is of the same burst.
pub(super) const TOGETHER: Duration = Duration::from_millis(400);
/// The most transfers that a client may be configured to have at a time (dnf's `max_parallel_downloads`): so many connections
/// a burst has at most.
const MOST_PARALLEL: usize = 20;

/// A burst has all its connections so long after its first: librepo opens ten within 2 ms (measured), and a thread of the node that
/// is behind by more has other worries. A lost SYN is sent again after a second (RFC 6298): of many connections one may be late,
/// and they are still counted as many. Two seconds were tried: a transaction over a fast line was over by then, and mirrors took
/// 2 of its 62 packages.
const SETTLES_AFTER: Duration = Duration::from_millis(100);
/// The number of a proxy's connection, which says nothing of its client's others.
const UNKNOWN: u64 = 0;

/// The connection that a request came over, as far as it tells of its client's transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Distinguishes the node's connections.
    id: u64,
    /// Requests on it that aren't answered to their end, with this one.
    transfers: u32,
}

impl Link {
    /// A proxy's: it may carry any number of transfers, of any number of clients.
    pub const UNKNOWN: Self = Self { id: UNKNOWN, transfers: 1 };

    /// The client's own connection number `id`, not 0, with so many requests on it that aren't answered to their end.
    #[must_use]
    pub const fn new(id: u64, transfers: u32) -> Self {
        Self { id, transfers }
    }

    /// The connection's number; 0 where it is a proxy's.
    #[must_use]
    pub const fn id(self) -> u64 {
        self.id
    }

    /// It is a proxy's.
    pub(super) fn is_unknown(self) -> bool {
        self.id == UNKNOWN
    }

    /// Its client doesn't need a connection for each of its transfers.
    pub(super) fn is_shared(self) -> bool {
        self.is_unknown() || self.transfers > 1
    }

    /// Both are one connection of one client.
    pub(super) fn is_same(self, other: Self) -> bool {
        !self.is_unknown() && self.id == other.id
    }
}

impl From<u64> for Link {
    /// A connection with one transfer at a time; 0 is [`Link::UNKNOWN`].
    fn from(id: u64) -> Self {
        Self::new(id, 1)
    }
}

/// The connections that one client key was lately seen on.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    /// In the order of their last requests.
    seen: Vec<Seen>,
    /// The number of the latest burst, when its latest connection appeared, and how many it has.
    burst: u32,
    burst_began: Timestamp,
    burst_at: Timestamp,
    burst_size: usize,
    /// The most that were open at once, and when that was so for the last time.
    peak: usize,
    peak_at: Timestamp,
    /// When one had several transfers for the last time: then the peak isn't seen again.
    shared_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    id: u64,
    at: Timestamp,
    burst: u32,
    /// When the burst began.
    began: Timestamp,
    is_open: bool,
}

impl Connections {
    /// Takes note of a request over `link`; the number of its burst.
    pub(super) fn sees(&mut self, link: Link, now: Timestamp) -> u32 {
        let id = link.id;
        self.sets_back(now);
        if link.is_shared() {
            self.shared_at = Some(now);
        }
        let known = self.seen.iter().find(|seen| seen.id == id).map(|seen| (seen.burst, seen.began));
        let (burst, began) = known.unwrap_or_else(|| self.appears(now));
        let known_for = |seen: &Seen| if seen.is_open { OPEN_FOR } else { SEEN_FOR };
        self.seen.retain(|seen| seen.id != id && now.since(seen.at) < known_for(seen));
        if self.seen.len() == REMEMBERED {
            self.seen.remove(0);
        }
        self.seen.push(Seen { id, at: now, burst, began, is_open: true });
        let open = self.seen.iter().filter(|seen| seen.is_open).count();
        let holds_for = if self.is_shared(now) { OPEN_FOR } else { SEEN_FOR };
        if open >= self.peak || now.since(self.peak_at) >= holds_for {
            (self.peak, self.peak_at) = (open, now);
        }
        burst
    }

    /// Where the clock was set back, nothing lies in the future.
    fn sets_back(&mut self, now: Timestamp) {
        let seen = self.seen.iter_mut().flat_map(|seen| [&mut seen.at, &mut seen.began]);
        let own = [&mut self.burst_began, &mut self.burst_at, &mut self.peak_at];
        for at in seen.chain(own).chain(&mut self.shared_at) {
            *at = (*at).min(now);
        }
    }

    /// A new connection; its burst's number, and when that began.
    fn appears(&mut self, now: Timestamp) -> (u32, Timestamp) {
        let is_together = now.since(self.burst_at) < TOGETHER && self.burst_size < MOST_PARALLEL;
        if self.burst_size == 0 || !is_together {
            (self.burst, self.burst_began, self.burst_size) = (self.burst.wrapping_add(1), now, 0);
        }
        (self.burst_at, self.burst_size) = (now, self.burst_size + 1);
        (self.burst, self.burst_began)
    }

    /// The one of the last request.
    pub(super) fn latest(&self) -> Link {
        self.seen.last().map_or(Link::UNKNOWN, |seen| seen.id.into())
    }

    /// [`parallel`](Self::parallel) is no lower bound only: no burst is on its way, and no client has begun with a single
    /// connection and several transfers on it, where some may end before others are seen.
    pub(super) fn is_counted(&self, now: Timestamp) -> bool {
        let is_settled = now.since(self.burst_began) >= SETTLES_AFTER;
        is_settled && (self.peak > 1 || !self.is_shared(now))
    }

    /// One had several transfers at a time.
    fn is_shared(&self, now: Timestamp) -> bool {
        self.shared_at.is_some_and(|at| now.since(at) < OPEN_FOR)
    }

    /// Connection `id` has ended.
    pub(super) fn closes(&mut self, id: u64) {
        for seen in self.seen.iter_mut().filter(|seen| seen.id == id) {
            seen.is_open = false;
        }
    }

    /// More than one client would have.
    pub(super) fn is_crowd(&self, now: Timestamp) -> bool {
        if self.seen.len() <= MOST_OF_ONE {
            return false;
        }
        let lately = || self.seen.iter().filter(|seen| now.since(seen.at) < SEEN_FOR);
        // Bursts of two minutes have numbers that follow each other.
        let bursts = lately().fold(0_u64, |bursts, seen| bursts | 1 << (seen.burst % u64::BITS));
        let (first, last) = (lately().map(|seen| seen.began).min(), lately().map(|seen| seen.began).max());
        let within = first.zip(last).map_or(Duration::ZERO, |(first, last)| last.since(first));
        lately().count() > MOST_OF_ONE && bursts.count_ones() > BURSTS_OF_ONE && within >= CROWD_WITHIN
    }

    /// The transfers that the client may have at a time: as many as it had connections open at once. The requests on
    /// one aren't counted: the node may take one for unanswered whose client has all of it.
    pub(super) fn parallel(&self) -> usize {
        self.peak
    }

    /// [`is_counted`](Self::is_counted) of the one client of a crowd that has this burst.
    pub(super) fn is_counted_in(&self, burst: u32, now: Timestamp) -> bool {
        let began = self.seen.iter().filter(|seen| seen.burst == burst).map(|seen| seen.began).min();
        let is_settled = began.is_none_or(|began| now.since(began) >= SETTLES_AFTER);
        is_settled && (self.parallel_in(burst) > 1 || !self.is_shared(now))
    }

    /// [`parallel`](Self::parallel) of the one client of a crowd that has this burst.
    pub(super) fn parallel_in(&self, burst: u32) -> usize {
        self.seen.iter().filter(|seen| seen.burst == burst).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000).plus(Duration::from_millis(millis))
    }

    #[test]
    fn a_crowd_has_more_connections_than_one_client_and_they_come_and_go() {
        // (hosts, connections of each, milliseconds between hosts, crowd)
        for (hosts, each, gap, crowd) in [
            (1, 20, 0, false),    // however many at once: they may be one client's
            (2, 20, 1000, false), // its metadata, and its packages
            (3, 1, 1000, false),
            (3, 3, 1000, true),
            (9, 1, 1000, true),
            (8, 1, 1000, false),
            (1000, 1, 1000, true),
            (1000, 1, 20_000, false),
            (30, 3, 100, true), // even where bursts run into each other
        ] {
            let (mut connections, mut now) = (Connections::default(), later(0));
            for connection in 0..hosts * each {
                now = later(connection / each * gap);
                connections.sees(connection.into(), now);
                connections.sees(connection.into(), now);
            }
            assert_eq!(connections.is_crowd(now), crowd, "{hosts} hosts of {each}, one in {gap} ms");
            assert!(connections.seen.len() <= REMEMBERED);
        }
    }

    #[test]
    fn the_most_that_were_open_at_once_tell_how_many_transfers_there_may_be() {
        let mut connections = Connections::default();
        for id in 1..4 {
            connections.sees(id.into(), later(0));
        }
        assert_eq!(connections.parallel(), 3);
        // A batch ends, the next begins: three again.
        (1..4).for_each(|id| connections.closes(id));
        for id in 10..13 {
            connections.sees(id.into(), later(1000));
        }
        assert_eq!(connections.parallel(), 3);
        for id in 20..30 {
            connections.sees(id.into(), later(2000));
        }
        assert_eq!(connections.parallel(), 13);
        // Closed ones may be in use again at once; for so long the most counts.
        (10..30).for_each(|id| connections.closes(id));
        connections.sees(40.into(), later(100_000));
        assert_eq!(connections.parallel(), 13);
        connections.sees(40.into(), later(200_000));
        assert_eq!(connections.parallel(), 1);
    }
}
