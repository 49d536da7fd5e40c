//! Entries in queues by arrival, found by key. Pure: no clock, no IO, no order of its own but arrival.
//!
//! All entries lie in one table, and queues are links through it: to find, to move and to remove take constant time, and an
//! entry takes 64 bytes and its place in the index by key, which doesn't hold the key a second time.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

/// No entry.
const NONE: u32 = u32::MAX;

/// One of the queues, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue(pub(super) u8);

/// An entry, by its place in the table. Valid until the entry is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u32);

#[derive(Debug)]
pub(super) struct Entry<K, V> {
    pub(super) key: K,
    pub(super) value: V,
    pub(super) bytes: u64,
    queue: Queue,
    newer: u32,
    /// Of a vacant place: the next vacant one.
    older: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: u32,
    oldest: u32,
    bytes: u64,
}

/// The queues. Each entry is in exactly one.
#[derive(Debug)]
pub(super) struct Queues<K, V> {
    places: HashTable<u32>,
    entries: Vec<Entry<K, V>>,
    vacant: u32,
    queues: Vec<Ends>,
    bytes: u64,
}

/// The same in every process: keys are digests, whose bits nobody chooses.
pub(super) fn hash(key: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

impl<K: Copy + Eq + Hash, V: Default> Queues<K, V> {
    pub(super) fn new(queues: u8) -> Self {
        let empty = Ends { newest: NONE, oldest: NONE, bytes: 0 };
        Self {
            places: HashTable::new(),
            entries: Vec::new(),
            vacant: NONE,
            queues: vec![empty; usize::from(queues)],
            bytes: 0,
        }
    }

    /// How many entries.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes of all.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of one queue.
    pub(super) fn bytes_of(&self, queue: Queue) -> u64 {
        self.queues[usize::from(queue.0)].bytes
    }

    /// The entry that has been in its queue for longest.
    pub(super) fn oldest(&self, queue: Queue) -> Option<At> {
        Some(self.queues[usize::from(queue.0)].oldest).filter(|at| *at != NONE).map(At)
    }

    pub(super) fn find(&self, key: &K) -> Option<At> {
        self.places.find(hash(key), |at| self.entries[*at as usize].key == *key).copied().map(At)
    }

    pub(super) fn queue_of(&self, at: At) -> Queue {
        self.entries[at.0 as usize].queue
    }

    pub(super) fn get(&self, at: At) -> &Entry<K, V> {
        &self.entries[at.0 as usize]
    }

    pub(super) fn get_mut(&mut self, at: At) -> &mut Entry<K, V> {
        &mut self.entries[at.0 as usize]
    }

    /// Adds an entry as the newest of a queue. The key must not be there.
    pub(super) fn insert(&mut self, key: K, bytes: u64, queue: Queue) -> At {
        let at = self.place();
        let entry = Entry { key, value: V::default(), bytes, queue, newer: NONE, older: NONE };
        match self.entries.get_mut(at as usize) {
            Some(vacant) => *vacant = entry,
            None => self.entries.push(entry),
        }
        let entries = &self.entries;
        let is_key = |other: &u32| entries[*other as usize].key == key;
        match self.places.entry(hash(&key), is_key, |other| hash(&entries[*other as usize].key)) {
            Place::Vacant(place) => drop(place.insert(at)),
            Place::Occupied(_) => unreachable!("a key is added once"),
        }
        self.bytes += bytes;
        self.link(at, queue);
        At(at)
    }

    /// Makes an entry the newest of a queue.
    pub(super) fn move_to(&mut self, at: At, queue: Queue) {
        self.unlink(at.0);
        self.link(at.0, queue);
    }

    pub(super) fn resize(&mut self, at: At, bytes: u64) {
        let entry = &mut self.entries[at.0 as usize];
        let ends = &mut self.queues[usize::from(entry.queue.0)];
        ends.bytes = ends.bytes - entry.bytes + bytes;
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
    }

    /// Takes an entry out: its key, bytes and value.
    pub(super) fn remove(&mut self, at: At) -> (K, u64, V) {
        self.unlink(at.0);
        let entry = &mut self.entries[at.0 as usize];
        let (key, bytes, value) = (entry.key, entry.bytes, std::mem::take(&mut entry.value));
        entry.older = self.vacant;
        self.vacant = at.0;
        self.bytes -= bytes;
        if let Ok(place) = self.places.find_entry(hash(&key), |other| *other == at.0) {
            place.remove();
        }
        (key, bytes, value)
    }

    /// What the table and its index take, in bytes; what values own is apart.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<K, V>>() + self.places.allocation_size()
    }

    fn place(&mut self) -> u32 {
        match self.vacant {
            NONE => u32::try_from(self.entries.len()).expect("fewer than 2^32 files fit a file system"),
            vacant => {
                self.vacant = self.entries[vacant as usize].older;
                vacant
            }
        }
    }

    fn link(&mut self, at: u32, queue: Queue) {
        let ends = &mut self.queues[usize::from(queue.0)];
        let before = std::mem::replace(&mut ends.newest, at);
        if before == NONE {
            ends.oldest = at;
        }
        let entry = &mut self.entries[at as usize];
        (entry.queue, entry.newer, entry.older) = (queue, NONE, before);
        ends.bytes += entry.bytes;
        if let Some(before) = self.entries.get_mut(before as usize) {
            before.newer = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { queue, newer, older, bytes, .. } = self.entries[at as usize];
        let ends = &mut self.queues[usize::from(queue.0)];
        ends.bytes -= bytes;
        if ends.newest == at {
            ends.newest = older;
        }
        if ends.oldest == at {
            ends.oldest = newer;
        }
        if let Some(newer) = self.entries.get_mut(newer as usize) {
            newer.older = older;
        }
        if let Some(older) = self.entries.get_mut(older as usize) {
            older.newer = newer;
        }
    }

    /// Every entry of a queue, the oldest first.
    #[cfg(test)]
    pub(super) fn keys(&self, queue: Queue) -> Vec<K> {
        let mut at = self.queues[usize::from(queue.0)].oldest;
        let mut keys = Vec::new();
        while at != NONE {
            let entry = &self.entries[at as usize];
            assert_eq!(entry.queue, queue);
            keys.push(entry.key);
            at = entry.newer;
        }
        keys
    }
}
