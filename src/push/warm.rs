//! Fetches the packages that are new in a push, so that the first clients hit.
//!
//! A flip waits `push.warm_for` for it; what is left then goes on behind the flip (`behind`), until the next push takes it over.

use super::{Shared, flip};
use crate::clock;
use crate::repo::{Entry, Generation};
use crate::store::{FetchError, Object};
use std::sync::Arc;
use std::vec;
use tokio::task::JoinSet;

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Warmed {
    /// Packages in the cache.
    pub(super) files: u32,
    /// Their length.
    pub(super) bytes: u64,
    /// Packages that could not be fetched; clients will ask for them all the same, and the origin may have them by then.
    pub(super) failed: u32,
}

/// What became of one package.
pub(super) enum Fetched {
    /// It came, and was right.
    Right(Object),
    /// It didn't, or wasn't.
    Failed(Object, FetchError),
}

/// The packages of one push, on their way into the cache. Dropped, it fetches no more.
pub(super) struct Warming {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    running: JoinSet<(Object, Result<(), FetchError>)>,
    waiting: vec::IntoIter<Object>,
    total: u32,
    pub(super) warmed: Warmed,
    first_failure: Option<String>,
}

impl Warming {
    pub(super) fn new(shared: &Arc<Shared>, index: usize, objects: Vec<Object>) -> Self {
        Self {
            shared: Arc::clone(shared),
            index,
            running: JoinSet::new(),
            total: u32::try_from(objects.len()).unwrap_or(u32::MAX),
            waiting: objects.into_iter(),
            warmed: Warmed::default(),
            first_failure: None,
        }
    }

    /// The same, with these fetched already.
    pub(super) fn after(mut self, fetched: &[Object]) -> Self {
        let files = u32::try_from(fetched.len()).unwrap_or(u32::MAX);
        self.total = self.total.saturating_add(files);
        self.warmed.files = files;
        self.warmed.bytes = fetched.iter().map(size).sum();
        self
    }

    /// Packages that are neither fetched nor failed.
    pub(super) const fn rest(&self) -> u32 {
        self.total.saturating_sub(self.warmed.files + self.warmed.failed)
    }

    /// How many packages are done, of how many.
    pub(super) const fn progress(&self) -> (u32, u32) {
        (self.total - self.rest(), self.total)
    }

    /// What becomes of the next one; `None` once all are done. Given up in between, nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Fetched> {
        loop {
            while self.running.len() < self.shared.config.push.warm_parallel {
                let Some(object) = self.waiting.next() else { break };
                let shared = Arc::clone(&self.shared);
                self.running.spawn(async move {
                    let _permit = shared.warming.acquire().await;
                    let fetched = shared.store.complete(&object).await;
                    (object, fetched)
                });
            }
            let (object, fetched) = match self.running.join_next().await? {
                Ok(ended) => ended,
                Err(stopped) => {
                    self.failed(&stopped.to_string());
                    continue;
                }
            };
            let Err(error) = fetched else {
                self.warmed.files += 1;
                self.warmed.bytes += size(&object);
                return Some(Fetched::Right(object));
            };
            self.failed(&format!("{}: {error}", object.path));
            return Some(match error {
                // All of it came and was right.
                FetchError::NotStored => Fetched::Right(object),
                error => Fetched::Failed(object, error),
            });
        }
    }

    fn failed(&mut self, failure: &str) {
        self.warmed.failed += 1;
        self.first_failure.get_or_insert_with(|| failure.to_owned());
    }

    /// Tells that all is done.
    pub(super) fn tell(&self) {
        let (at, watched) = (clock::now(), &self.shared.repos[self.index]);
        watched.status().warmed = Some(at);
        flip::mark(&self.shared, &watched.repo.id, "warmed", at);
        if let Some(first) = &self.first_failure {
            let (repo, failed) = (&watched.repo.id, self.warmed.failed);
            tracing::warn!(repo, failed, "new packages could not be fetched: {first}");
        }
    }
}

/// What is to be fetched: of what is new in `generation`, the smallest first, then of what the generations from `since` on
/// brought, up to `push.warm` bytes. Nothing for a first generation: all of it is new, and what clients want of it shows soon
/// enough.
pub(super) fn planned(shared: &Shared, index: usize, generation: &Generation, since: u32) -> Vec<Object> {
    if generation.sequence == 1 {
        return Vec::new();
    }
    let repo = &shared.repos[index].repo;
    let is_new = |entry: &Entry| entry.kind.is_package() && entry.since >= since;
    let mut files: Vec<_> = generation
        .catalogue
        .iter()
        .filter(|(_, entry)| is_new(entry))
        .filter_map(|(path, entry)| {
            let object = Object::listed(repo.file(path).ok()?, entry.digest?, entry.size);
            Some((entry.since < generation.sequence, object))
        })
        .collect();
    files.sort_by_key(|(is_left_over, object)| (*is_left_over, size(object)));
    let mut left = shared.config.push.warm;
    let fitting = files.into_iter().map(|(_, object)| object).take_while(|object| {
        let rest = left.checked_sub(size(object));
        left = rest.unwrap_or(0);
        rest.is_some()
    });
    fitting.collect()
}

fn size(object: &Object) -> u64 {
    object.identity.map_or(0, |identity| identity.size)
}
