//! The tree: what the origin publishes, as packages come and go.

use super::DAY;
use freshet::clock::Timestamp;
use freshet::config::{Delivery, Repo, Scope};
use freshet::http::TreePath;
use freshet::policy::{RepoView, Repos, Window};
use freshet::repo::{Generation, History, ListedFile, Record, Repomd, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub const ROOT: &str = "7/updates/x86_64";
const PACKAGES: u32 = 600;

/// A file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub size: u64,
    pub sha256: Sha256,
}

/// Files by their path below the repo, in order: a seed always draws the same week.
pub type Files = BTreeMap<Arc<str>, File>;

/// The origin, and the node's view of it.
pub struct Origin {
    /// Name and version.
    packages: Vec<(u32, u32)>,
    /// All bytes ever published, counted.
    contents: u64,
    pub files: Files,
    records: Vec<Record>,
    /// As the node offers it.
    pub repos: Repos,
    /// What it published last, until the node offers it.
    coming: Option<Generation>,
    /// When it last pushed.
    pub pushed: Timestamp,
}

impl Origin {
    pub fn new(rng: &mut fastrand::Rng, now: Timestamp) -> Self {
        let packages = (0..PACKAGES).map(|name| (name, 0)).collect();
        let mut origin = Self {
            packages,
            contents: 0,
            files: Files::new(),
            records: Vec::new(),
            repos: Repos::default(),
            coming: None,
            pushed: now,
        };
        origin.publish(rng);
        origin.verified(now);
        origin.flip(now);
        origin
    }

    /// One in twenty packages has a new version, a few are signed anew under their old names, one is gone, one is new.
    pub fn push(&mut self, rng: &mut fastrand::Rng, now: Timestamp) {
        let gone = rng.usize(..self.packages.len());
        self.packages.swap_remove(gone);
        self.packages.push((PACKAGES + u32::try_from(self.contents % 100_000).unwrap(), 0));
        for _ in 0..self.packages.len() / 20 {
            let updated = rng.usize(..self.packages.len());
            self.packages[updated].1 += 1;
        }
        for _ in 0..3 {
            let (name, version) = self.packages[rng.usize(..self.packages.len())];
            let file = self.content(rng);
            self.files.insert(path(name, version), file);
        }
        self.publish(rng);
        self.pushed = now;
    }

    /// The SHA-256 of the repomd.xml that it shows.
    pub fn shown(&self) -> Sha256 {
        Sha256::of(&self.repomd())
    }

    fn repomd(&self) -> Vec<u8> {
        format!("<repomd>{}</repomd>", self.contents).into_bytes()
    }

    fn content(&mut self, rng: &mut fastrand::Rng) -> File {
        self.contents += 1;
        File { size: 1000 << rng.u32(..15), sha256: Sha256::of(&self.contents.to_le_bytes()) }
    }

    fn publish(&mut self, rng: &mut fastrand::Rng) {
        let mut files = Files::new();
        for (name, version) in self.packages.clone() {
            let path = path(name, version);
            let file = self.files.get(&path).copied();
            let file = file.unwrap_or_else(|| self.content(rng));
            files.insert(path, file);
        }
        self.records = ["primary", "filelists", "other"]
            .map(|kind| {
                let file = self.content(rng);
                let path = format!("repodata/{}-{kind}.xml.gz", file.sha256);
                files.insert(path.as_str().into(), file);
                Record { kind: kind.into(), path, size: Some(file.size), digest: Some(file.sha256.into()) }
            })
            .into();
        self.files = files;
    }

    /// The node has verified the metadata of what the origin has published.
    pub fn verified(&mut self, now: Timestamp) {
        let listed = |(path, file): (&Arc<str>, &File)| ListedFile {
            path: path.to_string(),
            size: file.size,
            digest: Some(file.sha256.into()),
        };
        let packages =
            self.files.iter().filter(|(path, _)| path.starts_with("Packages/")).map(listed).collect();
        let view = self.view();
        let repomd = Repomd { records: self.records.clone(), ..Repomd::default() };
        let bytes = self.repomd().into();
        let previous = view.history.current().map(|current| &**current);
        let generation =
            Generation::assemble(&bytes, &repomd, packages, vec![], vec![], previous, self.pushed, now);
        self.coming = Some(generation.clone());
        self.show(RepoView { coming: Some(Arc::new(generation)), ..view });
    }

    /// The node offers it.
    pub fn flip(&mut self, now: Timestamp) {
        let mut generation = self.coming.take().expect("it is verified first");
        generation.flipped = now;
        let RepoView { repo, history, .. } = self.view();
        let window = Window::opened_by(&generation, &repo);
        self.show(RepoView::new(repo, history.with(generation, 2 * DAY, now), window));
    }

    fn view(&self) -> RepoView {
        let known = self.repos.views().first().map(|view| RepoView::clone(view));
        known.unwrap_or_else(|| RepoView::new(repo(), History::default(), None))
    }

    fn show(&mut self, view: RepoView) {
        self.repos = Repos::new(vec![Arc::new(view)]);
    }

    pub fn history(&self) -> &History {
        &self.repos.views()[0].history
    }

    /// The packages as the current generation lists them, or the one so many before it, and whether they are new there.
    pub fn offered(&self, before: usize) -> Vec<(TreePath, bool)> {
        let generations = self.history().generations();
        let offered = &generations[before.min(generations.len() - 1)];
        let packages = offered.catalogue.iter().filter(|(path, _)| path.starts_with("Packages/"));
        let offered = |(path, entry): (&str, freshet::repo::Entry)| {
            (TreePath::new(&format!("{ROOT}/{path}")).unwrap(), entry.since == offered.sequence)
        };
        packages.map(offered).collect()
    }
}

fn path(name: u32, version: u32) -> Arc<str> {
    format!("Packages/p{name}-{version}.rpm").into()
}

fn repo() -> Arc<Repo> {
    Arc::new(Repo {
        name: "updates".into(),
        release: "7".into(),
        arch: "x86_64".into(),
        id: "updates/7/x86_64".into(),
        path: TreePath::new(ROOT).unwrap(),
        delivery: Delivery::Window,
        // Short, so that what is new is asked of mirrors that are in the midst of it.
        window: Duration::from_secs(1800),
        window_scope: Scope::Push,
        window_max_push: u64::MAX,
        window_min_mirrors: 1,
        twin: None,
        priority: freshet::config::Priority::Normal,
        checksums: None,
    })
}
