//! Keys in the order of an account that changes: the one with least comes first, of equals the one that has waited longest.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// An ordered set of keys with accounts. Each call takes logarithmic time.
#[derive(Clone, Debug)]
pub(super) struct Ranks<K> {
    order: BTreeSet<(u64, u64, K)>,
    places: HashMap<K, (u64, u64)>,
}

impl<K> Default for Ranks<K> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), places: HashMap::new() }
    }
}

impl<K: Copy + Ord + Hash> Ranks<K> {
    /// Adds a key that isn't there; `since` tells when it came.
    pub(super) fn add(&mut self, key: K, account: u64, since: u64) {
        if !self.places.contains_key(&key) {
            self.put(key, account, since);
        }
    }

    /// Changes the account of a key, if it is there.
    pub(super) fn set(&mut self, key: K, account: u64) {
        if let Some(&(before, since)) = self.places.get(&key)
            && before != account
        {
            self.put(key, account, since);
        }
    }

    /// Puts a key behind those with an equal account, if it is there.
    pub(super) fn defer(&mut self, key: K, since: u64) {
        if let Some(&(account, _)) = self.places.get(&key) {
            self.put(key, account, since);
        }
    }

    pub(super) fn remove(&mut self, key: K) {
        if let Some((account, since)) = self.places.remove(&key) {
            self.order.remove(&(account, since, key));
        }
    }

    /// The key with the smallest account.
    pub(super) fn first(&self) -> Option<K> {
        self.order.first().map(|&(_, _, key)| key)
    }

    /// All, from the smallest account on.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        self.order.iter().map(|&(account, _, key)| (key, account))
    }

    /// All, from the largest account on.
    pub(super) fn last_first(&self) -> impl Iterator<Item = (K, u64)> {
        self.order.iter().rev().map(|&(account, _, key)| (key, account))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn put(&mut self, key: K, account: u64, since: u64) {
        if let Some((account, since)) = self.places.insert(key, (account, since)) {
            self.order.remove(&(account, since, key));
        }
        self.order.insert((account, since, key));
    }
}
