//! The disk tier's bound: an index of sizes and last uses, reservations before a fill, and eviction by last use.
//!
//! The index is in memory only. It is loaded behind the start, and grows by what is found or stored meanwhile; until
//! it is complete the tier may stand above its bound by what isn't indexed yet, and is brought back below it then.

use super::Counters;
use super::disk::{Disk, Key};
use super::memory::Memory;
use super::object::Object;
use super::trouble::Trouble;
use crate::clock::{self, Timestamp};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;

/// How often one operation on a full file system evicts and tries again.
const SPACE_TRIES: usize = 3;
/// Beyond what is asked for, a full file system is given at most so much room at once.
const MAX_SPACE_SLACK_BYTES: u64 = 1 << 30;
/// Evicting makes room for so much more than asked, as a share of the bound: sorting is worth it for many fills.
const SLACK: u64 = 32;

/// When an object was last used; shared by the index and the memory tier, so that a hit takes no lock.
#[derive(Debug, Default)]
pub(super) struct LastUse(AtomicU64);

impl LastUse {
    pub(super) fn touch(&self) {
        self.0.store(clock::now().as_millis(), Ordering::Relaxed);
    }
}

struct Slot {
    disk_bytes: u64,
    used: Arc<LastUse>,
    /// Known once it was asked for in this process.
    object: Option<Object>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Key, Slot>,
    used_bytes: u64,
    reserved_bytes: u64,
}

/// Sizes and last uses of what is on disk.
pub(super) struct Index {
    bound: u64,
    state: Mutex<State>,
}

impl Index {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, state: Mutex::default() }
    }

    /// Notes what was stored or found. A smaller or larger version takes the place of the one before.
    pub(super) fn note(&self, key: Key, object: &Object, disk_bytes: u64) -> Arc<LastUse> {
        let mut state = self.lock();
        let State { slots, used_bytes, .. } = &mut *state;
        let slot =
            slots.entry(key).or_insert_with(|| Slot { disk_bytes: 0, used: Arc::default(), object: None });
        *used_bytes = *used_bytes - slot.disk_bytes + disk_bytes;
        slot.disk_bytes = disk_bytes;
        slot.object.get_or_insert_with(|| object.clone());
        slot.used.touch();
        Arc::clone(&slot.used)
    }

    /// Notes what the walk at the start found, unless it is known already.
    pub(super) fn note_walked(&self, key: Key, disk_bytes: u64, used: Timestamp) {
        let mut state = self.lock();
        if let Entry::Vacant(vacant) = state.slots.entry(key) {
            let used = Arc::new(LastUse(AtomicU64::new(used.as_millis())));
            vacant.insert(Slot { disk_bytes, used, object: None });
            state.used_bytes += disk_bytes;
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        let mut state = self.lock();
        if let Some(slot) = state.slots.remove(key) {
            state.used_bytes -= slot.disk_bytes;
        }
    }

    /// Objects, and bytes on disk.
    pub(super) fn figures(&self) -> (u64, u64) {
        let state = self.lock();
        (state.slots.len() as u64, state.used_bytes)
    }

    /// Reserves if there is room already.
    fn try_reserve(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        let fits = state.used_bytes + state.reserved_bytes + bytes <= self.bound;
        if fits {
            state.reserved_bytes += bytes;
        }
        fits
    }

    fn release(&self, bytes: u64) {
        self.lock().reserved_bytes -= bytes;
    }

    /// Takes out of the index what must go to make room for `bytes` below the bound.
    fn victims(&self, bytes: u64) -> Vec<(Key, Option<Object>)> {
        let excess = {
            let state = self.lock();
            let wanted = state.used_bytes + state.reserved_bytes + bytes;
            if wanted <= self.bound {
                return Vec::new();
            }
            wanted.saturating_sub(self.bound - self.bound / SLACK)
        };
        self.take(excess)
    }

    /// Takes out of the index what must go for `bytes` more of a file system that is full below the bound.
    fn victims_of_space(&self, bytes: u64) -> Vec<(Key, Option<Object>)> {
        let slack = self.lock().used_bytes / SLACK;
        self.take(bytes.saturating_add(slack.min(MAX_SPACE_SLACK_BYTES)))
    }

    /// Forgets everything, reservations apart.
    fn clear(&self) {
        let mut state = self.lock();
        state.slots.clear();
        state.used_bytes = 0;
    }

    /// Takes `excess` bytes out of the index, by last use. Sorts outside of the lock.
    fn take(&self, mut excess: u64) -> Vec<(Key, Option<Object>)> {
        let mut by_use: Vec<_> = {
            let state = self.lock();
            state.slots.iter().map(|(key, slot)| (slot.used.0.load(Ordering::Relaxed), *key)).collect()
        };
        by_use.sort_unstable_by_key(|(used, _)| *used);
        let mut victims = Vec::new();
        let mut state = self.lock();
        for (_, key) in by_use {
            if excess == 0 {
                break;
            }
            if let Some(slot) = state.slots.remove(&key) {
                state.used_bytes -= slot.disk_bytes;
                excess = excess.saturating_sub(slot.disk_bytes);
                victims.push((key, slot.object));
            }
        }
        victims
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for a fill, given back when dropped.
pub(super) struct Reservation {
    index: Arc<Index>,
    pub(super) bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.index.release(self.bytes);
    }
}

/// Makes room on disk.
#[derive(Clone)]
pub(super) struct Evictor {
    pub(super) index: Arc<Index>,
    pub(super) disk: Arc<Disk>,
    pub(super) memory: Memory,
    pub(super) counters: Arc<Counters>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) pool: Handle,
}

