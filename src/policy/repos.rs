//! The repos as the node offers them now.

use super::{Confirmed, Currency, MirrorTable, Phase, Window};
use crate::clock::Timestamp;
use crate::config::{Push, Repo};
use crate::http::TreePath;
use crate::repo::{Entry, Generation, History, Listed};
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
    /// The generation that the origin shows, from when its metadata are verified to the flip. Mirrors that sync from the origin
    /// follow it already.
    pub coming: Option<Arc<Generation>>,
}

impl RepoView {
    /// A repo that nothing else is known of.
    #[must_use]
    pub fn new(repo: Arc<Repo>, history: History, window: Option<Window>) -> Self {
        Self { repo, history, window, confirmed: Arc::default(), coming: None }
    }

    /// Whether the push that is on its way removes or replaces the file, so that a mirror may lose it at any moment.
    #[must_use]
    pub fn is_leaving(&self, relative: &str, listed: &Listed) -> bool {
        let Some(coming) = &self.coming else { return false };
        let holds = |next: Entry| (next.size, next.digest) == (listed.entry.size, listed.entry.digest);
        !coming.catalogue.find(relative).is_some_and(holds)
    }

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
    /// Files that a repo lists outside of its own directory: by path, the repo's number, and the path as it lists it.
    outside: Arc<Outside>,
}

/// By path from the tree's root on.
type Outside = HashMap<Box<str>, (usize, Box<str>)>;

/// Where a path lies.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The repo's number in the config.
    pub index: usize,
    /// The repo.
    pub view: &'a RepoView,
    /// The path.
    pub path: &'a TreePath,
    /// The path below the repo's root; of a file that the repo lists outside of it, the path from the tree's root on, with a
    /// leading '/'.
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
        let outside = Arc::new(outside(&views));
        Self { views, by_path, lengths, outside }
    }

    /// The same with one view replaced.
    #[must_use]
    pub fn with(&self, index: usize, view: RepoView) -> Self {
        let mut next = self.clone();
        let had = next.views[index].history.outside().next().is_some();
        let has = view.history.outside().next().is_some();
        next.views[index] = Arc::new(view);
        if had || has {
            next.outside = Arc::new(outside(&next.views));
        }
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

    /// The repo that `path` lies in: the innermost one whose root is above it. What that one doesn't list may be listed by
    /// another, which it lies outside of.
    #[must_use]
    pub fn locate<'a>(&'a self, path: &'a TreePath) -> Option<Place<'a>> {
        let text = path.as_str();
        let inside = self.lengths.iter().rev().find_map(|above| {
            let relative = if *above == 0 { text } else { text.get(*above..)?.strip_prefix('/')? };
            let index = *self.by_path.get(&text[..*above])?;
            let view = &self.views[index];
            Some(Place { index, view, path, relative, listed: view.history.find(relative) })
        });
        match inside {
            Some(place) if place.listed.is_some() || self.outside.is_empty() || place.is_pinned() => {
                Some(place)
            }
            inside => self.locate_outside(path).or(inside),
        }
    }

    fn locate_outside<'a>(&'a self, path: &'a TreePath) -> Option<Place<'a>> {
        let (index, relative) = self.outside.get(path.as_str())?;
        let view = &self.views[*index];
        let listed = Some(view.history.find(relative)?);
        Some(Place { index: *index, view, path, relative, listed })
    }
}

impl Place<'_> {
    fn is_pinned(&self) -> bool {
        self.view.history.current().is_some_and(|current| current.pinned(self.relative).is_some())
    }
}

/// Which repo lists a file outside of its directory. Of several the one that lists it still, and whose push is the newest.
fn outside(views: &[Arc<RepoView>]) -> Outside {
    let mut found = Outside::new();
    let rank = |index: usize, relative: &str| {
        let history = &views[index].history;
        let is_current = history.find(relative).is_some_and(|listed| listed.until.is_none());
        (is_current, history.current().map(|current| current.flipped))
    };
    for (index, view) in views.iter().enumerate() {
        for relative in view.history.outside() {
            let path = relative.trim_start_matches('/');
            let is_better = |(known, _): &(usize, Box<str>)| rank(*known, relative) < rank(index, relative);
            if found.get(path).is_none_or(is_better) {
                found.insert(path.into(), (index, relative.into()));
            }
        }
    }
    found
}

