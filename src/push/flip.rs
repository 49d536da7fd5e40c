//! The flip: a generation is kept on disk, then published in one step. Also the way back, at the start.

use super::phases::{observe, seconds};
use super::state::Loaded;
use super::{Event, Shared, Step, retain};
use crate::clock::{self, Timestamp};
use crate::config::Repo;
use crate::policy::{RepoView, Window};
use crate::repo::{Generation, History, Pinned};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Offers `generation` of repo `index` to clients.
pub(super) async fn flip(shared: &Arc<Shared>, index: usize, mut generation: Generation) {
    let watched = &shared.repos[index];
    watched.status().step = Step::Flipping;
    let _alone = shared.flips.lock().await;
    let now = clock::now();
    generation.flipped = now;
    generation.published = generation.published.min(now);
    let window = Window::opened_by(&generation, &shared.view(index).repo);
    let before = shared.history(index);
    let history = before.with(generation, shared.config.push.keep, now);
    let has_dropped = before.generations().len() >= history.generations().len();

    let linked = retain::link(shared, index, &history).await;
    save(shared, index, &history, window).await;
    publish(shared, index, history, window, |shared, generation| {
        let at = clock::now();
        let mut status = watched.status();
        status.settle();
        status.offered = Some(at);
        drop(status);
        shared.release(index, None);
        let id = watched.repo.id.as_str();
        shared.metrics.pushes.with_label_values(&[id, "offered"]).inc();
        mark(shared, id, "offered", at);
        let (repo, sequence) = (Arc::clone(&watched.repo), generation.sequence);
        shared.tell(Event::Offered { repo, generation: generation.id, sequence, at });
    });
    if has_dropped {
        retain::sweep(shared).await;
    }
    retain::copy_behind(shared, index, linked);
}

/// Replaces pinned files of the current generation: a signature that came after what it signs.
pub(super) async fn repin(shared: &Arc<Shared>, index: usize, pinned: Pinned) {
    let _alone = shared.flips.lock().await;
    let view = shared.view(index);
    let Some(current) = view.history.current() else { return };
    let mut generation = Generation::clone(current);
    generation.pinned.retain(|file| file.path != pinned.path);
    generation.pinned.push(pinned);
    let older = view.history.generations().iter().skip(1).cloned();
    let history = History::new(std::iter::once(Arc::new(generation)).chain(older));
    save(shared, index, &history, view.window).await;
    publish(shared, index, history, view.window, |_, _| {});
}

/// Publishes that `coming` is on its way, or that nothing is.
pub(super) async fn announce(shared: &Arc<Shared>, index: usize, coming: Option<Arc<Generation>>) {
    let id = |coming: &Option<Arc<Generation>>| coming.as_ref().map(|generation| generation.id);
    if id(&shared.view(index).coming) == id(&coming) {
        return;
    }
    let _alone = shared.flips.lock().await;
    store(shared, index, RepoView { coming, ..RepoView::clone(&shared.view(index)) });
}

/// Publishes other settings of repo `index`. Its window is the one that the current generation would have opened by them.
pub(super) async fn set_repo(shared: &Arc<Shared>, index: usize, repo: Arc<Repo>) {
    let _alone = shared.flips.lock().await;
    let view = shared.view(index);
    let window = view.history.current().and_then(|current| Window::opened_by(current, &repo));
    replace(shared, index, RepoView { repo, window, ..RepoView::clone(&view) }, |_| {});
}

/// Keeps what is published of repo `index`.
pub(super) async fn keep_published(shared: &Arc<Shared>, index: usize) {
    let _alone = shared.flips.lock().await;
    let view = shared.view(index);
    save(shared, index, &view.history, view.window).await;
}

/// Publishes what is kept of all repos.
pub(super) async fn restore(shared: &Arc<Shared>) {
    let _alone = shared.flips.lock().await;
    for (index, watched) in shared.repos.iter().enumerate() {
        let Some(dir) = watched.dir.clone() else { continue };
        let loaded = spawn_blocking(move || dir.load()).await;
        let Ok(Loaded { generations, newest, window, confirmed, damaged }) = loaded else { continue };
        for why in damaged {
            tracing::warn!(repo = watched.repo.id, "kept state skipped: {why}");
        }
        let history = History::new(generations);
        let Some(current) = history.current() else { continue };
        if current.sequence < newest {
            tracing::warn!(
                repo = watched.repo.id,
                newest,
                "the newest generation is lost: waiting for the origin"
            );
            // Under the lost one's number, so that nothing that is known of that number is taken for the next one's.
            let standing_in = Generation { sequence: newest, ..Generation::clone(current) };
            let base = History::new(
                std::iter::once(Arc::new(standing_in)).chain(history.generations().iter().cloned()),
            );
            // Restored once; a second time would find the same.
            let _ = watched.base.set(base);
            continue;
        }
        // The origin showed it when it was flipped, and maybe since.
        watched.confirmed.note(confirmed.unwrap_or_default().max(current.flipped));
        // Without the window's own file, or with that of another generation, the generation tells.
        let window = match window {
            Some(kept) if kept.sequence == current.sequence => kept.window,
            _ => Window::opened_by(current, &watched.repo),
        };
        retain::retain_behind(shared, index, history.clone());
        publish(shared, index, history, window, |shared, generation| {
            watched.status().offered = Some(generation.flipped);
            mark(shared, &watched.repo.id, "published", generation.published);
            mark(shared, &watched.repo.id, "offered", generation.flipped);
        });
    }
}

/// Sets the time stamp of a step of the newest push.
pub(super) fn mark(shared: &Shared, repo: &str, step: &str, at: Timestamp) {
    shared.metrics.push_step.with_label_values(&[repo, step]).set(seconds(at));
}

/// Publishes the generations of repo `index`. The caller holds `flips`. `told` comes before the news of a window.
fn publish(
    shared: &Shared,
    index: usize,
    history: History,
    window: Option<Window>,
    told: impl FnOnce(&Shared, &Generation),
) {
    let Some(current) = history.current().cloned() else { return };
    let view = shared.view(index);
    let coming = view.coming.clone().filter(|coming| coming.id != current.id);
    let view = RepoView { history, window, coming, ..RepoView::clone(&view) };
    replace(shared, index, view, |shared| told(shared, &current));
}

/// Publishes another view of repo `index`, and has all who follow the flips look at it. The caller holds `flips`.
fn replace(shared: &Shared, index: usize, view: RepoView, told: impl FnOnce(&Shared)) {
    let mut phases = shared.phases();
    store(shared, index, view);
    told(shared);
    observe(shared, &mut phases, index, clock::now());
    drop(phases);
    shared.reviewed.notify_one();
    // Those that wait, and the one that is busy.
    shared.flipped.notify_waiters();
    shared.flipped.notify_one();
}

/// The one place that replaces [`Published::repos`](crate::policy::Published). The caller holds `flips`.
fn store(shared: &Shared, index: usize, view: RepoView) {
    let repos = shared.published.repos.load();
    shared.published.repos.store(Arc::new(repos.with(index, view)));
}

/// To the state directory, if there is one.
async fn save(shared: &Shared, index: usize, history: &History, window: Option<Window>) {
    let watched = &shared.repos[index];
    let Some(dir) = watched.dir.clone() else { return };
    let history = history.clone();
    let saved = spawn_blocking(move || dir.save(&history, window, clock::ahead())).await;
    if let Err(error) = saved.map_err(std::io::Error::other).flatten() {
        tracing::error!(
            repo = watched.repo.id,
            "a restart would lose this push: it can't be written to disk: {error}"
        );
    }
}
