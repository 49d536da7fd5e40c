//! The disk tier's bound: room for fills, and what goes to make it.
//!
//! Which object goes is [`policy`]'s to say; what is on disk and reserved, [`index`] counts; here files are removed. The index
//! is in memory only. It is loaded behind the start, and grows by what is found or stored meanwhile; until it is complete
//! the tier may stand above its bound by what isn't indexed yet, and is brought back below it then.

mod ghosts;
mod index;
pub mod policy;
mod queues;
#[cfg(test)]
mod tests;
mod uses;

pub(super) use index::{Index, Reservation};
pub(super) use uses::{OpenFile, Uses};

use super::Counters;
use super::disk::{Disk, Key};
use super::trouble::Trouble;
use crate::clock;
use index::{Held, Promise, Step};
use policy::Victim;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// How often one operation on a full file system evicts and tries again.
const SPACE_TRIES: usize = 3;
/// Beyond what is asked for, a full file system is given so much room at once, as a share of what is used.
const SPACE_SLACK: u64 = 32;
/// And at most so much.
const MAX_SPACE_SLACK_BYTES: u64 = 1 << 30;

/// Makes room on disk.
#[derive(Clone)]
pub(super) struct Evictor {
    pub(super) index: Arc<Index>,
    pub(super) disk: Arc<Disk>,
    pub(super) counters: Arc<Counters>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) pool: Handle,
}

impl Evictor {
    /// Room for `bytes`, in whole blocks, after evicting where needed; `None` where they don't fit beside what is being filled.
    pub(super) async fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let promise = self.index.promise(bytes)?;
        if promise.is_covered() {
            return Some(promise.keep());
        }
        let evictor = self.clone();
        // Fails only when the runtime is going down.
        self.pool.spawn_blocking(move || evictor.cover(promise)).await.ok().flatten()
    }

    fn cover(&self, mut promise: Promise) -> Option<Reservation> {
        loop {
            match promise.cover() {
                Step::Covered => return Some(promise.keep()),
                Step::Evicted(victims) => {
                    self.remove(victims);
                    promise.settle();
                }
                Step::Short => return None,
            }
        }
    }

    /// Does `work`, which takes about `bytes` of disk (blocking). Where the file system is full although the bound isn't
    /// reached, the next victims make room.
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
            if !self.make_space(bytes) {
                return Err(error);
            }
        }
        work()
    }

    /// Whether something could go.
    fn make_space(&self, bytes: u64) -> bool {
        let slack = (self.index.figures().1 / SPACE_SLACK).min(MAX_SPACE_SLACK_BYTES);
        let (wanted, mut made) = (bytes.saturating_add(slack), 0);
        while made < wanted {
            let (victims, freed) = self.index.some(wanted - made);
            if victims.is_empty() {
                break;
            }
            self.remove(victims);
            made += freed;
        }
        made > 0
    }

    /// After the directory vanished: forgets what was in it, and indexes what is there (blocking).
    pub(super) fn reload(&self, closing: &AtomicBool) {
        self.index.clear();
        self.load(closing);
    }

    /// Loads the index from disk (blocking), then brings the tier below its bound.
    pub(super) fn load(&self, closing: &AtomicBool) {
        let now = clock::now();
        let walked = self.disk.walk(|found| {
            self.index.note_walked(found.key, found.disk_bytes, found.used, now);
            !closing.load(Ordering::Relaxed)
        });
        if walked.is_err() {
            self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
        }
        self.index.loaded();
        loop {
            let victims = self.index.excess();
            if victims.is_empty() {
                break;
            }
            self.remove(victims);
        }
    }

    fn remove(&self, victims: Vec<Victim<Key, Held>>) {
        for victim in victims {
            if let Some(uses) = victim.value {
                uses.evict();
            }
            let removed = self.disk.remove(&victim.key).is_ok();
            let counter = if removed { &self.counters.evicted } else { &self.counters.io_errors };
            counter.fetch_add(1, Ordering::Relaxed);
            self.confirm(&victim.key);
        }
    }

    /// To be called after a key was noted, and after its file was removed (blocking): where both happen at once, what is
    /// gone isn't counted.
    pub(super) fn confirm(&self, key: &Key) {
        if self.index.knows(key) && !self.disk.holds(key) {
            self.index.forget(key);
        }
    }
}
