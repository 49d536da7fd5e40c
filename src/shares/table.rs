//! A bounded map of what is remembered of clients: full, the network that has most entries loses the one that was used longest
//! ago. So a network that floods it forgets its own.

use super::Owner;
use super::ranks::Ranks;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bounds of a table.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries in all.
    pub entries: usize,
    /// Entries of one client.
    pub of_client: usize,
    /// Entries that were used so long ago are forgotten, in the unit of `now`.
    pub unused_for: u64,
}

/// A bounded map. Each call takes logarithmic time.
#[derive(Debug)]
pub struct Table<K, V> {
    bounds: Bounds,
    entries: HashMap<K, Entry<V>>,
    /// All, in the order of their last use.
    order: BTreeMap<u64, K>,
    networks: HashMap<u64, Orders<K>>,
    sizes: Ranks<u64>,
    next: u64,
}

#[derive(Debug)]
struct Entry<V> {
    owner: Owner,
    used: u64,
    at: u64,
    value: V,
}

/// Entries in the order of their last use: of a network, and of its clients.
#[derive(Debug)]
struct Orders<K> {
    all: BTreeMap<u64, K>,
    clients: HashMap<u64, BTreeMap<u64, K>>,
}

impl<K> Default for Orders<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), clients: HashMap::new() }
    }
}

impl<K: Copy + Eq + Ord + Hash, V> Table<K, V> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let (entries, order, networks) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { bounds, entries, order, networks, sizes: Ranks::default(), next: 0 }
    }

    /// What is remembered, and makes that a use; one for each moment `now`.
    pub fn get(&mut self, key: K, now: u64) -> Option<&mut V> {
        let entry = self.entries.get(&key)?;
        if now.saturating_sub(entry.at) >= self.bounds.unused_for {
            self.remove(key);
            return None;
        }
        if entry.at != now {
            self.touch(key, now);
        }
        self.entries.get_mut(&key).map(|entry| &mut entry.value)
    }

    /// The same, and no use.
    #[must_use]
    pub fn peek(&self, key: K, now: u64) -> Option<&V> {
        let entry = self.entries.get(&key)?;
        (now.saturating_sub(entry.at) < self.bounds.unused_for).then_some(&entry.value)
    }

    /// Remembers something of `owner`. Others are forgotten for it where the table, or the client, has no room.
    pub fn insert(&mut self, owner: Owner, key: K, value: V, now: u64) {
        self.remove(key);
        self.forget_unused(now);
        while self.of_client(owner) >= self.bounds.of_client.max(1) {
            let oldest = self.networks.get(&owner.network).and_then(|of| of.clients.get(&owner.client));
            let Some(key) = oldest.and_then(|keys| keys.first_key_value()).map(|(_, key)| *key) else {
                break;
            };
            self.remove(key);
        }
        while self.entries.len() >= self.bounds.entries.max(1) {
            let Some((largest, _)) = self.sizes.last_first().next() else { break };
            let Some(key) = self.networks.get(&largest).and_then(|of| of.all.first_key_value()) else {
                break;
            };
            self.remove(*key.1);
        }
        self.next += 1;
        self.entries.insert(key, Entry { owner, used: self.next, at: now, value });
        self.list(key, owner, self.next);
    }

    /// Forgets an entry; what was remembered.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let Entry { owner, used, value, .. } = self.entries.remove(&key)?;
        self.unlist(owner, used);
        Some(value)
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn of_client(&self, owner: Owner) -> usize {
        let network = self.networks.get(&owner.network);
        network.and_then(|network| network.clients.get(&owner.client)).map_or(0, BTreeMap::len)
    }

    fn forget_unused(&mut self, now: u64) {
        while let Some(key) = self.order.first_key_value().map(|(_, key)| *key) {
            let is_unused =
                |entry: &Entry<V>| now.saturating_sub(entry.at) >= self.bounds.unused_for || entry.at > now;
            if !self.entries.get(&key).is_some_and(is_unused) {
                break;
            }
            self.remove(key);
        }
    }

    fn touch(&mut self, key: K, now: u64) {
        self.next += 1;
        let next = self.next;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (owner, before) = (entry.owner, std::mem::replace(&mut entry.used, next));
        entry.at = now;
        self.unlist(owner, before);
        self.list(key, owner, next);
    }

    fn list(&mut self, key: K, owner: Owner, used: u64) {
        self.order.insert(used, key);
        let network = self.networks.entry(owner.network).or_default();
        network.all.insert(used, key);
        network.clients.entry(owner.client).or_default().insert(used, key);
        self.rank(owner.network);
    }

    /// Of networks with as many entries, the one whose oldest was used longest ago is the last, and loses it.
    fn rank(&mut self, number: u64) {
        self.sizes.remove(number);
        if let Some(network) = self.networks.get(&number) {
            let oldest = network.all.first_key_value().map_or(0, |(used, _)| *used);
            self.sizes.add(number, network.all.len() as u64, u64::MAX - oldest);
        }
    }

    fn unlist(&mut self, owner: Owner, used: u64) {
        self.order.remove(&used);
        let Some(network) = self.networks.get_mut(&owner.network) else { return };
        network.all.remove(&used);
        if let Some(client) = network.clients.get_mut(&owner.client) {
            client.remove(&used);
            if client.is_empty() {
                network.clients.remove(&owner.client);
            }
        }
        if network.all.is_empty() {
            self.networks.remove(&owner.network);
        }
        self.rank(owner.network);
    }
}

/// Tables with locks of their own, by network: what is looked up in at each request.
#[derive(Debug)]
pub struct Sharded<V>([Mutex<Table<u64, V>>; SHARDS]);

/// So many threads seldom meet.
const SHARDS: usize = 16;

impl<V: Clone> Sharded<V> {
    /// Empty ones, with these bounds for all together.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let each = Bounds { entries: bounds.entries / SHARDS, ..bounds };
        Self(std::array::from_fn(|_| Mutex::new(Table::new(each))))
    }

    /// What is remembered under `key`, or else what `make` makes, which is remembered from now on. Makes that a use.
    pub fn get_or_insert(&self, owner: Owner, key: u64, now: u64, make: impl FnOnce() -> V) -> V {
        let mut table = self.of(owner);
        if let Some(value) = table.get(key, now) {
            return value.clone();
        }
        let value = make();
        table.insert(owner, key, value.clone(), now);
        value
    }

    /// Remembers a value.
    pub fn insert(&self, owner: Owner, key: u64, value: V, now: u64) {
        self.of(owner).insert(owner, key, value, now);
    }

    /// What is remembered, and no use.
    #[must_use]
    pub fn peek(&self, owner: Owner, key: u64, now: u64) -> Option<V> {
        self.of(owner).peek(key, now).cloned()
    }

    fn of(&self, owner: Owner) -> MutexGuard<'_, Table<u64, V>> {
        // Networks that follow each other are in different ones.
        let shard = usize::try_from(owner.network % SHARDS as u64).unwrap_or_default();
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
