//! Pushes: noticed, verified, warmed, and offered in one step.
//!
//! One task for each repo walks through `watch` (is there another repomd.xml at the origin?), `verify` (fetch and check
//! the metadata, make a generation of them), `gate` (see each new file at the origin, and read what is to be warm) and `flip`
//! (keep it on disk, publish it). Until the flip, clients get the old generation, whatever happens to the new one. The tasks are the only publishers of
//! [`Published::repos`]; `state` keeps what they publish over a restart, `phases` follows the windows they open.
//!
//! Runs on the background runtime; whatever blocks is on its blocking pool. It answers no client.

mod behind;
mod event;
mod fault;
mod flip;
mod gate;
mod handle;
mod images;
mod older;
mod phases;
mod retain;
pub(crate) mod state;
mod status;
mod verify;
mod warm;
mod watch;

#[cfg(test)]
mod tests;

pub use event::Event;
pub use fault::Held;
pub use handle::{Faults, PushHandle};
pub use status::{RepoCurrency, RepoState, Step};
pub use verify::PushError;

use crate::clock::{self, Ahead};
use crate::config::{Config, Origin, Repo};
use crate::metrics::Metrics;
use crate::policy::{Confirmed, Published, RepoView, Repos};
use crate::repo::{Generation, History, Sha256};
use crate::store::{FetchError, Object, Store};
use handle::Order;
use phases::Phases;
use state::RepoDir;
use status::{News, Status};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, broadcast, watch as channel};
use tokio::task::JoinSet;

/// Requests for a repomd.xml at a time, of all repos together.
const POLLS: usize = 16;
/// Pushes whose metadata are read at a time: they may be in memory whole.
const VERIFICATIONS: usize = 4;
/// Memory for lists while they are read, as they are at the origin, in MiB, of all repos together.
const LISTS_MIB: u32 = 512;
/// Metadata files that repomd.xml gives no size or checksum of, and that are in memory whole, at a time.
const WHOLES: usize = 2;
/// Files that are looked at at a time, of all repos together. At 20 ms for each 5000 take 2 s.
const SIGHTS: usize = 64;
/// Events that a slow subscriber may lag behind before it misses some.
const EVENTS: usize = 1024;

/// Watches all repos. Made before the listeners start, then [`restore`](Self::restore)d, then [`run`](Self::run).
pub struct Pushes {
    shared: Arc<Shared>,
}

/// What the tasks have in common.
struct Shared {
    config: Arc<Config>,
    published: Arc<Published>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    flipped: Arc<Notify>,
    events: broadcast::Sender<Event>,
    /// In the order of the config, as is whatever has an index here.
    repos: Vec<Watched>,
    polls: Semaphore,
    verifications: Semaphore,
    /// Of [`LISTS_MIB`].
    lists: Semaphore,
    wholes: Semaphore,
    sights: Semaphore,
    warming: Semaphore,
    /// Held from before a generation's files are linked until it is published, so that no sweep of another flip removes
    /// what is not published yet, and so that no publication is lost.
    flips: tokio::sync::Mutex<()>,
    phases: Mutex<Phases>,
    /// What keeps the files of a local tree, behind the flips.
    retaining: Mutex<JoinSet<()>>,
    /// With what the wall clock was ahead when that was last told.
    ahead: Mutex<Ahead>,
    /// A view was replaced: its window may end before the others do.
    reviewed: Notify,
    started: Instant,
    /// How long a look at a file counts once what was seen is in doubt.
    trusted: Duration,
}

/// One repo, as its task sees it.
struct Watched {
    repo: Arc<Repo>,
    dir: Option<RepoDir>,
    status: Mutex<Status>,
    /// As in all views of it.
    confirmed: Arc<Confirmed>,
    /// How long it took to read the lists of the newest push that was read, in milliseconds.
    reading: AtomicU64,
    /// Ends the wait for the next poll.
    wake: Notify,
    /// What the operator wants of the next round.
    order: Mutex<Order>,
    /// Generations found on disk without the one that was current, which is damaged: what sequences go on from, but
    /// not to be served, since that would be going back.
    base: OnceLock<History>,
}

