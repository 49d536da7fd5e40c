//! How much of what an address is redirected for it can be fetching.
//!
//! A client fetches as fast as its line takes it, and asks for the next file when it has one of its transfers free. So what it
//! is redirected for over some time is what its line took, and a bit ahead. One that is redirected for much more isn't
//! following: it is measured by a leaky bucket that [`LINE`] drains. Up to [`AHEAD`] of it all is expected to be fetched, and
//! always the first file, however large. From there on less and less is, and at twice that nothing.
//!
//! What is expected is charged to the mirror that the client was sent to ([`super::load`]). Many hosts behind an address with
//! a faster line are redirected as ever, and mirrors are charged less than they are sent.

use super::load::OVERTAKEN;
use crate::clock::Timestamp;
use crate::shares::{Bounds, Owner, Sharded};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the line of one address may be thought to take, in bytes a second: 1 Gbit/s.
pub const LINE: f64 = 125_000_000.0;
/// For so long of its line an address may be redirected at once.
pub const AHEAD: Duration = Duration::from_secs(10);
/// For so long of its line it is remembered that an address wasn't following.
const REMEMBERED: Duration = Duration::from_secs(40);
/// Addresses remembered at most, below 300 bytes each. Beyond it the network that has most loses its own.
const MOST: usize = 100_000;

/// What addresses were redirected for lately.
#[derive(Debug)]
pub struct Lines(Sharded<Arc<Mutex<Line>>>);

#[derive(Debug, Default)]
struct Line {
    bytes: f64,
    at: Timestamp,
}

impl Default for Lines {
    fn default() -> Self {
        // An address has one entry.
        Self(Sharded::new(Bounds { entries: MOST, of_client: 1, unused_for: REMEMBERED.as_secs() }))
    }
}

impl Lines {
    /// How many of the `bytes` that an address is redirected for it is expected to fetch; takes note of them.
    pub fn expected(&self, owner: Owner, bytes: u64, now: Timestamp) -> u64 {
        let line = self.0.get_or_insert(owner, owner.client, now.as_secs(), Arc::default);
        line.lock().unwrap_or_else(PoisonError::into_inner).expected(bytes, now)
    }
}

impl Line {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes, none below 0"
    )]
    fn expected(&mut self, bytes: u64, now: Timestamp) -> u64 {
        if self.at > now.plus(OVERTAKEN) {
            self.at = now;
        }
        let level = (self.bytes - LINE * now.since(self.at).as_secs_f64()).max(0.0);
        let ahead = LINE * AHEAD.as_secs_f64();
        let likely = (2.0 - level / ahead).clamp(0.0, 1.0);
        self.bytes = (level + bytes as f64).min(LINE * REMEMBERED.as_secs_f64());
        self.at = self.at.max(now);
        (bytes as f64 * likely) as u64
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
