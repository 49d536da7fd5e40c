//! What clients that come back from a mirror can set off: looks at that mirror, by file, time and network.
//!
//! A client can come back as often as it likes, truly failed or not. So it changes nothing that others get: it has the mirror
//! looked at, and what that finds does. Here is the bound of these looks. Pure.

use super::client;
use crate::clock::Timestamp;
use moka::sync::Cache;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A mirror is looked at for one file this often at most, however many clients come back.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many returns of one network count within [`MINUTE`]: a host that is failed comes back three times.
pub const MOST_OF_NETWORK: u32 = 8;
/// In which [`MOST_OF_NETWORK`] count.
pub const MINUTE: Duration = Duration::from_secs(60);
/// Files and networks remembered; one that is forgotten may set off one look more.
const MOST: u64 = 10_000;

/// The doubts of late.
#[derive(Debug)]
pub struct Doubts {
    /// By mirror and file: when it was last looked at.
    looked: Cache<u64, Arc<Mutex<Option<Timestamp>>>>,
    /// By network.
    networks: Cache<u64, Arc<Mutex<Option<Counted>>>>,
}

/// The returns of a network.
#[derive(Clone, Copy, Debug)]
struct Counted {
    since: Timestamp,
    so_far: u32,
}

impl Default for Doubts {
    fn default() -> Self {
        Self { looked: Cache::new(MOST), networks: Cache::new(MOST) }
    }
}

impl Doubts {
    /// A client of `network` came back: whether that counts, beside what came of the network before.
    pub fn counts(&self, network: u64, now: Timestamp) -> bool {
        let counted = self.networks.get_with(network, Arc::default);
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = counted.filter(|counted| is_within(counted.since, MINUTE, now));
        let Counted { since, so_far } = recent.unwrap_or(Counted { since: now, so_far: 0 });
        if so_far == MOST_OF_NETWORK {
            return false;
        }
        *counted = Some(Counted { since, so_far: so_far + 1 });
        true
    }

    /// Whether mirror number `mirror` is to be looked at for the file, since [`LOOK_EVERY`] has passed. Says so once.
    pub fn is_due(&self, mirror: usize, path: &str, now: Timestamp) -> bool {
        let looked = self.looked.get_with(client::hash(&(mirror, path)), Arc::default);
        let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.is_none_or(|at| !is_within(at, LOOK_EVERY, now));
        if due {
            *looked = Some(now);
        }
        due
    }
}

/// Whether `since` is less than `long` ago. A time to come is none of those that were noted.
fn is_within(since: Timestamp, long: Duration, now: Timestamp) -> bool {
    since <= now && now.since(since) < long
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn one_look_for_each_mirror_file_and_time() {
        let doubts = Doubts::default();
        for (mirror, path, second, due) in [
            (0, "a.iso", 0, true),
            (0, "a.iso", 0, false),
            (0, "b.iso", 0, true),
            (1, "a.iso", 1, true),
            (0, "a.iso", 9, false),
            (0, "a.iso", 10, true),
            (0, "a.iso", 19, false),
        ] {
            assert_eq!(doubts.is_due(mirror, path, at(second)), due, "{mirror} {path} {second}");
        }
        let looks = (100..200).filter(|second| doubts.is_due(2, "c.iso", at(*second))).count();
        assert_eq!(looks, 10, "of a hundred returns in as many seconds");
    }

    #[test]
    fn a_network_comes_back_so_often_and_takes_nothing_of_others() {
        let doubts = Doubts::default();
        let counted = |network, second| (0..100).filter(|_| doubts.counts(network, at(second))).count();
        assert_eq!((counted(1, 0), counted(1, 59), counted(2, 59), counted(1, 60)), (8, 0, 8, 8));
    }
}
