//! What other modules ask of the pushes.

use super::{Event, RepoState, Shared, Watched, flip};
use crate::clock;
use crate::config::Repo;
use std::sync::{Arc, PoisonError};
use tokio::sync::broadcast;

/// What other modules ask of the pushes: cheap to clone.
#[derive(Clone)]
pub struct PushHandle {
    pub(super) shared: Arc<Shared>,
}

/// What becomes of a push whose files are absent or wrong at the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// They hold it.
    #[default]
    Hold,
    /// It is offered anyway.
    Ignore,
}

/// What the operator wants of a repo's next round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// Of the newest order, from 1 on.
    pub(super) number: u64,
    /// There is one that no round has taken.
    pub(super) is_given: bool,
    /// It names the repo: an older generation may be followed.
    pub(super) may_go_back: bool,
    /// What becomes of what is shown if files of it are wrong.
    pub(super) faults: Faults,
}

impl PushHandle {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// Has the repo addressed as `name/release/arch` polled at once, or all of them; how many that are. A repo that is
    /// named follows its origin even to an older generation; polling by itself never does.
    pub fn poll_now(&self, repo_id: Option<&str>) -> usize {
        self.order(repo_id, Faults::Hold).len()
    }

    /// The same; each repo with a number. What came of it is in [`RepoState`] once `answered` there has reached that.
    pub fn order(&self, repo_id: Option<&str>, faults: Faults) -> Vec<(String, u64)> {
        let asked = |watched: &&Watched| repo_id.is_none_or(|id| watched.repo.id == id);
        let give = |watched: &Watched| {
            let mut order = watched.order.lock().unwrap_or_else(PoisonError::into_inner);
            order.number += 1;
            order.is_given = true;
            order.may_go_back |= repo_id.is_some();
            if faults == Faults::Ignore {
                order.faults = faults;
            }
            watched.wake.notify_one();
            (watched.repo.id.clone(), order.number)
        };
        self.shared.repos.iter().filter(asked).map(give).collect()
    }

    /// Has these repos, by their numbers, go on with other settings: who delivers them, their windows, their priority.
    pub async fn set_repos(&self, repos: Vec<(usize, Arc<Repo>)>) {
        // In force first; the disk takes its time.
        let indices: Vec<usize> = repos.iter().map(|(index, _)| *index).collect();
        for (index, repo) in repos {
            flip::set_repo(&self.shared, index, repo).await;
        }
        for index in indices {
            flip::keep_published(&self.shared, index).await;
        }
    }

    /// How each repo's pushes stand, in the order of the config.
    #[must_use]
    pub fn states(&self) -> Vec<RepoState> {
        self.shared.repos.iter().map(|watched| watched.status().state(&watched.repo.id)).collect()
    }

    /// What happens from now on. A subscriber that falls 1024 events behind misses some.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Whether there is enough to serve clients: each repo has a generation, or the origin was given up for it, and at
    /// least one has.
    ///
    /// # Errors
    ///
    /// The first repo that is waited for, and why it has no generation yet.
    pub fn readiness(&self) -> Result<(), String> {
        let elapsed = clock::monotonic().saturating_duration_since(self.shared.started);
        self.shared.readiness(elapsed)
    }
}
