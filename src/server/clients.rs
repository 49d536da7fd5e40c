//! The trails of clients that were redirected lately, in bounded memory.

use crate::clock::Timestamp;
use crate::policy::{Standing, Trail};
use moka::sync::Cache;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients remembered at most. Beyond it those not seen for longest are forgotten: they start slowly again.
const MOST: u64 = 200_000;
/// Longer than any cool-off.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);

/// Trails by client key ([`crate::policy::Client::key`]).
#[derive(Debug)]
pub struct Clients {
    trails: Cache<u64, Arc<Mutex<Trail>>>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { trails: Cache::builder().max_capacity(MOST).time_to_idle(FORGOTTEN_AFTER).build() }
    }
}

impl Clients {
    /// Takes note of a request and says how its client stands.
    pub fn asks(&self, client: u64, file: u64, connection: u64, now: Timestamp) -> Standing {
        // Who was never redirected has no trail, and needs none.
        self.trails.get(&client).map_or(Standing::Clear, |trail| lock(&trail).asks(file, connection, now))
    }

    /// How the client would stand if it asked, without taking note.
    #[must_use]
    pub fn would_stand(&self, client: u64, file: u64, now: Timestamp) -> Standing {
        self.trails.get(&client).map_or(Standing::Clear, |trail| lock(&trail).clone().asks(file, 0, now))
    }

    /// Takes note of a redirect.
    pub fn redirected(&self, client: u64, file: u64, mirror: usize, connection: u64, now: Timestamp) {
        let trail = self.trails.get_with(client, Arc::default);
        lock(&trail).redirected(file, mirror, connection, now);
    }
}

fn lock(trail: &Mutex<Trail>) -> std::sync::MutexGuard<'_, Trail> {
    trail.lock().unwrap_or_else(PoisonError::into_inner)
}
