//! What is on disk, what is reserved for fills, and the bound on both. In memory only; no IO.
//!
//! `used + reserved` never exceeds the bound, once what a restart found is indexed. Room is *promised* first, at once or not
//! at all, then *covered*: by what is free, then by victims, whose bytes become the reservation's in the same moment. Whoever
//! covers removes its victims' files before it writes, so that what lies on disk is never more than what is counted here.
//! What a victim took beyond the need is *surplus*, nobody's until its file is gone.

use super::policy::{Policy, Victim};
use super::uses::Uses;
use crate::clock::Timestamp;
use crate::store::disk::{Key, Seal};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The unit in which a file system gives room.
const BLOCK_BYTES: u64 = 4096;
/// Taken out of the index at once, at most: the lock is held for so long.
const BATCH: usize = 256;

/// What the index holds for each object: its uses, once it was asked for in this process.
pub(super) type Held = Option<Arc<Uses>>;

struct State {
    policy: Policy<Key, Held>,
    /// Bytes that fills may write, and surplus.
    reserved: u64,
    /// Bytes that will be reserved: those to cover them are being evicted.
    promised: u64,
    /// Reserved for nobody: victims took it, and their files aren't gone yet.
    surplus: u64,
    /// What is on disk isn't all indexed yet.
    loading: bool,
}

impl State {
    fn free(&self, bound: u64) -> u64 {
        bound.saturating_sub(self.policy.bytes() + self.reserved)
    }

    fn evict(&mut self, bytes: u64) -> (Vec<Victim<Key, Held>>, u64) {
        let (mut victims, mut freed) = (Vec::new(), 0);
        while freed < bytes && victims.len() < BATCH {
            let Some(victim) = self.policy.evict() else { break };
            freed += victim.bytes;
            victims.push(victim);
        }
        (victims, freed)
    }
}

/// Sizes and uses of what is on disk.
pub(in super::super) struct Index {
    bound: u64,
    state: Mutex<State>,
    /// Surplus was given back.
    settled: Condvar,
}

impl Index {
    pub(in super::super) fn new(bound: u64) -> Self {
        let state = State { policy: Policy::new(bound), reserved: 0, promised: 0, surplus: 0, loading: true };
        Self { bound, state: Mutex::new(state), settled: Condvar::new() }
    }

    /// Notes what was found on disk, as one use of it. A smaller or larger size takes the place of the one before.
    pub(in super::super) fn note(&self, key: Key, disk_bytes: u64) -> Arc<Uses> {
        let mut state = self.lock();
        let known = state.policy.get(&key).is_some();
        // What isn't indexed yet was used before. Later, what isn't known is new.
        let held = if state.loading && !known {
            state.policy.find(key, disk_bytes)
        } else {
            state.policy.store(key, disk_bytes)
        };
        let uses = Arc::clone(held.get_or_insert_default());
        uses.touch();
        uses
    }

    /// Notes what the walk at the start found, unless it is known already.
    pub(super) fn note_walked(&self, key: Key, disk_bytes: u64, used: Timestamp, now: Timestamp) {
        self.lock().policy.walk(key, disk_bytes, now.since(used).as_secs());
    }

    /// The seal that an entry had when its bytes were verified, if they were, in this process.
    pub(in super::super) fn sealed(&self, key: &Key) -> Option<Seal> {
        self.lock().policy.get(key)?.0.as_ref()?.sealed()
    }

    pub(super) fn knows(&self, key: &Key) -> bool {
        self.lock().policy.get(key).is_some()
    }

    pub(in super::super) fn forget(&self, key: &Key) {
        self.lock().policy.remove(key);
    }

    /// Makes a reservation of what an object takes: a fill goes on with its parts.
    pub(in super::super) fn reclaim(self: &Arc<Self>, key: &Key) -> Reservation {
        let mut state = self.lock();
        let bytes = state.policy.get(key).map_or(0, |(_, bytes)| bytes);
        state.policy.remove(key);
        state.reserved += bytes;
        Reservation { index: Arc::clone(self), bytes }
    }

    /// Objects, and bytes on disk.
    pub(in super::super) fn figures(&self) -> (u64, u64) {
        let state = self.lock();
        (state.policy.len() as u64, state.policy.bytes())
    }

    /// Bytes of the bound that fills hold, beyond what is on disk.
    pub(in super::super) fn reserved_bytes(&self) -> u64 {
        self.lock().reserved
    }

    /// What the index takes in memory, in bytes; what hangs on objects in use is estimated.
    pub(in super::super) fn memory_bytes(&self) -> u64 {
        self.lock().policy.memory_bytes() as u64
    }

