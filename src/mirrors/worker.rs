//! The probes of one mirror over one address family.
//!
//! A worker owns the state of its mirror over that family and tells every change of it to the publisher; nobody else changes it. Its event loop
//! never waits for the mirror: what asks runs in `tasks`, at most [`LANES`](super::lanes::LANES) at a time over both families and all mirrors together at most
//! `parallel` (the liveness check and that of a bounce, one each, don't queue behind a long check). A mirror that is down
//! has no tasks but the liveness check. Back up, it is published as up only once it has shown a repomd.xml of each repo
//! that it has a proof for.

mod ask;
mod found;

use super::check::{Compared, Doubt, Place, Settled};
use super::client::{Failure, Looked, Validator};
use super::dispute::Dispute;
use super::findings::{Findings, Held};
use super::judge::{self, Lapse, Missed, Next};
use super::{Shared, Update};
use crate::clock;
use crate::http::TreePath;
use crate::policy::{BounceReport, MirrorState, Pair, Repos};
use crate::repo::{History, root_document};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Within this time after a flip (or a return) the mirrors are asked, so that not all are at the same moment.
const SPREAD: Duration = Duration::from_millis(500);
/// Between two checks of files that clients came back for.
const BOUNCE_PAUSE: Duration = Duration::from_secs(1);
/// Files that wait for such a check.
const MOST_BOUNCES: usize = 8;
/// A check that was broken off goes on where it was within this time: a mirror that allows a request each second takes hours.
const CHECK_LASTS: Duration = Duration::from_secs(6 * 3600);
/// A mirror that lacks a few files is asked for them as one that lags for this long: it may be in the midst of a sync.
const EXCEPTIONS_ARE_NEW: Duration = Duration::from_secs(3600);
/// A mirror that is down is retried ever more slowly, up to so many doublings.
const MOST_DOUBLINGS: u32 = 16;

pub(super) struct Worker {
    shared: Arc<Shared>,
    place: Place,
    state: MirrorState,
    repos: Arc<Repos>,
    slots: Vec<Slot>,
    tasks: JoinSet<Done>,
    reports: mpsc::Receiver<BounceReport>,
    changed: watch::Receiver<u64>,
    bounces: Bounces,
    dispute: Dispute,
    liveness: Liveness,
    /// When it is to be seen again how fast the mirror is.
    measure: Instant,
    /// It was slow then: once may be chance.
    was_slow: bool,
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
    /// A check that wasn't finished, and when it began.
    check: Option<(Arc<Mutex<Findings>>, Instant)>,
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
            check: None,
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
    /// It was down before.
    outage: bool,
}

/// Files that clients came back for.
struct Bounces {
    /// Those to be checked, and how often the mirror was too busy to say anything.
    waiting: VecDeque<(String, u32)>,
    /// The next one not before.
    after: Instant,
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
        check: Arc<Mutex<Findings>>,
        result: Result<Held, Missed>,
        ranges: Option<bool>,
        /// Of wrong bytes.
        settled: Settled,
    },
    /// After an outage.
    Sampled {
        repo: usize,
        /// What follows if all is there.
        next: Next,
        result: Result<(), Missed>,
    },
    Spotted {
        repo: usize,
        result: Result<Compared, Lapse>,
        /// Bytes per second, where enough was read to tell.
        throughput: Option<u64>,
    },
    Bounced {
        path: TreePath,
        /// How often it was asked for before.
        tries: u32,
        result: Result<(), (Failure, Lapse)>,
    },
}

impl Bounces {
    /// To be checked after what waits already; a file that waits need not do so twice.
    fn wait(&mut self, path: String, tries: u32) {
        if self.waiting.len() < MOST_BOUNCES && self.waiting.iter().all(|(waiting, _)| *waiting != path) {
            self.waiting.push_back((path, tries));
        }
    }
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        place: Place,
        state: MirrorState,
        reports: mpsc::Receiver<BounceReport>,
        changed: watch::Receiver<u64>,
    ) -> Self {
        let now = now();
        let slots = state.pairs.iter().map(|_| Slot::due(now)).collect();
        let liveness = Liveness { due: now, running: false, failures: 0, returning: false, outage: false };
        let bounces = Bounces { waiting: VecDeque::new(), after: now };
        let (repos, tasks) = (shared.published.repos.load_full(), JoinSet::new());
        let measure = now;
        Self {
            shared,
            place,
            state,
            repos,
            slots,
            tasks,
            reports,
            changed,
            bounces,
            dispute: Dispute::default(),
            liveness,
            measure,
            was_slow: false,
        }
    }

    /// Probes until it is dropped.
    pub(super) async fn run(mut self) {
        self.flip();
        loop {
            self.start_due();
            let next = self.next_due();
            let told = tokio::select! {
                Ok(()) = self.changed.changed() => self.flip(),
                Some(BounceReport { path, network, .. }) = self.reports.recv() => {
                    if let Some(network) = network {
                        self.dispute.returned(network, clock::now());
                    }
                    if let Some(path) = path {
                        self.bounces.wait(path, 0);
                    }
                    false
                }
                Some(done) = self.tasks.join_next() => {
                    let mut told = self.finish(done);
                    while let Some(done) = self.tasks.try_join_next() {
                        told |= self.finish(done);
                    }
                    told
                }
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
        let bounce = (self.is_asked() && !self.bounces.waiting.is_empty()).then_some(self.bounces.after);
        idle.chain(liveness).chain(bounce).min().unwrap_or_else(|| now() + self.shared.settings.probe_every)
    }

    fn start_due(&mut self) {
        let now = now();
        if !self.liveness.running && self.liveness.due <= now {
            self.start_liveness();
        }
        if self.is_asked()
            && self.bounces.after <= now
            && let Some((path, tries)) = self.bounces.waiting.pop_front()
        {
            self.start_bounce(&path, tries);
        }
        for repo in 0..self.slots.len() {
            if self.is_asked() && !self.slots[repo].running && self.slots[repo].due <= now {
                self.start_look(repo);
            }
        }
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
        let pair = &self.state.pairs[repo];
        let is_new = clock::now().since(pair.since) < EXCEPTIONS_ARE_NEW;
        let lacks = is_new && pair.exceptions.counted() > 0;
        // A busy mirror said nothing of the repo, and is asked again when it takes requests.
        let resumes = self.place.pace.resumes();
        let lags = resumes.is_some() || lacks || (pair.seen.is_some() && !self.is_current(repo));
        let pause = jittered(if lags { settings.probe_lagging } else { settings.probe_every });
        let slot = &mut self.slots[repo];
        slot.running = false;
        let due = if std::mem::take(&mut slot.again) { now() } else { now() + pause };
        slot.due = resumes.map_or(due, |resumes| due.max(resumes));
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
        let repo = &self.repos.views()[repo].repo;
        // A name that the config has is short.
        let path = repo.file(root_document(repo)).unwrap_or_else(|_| TreePath::root());
        self.state.mirror.url.clone() + &path.encoded()
    }

    fn count(&self, outcome: &str) {
        self.shared.metrics.probes.with_label_values(&[&self.state.mirror.name, outcome]).inc();
    }
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