impl Evictor {
    /// Room for `bytes`, after evicting where needed; `None` where they don't fit beside what is being filled.
    pub(super) async fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.make_room(bytes).await.then(|| Reservation { index: Arc::clone(&self.index), bytes })
    }

    /// More room for a fill whose length nobody promised.
    pub(super) async fn extend(&self, reservation: &mut Reservation, bytes: u64) -> bool {
        let made = self.make_room(bytes).await;
        if made {
            reservation.bytes += bytes;
        }
        made
    }

    async fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.index.bound {
            return false;
        }
        if self.index.try_reserve(bytes) {
            return true;
        }
        self.evict(bytes).await;
        self.index.try_reserve(bytes)
    }

    async fn evict(&self, bytes: u64) {
        let (index, disk, memory, counters) = (
            Arc::clone(&self.index),
            Arc::clone(&self.disk),
            self.memory.clone(),
            Arc::clone(&self.counters),
        );
        let evicting = move || evict(&index, &disk, &memory, &counters, bytes);
        // Fails only when the runtime is going down.
        let _ = self.pool.spawn_blocking(evicting).await;
    }

    /// Does `work`, which takes about `bytes` of disk (blocking). Where the file system is full although the bound isn't
    /// reached, what was used least recently makes room.
    pub(super) fn with_space<T>(&self, bytes: u64, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        for _ in 0..SPACE_TRIES {
            let error = match work() {
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    error
                }
                other => return other,
            };
            let what = format!("{error}, although cache.disk_size isn't reached: evicting");
            self.trouble.begins(&self.counters, &what, clock::now());
            let victims = self.index.victims_of_space(bytes);
            if victims.is_empty() {
                return Err(error);
            }
            remove(victims, &self.disk, &self.memory, &self.counters);
        }
        work()
    }

    /// After the directory vanished: forgets what was in it, and indexes what is there (blocking).
    pub(super) fn reload(&self, closing: &AtomicBool) {
        self.index.clear();
        self.load(closing);
    }

    /// Loads the index from disk (blocking), then brings the tier below its bound.
    pub(super) fn load(&self, closing: &AtomicBool) {
        let walked = self.disk.walk(|found| {
            self.index.note_walked(found.key, found.disk_bytes, found.used);
            !closing.load(Ordering::Relaxed)
        });
        if walked.is_err() {
            self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
        }
        evict(&self.index, &self.disk, &self.memory, &self.counters, 0);
    }
}

fn evict(index: &Index, disk: &Disk, memory: &Memory, counters: &Counters, bytes: u64) {
    remove(index.victims(bytes), disk, memory, counters);
}

fn remove(victims: Vec<(Key, Option<Object>)>, disk: &Disk, memory: &Memory, counters: &Counters) {
    for (key, object) in victims {
        // An open file would hold its blocks.
        if let Some(object) = object {
            memory.remove(&object);
        }
        let counter = if disk.remove(&key).is_ok() { &counters.evicted } else { &counters.io_errors };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    memory.release();
}
