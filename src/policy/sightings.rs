//! What mirrors were seen to have of files that no list names: size and modification time, and when.
//!
//! It is no proof, and so counts only where the operator says so (`[[unlisted]]`), only for as long, and only for the size and
//! time that the node's own file has. Only looks change it: a client that comes back from a mirror has it looked at
//! ([`doubts`](super::doubts)). Nothing is remembered beyond the bound: what is forgotten is served by the node.

use crate::clock::Timestamp;
use moka::sync::Cache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Files remembered.
const MOST_FILES: u64 = 10_000;
/// Mirrors remembered for a file; those that are asked are fewer.
const MOST_MIRRORS: usize = 32;
/// A smaller file is served about as fast as a redirect.
pub const LEAST_BYTES: u64 = 1 << 20;

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// In bytes.
    pub size: u64,
    /// `Last-Modified`, to the second.
    pub modified: Timestamp,
}

impl Look {
    /// Of so many bytes, modified then; HTTP knows whole seconds.
    #[must_use]
    pub const fn new(size: u64, modified: Timestamp) -> Self {
        Self { size, modified: Timestamp::from_secs(modified.as_secs()) }
    }
}

/// Where a mirror was looked at: its number, and over which address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Number of the mirror.
    pub mirror: usize,
    /// Over IPv6, not IPv4.
    pub ipv6: bool,
}

/// Somebody wants a file, and mirrors should be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Canonical, below the tree's root.
    pub path: String,
    /// The mirrors, by number.
    pub mirrors: Vec<usize>,
}

/// All sightings, by path.
#[derive(Debug)]
pub struct Sightings {
    files: Cache<String, Arc<Mutex<Seen>>>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: Timestamp,
    by_spot: Vec<(Spot, Look, Timestamp)>,
}

impl Default for Sightings {
    fn default() -> Self {
        Self { files: Cache::builder().max_capacity(MOST_FILES).build() }
    }
}

impl Sightings {
    /// Where the file was seen to look like this, `age` before `now` or later.
    #[must_use]
    pub fn alike(&self, path: &str, look: Look, age: Duration, now: Timestamp) -> Vec<Spot> {
        let Some(seen) = self.files.get(path) else { return Vec::new() };
        let seen = lock(&seen);
        let fits =
            |(_, found, at): &&(Spot, Look, Timestamp)| *found == look && *at <= now && now.since(*at) <= age;
        seen.by_spot.iter().filter(fits).map(|(spot, ..)| *spot).collect()
    }

    /// Whether mirrors should be looked at for the file: a third of `age` has passed since they last were. Says so once.
    pub fn is_due(&self, path: &str, age: Duration, now: Timestamp) -> bool {
        let seen = self.files.get_with_by_ref(path, Arc::default);
        let mut seen = lock(&seen);
        let due = seen.asked == Timestamp::EPOCH || seen.asked > now || now.since(seen.asked) >= age / 3;
        if due {
            seen.asked = now;
        }
        due
    }

    /// A mirror was looked at; `None`: it doesn't have the file, or doesn't say what it is like.
    pub fn note(&self, path: &str, spot: Spot, look: Option<Look>, now: Timestamp) {
        let seen = self.files.get_with_by_ref(path, Arc::default);
        let mut seen = lock(&seen);
        seen.by_spot.retain(|(known, ..)| *known != spot);
        if let Some(look) = look {
            if seen.by_spot.len() == MOST_MIRRORS {
                seen.by_spot.remove(0);
            }
            seen.by_spot.push((spot, look, now));
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(600);
    const V4: Spot = Spot { mirror: 3, ipv6: false };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn only_what_looks_the_same_and_was_seen_lately() {
        let sightings = Sightings::default();
        let look = Look::new(5 << 20, Timestamp::from_millis(77_400));
        assert_eq!(look, Look::new(5 << 20, Timestamp::from_millis(77_900)), "HTTP knows seconds");
        assert!(sightings.alike("a.iso", look, AGE, at(0)).is_empty());
        sightings.note("a.iso", V4, Some(look), at(0));
        assert_eq!(sightings.alike("a.iso", look, AGE, at(600)), [V4]);
        assert!(sightings.alike("a.iso", look, AGE, at(601)).is_empty(), "too long ago");
        assert!(sightings.alike("b.iso", look, AGE, at(1)).is_empty());
        for other in [Look { size: 1, ..look }, Look { modified: at(0), ..look }] {
            assert!(sightings.alike("a.iso", other, AGE, at(1)).is_empty());
        }
        sightings.note("a.iso", V4, None, at(2));
        assert!(sightings.alike("a.iso", look, AGE, at(2)).is_empty(), "it is gone there");
    }

    #[test]
    fn mirrors_are_looked_at_now_and_then() {
        let sightings = Sightings::default();
        for (second, due) in [(0, true), (1, false), (199, false), (200, true), (201, false)] {
            assert_eq!(sightings.is_due("a.iso", AGE, at(second)), due, "{second}");
        }
    }

    #[test]
    fn what_is_remembered_of_a_file_is_bounded() {
        let sightings = Sightings::default();
        let look = Look::new(1, at(0));
        for mirror in 0..100 {
            sightings.note("a.iso", Spot { mirror, ipv6: false }, Some(look), at(0));
        }
        assert_eq!(sightings.alike("a.iso", look, AGE, at(0)).len(), MOST_MIRRORS);
    }
}
