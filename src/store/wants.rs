//! What the readers of a fill want fetched: how they tell the fill.

use super::spans::Spans;
use crate::http::ByteRange;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// What was asked for since the fill last looked.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) whole: bool,
    pub(super) parts: Spans,
}

impl Wanted {
    /// Adds what was asked for later.
    pub(super) fn join(&mut self, more: &Self) {
        self.whole |= more.whole;
        more.parts.iter().for_each(|part| self.parts.insert(part));
    }
}

/// Collects it. The lock is held for a look only.
#[derive(Debug, Default)]
pub(super) struct Wants {
    wanted: Mutex<Wanted>,
    told: Notify,
    /// Of a fill in memory: what it takes of the bound, as long as anybody reads it.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Wants {
    /// For a fill in memory.
    pub(super) fn with_memory(permits: OwnedSemaphorePermit) -> Self {
        Self { _memory: Some(permits), ..Self::default() }
    }

    pub(super) fn whole(&self) {
        self.lock().whole = true;
        self.told.notify_one();
    }

    pub(super) fn part(&self, range: ByteRange) {
        self.lock().parts.insert(range);
        self.told.notify_one();
    }

    /// Waits until something was asked for, and takes it. May be dropped and called again without loss.
    pub(super) async fn next(&self) -> Wanted {
        self.told.notified().await;
        std::mem::take(&mut self.lock())
    }

    /// Takes what was asked for up to now.
    pub(super) fn now(&self) -> Wanted {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
