//! The repos as the node offers them now.

use super::{Confirmed, Currency, MirrorTable, Phase, Window};
use crate::clock::Timestamp;
use crate::config::{Push, Repo};
use crate::http::TreePath;
use crate::repo::{History, Listed};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;

/// One repo: its settings, what it offers, its window.
#[derive(Clone, Debug)]
pub struct RepoView {
    /// Its settings.
    pub repo: Arc<Repo>,
    /// Its generations, newest first. Empty until the origin was seen for the first time.
    pub history: History,
    /// The window that the current generation opened.
    pub window: Option<Window>,
    /// What the origin's polls say of its currency.
    pub confirmed: Arc<Confirmed>,
}

impl RepoView {
    /// How sure it is that what it offers is current.
    #[must_use]
    pub fn currency(&self, push: &Push, now: Timestamp) -> Currency {
        Currency::at(&self.confirmed, push, now)
    }

    /// The window's phase, given how many mirrors are fresh.
    #[must_use]
    pub fn phase(&self, fresh: usize, now: Timestamp) -> Phase {
        Phase::at(self.window, &self.repo, fresh, now)
    }

    /// Sequence of the current generation; 0 while there is none.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.history.current().map_or(0, |generation| generation.sequence)
    }
}

/// All repos, in the order of the config. Immutable; a flip publishes a new one.
#[derive(Clone, Debug, Default)]
pub struct Repos {
    views: Vec<Arc<RepoView>>,
    by_path: HashMap<Arc<str>, usize>,
    /// Of the roots' paths, in bytes, each once: only where a path has a slash there it may lie below a root.
    lengths: Vec<usize>,
}

/// Where a path lies.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The repo's number in the config.
    pub index: usize,
    /// The repo.
    pub view: &'a RepoView,
    /// The path.
    pub path: &'a TreePath,
    /// The path below the repo's root.
    pub relative: &'a str,
    /// What the repo's generations say of it.
    pub listed: Option<Listed>,
}

impl Repos {
    /// From views in the order of the config.
    #[must_use]
    pub fn new(views: Vec<Arc<RepoView>>) -> Self {
        let by_path =
            views.iter().enumerate().map(|(index, view)| (view.repo.path.as_str().into(), index)).collect();
        let mut lengths: Vec<usize> = views.iter().map(|view| view.repo.path.as_str().len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { views, by_path, lengths }
    }

    /// The same with one view replaced.
    #[must_use]
    pub fn with(&self, index: usize, view: RepoView) -> Self {
        let mut next = self.clone();
        next.views[index] = Arc::new(view);
        next
    }

    /// All views, in the order of the config.
    #[must_use]
    pub fn views(&self) -> &[Arc<RepoView>] {
        &self.views
    }

    /// The view of the repo addressed as `name/release/arch`.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<(usize, &Arc<RepoView>)> {
        self.views.iter().enumerate().find(|(_, view)| view.repo.id == id)
    }

    /// The repo that `path` lies in: the innermost one whose root is above it.
    #[must_use]
    pub fn locate<'a>(&'a self, path: &'a TreePath) -> Option<Place<'a>> {
        let text = path.as_str();
        self.lengths.iter().rev().find_map(|above| {
            let relative = text.get(*above..)?.strip_prefix('/')?;
            let index = *self.by_path.get(&text[..*above])?;
            let view = &self.views[index];
            Some(Place { index, view, path, relative, listed: view.history.find(relative) })
        })
    }
}

/// The two snapshots that decisions rest on, each replaced as a whole by its one publisher; readers never wait.
#[derive(Debug, Default)]
pub struct Published {
    /// Replaced by `push`.
    pub repos: ArcSwap<Repos>,
    /// Replaced by `mirrors`.
    pub mirrors: ArcSwap<MirrorTable>,
}
