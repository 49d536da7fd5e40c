//! Asks a mirror for files: all of a list, side by side, up to the first that isn't there.

use super::Shared;
use super::client::{Failure, MirrorClient};
use super::families::Family;
use super::judge::{File, Missed};
use crate::clock;
use crate::http::{ByteRange, TreePath};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests to one mirror at a time.
pub(super) const LANES: usize = 4;

/// Whose probes they are.
#[derive(Clone)]
pub(super) struct Place {
    /// The mirror's number.
    pub(super) mirror: usize,
    pub(super) family: Family,
    /// Requests to the host at a time, over both families.
    pub(super) lanes: Arc<Semaphore>,
}

/// One repo on one mirror.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
    /// The repo's URL there; ends in '/'.
    pub(super) base: String,
    /// Its path in the tree.
    pub(super) repo: TreePath,
}

/// What became of a comparison.
#[derive(Debug)]
pub(super) enum Compared {
    /// Nothing speaks against it: the part is right, or the node has nothing to compare it with.
    Fits,
    /// The mirror doesn't answer ranges.
    NoRanges,
    /// It has other bytes.
    Differs(Doubt),
}

/// A part of a file that a mirror had wrong.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) file: File,
    pub(super) part: ByteRange,
    /// What it should be: the node itself may have lost it when the mirror is asked again.
    pub(super) ours: Bytes,
}

impl Doubt {
    pub(super) fn missed(&self) -> Missed {
        missed(&self.file, &Failure::Bytes(self.part.start))
    }
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
            let _permits = permits(&self.place.lanes, &self.shared.permits).await;
            if let Err(failure) = self.client().head(&url, file.size).await {
                // The other lanes stop at their next file.
                next.store(files.len(), Ordering::Relaxed);
                return Some((index, missed(file, &failure)));
            }
        }
    }

    /// Asks for a part, and holds it against what the node itself has of the file, where it has it at hand.
    /// Also how long the mirror took.
    pub(super) async fn compare(&self, file: File, part: ByteRange) -> (Result<Compared, Missed>, Duration) {
        let (theirs, took) = self.timed_part(&file, part).await;
        (self.hold_against(file, part, theirs).await, took)
    }

    async fn hold_against(
        &self,
        file: File,
        part: ByteRange,
        theirs: Result<Option<Bytes>, Missed>,
    ) -> Result<Compared, Missed> {
        let Some(theirs) = theirs? else { return Ok(Compared::NoRanges) };
        let ours = match (file.digest, self.repo.join(&file.path)) {
            (Some(digest), Ok(path)) => (self.shared.known.ours)(path, digest, file.size, part, theirs).await,
            _ => None,
        };
        Ok(match ours {
            Some(ours) => Compared::Differs(Doubt { file, part, ours }),
            None => Compared::Fits,
        })
    }

    /// Asks for the part that was wrong; until it is right, or isn't listed any more, nothing else counts.
    pub(super) async fn settle(&self, doubt: &Doubt) -> Result<(), Missed> {
        match self.part(&doubt.file, doubt.part).await? {
            Some(theirs) if theirs == doubt.ours => Ok(()),
            Some(_) => Err(doubt.missed()),
            None => {
                let why = "had other bytes than listed, and answers no ranges now".to_owned();
                Err(Missed { why, ..doubt.missed() })
            }
        }
    }

    /// A part; `None` where the mirror answers no ranges.
    pub(super) async fn part(&self, file: &File, part: ByteRange) -> Result<Option<Bytes>, Missed> {
        self.timed_part(file, part).await.0
    }

    /// The same, and how long the mirror took.
    async fn timed_part(&self, file: &File, part: ByteRange) -> (Result<Option<Bytes>, Missed>, Duration) {
        let Some(url) = self.url(file) else { return (Ok(None), Duration::ZERO) };
        let _permits = permits(&self.place.lanes, &self.shared.permits).await;
        let begun = clock::monotonic();
        let answer = self.client().part(&url, file.size, part).await;
        (answer.map_err(|failure| missed(file, &failure)), begun.elapsed())
    }

    fn client(&self) -> &MirrorClient {
        self.shared.client(self.place.family)
    }

    /// None for a path that no client could ask for either.
    fn url(&self, file: &File) -> Option<String> {
        Some(self.base.clone() + &TreePath::new(&file.path).ok()?.encoded())
    }
}

fn missed(file: &File, failure: &Failure) -> Missed {
    Missed { path: file.path.clone(), why: failure.of_file(), transient: failure.is_transient() }
}
