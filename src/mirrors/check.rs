//! Asks a mirror for files: all of a list, side by side, up to the first that isn't there.

use super::Shared;
use super::client::Failure;
use super::judge::{File, Missed};
use crate::http::{ByteRange, TreePath};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests to one mirror at a time.
pub(super) const LANES: usize = 4;

/// One repo on one mirror.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Arc<Semaphore>,
    /// The repo's URL there; ends in '/'.
    pub(super) base: String,
    /// Its path in the tree.
    pub(super) repo: TreePath,
}

/// A place on the mirror, then one among all probes. Held for one request only, and always taken in this order.
pub(super) async fn permits<'a>(
    lanes: &'a Semaphore,
    all: &'a Semaphore,
) -> Option<(SemaphorePermit<'a>, SemaphorePermit<'a>)> {
    Some((lanes.acquire().await.ok()?, all.acquire().await.ok()?))
}

impl Asker {
    /// HEADs all of them: their number, or the first in order that failed.
    pub(super) async fn all(&self, files: &[File]) -> Result<usize, Missed> {
        const { assert!(LANES == 4, "one lane each below") };
        let next = AtomicUsize::new(0);
        let lane = || self.lane(files, &next);
        let found = tokio::join!(lane(), lane(), lane(), lane());
        let failed = [found.0, found.1, found.2, found.3].into_iter().flatten();
        match failed.min_by_key(|(index, _)| *index) {
            Some((_, missed)) => Err(missed),
            None => Ok(files.len()),
        }
    }

    async fn lane(&self, files: &[File], next: &AtomicUsize) -> Option<(usize, Missed)> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let file = files.get(index)?;
            let url = self.url(file)?;
            let _permits = permits(&self.lanes, &self.shared.permits).await;
            if let Err(failure) = self.shared.client.head(&url, file.size).await {
                // The other lanes stop at their next file.
                next.store(files.len(), Ordering::Relaxed);
                return Some((index, missed(file, &failure)));
            }
        }
    }

    /// Asks for a part: whether it came alone, and is what the node itself has of the file, where it has it at hand.
    pub(super) async fn part(&self, file: &File, part: ByteRange) -> Result<bool, Missed> {
        let Some(url) = self.url(file) else { return Ok(false) };
        let part_there = {
            let _permits = permits(&self.lanes, &self.shared.permits).await;
            self.shared.client.part(&url, file.size, part).await.map_err(|failure| missed(file, &failure))?
        };
        let Some(theirs) = part_there else { return Ok(false) };
        let ours = match (file.sha256, self.repo.join(&file.path)) {
            (Some(sha256), Ok(path)) => (self.shared.ours)(path, sha256, file.size, part).await,
            _ => None,
        };
        match ours {
            Some(ours) if ours != theirs => Err(missed(file, &Failure::Bytes(part.start))),
            _ => Ok(true),
        }
    }

    /// None for a path that no client could ask for either.
    fn url(&self, file: &File) -> Option<String> {
        Some(self.base.clone() + &TreePath::new(&file.path).ok()?.encoded())
    }
}

fn missed(file: &File, failure: &Failure) -> Missed {
    Missed { path: file.path.clone(), why: failure.of_file(), transient: failure.is_transient() }
}
