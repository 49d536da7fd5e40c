//! Rendered directory listings, kept for a moment.

use crate::http::TreePath;
use bytes::Bytes;
use moka::sync::Cache;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a listing is shown without looking again.
const FRESH: Duration = Duration::from_secs(2);
/// Most bytes of kept listings.
const MOST_BYTES: u64 = 64 << 20;
/// Directories read at once.
const AT_ONCE: usize = 2;

/// The listings of a directory origin.
#[derive(Debug)]
pub struct Listings {
    pages: Cache<TreePath, Bytes>,
    turns: Semaphore,
}

impl Default for Listings {
    fn default() -> Self {
        let weigh = |_: &TreePath, page: &Bytes| u32::try_from(page.len()).unwrap_or(u32::MAX);
        let pages = Cache::builder().max_capacity(MOST_BYTES).weigher(weigh).time_to_live(FRESH).build();
        Self { pages, turns: Semaphore::new(AT_ONCE) }
    }
}

impl Listings {
    /// A listing that was made just now.
    #[must_use]
    pub fn at_hand(&self, dir: &TreePath) -> Option<Bytes> {
        self.pages.get(dir)
    }

    /// The right to read a directory.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.turns.acquire().await.ok()
    }

    /// Keeps a listing.
    pub fn keep(&self, dir: &TreePath, page: Bytes) -> Bytes {
        self.pages.insert(dir.clone(), page.clone());
        page
    }
}
