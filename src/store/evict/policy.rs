//! Which object goes first: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023) over bytes.
//! Pure: no clock, no IO. Every call takes constant time, amortised; nothing is ever sorted.
//!
//! New objects are on probation: a share of the bound, first in, first out. Who is used twice there moves to the main queue;
//! who isn't goes, and is remembered as a ghost; a ghost that returns goes to the main queue at once. There the oldest is
//! given another round for each use. One pass over a cold tree thus flows through the probation's share, and what is in
//! use stays.
//!
//! Sizes differ by a factor of a million here, so that two things are different from the paper: queues are measured in
//! bytes, and large objects have a probation of their own, so that an ISO doesn't push a thousand packages out of theirs.
//!
//! What a restart found on disk stands behind the main queue, in buckets by age: roughly by recency, without sorting.

use super::ghosts::Ghosts;
use super::queues::{At, Queue, Queues, hash};
use std::hash::Hash;

/// Uses that count, from one look of the policy to the next.
pub const MOST_USES: u8 = 3;
/// So many uses on probation make an object one of the main queue.
const PROVEN_USES: u8 = 2;
/// The probations' share of the bound, as a divisor: the paper's 10 %.
const PROBATION: u64 = 10;
/// Large is what takes more than so much of the probations' share, as a divisor.
const LARGE: u64 = 16;
/// Objects that are given another round, one after the other, before the next goes whatever its uses.
const MOST_ROUNDS: u32 = 10_000;

const SMALL_PROBATION: Queue = Queue(0);
const LARGE_PROBATION: Queue = Queue(1);
const MAIN: Queue = Queue(2);
/// The first bucket of what a restart found: ages below a second. Then four for each doubling.
const WALKED: u8 = 3;
const BUCKETS: u8 = 4 * 32 + 1;

/// What counts an object's uses. Hits count while the policy looks: a use that gets lost between the two does no harm.
pub trait Counted: Default {
    /// Uses, at most [`MOST_USES`].
    fn uses(&self) -> u8;
    /// Sets them.
    fn set_uses(&self, uses: u8);
}

/// An object that has to go.
#[derive(Debug)]
pub struct Victim<K, V> {
    /// Its key.
    pub key: K,
    /// What it took.
    pub bytes: u64,
    /// What was kept for it.
    pub value: V,
}

/// The order of eviction.
#[derive(Debug)]
pub struct Policy<K, V> {
    queues: Queues<K, V>,
    ghosts: Ghosts,
    /// Bytes of both probations before they are the first to give.
    share: u64,
    /// How many a restart found that are still where it put them.
    walked: usize,
}

impl<K: Copy + Eq + Hash, V: Counted> Policy<K, V> {
    /// For a cache of `bound` bytes. The policy evicts when asked to; it doesn't enforce the bound.
    #[must_use]
    pub fn new(bound: u64) -> Self {
        Self {
            queues: Queues::new(WALKED + BUCKETS),
            ghosts: Ghosts::default(),
            share: bound / PROBATION,
            walked: 0,
        }
    }