/// The two snapshots that decisions rest on, each replaced as a whole by its one publisher; readers never wait.
#[derive(Debug, Default)]
pub struct Published {
    /// Replaced by `push`.
    pub repos: ArcSwap<Repos>,
    /// Replaced by `mirrors`.
    pub mirrors: ArcSwap<MirrorTable>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::{Generation, ListedFile, Repomd, Sha256};
    use bytes::Bytes;

    /// A repo at `path` that lists these files, in each of its generations.
    fn view(path: &str, generations: &[&[&str]], flipped: u64) -> Arc<RepoView> {
        let config = format!(
            "node.name = \"n\"\norigin.url = \"http://o/\"\ncache.disk = \"/d\"\nnode.urls = [\"http://n/\"]\n\
             [[repo]]\nname = \"r\"\npath = \"{path}\"\n"
        );
        let repo =
            crate::config::Config::parse(&config, std::path::Path::new("/c")).unwrap().0.repos.remove(0);
        let mut history = History::default();
        for (at, files) in generations.iter().enumerate() {
            let now = Timestamp::from_secs(flipped + at as u64);
            let file = |path: &&str| ListedFile {
                path: (*path).into(),
                size: 1,
                digest: Some(Sha256::of(b"x").into()),
            };
            let packages = files.iter().map(file).collect();
            let bytes = Bytes::from(format!("{path} {at}"));
            let previous = history.current().cloned();
            let next = Generation::assemble(
                &bytes,
                &Repomd::default(),
                packages,
                vec![],
                vec![],
                previous.as_deref(),
                now,
                now,
            );
            history = history.with(next, std::time::Duration::MAX, now);
        }
        Arc::new(RepoView::new(Arc::new(repo), history, None))
    }

    #[test]
    fn files_are_found_by_the_repo_that_lists_them() {
        let repos = Repos::new(vec![
            view(
                "7/os",
                &[&["a", "/pool/a", "/7/extra/b", "/pool/gone"], &["a", "/pool/a", "/7/extra/b"]],
                10,
            ),
            view("7/extra", &[&["b", "/pool/a", "/7/os/unlisted"]], 20),
        ]);
        for (path, expected) in [
            ("7/os/a", Some((0, "a", true))),
            ("7/os/z", Some((0, "z", false))),
            ("7/os/unlisted", Some((1, "/7/os/unlisted", true))),
            ("7/os/repodata/repomd.xml", Some((0, "repodata/repomd.xml", false))),
            ("7/extra/b", Some((1, "b", true))),
            ("pool/a", Some((1, "/pool/a", true))),
            ("pool/gone", Some((0, "/pool/gone", true))),
            ("pool/z", None),
        ] {
            let path = TreePath::new(path).unwrap();
            let found = repos.locate(&path);
            let found = found.as_ref().map(|place| (place.index, place.relative, place.listed.is_some()));
            assert_eq!(found, expected, "{path}");
        }
        let next = repos.with(1, RepoView::clone(&view("7/extra", &[&["b"]], 30)));
        let path = TreePath::new("pool/a").unwrap();
        assert_eq!(next.locate(&path).map(|place| place.index), Some(0));
    }

    #[test]
    fn a_repo_at_the_root_has_every_path() {
        let repos = Repos::new(vec![view("", &[&["a", "b/c"]], 10)]);
        for (path, relative, is_listed) in
            [("a", "a", true), ("b/c", "b/c", true), ("b/", "b/", false), ("", "", false)]
        {
            let path = TreePath::new(path).unwrap();
            let place = repos.locate(&path).unwrap();
            assert_eq!((place.relative, place.listed.is_some()), (relative, is_listed));
        }
    }
}
