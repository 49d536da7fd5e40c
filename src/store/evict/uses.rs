//! What the index and the memory tier share of an object: its uses, whether it was evicted, and its open file.

use super::policy::{Counted, MOST_USES};
use crate::store::disk::Seal;
use arc_swap::ArcSwapOption;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// An open file that eviction can close: it would hold its blocks for as long as it is open. Who is reading from it reads on.
#[derive(Debug)]
pub(in super::super) struct OpenFile(ArcSwapOption<File>);

impl OpenFile {
    /// The file, unless its object was evicted.
    pub(in super::super) fn file(&self) -> Option<Arc<File>> {
        self.0.load_full()
    }
}

/// Uses of an object, counted by whoever has it at hand. A hit takes no lock.
#[derive(Debug, Default)]
pub(in super::super) struct Uses {
    count: AtomicU8,
    evicted: AtomicBool,
    /// Number of the seal that its entry had when its bytes were verified in this process; 0: they weren't.
    seal: AtomicU64,
    /// What the memory tier keeps open. Locked where a file is opened or evicted, not where it is used.
    open: Mutex<Weak<OpenFile>>,
}

impl Uses {
    pub(in super::super) fn touch(&self) {
        let count = self.count.load(Ordering::Relaxed);
        if count < MOST_USES {
            self.count.store(count + 1, Ordering::Relaxed);
        }
    }

    /// Its entry's bytes are as they were stored, as long as the entry has this seal.
    pub(in super::super) fn seal(&self, seal: Seal) {
        self.seal.store(seal.number(), Ordering::Release);
    }

    pub(in super::super) fn sealed(&self) -> Option<Seal> {
        Seal::from_number(self.seal.load(Ordering::Acquire))
    }

    pub(in super::super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// Takes note of a file that is kept open; one that is already evicted is closed at once.
    pub(in super::super) fn open(&self, file: Arc<File>) -> Arc<OpenFile> {
        let opened = Arc::new(OpenFile(ArcSwapOption::new(Some(file))));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = Arc::downgrade(&opened);
        if self.is_evicted() {
            opened.0.store(None);
        }
        opened
    }

    /// The object is evicted: the memory tier neither finds it nor keeps it open any more.
    pub(super) fn evict(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.evicted.store(true, Ordering::Release);
        if let Some(opened) = open.upgrade() {
            opened.0.store(None);
        }
    }
}

/// Of an object that wasn't asked for in this process there are none.
impl Counted for Option<Arc<Uses>> {
    fn uses(&self) -> u8 {
        self.as_ref().map_or(0, |uses| uses.count.load(Ordering::Relaxed))
    }

    fn set_uses(&self, count: u8) {
        if let Some(uses) = self {
            uses.count.store(count, Ordering::Relaxed);
        }
    }
}
