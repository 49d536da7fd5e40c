//! The probes of one mirror over one address family.
//!
//! A worker owns the state of its mirror over that family and tells every change of it to the publisher; nobody else changes it. Its event loop
//! never waits for the mirror: what asks runs in `tasks`, at most [`check::LANES`] at a time over both families and all mirrors together at most
//! `parallel` (the liveness check and that of a bounce, one each, don't queue behind a long check). A mirror that is down
//! has no tasks but the liveness check. Back up, it is published as up only once it has shown a repomd.xml of each repo
//! that it has a proof for.

mod found;

use super::check::{self, Asker, Compared, Doubt, Place};
use super::client::{Failure, Looked, MirrorClient, Validator};
use super::judge::{self, File, Missed, Next};
use super::{Shared, Update};
use crate::clock;
use crate::http::{ByteRange, TreePath};
use crate::policy::{MirrorState, Pair, Proof, Repos};
use crate::repo::{History, root_document};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Within this time after a flip (or a return) the mirrors are asked, so that not all are at the same moment.
const SPREAD: Duration = Duration::from_millis(500);
/// Between two checks of files that clients came back for.
const BOUNCE_PAUSE: Duration = Duration::from_secs(1);
/// Repos that a liveness check may ask for.
const LIVENESS_REPOS: usize = 2;
/// Between two measurements of how fast the mirror is: a mebibyte an hour costs its admin nothing.
const MEASURE_EVERY: Duration = Duration::from_secs(3600);
/// A mirror that is down is retried ever more slowly, up to so many doublings.
const MOST_DOUBLINGS: u32 = 16;

pub(super) struct Worker {
    shared: Arc<Shared>,
    place: Place,
    state: MirrorState,
    repos: Arc<Repos>,
    slots: Vec<Slot>,
    tasks: JoinSet<Done>,
    bounces: mpsc::Receiver<String>,
    changed: watch::Receiver<u64>,
    liveness: Liveness,
    /// When it is to be seen again how fast the mirror is.
    measure: Instant,
}

/// The probes of one repo.
struct Slot {
    due: Instant,
    running: bool,
    /// The repo flipped while a probe was running.
    again: bool,
    /// The mirror is coming back and has to show its repomd.xml first.
    awaited: bool,
    /// It was looked at since the mirror was last down.
    looked: bool,
    validator: Option<Validator>,
    /// The file that the last check failed for.
    first: Option<String>,
    /// Until it is settled, nothing is proven.
    doubted: Option<Doubt>,
}

impl Slot {
    fn due(now: Instant) -> Self {
        Self {
            due: now,
            running: false,
            again: false,
            awaited: false,
            looked: false,
            validator: None,
            first: None,
            doubted: None,
        }
    }
}

struct Liveness {
    due: Instant,
    running: bool,
    /// In a row: without a time in between in which the mirror was up and all its repos could be looked at.
    failures: u32,
    /// It answers, but isn't published as up yet.
    returning: bool,
    bounce_after: Instant,
}

