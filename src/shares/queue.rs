//! The waiters for places of one class: networks by what they hold, within a network clients likewise, within a client in
//! order of coming.

use super::Owner;
use super::ranks::Ranks;
use std::collections::{BTreeSet, HashMap};

/// The waiters of one class.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: Ranks<u64>,
    networks: HashMap<u64, Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    order: Ranks<u64>,
    waiters: HashMap<u64, BTreeSet<u64>>,
}

impl Queue {
    /// Adds waiter number `id`, the highest so far, of an owner whose network and client hold so many places.
    pub(super) fn push(&mut self, owner: Owner, id: u64, held: (u64, u64)) {
        self.order.add(owner.network, held.0, id);
        let clients = self.networks.entry(owner.network).or_default();
        clients.order.add(owner.client, held.1, id);
        clients.waiters.entry(owner.client).or_default().insert(id);
    }

    /// The next one of each network, and what that holds; those that hold least first.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.order.iter().filter_map(|(network, held)| {
            let clients = self.networks.get(&network)?;
            let waiters = clients.waiters.get(&clients.order.first()?)?;
            waiters.first().map(|id| (*id, held))
        })
    }

    /// Takes a waiter out. The others of its network and client come after those that hold no more.
    pub(super) fn remove(&mut self, owner: Owner, id: u64, next: u64) {
        let Some(clients) = self.networks.get_mut(&owner.network) else { return };
        if let Some(waiters) = clients.waiters.get_mut(&owner.client) {
            waiters.remove(&id);
            if waiters.is_empty() {
                clients.waiters.remove(&owner.client);
                clients.order.remove(owner.client);
            } else {
                clients.order.defer(owner.client, next);
            }
        }
        if clients.order.is_empty() {
            self.networks.remove(&owner.network);
            self.order.remove(owner.network);
        } else {
            self.order.defer(owner.network, next);
        }
    }

    /// A network and one of its clients hold so many places now.
    pub(super) fn holds(&mut self, owner: Owner, held: (u64, u64)) {
        self.order.set(owner.network, held.0);
        if let Some(clients) = self.networks.get_mut(&owner.network) {
            clients.order.set(owner.client, held.1);
        }
    }

    /// Whether a network waits.
    pub(super) fn has(&self, network: u64) -> bool {
        self.networks.contains_key(&network)
    }
}
