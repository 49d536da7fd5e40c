//! What the readers of a fill want fetched: how they tell the fill.
//!
//! A wish is a reader's and goes with it: what is wanted is what those want that still read. The lock is held for a look
//! only.

use super::spans::Spans;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Parts are fetched in whole blocks, so that any number of small ranges costs at most one request for each block.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// What is wanted now.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Somebody reads all of it, from the beginning on.
    pub(super) whole: bool,
    /// In whole blocks, also beyond the end.
    pub(super) parts: Spans,
}

/// What one reader wants.
#[derive(Debug)]
enum Wish {
    /// All bytes, and up to this offset now.
    Whole(u64),
    /// All bytes, as fast as they come: a push.
    All,
    Parts(Spans),
}

#[derive(Debug, Default)]
struct Wishes {
    by_reader: HashMap<u64, Wish>,
    readers: u64,
}

/// Collects it.
#[derive(Debug, Default)]
pub(super) struct Wants {
    wishes: Mutex<Wishes>,
    /// For the fill's task: something else is wanted.
    told: Notify,
    /// For the pass in order: it may go on.
    moved: Notify,
    /// Of a fill in memory: what it takes of the bound, as long as anybody reads it.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Wants {
    /// For a fill in memory.
    pub(super) fn with_memory(permits: OwnedSemaphorePermit) -> Self {
        Self { _memory: Some(permits), ..Self::default() }
    }

    /// A new reader's number.
    pub(super) fn reader(&self) -> u64 {
        let mut wishes = self.lock();
        wishes.readers += 1;
        wishes.readers
    }

    /// The reader wants all bytes, and those up to `reach` now.
    pub(super) fn whole(&self, reader: u64, reach: u64) {
        let before = self.lock().by_reader.insert(reader, Wish::Whole(reach));
        if !matches!(before, Some(Wish::Whole(_))) {
            self.told.notify_one();
        }
        self.moved.notify_one();
    }

    /// The reader wants all bytes now.
    pub(super) fn all(&self, reader: u64) {
        self.lock().by_reader.insert(reader, Wish::All);
        self.told.notify_one();
        self.moved.notify_one();
    }

    /// The reader wants these blocks now, and nothing of what it wanted before.
    pub(super) fn parts(&self, reader: u64, blocks: Spans) {
        self.lock().by_reader.insert(reader, Wish::Parts(blocks));
        self.told.notify_one();
        self.moved.notify_one();
    }

    /// The reader is gone.
    pub(super) fn leave(&self, reader: u64) {
        if self.lock().by_reader.remove(&reader).is_some() {
            self.told.notify_one();
        }
    }

    /// Waits until something else is wanted. May be dropped and called again without loss.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Waits until the reach may have grown. For one caller; may be dropped and called again without loss.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Has the fill's task look again.
    pub(super) fn tell(&self) {
        self.told.notify_one();
    }

    /// Has the pass in order look again how far it may go.
    pub(super) fn moves(&self) {
        self.moved.notify_one();
    }

    pub(super) fn now(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for wish in self.lock().by_reader.values() {
            match wish {
                Wish::Whole(_) | Wish::All => wanted.whole = true,
                Wish::Parts(blocks) => blocks.iter().for_each(|blocks| wanted.parts.insert(blocks)),
            }
        }
        wanted
    }

    /// Up to where those want bytes now that read all.
    pub(super) fn reach(&self) -> u64 {
        let reach = |wish: &Wish| match wish {
            Wish::Whole(reach) => *reach,
            Wish::All => u64::MAX,
            Wish::Parts(_) => 0,
        };
        self.lock().by_reader.values().map(reach).max().unwrap_or(0)
    }

    /// Whether a push reads it.
    pub(super) fn is_pushed(&self) -> bool {
        self.lock().by_reader.values().any(|wish| matches!(wish, Wish::All))
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
