//! Keeps what a push removes from a local tree: by links before the flip, by copies behind it.
//!
//! A failure is reported and not more: clients are to get the update all the same.

use super::Shared;
use crate::config::Origin;
use crate::origin::{Copied, Linked};
use crate::repo::{Digest, History};
use crate::store::Identity;
use bytesize::ByteSize;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

/// What of a repo's current generation a push would take away from clients at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unretained {
    pub(super) files: usize,
    pub(super) why: String,
}

/// Links all files of the current generation of `history`. Those of which the file system takes no link come the newest first.
pub(super) async fn link(shared: &Shared, index: usize, history: &History) -> Linked {
    let (Origin::Directory { retain: Some(_), .. }, Some(current)) =
        (&shared.config.origin, history.current())
    else {
        return Linked::default();
    };
    let repo = &shared.repos[index].repo;
    let file = |(path, entry): (&str, crate::repo::Entry)| {
        let identity = Identity { digest: entry.digest?, size: entry.size };
        Some((entry.since, (repo.file(path).ok()?, identity)))
    };
    let mut files: Vec<_> = current.catalogue.iter().filter_map(file).collect();
    files.sort_by_key(|(since, (_, identity))| (std::cmp::Reverse(*since), identity.size));
    let linked = shared.store.retain(files.into_iter().map(|(_, file)| file).collect()).await;
    linked.unwrap_or_else(|error| Linked {
        failed: 1,
        first_failure: Some(error.to_string()),
        ..Linked::default()
    })
}

/// Copies behind what could not be linked, and reports what isn't kept.
pub(super) fn copy_behind(shared: &Arc<Shared>, index: usize, linked: Linked) {
    let copying = Arc::clone(shared);
    spawn(shared, async move { copy(&copying, index, linked).await });
}

/// Does both behind: after a restart, for what was published before it.
pub(super) fn retain_behind(shared: &Arc<Shared>, index: usize, history: History) {
    let retaining = Arc::clone(shared);
    spawn(shared, async move {
        let linked = link(&retaining, index, &history).await;
        copy(&retaining, index, linked).await;
    });
}

fn spawn(shared: &Shared, work: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = shared.retaining.lock().unwrap_or_else(PoisonError::into_inner);
    while tasks.try_join_next().is_some() {}
    tasks.spawn(work);
}

async fn copy(shared: &Shared, index: usize, linked: Linked) {
    let Linked { failed, first_failure, refused, .. } = linked;
    let wanted = refused.len();
    let copied = if refused.is_empty() {
        Ok(Copied::default())
    } else {
        shared.store.copy(refused, superseded(shared)).await
    };
    let copied = copied.unwrap_or_else(|error| Copied {
        failed: wanted,
        first_failure: Some(error.to_string()),
        ..Copied::default()
    });
    let unretained = unretained(failed, first_failure, copied);
    let watched = &shared.repos[index];
    let id = watched.repo.id.as_str();
    let files = unretained.as_ref().map_or(0, |unretained| unretained.files);
    shared.metrics.unretained.with_label_values(&[id]).set(i64::try_from(files).unwrap_or(i64::MAX));
    if let Some(Unretained { files, why }) = &unretained {
        tracing::warn!(repo = id, files, "a push would take files from clients at once: {why}");
    }
    let mut status = watched.status();
    (status.unretained_files, status.unretained_why) =
        unretained.map_or((0, None), |Unretained { files, why }| (files, Some(why)));
}

fn unretained(failed: usize, first_failure: Option<String>, copied: Copied) -> Option<Unretained> {
    let files = failed + copied.failed + copied.left_out;
    let beyond = (copied.left_out > 0).then(|| {
        let (files, bytes) = (copied.left_out, ByteSize(copied.left_out_bytes));
        format!(
            "they can't be linked, and {files} files of {bytes} are more than origin.retain_size has room for"
        )
    });
    let why = first_failure.or(copied.first_failure).or(beyond);
    (files > 0).then(|| Unretained { files, why: why.unwrap_or_default() })
}

/// What only superseded generations list: it may be gone from the tree.
fn superseded(shared: &Shared) -> HashSet<Digest> {
    let histories: Vec<_> = (0..shared.repos.len()).map(|index| shared.history(index)).collect();
    let digests = |is_current: bool| -> HashSet<Digest> {
        let of = |history: &History| {
            let generations = history.generations();
            let (current, older) = generations.split_at(generations.len().min(1));
            if is_current { current.to_vec() } else { older.to_vec() }
        };
        let generations: Vec<_> = histories.iter().flat_map(of).collect();
        generations
            .iter()
            .flat_map(|generation| generation.catalogue.iter().filter_map(|(_, entry)| entry.digest))
            .collect()
    };
    let (current, mut older) = (digests(true), digests(false));
    older.retain(|digest| !current.contains(digest));
    older
}

/// Removes what no kept generation of any repo lists. The caller holds `flips`.
pub(super) async fn sweep(shared: &Shared) {
    let histories: Vec<_> = (0..shared.repos.len()).map(|index| shared.history(index)).collect();
    let generations = histories.iter().flat_map(History::generations);
    let entries = generations.flat_map(|generation| generation.catalogue.iter());
    let listed: HashSet<Digest> = entries.filter_map(|(_, entry)| entry.digest).collect();
    if let Err(error) = shared.store.sweep(listed).await {
        tracing::warn!("retained files could not be swept: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_isnt_kept_is_counted_with_a_reason() {
        let why =
            |unretained: Option<Unretained>| unretained.map(|unretained| (unretained.files, unretained.why));
        assert_eq!(why(unretained(0, None, Copied { made: 3, ..Copied::default() })), None);
        let copied = Copied { left_out: 2, left_out_bytes: 2048, failed: 1, ..Copied::default() };
        let (files, text) = why(unretained(1, None, copied.clone())).unwrap();
        assert_eq!(files, 4);
        assert!(text.contains("2 files of 2.0 KiB are more than origin.retain_size"), "{text}");
        let (_, text) = why(unretained(1, Some("a: gone".into()), copied)).unwrap();
        assert_eq!(text, "a: gone");
    }
}