    /// The promise of room for `bytes`, covered by what is free; `None` where they don't fit beside what is being filled.
    pub(super) fn promise(self: &Arc<Self>, bytes: u64) -> Option<Promise> {
        let mut state = self.lock();
        let bytes = bytes.checked_next_multiple_of(BLOCK_BYTES).filter(|bytes| *bytes <= self.bound)?;
        let firm = state.reserved - state.surplus + state.promised;
        if firm + bytes > self.bound {
            return None;
        }
        state.promised += bytes;
        let mut promise = Promise { room: Reservation::none(self), missing: bytes, surplus: 0 };
        promise.take_free(&mut state);
        Some(promise)
    }

    /// Takes out of the index what must go to come below the bound, some of it: none once that is reached.
    pub(super) fn excess(&self) -> Vec<Victim<Key, Held>> {
        let mut state = self.lock();
        let excess = (state.policy.bytes() + state.reserved).saturating_sub(self.bound);
        state.evict(excess).0
    }

    /// Takes about `bytes` out of the index, some of them at a time; how much, too.
    pub(super) fn some(&self, bytes: u64) -> (Vec<Victim<Key, Held>>, u64) {
        self.lock().evict(bytes)
    }

    /// Forgets everything, reservations apart, before all is found anew.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.policy = Policy::new(self.bound);
        state.loading = true;
    }

    /// All that was on disk is indexed.
    pub(super) fn loaded(&self) {
        self.lock().loading = false;
    }

    /// What was on disk isn't all indexed yet.
    #[cfg(test)]
    pub(in super::super) fn is_loading(&self) -> bool {
        self.lock().loading
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room on its way to a fill. Dropped, it is given back.
pub(super) struct Promise {
    room: Reservation,
    missing: u64,
    surplus: u64,
}

/// How the covering of a promise goes on.
pub(super) enum Step {
    Covered,
    /// Their files have to be removed; then [`Promise::settle`].
    Evicted(Vec<Victim<Key, Held>>),
    /// Nothing is left that could go.
    Short,
}

impl Promise {
    pub(super) const fn is_covered(&self) -> bool {
        self.missing == 0
    }

    /// Once it is covered: the room.
    pub(super) fn keep(mut self) -> Reservation {
        self.room.take()
    }

    /// The next step. Waits for the surplus of others where nothing else is left.
    pub(super) fn cover(&mut self) -> Step {
        let index = Arc::clone(&self.room.index);
        let mut state = index.lock();
        loop {
            self.take_free(&mut state);
            if self.is_covered() {
                return Step::Covered;
            }
            let (victims, freed) = state.evict(self.missing);
            if !victims.is_empty() {
                let covered = freed.min(self.missing);
                self.surplus = freed - covered;
                state.reserved += self.surplus;
                state.surplus += self.surplus;
                self.take(&mut state, covered);
                return Step::Evicted(victims);
            }
            if state.surplus == 0 {
                return Step::Short;
            }
            // Whoever has it is removing files and waits for nobody.
            state = index.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The victims' files are gone.
    pub(super) fn settle(&mut self) {
        let surplus = std::mem::take(&mut self.surplus);
        if surplus > 0 {
            let mut state = self.room.index.lock();
            state.reserved -= surplus;
            state.surplus -= surplus;
            drop(state);
            self.room.index.settled.notify_all();
        }
    }

    fn take_free(&mut self, state: &mut State) {
        let free = state.free(self.room.index.bound).min(self.missing);
        self.take(state, free);
    }

    fn take(&mut self, state: &mut State, bytes: u64) {
        state.reserved += bytes;
        state.promised -= bytes;
        self.room.bytes += bytes;
        self.missing -= bytes;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.settle();
        self.room.index.lock().promised -= self.missing;
    }
}

/// Room for a fill, given back when dropped.
pub(in super::super) struct Reservation {
    index: Arc<Index>,
    pub(in super::super) bytes: u64,
}

impl Reservation {
    fn none(index: &Arc<Index>) -> Self {
        Self { index: Arc::clone(index), bytes: 0 }
    }

    /// Takes all of it out.
    pub(in super::super) fn take(&mut self) -> Self {
        let none = Self::none(&self.index);
        std::mem::replace(self, none)
    }

    /// Adds another's room.
    pub(in super::super) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Notes what was stored in this room: what the object takes on disk now, beyond what it took before, leaves the
    /// reservation in the same moment. No use of the object.
    pub(in super::super) fn spend(&mut self, key: Key, disk_bytes: u64) -> Arc<Uses> {
        let mut state = self.index.lock();
        let before = state.policy.get(&key).map_or(0, |(_, bytes)| bytes);
        let uses = Arc::clone(state.policy.store(key, disk_bytes).get_or_insert_default());
        let spent = disk_bytes.saturating_sub(before).min(self.bytes);
        state.reserved -= spent;
        self.bytes -= spent;
        uses
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.index.lock().reserved -= self.bytes;
    }
}
