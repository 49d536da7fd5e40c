//! The trails of clients that asked lately for what mirrors might take, in bounded memory.

use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::policy::bounce::Link;
use crate::policy::client::hash;
use crate::policy::{Ask, Client, Past, Standing, Trail};
use crate::shares::{Bounds, Owner, Sharded};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients remembered at most, up to 4.7 KiB each. Beyond it those are forgotten that were not seen for longest, of the network
/// that has most: they start slowly again.
const MOST: usize = 100_000;
/// Of one address: it is a client for each User-Agent that it sends.
const MOST_OF_ADDRESS: usize = 64;
/// As long as a trail remembers anything.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Trails by client key ([`crate::policy::Client::key`]).
#[derive(Debug)]
pub struct Clients {
    trails: Sharded<SharedTrail>,
}

impl Default for Clients {
    fn default() -> Self {
        let unused_for = FORGOTTEN_AFTER.as_secs();
        Self { trails: Sharded::new(Bounds { entries: MOST, of_client: MOST_OF_ADDRESS, unused_for }) }
    }
}

/// A request as a trail knows it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    client: u64,
    owner: Owner,
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
        Self { client: client.key, owner: client.owner, file, ask: Ask::from_range(range), link: link.into() }
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
        let trail = self.trails.get_or_insert(seen.owner, seen.client, now.as_secs(), Arc::default);
        let past = lock(&trail).asks_beside_others(seen.file, seen.ask, seen.link, now);
        let undecided = Undecided((past.standing == Standing::Clear).then(|| (trail.clone(), seen.file)));
        (past, trail, undecided)
    }

    /// What would be said, without taking note.
    #[must_use]
    pub fn would_be(&self, seen: Seen, now: Timestamp) -> Past {
        let trail =
            self.trails.peek(seen.owner, seen.client, now.as_secs()).map(|trail| lock(&trail).clone());
        trail.map_or_else(Past::default, |trail| trail.would_say(seen.file, seen.ask, now))
    }

    /// Takes note of a redirect to mirror number `mirror` for a file of `size` bytes.
    pub fn redirected(&self, seen: Seen, mirror: usize, size: u64, now: Timestamp) {
        let trail = self.trails.get_or_insert(seen.owner, seen.client, now.as_secs(), Arc::default);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::client::Agent;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn seen(addr: &str, agent: &str, file: &str) -> Seen {
        let agent = Agent::new(addr.parse().unwrap(), crate::geo::Whereabouts::default(), agent.as_bytes());
        Seen::new(&Client::new(agent, false, None), &TreePath::new(file).unwrap(), None, 1)
    }

    #[test]
    fn user_agents_of_one_network_flush_the_histories_of_no_other() {
        let clients = Clients::default();
        let asks = |seen| clients.asks(seen, NOW).0;
        let victim = |file| seen("192.0.16.1", "libdnf", file);
        clients.redirected(victim("a"), 7, 1000, NOW);
        assert!(matches!(asks(victim("a")).standing, Standing::Bounced { mirror: 7, .. }));
        for number in 0..20_000 {
            // In the victim's own part of the table, too: every sixteenth network.
            let (network, host) = (16 * (number % 4), number % 250);
            asks(seen(&format!("198.51.{network}.{host}"), &format!("agent {number}"), "b"));
        }
        assert!(asks(victim("c")).failed.contains(7), "it isn't sent to that mirror again");
    }
}