/// What a task found.
enum Done {
    Alive(Result<(), Failure>),
    Looked {
        repo: usize,
        result: Result<Looked, Failure>,
        /// From the question to the whole answer.
        took: Duration,
    },
    Verified {
        repo: usize,
        target: u32,
        base: Option<Proof>,
        result: Result<usize, Missed>,
        ranges: Option<bool>,
        /// What had been doubted was found right.
        settled: bool,
    },
    Spotted {
        repo: usize,
        result: Result<Compared, Missed>,
        /// Bytes per second, where enough was read to tell.
        throughput: Option<u64>,
    },
    Bounced {
        path: TreePath,
        result: Result<(), Failure>,
    },
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        place: Place,
        state: MirrorState,
        bounces: mpsc::Receiver<String>,
        changed: watch::Receiver<u64>,
    ) -> Self {
        let now = now();
        let slots = state.pairs.iter().map(|_| Slot::due(now)).collect();
        let liveness =
            Liveness { due: now, running: false, failures: 0, returning: false, bounce_after: now };
        let (repos, tasks) = (shared.published.repos.load_full(), JoinSet::new());
        let measure = now;
        Self { shared, place, state, repos, slots, tasks, bounces, changed, liveness, measure }
    }

    /// Probes until it is dropped.
    pub(super) async fn run(mut self) {
        self.flip();
        loop {
            self.start_due();
            let next = self.next_due();
            let told = tokio::select! {
                Ok(()) = self.changed.changed() => self.flip(),
                Some(path) = self.bounces.recv() => {
                    self.check_bounce(&path);
                    false
                }
                Some(done) = self.tasks.join_next() => self.finish(done),
                () = sleep_until(next) => false,
            };
            if told {
                let Place { mirror, family, .. } = self.place;
                let update = Update { mirror, family, state: Arc::new(self.state.clone()) };
                if self.shared.updates.send(update).await.is_err() {
                    return;
                }
            }
        }
    }

    fn is_asked(&self) -> bool {
        self.state.reach.is_up() || self.liveness.returning
    }

    fn next_due(&self) -> Instant {
        let idle = self.slots.iter().filter(|slot| self.is_asked() && !slot.running).map(|slot| slot.due);
        let liveness = (!self.liveness.running).then_some(self.liveness.due);
        idle.chain(liveness).min().unwrap_or_else(|| now() + self.shared.settings.probe_every)
    }

    fn start_due(&mut self) {
        let now = now();
        if !self.liveness.running && self.liveness.due <= now {
            self.start_liveness();
        }
        for repo in 0..self.slots.len() {
            if self.is_asked() && !self.slots[repo].running && self.slots[repo].due <= now {
                self.start_look(repo);
            }
        }
    }

    fn start_liveness(&mut self) {
        self.liveness.running = true;
        let (shared, family, urls) = (self.shared.clone(), self.place.family, self.liveness_urls());
        self.tasks.spawn(async move { Done::Alive(alive(shared.client(family), &urls).await) });
    }

    /// Where it is asked whether it lives: at the repomd.xml of two repos that answered when they were last looked at,
    /// proven ones before others, and at its root. The next counts only if one has an error: a repo may be broken alone.
    fn liveness_urls(&self) -> Vec<String> {
        let pairs = &self.state.pairs[..self.state.pairs.len().min(self.repos.views().len())];
        let mut answered: Vec<_> = (0..pairs.len()).filter(|repo| pairs[*repo].seen.is_some()).collect();
        answered.sort_by_key(|repo| pairs[*repo].proof.is_none());
        let repomds = answered.into_iter().take(LIVENESS_REPOS).map(|repo| self.root_url(repo));
        repomds.chain(std::iter::once(self.state.mirror.url.clone())).collect()
    }

    fn start_look(&mut self, repo: usize) {
        let url = self.root_url(repo);
        let (shared, place) = (self.shared.clone(), self.place.clone());
        let slot = &mut self.slots[repo];
        (slot.running, slot.again) = (true, false);
        // Where all is well only: a validator may stand for two versions of one second, and a mirror that seems to lag
        // must not be held there by it.
        let known = slot.validator.clone().filter(|_| self.is_current(repo));
        self.tasks.spawn(async move {
            let _permits = check::permits(&place.lanes, &shared.permits).await;
            let begun = now();
            let result = shared.client(place.family).look(&url, known).await;
            Done::Looked { repo, result, took: begun.elapsed() }
        });
    }

    fn start_next(&mut self, repo: usize, next: Next) {
        let history = self.history(repo).clone();
        let (shared, place) = (self.shared.clone(), self.place.clone());
        let root = self.repos.views()[repo].repo.path.clone();
        let asker = Asker { shared: shared.clone(), place, base: self.url(repo, ""), repo: root };
        let mut rng = fastrand::Rng::new();
        match next {
            Next::Rest => self.rest(repo),
            Next::Spot(proof) => match judge::spot(&history, proof, &mut rng) {
                Some(file) => {
                    let is_long = self.measure <= now() && file.size >= judge::LONG_SAMPLE_BYTES;
                    let bytes = if is_long { judge::LONG_SAMPLE_BYTES } else { judge::SAMPLE_BYTES };
                    let part = judge::sample(&file, bytes, &mut rng);
                    if is_long {
                        self.measure = now() + MEASURE_EVERY;
                    }
                    self.tasks.spawn(async move {
                        let (result, took) = asker.compare(file, part).await;
                        let is_told = is_long && matches!(result, Ok(Compared::Fits | Compared::Differs(_)));
                        let throughput = is_told.then(|| per_second(part.len(), took));
                        Done::Spotted { repo, result, throughput }
                    });
                }
                None => self.rest(repo),
            },
            Next::Verify(target) => {
                let (base, first) = (self.state.pairs[repo].proof, self.slots[repo].first.clone());
                let doubted = &mut self.slots[repo].doubted;
                doubted.take_if(|doubt| !judge::is_listed(&history, &doubt.file));
                let doubted = doubted.clone().filter(|doubt| judge::lists(&history, target, &doubt.file));
                self.tasks.spawn(async move {
                    if let Some(doubt) = &doubted
                        && let Err(missed) = asker.settle(doubt).await
                    {
                        let result = Err(missed);
                        return Done::Verified { repo, target, base, result, ranges: None, settled: false };
                    }
                    let most = shared.settings.sample;
                    let files = judge::unproven(&history, base, target, most, first.as_deref(), &mut rng);
                    let files: Arc<[File]> = files.into();
                    let result = asker.all(&files).await;
                    let (result, ranges) = match files.iter().find(|file| file.size > 0) {
                        Some(file) if result.is_ok() => {
                            match asker.part(file, ByteRange { start: 0, end: 1 }).await {
                                Ok(part) => (result, Some(part.is_some())),
                                Err(missed) if missed.transient => (result, None),
                                Err(missed) => (Err(missed), None),
                            }
                        }
                        _ => (result, None),
                    };
                    Done::Verified { repo, target, base, result, ranges, settled: doubted.is_some() }
                });
            }
        }
    }

    fn check_bounce(&mut self, path: &str) {
        let now = now();
        let Ok(path) = TreePath::new(path) else { return };
        let listed = self.repos.locate(&path).and_then(|place| place.listed);
        let (Some(listed), true) = (listed, self.is_asked() && now >= self.liveness.bounce_after) else {
            return;
        };
        self.liveness.bounce_after = now + BOUNCE_PAUSE;
        let url = self.state.mirror.url.clone() + &path.encoded();
        let (shared, family) = (self.shared.clone(), self.place.family);
        self.tasks.spawn(async move {
            let result = shared.client(family).head(&url, listed.entry.size).await;
            Done::Bounced { path, result }
        });
    }

    fn stop_tasks(&mut self) {
        self.tasks = JoinSet::new();
        self.liveness.running = false;
        for slot in &mut self.slots {
            slot.running = false;
        }
    }

    /// After a probe: when the next is due.
    fn rest(&mut self, repo: usize) {
        let settings = &self.shared.settings;
        let lags = self.state.pairs[repo].seen.is_some() && !self.is_current(repo);
        let pause = jittered(if lags { settings.probe_lagging } else { settings.probe_every });
        let slot = &mut self.slots[repo];
        slot.running = false;
        slot.due = if std::mem::take(&mut slot.again) { now() } else { now() + pause };
    }

    /// Takes over what is published of the repos. Whether there is something to tell.
    fn flip(&mut self) -> bool {
        let old = std::mem::replace(&mut self.repos, self.shared.published.repos.load_full());
        let views = self.repos.views();
        self.slots.resize_with(views.len(), || Slot::due(now()));
        self.state.pairs.resize_with(views.len(), Pair::default);
        let sequence = |repo: usize| old.views().get(repo).map(|view| view.sequence());
        let mut changed = false;
        for (repo, view) in
            views.iter().enumerate().filter(|(repo, view)| sequence(*repo) != Some(view.sequence()))
        {
            let slot = &mut self.slots[repo];
            slot.again = slot.running;
            slot.due = slot.due.min(now() + spread(self.shared.settings.probe_lagging));
            self.state.pairs[repo] = judge::flipped(&view.history, &self.state.pairs[repo]);
            changed = true;
        }
        changed
    }

    /// It shows the current generation, and is proven for it.
    fn is_current(&self, repo: usize) -> bool {
        let (sequence, pair) = (self.repos.views()[repo].sequence(), &self.state.pairs[repo]);
        let shows = pair.seen == self.history(repo).current().map(|generation| generation.id);
        shows && pair.proof.is_some_and(|proof| (proof.sequence, proof.shown) == (sequence, sequence))
    }

    fn history(&self, repo: usize) -> &History {
        &self.repos.views()[repo].history
    }

    fn root_url(&self, repo: usize) -> String {
        self.url(repo, root_document(&self.repos.views()[repo].repo))
    }

    fn url(&self, repo: usize, file: &str) -> String {
        format!("{}{}/{file}", self.state.mirror.url, self.repos.views()[repo].repo.path.encoded())
    }

    fn count(&self, outcome: &str) {
        self.shared.metrics.probes.with_label_values(&[&self.state.mirror.name, outcome]).inc();
    }
}

/// Whether one of `urls` answers without an error of the server; all are on one host. If none does, what the first said.
async fn alive(client: &MirrorClient, urls: &[String]) -> Result<(), Failure> {
    let mut answer = client.alive(urls.first().map_or("", String::as_str)).await;
    for url in urls.iter().skip(1) {
        let Err(Failure::Status(_)) = answer else { break };
        match client.alive(url).await {
            Err(Failure::Status(_)) => {}
            other => answer = other,
        }
    }
    answer
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

fn now() -> Instant {
    clock::monotonic().into()
}

/// Within 10 % of `interval`.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn spread(interval: Duration) -> Duration {
    interval.min(SPREAD).mul_f64(fastrand::f64())
}