impl Pushes {
    /// For the repos of `config`, which are published without a generation until one is restored or found.
    ///
    /// `state_dir` is where generations and windows are kept; without it a restart begins anew. `flipped` is notified
    /// after each flip; it may be more often.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        published: Arc<Published>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        state_dir: Option<&Path>,
        flipped: Arc<Notify>,
    ) -> Self {
        let repos: Vec<_> = config.repos.iter().map(|repo| Watched::new(repo, state_dir)).collect();
        let view = |watched: &Watched| RepoView {
            confirmed: Arc::clone(&watched.confirmed),
            ..RepoView::new(Arc::clone(&watched.repo), History::default(), None)
        };
        published
            .repos
            .store(Arc::new(Repos::new(repos.iter().map(|watched| Arc::new(view(watched))).collect())));
        for watched in &repos {
            metrics.push_held.with_label_values(&[&*watched.repo.id]).set(0);
        }
        let shared = Shared {
            published,
            store,
            metrics,
            flipped,
            events: broadcast::Sender::new(EVENTS),
            polls: Semaphore::new(POLLS),
            verifications: Semaphore::new(VERIFICATIONS),
            lists: Semaphore::new(LISTS_MIB as usize),
            wholes: Semaphore::new(WHOLES),
            sights: Semaphore::new(SIGHTS),
            warming: Semaphore::new(config.push.warm_parallel),
            flips: tokio::sync::Mutex::default(),
            phases: Mutex::new(Phases::new(repos.len())),
            retaining: Mutex::default(),
            ahead: Mutex::default(),
            reviewed: Notify::new(),
            started: clock::monotonic(),
            trusted: gate::TRUSTED,
            repos,
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes the generations and windows that were kept on disk.
    ///
    /// What is damaged is skipped with a warning. A repo whose newest generation is damaged is published without any:
    /// the one before would be a step back, and the origin has the newest.
    pub async fn restore(&self) {
        flip::restore(&self.shared).await;
    }

    /// Watches all repos until `shutdown` turns true or its sender is gone.
    pub async fn run(self, shutdown: channel::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let mut names = HashMap::new();
        for index in 0..self.shared.repos.len() {
            let task = watch::repo(Arc::clone(&self.shared), index, Duration::ZERO, shutdown.clone());
            names.insert(tasks.spawn(task).id(), index);
        }
        tasks.spawn(phases::follow(Arc::clone(&self.shared), shutdown.clone()));
        while let Some(ended) = tasks.join_next_with_id().await {
            let Err(broken) = ended else { continue };
            // One repo's misfortune must not stop its pushes for good, nor those of others.
            let index = names.remove(&broken.id());
            tracing::error!("a task of the pushes broke: {broken}");
            if let Some(index) = index {
                self.shared.failed(index, &PushError::Broken(broken.to_string()));
                let pause = self.shared.config.push.poll;
                let task = watch::repo(Arc::clone(&self.shared), index, pause, shutdown.clone());
                names.insert(tasks.spawn(task).id(), index);
            }
        }
    }

    /// For the admin API and the status page.
    #[must_use]
    pub fn handle(&self) -> PushHandle {
        PushHandle::new(&self.shared)
    }
}

impl Shared {
    fn view(&self, index: usize) -> Arc<RepoView> {
        Arc::clone(&self.published.repos.load().views()[index])
    }

    /// Where the tree is mastered, as the config names it.
    fn origin(&self) -> String {
        match &self.config.origin {
            Origin::Http { url, .. } => url.clone(),
            Origin::Directory { path, .. } => path.display().to_string(),
        }
    }

    /// The generations that the next one follows.
    fn history(&self, index: usize) -> History {
        let served = self.view(index).history.clone();
        match self.repos[index].base.get() {
            Some(base) if served.current().is_none() => base.clone(),
            _ => served,
        }
    }

    /// The generation that clients get.
    fn current(&self, index: usize) -> Option<Arc<Generation>> {
        self.view(index).history.current().cloned()
    }

    /// Tells, once for all repos, that the wall clock was set.
    fn clock_is(&self, ahead: Ahead) {
        let mut last = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.differs_from(*last) {
            let told = std::mem::replace(&mut *last, ahead);
            let seconds = ahead.as_secs() - told.as_secs();
            tracing::warn!(seconds, "the clock was set: what lasts goes on as before, and dates follow it");
        }
    }

    fn tell(&self, event: Event) {
        event.log();
        // Nobody need be listening.
        let _ = self.events.send(event);
    }

    /// A poll or a push failed. The same failure over and over is one line in the log.
    fn failed(&self, index: usize, error: &PushError) {
        let watched = &self.repos[index];
        if let PushError::Held(held) = error {
            watched.status().step = Step::Idle;
            return self.hold(index, held);
        }
        let text = error.to_string();
        let is_news = watched.status().fail(&text, matches!(error, PushError::Unfinished(_)));
        if error.is_of_push() {
            self.metrics.pushes.with_label_values(&[watched.repo.id.as_str(), "failed"]).inc();
            let event = Event::Failed { repo: Arc::clone(&watched.repo), error: text };
            if is_news {
                event.log();
            }
            let _ = self.events.send(event);
        } else if is_news {
            tracing::warn!(repo = watched.repo.id, "{text}");
        }
    }

    /// A push is held. Its reason is one line in the log.
    fn hold(&self, index: usize, held: &Held) {
        let watched = &self.repos[index];
        let id = watched.repo.id.as_str();
        let news = watched.status().hold(held, clock::now());
        if news == News::Push {
            self.metrics.pushes.with_label_values(&[id, "held"]).inc();
        }
        self.metrics.push_held.with_label_values(&[id]).set(1);
        let event = Event::Held { repo: Arc::clone(&watched.repo), held: held.clone() };
        if news != News::Nothing {
            event.log();
        }
        let _ = self.events.send(event);
    }

    /// The same while its other files are still looked at: an order that waits for an answer has it.
    fn hold_early(&self, index: usize, held: &Held, answered: u64) {
        self.hold(index, held);
        self.repos[index].status().answered = answered;
    }

    /// No push is held any more, unless it is `push`.
    fn release(&self, index: usize, push: Option<Sha256>) {
        let watched = &self.repos[index];
        let mut status = watched.status();
        if status.held.as_ref().is_some_and(|(held, _)| Some(held.generation) != push) {
            (status.held, status.last_error) = (None, None);
            self.metrics.push_held.with_label_values(&[watched.repo.id.as_str()]).set(0);
        }
    }

    /// A file of the generation on offer turns out to be wrong at the origin.
    fn found_wrong(&self, index: usize, object: &Object, error: &FetchError) {
        if fault::blame(error) != fault::Blame::File {
            return;
        }
        let (watched, file) = (&self.repos[index], object.path.to_string());
        if watched.status().fault(&file, error.to_string()) {
            tracing::error!(repo = watched.repo.id, "offered, and wrong at the origin: {file}: {error}");
        }
    }

    fn readiness(&self, elapsed: Duration) -> Result<(), String> {
        let repos = self.published.repos.load();
        let mut missing =
            repos.views().iter().zip(&self.repos).filter(|(view, _)| view.history.current().is_none());
        let is_waited_for =
            |watched: &Watched| elapsed < self.config.push.give_up || watched.status().last_error.is_none();
        let none_at_all = missing.clone().count() == repos.views().len();
        let reason = |watched: &Watched| {
            let status = watched.status();
            let why = status.last_error.as_deref().unwrap_or("the origin is being asked");
            format!("{}: no generation yet: {why}", watched.repo.id)
        };
        match missing.find(|(_, watched)| none_at_all || is_waited_for(watched)) {
            Some((_, watched)) => Err(reason(watched)),
            None => Ok(()),
        }
    }

    fn phases(&self) -> MutexGuard<'_, Phases> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn new(repo: &Repo, state_dir: Option<&Path>) -> Self {
        Self {
            repo: Arc::new(repo.clone()),
            dir: state_dir.map(|dir| RepoDir::new(dir, &repo.id)),
            status: Mutex::default(),
            confirmed: Arc::default(),
            reading: AtomicU64::new(0),
            wake: Notify::new(),
            order: Mutex::default(),
            base: OnceLock::new(),
        }
    }

    /// Notes how long the lists took to read.
    fn note_reading(&self, time: Duration) {
        self.reading.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long they took since this was last asked.
    fn take_reading(&self) -> Duration {
        Duration::from_millis(self.reading.swap(0, Ordering::Relaxed))
    }

    /// What the operator wants of this round. The next one has the same number, unless there is another order.
    fn take_order(&self) -> Order {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Order { number: order.number, ..Order::default() };
        std::mem::replace(&mut *order, next)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes once `shutdown` is true or its sender gone.
async fn stopped(mut shutdown: channel::Receiver<bool>) {
    // An error means that the sender is gone, which is a shutdown too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
