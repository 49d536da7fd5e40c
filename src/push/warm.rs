//! Fetches the packages that are new in a push, so that the first clients hit.

use super::{Shared, Step};
use crate::repo::{Generation, Kind};
use crate::store::Object;
use std::sync::Arc;
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

/// Fetches what is new in `generation`, the smallest first, up to `push.warm` bytes. Nothing for a first generation:
/// all of it is new, and what clients want of it shows soon enough.
pub(super) async fn warm(shared: &Arc<Shared>, index: usize, generation: &Generation) -> Warmed {
    let repo = &shared.repos[index].repo;
    let objects = planned(shared, index, generation);
    let total = u32::try_from(objects.len()).unwrap_or(u32::MAX);
    let mut warmed = Warmed::default();
    let mut first_failure = None;
    let mut running = JoinSet::new();
    let mut next = objects.into_iter();
    loop {
        shared.repos[index].status().step = Step::Warming { done: warmed.files + warmed.failed, total };
        while running.len() < shared.config.push.warm_parallel {
            let Some(object) = next.next() else { break };
            let shared = Arc::clone(shared);
            running.spawn(async move {
                let _permit = shared.warming.acquire().await;
                let fetched = shared.store.complete(&object).await;
                (object, fetched)
            });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((object, Ok(())))) => {
                warmed.files += 1;
                warmed.bytes += object.identity.map_or(0, |identity| identity.size);
            }
            Some(Ok((object, Err(error)))) => {
                warmed.failed += 1;
                first_failure.get_or_insert_with(|| format!("{}: {error}", object.path));
            }
            Some(Err(stopped)) => {
                warmed.failed += 1;
                first_failure.get_or_insert_with(|| stopped.to_string());
            }
        }
    }
    if let Some(first) = first_failure {
        tracing::warn!(repo = repo.id, failed = warmed.failed, "new packages could not be fetched: {first}");
    }
    warmed
}

/// What is to be fetched.
fn planned(shared: &Shared, index: usize, generation: &Generation) -> Vec<Object> {
    if generation.sequence == 1 {
        return Vec::new();
    }
    let repo = &shared.repos[index].repo;
    let is_new =
        |entry: &crate::repo::Entry| entry.kind == Kind::Package && entry.since == generation.sequence;
    let mut files: Vec<_> = generation
        .catalogue
        .iter()
        .filter(|(_, entry)| is_new(entry))
        .filter_map(|(path, entry)| {
            Some(Object::listed(repo.path.join(path).ok()?, entry.sha256?, entry.size))
        })
        .collect();
    let size = |object: &Object| object.identity.map_or(0, |identity| identity.size);
    files.sort_by_key(size);
    let mut left = shared.config.push.warm;
    let fitting = files.iter().take_while(|file| {
        let rest = left.checked_sub(size(file));
        left = rest.unwrap_or(0);
        rest.is_some()
    });
    let fitting = fitting.count();
    files.truncate(fitting);
    files
}
