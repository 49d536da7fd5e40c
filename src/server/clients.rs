//! The trails of clients that asked lately for what mirrors might take, in bounded memory.

use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::policy::bounce::Link;
use crate::policy::client::hash;
use crate::policy::{Ask, Client, Past, Standing, Trail};
use moka::sync::Cache;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients remembered at most. Beyond it those not seen for longest are forgotten: they start slowly again.
const MOST: u64 = 100_000;
/// As long as a trail remembers anything.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Trails by client key ([`crate::policy::Client::key`]).
#[derive(Debug)]
pub struct Clients {
    trails: Cache<u64, SharedTrail>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { trails: Cache::builder().max_capacity(MOST).time_to_idle(FORGOTTEN_AFTER).build() }
    }
}

/// A request as a trail knows it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    client: u64,
    file: u64,
    ask: Ask,
    link: Link,
}

impl Seen {
    /// A request of `client` for `path`, with this Range field, over `link`.
    ///
    /// A repeat is recognised by the path, and by the part of a client that fetches one file in parts (zchunk); a resume
    /// (`bytes=N-`) is a repeat of the whole.
    pub fn new(client: &Client, path: &TreePath, range: Option<&[u8]>, link: impl Into<Link>) -> Self {
        let part = range.filter(|range| !range.ends_with(b"-"));
        let file = hash(&(path.as_str(), part));
        Self { client: client.key, file, ask: Ask::from_range(range), link: link.into() }
    }
}

/// A request of which it isn't decided yet whether its client is redirected, though it may be. To be dropped once that is noted.
#[derive(Debug, Default)]
#[must_use]
pub struct Undecided(Option<(SharedTrail, u64)>);

impl Drop for Undecided {
    fn drop(&mut self) {
        if let Some((trail, file)) = self.0.take() {
            lock(&trail).decided(file);
        }
    }
}

/// A trail that connections share.
pub type SharedTrail = Arc<Mutex<Trail>>;

impl Clients {
    /// Takes note of a request and says what is known of its client; with the trail, which is to be told of the connection's end, and
    /// what is to be kept until it is decided where the client gets the file.
    ///
    /// Also a client that was never redirected has one: how many transfers it has at a time shows from its start on.
    pub fn asks(&self, seen: Seen, now: Timestamp) -> (Past, SharedTrail, Undecided) {
        let trail = self.trails.get_with(seen.client, Arc::default);
        let past = lock(&trail).asks_beside_others(seen.file, seen.ask, seen.link, now);
        let undecided = Undecided((past.standing == Standing::Clear).then(|| (trail.clone(), seen.file)));
        (past, trail, undecided)
    }

    /// What would be said, without taking note.
    #[must_use]
    pub fn would_be(&self, seen: Seen, now: Timestamp) -> Past {
        let trail = self.trails.get(&seen.client).map(|trail| lock(&trail).clone());
        trail.map_or_else(Past::default, |trail| trail.would_say(seen.file, seen.ask, now))
    }

    /// Takes note of a redirect to mirror number `mirror` for a file of `size` bytes.
    pub fn redirected(&self, seen: Seen, mirror: usize, size: u64, now: Timestamp) {
        let trail = self.trails.get_with(seen.client, Arc::default);
        lock(&trail).redirected(seen.file, mirror, size, seen.link, now);
    }
}

/// Tells a trail that a connection has ended.
pub fn closed(trail: &SharedTrail, connection: u64) {
    lock(trail).closes(connection);
}

fn lock(trail: &Mutex<Trail>) -> std::sync::MutexGuard<'_, Trail> {
    trail.lock().unwrap_or_else(PoisonError::into_inner)
}