    /// How many objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.queues.bytes()
    }

    /// What is kept for an object, and its bytes.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<(&V, u64)> {
        let entry = self.queues.get(self.queues.find(key)?);
        Some((&entry.value, entry.bytes))
    }

    /// Adds an object that was just stored, or gives it a new size. That is no use.
    pub fn store(&mut self, key: K, bytes: u64) -> &mut V {
        let at = if let Some(at) = self.queues.find(&key) {
            self.resize(at, bytes);
            at
        } else {
            let hash = hash(&key);
            let queue = if self.ghosts.take(hash) { MAIN } else { self.probation(bytes) };
            self.queues.insert(key, bytes, queue)
        };
        &mut self.queues.get_mut(at).value
    }

    /// Adds an object that was there before, and is in use; or gives it a new size.
    pub fn find(&mut self, key: K, bytes: u64) -> &mut V {
        let at = if let Some(at) = self.queues.find(&key) {
            self.resize(at, bytes);
            at
        } else {
            self.queues.insert(key, bytes, MAIN)
        };
        &mut self.queues.get_mut(at).value
    }

    /// Adds an object that was there before and was last used `age_seconds` ago, unless it is known.
    pub fn walk(&mut self, key: K, bytes: u64, age_seconds: u64) {
        if self.queues.find(&key).is_none() {
            self.queues.insert(key, bytes, bucket(age_seconds));
            self.walked += 1;
        }
    }

    /// Takes an object out; what was kept for it. It leaves no ghost.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.queues.find(key)?;
        Some(self.take(at).value)
    }

    /// Takes out the next object that has to go; `None` where none is left.
    pub fn evict(&mut self) -> Option<Victim<K, V>> {
        for _ in 0..MOST_ROUNDS {
            let (queue, at) = self.next()?;
            let value = &self.queues.get(at).value;
            let uses = value.uses();
            if is_probation(queue) {
                if uses < PROVEN_USES {
                    return Some(self.bury(at));
                }
                value.set_uses(0);
            } else {
                if uses == 0 {
                    return Some(self.take(at));
                }
                value.set_uses(uses - 1);
                self.leave_bucket(at);
            }
            self.queues.move_to(at, MAIN);
        }
        let (_, at) = self.next()?;
        Some(self.take(at))
    }

    /// What the policy takes, in bytes, beside what values own.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.queues.memory_bytes() + self.ghosts.memory_bytes()
    }

    /// The object to look at next, and where it stands.
    fn next(&self) -> Option<(Queue, At)> {
        let (small, large) = (self.queues.bytes_of(SMALL_PROBATION), self.queues.bytes_of(LARGE_PROBATION));
        let probation = if large > self.share / 2 || small == 0 { LARGE_PROBATION } else { SMALL_PROBATION };
        let queue = if small + large > self.share { probation } else { self.oldest_used() };
        [queue, MAIN, SMALL_PROBATION, LARGE_PROBATION]
            .into_iter()
            .find_map(|queue| Some((queue, self.queues.oldest(queue)?)))
    }

    /// The queue of those that were used longest ago: the oldest bucket of a restart, else the main queue.
    fn oldest_used(&self) -> Queue {
        if self.walked == 0 {
            return MAIN;
        }
        let buckets = (WALKED..WALKED + BUCKETS).rev().map(Queue);
        buckets.into_iter().find(|queue| self.queues.oldest(*queue).is_some()).unwrap_or(MAIN)
    }

    fn probation(&self, bytes: u64) -> Queue {
        if bytes > self.share / LARGE { LARGE_PROBATION } else { SMALL_PROBATION }
    }

    /// A new size may be one of the other probation.
    fn resize(&mut self, at: At, bytes: u64) {
        if self.queues.get(at).bytes == bytes {
            return;
        }
        let queue = self.queues.queue_of(at);
        self.queues.resize(at, bytes);
        if is_probation(queue) && queue != self.probation(bytes) {
            self.queues.move_to(at, self.probation(bytes));
        }
    }

    fn bury(&mut self, at: At) -> Victim<K, V> {
        let victim = self.take(at);
        self.ghosts.add(hash(&victim.key), self.queues.len());
        victim
    }

    fn take(&mut self, at: At) -> Victim<K, V> {
        self.leave_bucket(at);
        let (key, bytes, value) = self.queues.remove(at);
        Victim { key, bytes, value }
    }

    /// Before an entry leaves its queue.
    fn leave_bucket(&mut self, at: At) {
        if self.queues.queue_of(at).0 >= WALKED {
            self.walked -= 1;
        }
    }
}

fn is_probation(queue: Queue) -> bool {
    queue == SMALL_PROBATION || queue == LARGE_PROBATION
}

/// The bucket of an age: four for each doubling, so that ages in one differ by a fifth at most.
fn bucket(age_seconds: u64) -> Queue {
    let age = u32::try_from(age_seconds).unwrap_or(u32::MAX);
    let Some(octave) = age.checked_ilog2() else { return Queue(WALKED) };
    let quarter = (u64::from(age) << 2 >> octave) & 3;
    Queue(WALKED + 1 + u8::try_from(u64::from(octave) * 4 + quarter).unwrap_or(BUCKETS - 2))
}
