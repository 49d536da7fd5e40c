//! The connections of the probes to one mirror over one address family.
//!
//! Most probes use connections that are kept. Behind a name, and behind an address, may be several servers: a kept
//! connection sees one of them, clients see all. So one probe in a few, and each after a bounce, uses fresh connections,
//! one to each address of the name.

use super::client::MirrorClient;
use crate::clock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// One probe of so many uses fresh connections.
pub(super) const FRESH_ONE_IN: usize = 8;
/// After this time the addresses of a name are looked up again.
const RESOLVED_FOR: Duration = Duration::from_secs(60);

/// One client for each address of a host.
pub(super) type Clients = Arc<[MirrorClient]>;

/// The addresses of a mirror's host, and which probe uses fresh connections to them.
#[derive(Default)]
pub(super) struct Hosts {
    /// With the time of the look-up. Held for moments only, never while a name is looked up.
    resolved: Mutex<Option<(Arc<OnceCell<Clients>>, Instant)>>,
    probes: AtomicUsize,
}

impl Hosts {
    /// The clients that keep their connections. `shared` is the client of all mirrors, `url` the mirror's.
    pub(super) async fn kept(&self, shared: &MirrorClient, url: &str) -> Clients {
        let clients = self.resolved(clock::monotonic().into());
        clients.get_or_init(|| async { shared.at_each(url).await.into() }).await.clone()
    }

    fn resolved(&self, now: Instant) -> Arc<OnceCell<Clients>> {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let current =
            resolved.take().filter(|(_, begun)| now.saturating_duration_since(*begun) < RESOLVED_FOR);
        let (clients, _) = resolved.insert(current.unwrap_or_else(|| (Arc::default(), now)));
        clients.clone()
    }

    /// The next probe looks the addresses up again.
    pub(super) fn forget(&self) {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a probe: whether it is one of those that use fresh connections. The first one is.
    pub(super) fn is_turn(&self) -> bool {
        self.probes.fetch_add(1, Ordering::Relaxed).is_multiple_of(FRESH_ONE_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirrors::families::Family;

    #[tokio::test]
    async fn addresses_are_looked_up_once_a_minute_and_when_told() {
        let [v4, _] = MirrorClient::both(Duration::from_secs(1), "", false).unwrap();
        let hosts = Hosts::default();
        let kept = hosts.kept(&v4, "http://localhost/").await;
        assert_eq!(kept.len(), 1, "{}", Family::V4.word());
        assert!(Arc::ptr_eq(&kept, &hosts.kept(&v4, "http://localhost/").await));
        let (cell, begun) = hosts.resolved.lock().unwrap().clone().unwrap();
        let within = hosts.resolved(begun + RESOLVED_FOR.mul_f64(0.9));
        assert!(Arc::ptr_eq(&within, &cell));
        assert!(!Arc::ptr_eq(&hosts.resolved(begun + RESOLVED_FOR), &cell));
        let before = hosts.kept(&v4, "http://localhost/").await;
        hosts.forget();
        assert!(!Arc::ptr_eq(&before, &hosts.kept(&v4, "http://localhost/").await));
    }

    #[test]
    fn one_probe_in_eight_is_fresh_and_the_first_is() {
        let hosts = Hosts::default();
        let turns: Vec<bool> = (0..3 * FRESH_ONE_IN).map(|_| hosts.is_turn()).collect();
        assert_eq!(turns.iter().filter(|turn| **turn).count(), 3);
        assert!(turns[0]);
    }
}
