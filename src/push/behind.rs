//! What goes on behind a flip: the warming that it didn't wait for, and looks at files that it wasn't held for.

use super::Shared;
use super::fault::{Blame, blame};
use super::warm::{Fetched, Warmed, Warming};
use crate::repo::Generation;
use crate::store::Object;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Files that are looked at at a time behind a flip: clients' requests go first.
const SIGHTS: usize = 8;
/// The shortest time until wrong files are looked at again.
const AGAIN: Duration = Duration::from_secs(60);

/// The one warming of a repo that its newest flip did not wait for. Dropped, it ends.
#[derive(Default)]
pub(super) struct Behind {
    task: JoinSet<()>,
    /// The first sequence whose packages it fetches.
    since: u32,
}

impl Behind {
    /// Goes on with `warming`, of the packages since `since`.
    pub(super) fn start(&mut self, mut warming: Warming, since: u32) {
        self.since = since;
        self.task.spawn(async move {
            while let Some(fetched) = warming.next().await {
                if let Fetched::Failed(object, error) = fetched {
                    warming.shared.found_wrong(warming.index, &object, &error);
                }
            }
            let Warmed { files, failed, .. } = warming.warmed;
            tracing::info!(
                repo = warming.shared.repos[warming.index].repo.id,
                files,
                failed,
                "the rest is warmed"
            );
            warming.tell();
        });
    }

    /// Ends it, so that it doesn't hold back the next push; the first sequence whose packages are not all fetched.
    pub(super) fn stop(&mut self) -> Option<u32> {
        let mut unfinished = !self.task.is_empty();
        while let Some(ended) = self.task.try_join_next() {
            unfinished = ended.is_err();
        }
        self.task = JoinSet::new();
        unfinished.then_some(self.since)
    }
}

/// The looks at all files of a generation that was offered without any: a first one, or one that the operator wanted offered.
#[derive(Default)]
pub(super) struct Looks(JoinSet<()>);

impl Looks {
    /// Looks at what is new in `generation`, and again and again at what is wrong. It is named in the status.
    pub(super) fn start(&mut self, shared: &Arc<Shared>, index: usize, generation: &Generation) {
        let repo = &shared.repos[index].repo;
        let files = generation
            .catalogue
            .iter()
            .filter(|(_, entry)| entry.kind.is_package() && entry.since == generation.sequence);
        let files =
            files.filter_map(|(path, entry)| Some((Object::unlisted(repo.file(path).ok()?), entry.size)));
        let (shared, files) = (Arc::clone(shared), files.collect());
        self.0.spawn(async move { look(&shared, index, files).await });
    }

    /// Ends them.
    pub(super) fn stop(&mut self) {
        self.0 = JoinSet::new();
    }
}

async fn look(shared: &Arc<Shared>, index: usize, files: Vec<(Object, u64)>) {
    let mut left = wrong(shared, index, files, |_| {}).await;
    while !left.is_empty() {
        tokio::time::sleep(shared.config.push.poll.max(AGAIN)).await;
        let is_right =
            |object: &Object| drop(shared.repos[index].status().faults.remove(&object.path.to_string()));
        left = wrong(shared, index, left, is_right).await;
    }
}

/// Those of `files` that are wrong, or could not be looked at.
async fn wrong(
    shared: &Arc<Shared>,
    index: usize,
    files: Vec<(Object, u64)>,
    is_right: impl Fn(&Object),
) -> Vec<(Object, u64)> {
    let (mut waiting, mut looks, mut left) = (files.into_iter(), JoinSet::new(), Vec::new());
    loop {
        while looks.len() < SIGHTS {
            let Some((object, size)) = waiting.next() else { break };
            let shared = Arc::clone(shared);
            looks.spawn(async move {
                let _permit = shared.sights.acquire().await;
                let sight = shared.store.see(&object, size).await;
                (object, size, sight)
            });
        }
        let Some(ended) = looks.join_next().await else { return left };
        let Ok((object, size, sight)) = ended else { continue };
        match sight {
            Ok(_) => is_right(&object),
            Err(error) => {
                shared.found_wrong(index, &object, &error);
                left.push((object, size));
                // An origin in trouble is left alone for a while.
                if blame(&error) != Blame::File {
                    left.extend(waiting.by_ref());
                }
            }
        }
    }
}
