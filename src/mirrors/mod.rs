//! The prober: what each mirror holds and whether it answers.
//!
//! [`Prober`] publishes [`Published::mirrors`]. For each mirror and address family one worker owns the state and does the asking;
//! the prober's own task alone puts the table together (`families` says what two make of one), publishes it, logs the changes and keeps the proofs on disk.
//! What answers mean is decided in [`judge`], without IO.

mod allowance;
mod check;
mod client;
mod dispute;
mod families;
pub mod findings;
mod hop;
mod hosts;
mod internal;
pub mod judge;
mod lanes;
mod pace;
pub(crate) mod proofs;
mod resolve;
mod sight;
mod worker;

#[cfg(test)]
mod tests;

use crate::clock;
use crate::config::{Mirror, Probes};
use crate::http::{ByteRange, TreePath};
use crate::metrics::Metrics;
use crate::policy::{
    BounceReport, MirrorState, MirrorTable, Pair, Published, Reach, Repos, Sightings, sightings,
};
use crate::repo::Digest;
use crate::store::Comparison;
use allowance::Allowance;
use bytes::Bytes;
use check::Place;
use client::MirrorClient;
use families::{Both, Family, merged};
use hosts::Hosts;
use lanes::Lanes;
use pace::Pace;
use proofs::Document;
use sight::Sights;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use worker::Worker;

/// How often the repos are looked at for a flip that nobody told of.
const TICK: Duration = Duration::from_millis(500);
/// Between two writes of the proofs; in ticks.
const SAVE_TICKS: u32 = 2;
/// Between two writes at least so many times what the first took: all proofs are written, those of 1000 mirrors take a while.
const SAVES_REST: u32 = 50;
/// Later `verified` times alone are written this seldom; in ticks.
const SAVE_TIMES_TICKS: u32 = 120;
/// Updates under way to the publisher; workers wait beyond it.
const UPDATES: usize = 256;
/// Updates by which no decision changes are published together if they come within this time: a table is a copy of what is known
/// of all mirrors.
const GATHERED: Duration = Duration::from_millis(100);
/// Bounces on their way to one worker; more are dropped.
const BOUNCES: usize = 16;

/// Why there is no prober.
#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    /// The certificates that https mirrors are checked with can't be read.
    #[error("TLS of the probes: {0}")]
    Tls(#[source] io::Error),
}

/// Probes all mirrors, publishes what they hold. Owns all its tasks.
pub struct Prober {
    shared: Arc<Shared>,
    mirrors: Vec<Arc<Mirror>>,
    /// As restored; the workers begin with it.
    families: Vec<Both>,
    state_dir: Option<PathBuf>,
    flipped: Arc<Notify>,
    changes: watch::Sender<u64>,
    signals: Signals,
    updates: mpsc::Receiver<Update>,
}

/// What clients' requests tell the prober.
pub struct Signals {
    /// Files that clients came back for.
    pub bounces: mpsc::Receiver<BounceReport>,
    /// Files that no list names, and that mirrors are to be looked at for.
    pub looks: mpsc::Receiver<sightings::Request>,
}

/// What the prober compares with, and what it fills besides the table.
pub struct Known {
    /// What mirrors' bytes are compared with.
    pub ours: Ours,
    /// Whether the origin lacks what mirrors lack.
    pub lacking: Lacking,
    /// What they were seen to have of files that no list names.
    pub sightings: Arc<Sightings>,
}

/// What all workers use.
struct Shared {
    settings: Probes,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// In the order of [`Family::ALL`].
    clients: [MirrorClient; 2],
    permits: Arc<Semaphore>,
    known: Known,
    updates: mpsc::Sender<Update>,
}

impl Shared {
    fn client(&self, family: Family) -> &MirrorClient {
        &self.clients[family as usize]
    }
}

/// Holds a mirror's bytes of a part of the file of this path, digest and size against the node's own.
pub type Ours = Arc<dyn Fn(TreePath, Digest, u64, ByteRange, Bytes) -> Compares + Send + Sync>;
/// Whether the origin, for sure, hasn't the file of this path, digest and size: it is gone there, or has another length.
pub type Lacking = Arc<dyn Fn(TreePath, Digest, u64) -> Answer + Send + Sync>;
/// See [`Lacking`].
pub type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;
/// See [`Ours`].
pub type Compares = Pin<Box<dyn Future<Output = Comparison> + Send>>;

/// A mirror's new state over one family.
struct Update {
    mirror: usize,
    family: Family,
    state: Arc<MirrorState>,
}

impl Prober {
    /// Of these mirrors, in the order of the config. Without a `state_dir` no proof survives a restart.
    ///
    /// # Errors
    /// A mirror is https and the system's certificates can't be read.
    pub fn new(
        settings: Probes,
        mirrors: &[Mirror],
        published: Arc<Published>,
        metrics: Arc<Metrics>,
        state_dir: Option<PathBuf>,
        signals: Signals,
        known: Known,
    ) -> Result<Self, ProberError> {
        let tls = mirrors.iter().any(|mirror| mirror.url.starts_with("https:"));
        let clients =
            MirrorClient::both(settings.timeout, &settings.contact, tls).map_err(ProberError::Tls)?;
        let (sender, updates) = mpsc::channel(UPDATES);
        let permits = Arc::new(Semaphore::new(settings.parallel));
        let shared =
            Arc::new(Shared { settings, published, metrics, clients, permits, known, updates: sender });
        let mirrors = mirrors.iter().cloned().map(Arc::new).collect();
        let (flipped, changes) = (Arc::new(Notify::new()), watch::Sender::new(0));
        let families = Vec::new();
        Ok(Self { shared, mirrors, families, state_dir, flipped, changes, signals, updates })
    }

    /// Publishes the table with the proofs that were kept on disk, for the repos as they are published by now; no mirror
    /// counts as up before it was asked. Reads a file: to be called once, before [`Prober::run`].
    pub fn restore(&mut self) {
        let repos = self.shared.published.repos.load_full();
        let untried =
            |mirror: &Arc<Mirror>| Arc::new(MirrorState::untried(mirror.clone(), repos.views().len()));
        let both = |mirror: &Arc<Mirror>| Family::ALL.map(|_| untried(mirror));
        let mut states: Vec<Both> = self.mirrors.iter().map(both).collect();
        match self.state_dir.as_deref().map(Document::load).transpose() {
            Ok(Some(Some(document))) => {
                let restored = document.restore(&mut states, &repos);
                tracing::info!(restored, "proofs of mirrors restored");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the proofs on disk can't be read; all mirrors are checked anew");
            }
        }
        let table = MirrorTable::new(states.iter().map(merged).map(Arc::new).collect());
        self.shared.published.mirrors.store(Arc::new(table));
        self.families = states;
    }

    /// To be notified (`notify_one`) after a flip was published, so that the mirrors are asked at once. Without it the
    /// prober notices by itself within half a second.
    #[must_use]
    pub fn flipped(&self) -> Arc<Notify> {
        self.flipped.clone()
    }

    /// Changes after each publication of a table.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Probes until `shutdown` is true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        if self.families.len() != self.mirrors.len() {
            self.restore();
        }
        let table = MirrorTable::clone(&self.shared.published.mirrors.load());
        let repos = self.shared.published.repos.load_full();
        let mut publisher = Publisher {
            table,
            families: std::mem::take(&mut self.families),
            repos,
            flips: watch::Sender::new(0),
            unsaved: Unsaved::default(),
            saves: JoinSet::new(),
            rested: clock::monotonic().into(),
        };
        let (mut workers, mut sights) = (Workers::default(), Sights::default());
        for mirror in 0..publisher.families.len() {
            workers.add(&self.shared, &publisher, mirror);
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut publication) = (Vec::new(), Instant::from(clock::monotonic()));
        loop {
            let room = UPDATES - batch.len().min(UPDATES);
            tokio::select! {
                _ = shutdown.wait_for(|ends| *ends) => break,
                received = self.updates.recv_many(&mut batch, room), if room > 0 => {
                    let (now, new) = (Instant::from(clock::monotonic()), batch.len() - received);
                    if batch[new..].iter().any(|update| publisher.is_urgent(update)) {
                        publication = now;
                    } else if new == 0 {
                        publication = now + GATHERED;
                    }
                }
                () = sleep_until(publication), if !batch.is_empty() => {
                    publisher.publish(&self.shared, batch.drain(..));
                    self.changes.send_modify(|version| *version += 1);
                }
                () = self.flipped.notified() => publisher.notice_flip(&self.shared),
                _ = tick.tick() => {
                    publisher.notice_flip(&self.shared);
                    publisher.save_if_due(self.state_dir.as_ref());
                }
                Some(report) = self.signals.bounces.recv() => workers.check(&report),
                Some(request) = self.signals.looks.recv() => {
                    sights.start(&self.shared, &publisher.families, &workers.lanes, request);
                }
                Some(_) = sights.tasks.join_next() => {}
                Some(Err(error)) = workers.tasks.join_next_with_id() => {
                    // What it told before.
                    while let Ok(update) = self.updates.try_recv() {
                        batch.push(update);
                    }
                    let dead = workers.dead(&error);
                    batch.extend(dead.as_ref().map(|place| publisher.lost(&batch, place)));
                    publisher.publish(&self.shared, batch.drain(..));
                    self.changes.send_modify(|version| *version += 1);
                    if let Some(place) = dead {
                        workers.start(&self.shared, &publisher, place, self.shared.settings.liveness_every);
                    }
                }
            }
        }
        sights.tasks.shutdown().await;
        workers.tasks.shutdown().await;
        publisher.publish(&self.shared, batch.drain(..));
        publisher.save(self.state_dir.as_ref()).await;
    }
}

/// The tasks of all mirrors, one for each family.
#[derive(Default)]
struct Workers {
    tasks: JoinSet<()>,
    places: HashMap<Id, Place>,
    bounces: HashMap<(usize, Family), mpsc::Sender<BounceReport>>,
    /// By mirror: requests to its host at a time.
    lanes: Vec<Arc<Lanes>>,
}

impl Workers {
    /// Starts the workers of a mirror.
    fn add(&mut self, shared: &Arc<Shared>, publisher: &Publisher, mirror: usize) {
        let lanes = Arc::new(Lanes::new(shared.permits.clone()));
        self.lanes.push(lanes.clone());
        let (pace, allowance) = (Arc::new(Pace::default()), Arc::new(Allowance::default()));
        for family in Family::ALL {
            let (lanes, pace, allowance) = (lanes.clone(), pace.clone(), allowance.clone());
            let hosts = Arc::new(Hosts::default());
            let place = Place { mirror, family, lanes, pace, hosts, allowance };
            self.start(shared, publisher, place, Duration::ZERO);
        }
    }

    /// Starts a worker with what is known, after `pause`.
    fn start(&mut self, shared: &Arc<Shared>, publisher: &Publisher, place: Place, pause: Duration) {
        let (sender, bounces) = mpsc::channel(BOUNCES);
        self.bounces.insert((place.mirror, place.family), sender);
        let state = MirrorState::clone(&publisher.families[place.mirror][place.family as usize]);
        let (shared, flips, at) = (shared.clone(), publisher.flips.subscribe(), place.clone());
        let task = self.tasks.spawn(async move {
            sleep(pause).await;
            Worker::new(shared, at, state, bounces, flips).run().await;
        });
        self.places.insert(task.id(), place);
    }

    /// A client came back: over which family it went isn't known.
    fn check(&self, report: &BounceReport) {
        for family in Family::ALL {
            if let Some(worker) = self.bounces.get(&(report.mirror, family)) {
                // Full: enough of this mirror's are waiting.
                let _ = worker.try_send(report.clone());
            }
        }
    }

    /// Whose task broke.
    fn dead(&mut self, error: &JoinError) -> Option<Place> {
        tracing::error!(%error, "the probes of a mirror broke");
        self.places.remove(&error.id())
    }
}

/// Puts the table together. The only one that publishes it.
struct Publisher {
    table: MirrorTable,
    families: Vec<Both>,
    repos: Arc<Repos>,
    flips: watch::Sender<u64>,
    unsaved: Unsaved,
    /// What each took.
    saves: JoinSet<Duration>,
    /// No save before.
    rested: Instant,
}

/// What the proofs on disk lack.
#[derive(Default)]
struct Unsaved {
    proofs: bool,
    times: bool,
    /// Ticks since the last save.
    ticks: u32,
}

impl Publisher {
    fn publish(&mut self, shared: &Shared, batch: impl Iterator<Item = Update>) {
        for Update { mirror, family, state } in batch {
            let before = std::mem::replace(&mut self.families[mirror][family as usize], state);
            self.note_unsaved(&before, &self.families[mirror][family as usize].clone());
            let old = self.table.replace(mirror, Arc::new(merged(&self.families[mirror])));
            self.note_changes(&old, mirror);
        }
        shared.published.mirrors.store(Arc::new(self.table.clone()));
    }

    /// Whether a decision may change by it.
    fn is_urgent(&self, Update { mirror, family, state: new }: &Update) -> bool {
        let old = &self.families[*mirror][*family as usize];
        let says = |state: &MirrorState| {
            (std::mem::discriminant(&state.reach), state.is_slow(), state.ranges, state.disputed_until)
        };
        let holds = |pair: &Pair| (pair.covered(), pair.exceptions.clone());
        says(old) != says(new) || !old.pairs.iter().map(holds).eq(new.pairs.iter().map(holds))
    }

    /// That a mirror isn't probed any more, after the updates of `batch`: nobody would notice if it failed.
    fn lost(&self, batch: &[Update], &Place { mirror, family, .. }: &Place) -> Update {
        let told = batch.iter().rfind(|update| (update.mirror, update.family) == (mirror, family));
        let known = told.map_or(&self.families[mirror][family as usize], |update| &update.state);
        let mut state = MirrorState::clone(known);
        state.reach = Reach::Down { since: clock::now(), why: "probe task failed".to_owned() };
        Update { mirror, family, state: Arc::new(state) }
    }

    /// Sees what has to be saved.
    fn note_unsaved(&mut self, old: &MirrorState, new: &MirrorState) {
        for (repo, pair) in new.pairs.iter().enumerate() {
            let (was, is) = (old.pairs.get(repo).and_then(|pair| pair.proof), pair.proof);
            let covered =
                |proof: Option<crate::policy::Proof>| proof.map(|proof| (proof.sequence, proof.shown));
            let were = old.pairs.get(repo).map(|pair| &pair.exceptions);
            self.unsaved.proofs |= covered(was) != covered(is) || were != Some(&pair.exceptions);
            self.unsaved.times |= was != is;
        }
    }

    /// Logs what is new of the mirror.
    fn note_changes(&mut self, old: &MirrorState, mirror: usize) {
        let new = &self.table.states()[mirror];
        let name = new.mirror.name.as_str();
        match (&old.reach, &new.reach) {
            (Reach::Down { why: before, .. }, Reach::Down { why, .. }) if before == why => {}
            (_, Reach::Down { why, .. }) => tracing::info!(mirror = name, note = %why, "mirror is down"),
            (Reach::Up { .. }, Reach::Up { .. }) | (_, Reach::Untried) => {}
            (_, Reach::Up { .. }) => {
                let note = format!("ipv4 {}, ipv6 {}", yes(new.ipv4), yes(new.ipv6));
                tracing::info!(mirror = name, note, "mirror is up");
            }
        }
        for (repo, pair) in new.pairs.iter().enumerate() {
            let before = old.pairs.get(repo);
            if before.is_none_or(|before| before.note != pair.note)
                && let Some(view) = self.repos.views().get(repo)
            {
                tracing::info!(mirror = name, repo = %view.repo.id, note = %pair.note, "mirror changed");
            }
        }
    }

    fn notice_flip(&mut self, shared: &Shared) {
        let repos = shared.published.repos.load();
        if !Arc::ptr_eq(&repos, &self.repos) {
            self.repos = repos.clone();
            // What was proven for a generation that was not known here yet could not be saved.
            (self.unsaved.proofs, self.unsaved.times) = (true, true);
            self.flips.send_modify(|version| *version += 1);
        }
    }

    fn save_if_due(&mut self, state_dir: Option<&PathBuf>) {
        self.unsaved.ticks += 1;
        let due = if self.unsaved.proofs { SAVE_TICKS } else { SAVE_TIMES_TICKS };
        let now = Instant::from(clock::monotonic());
        while let Some(saved) = self.saves.try_join_next() {
            self.rested = now + saved.unwrap_or_default() * SAVES_REST;
        }
        let is_free = self.saves.is_empty() && self.rested <= now;
        if self.unsaved.times && self.unsaved.ticks >= due && is_free {
            self.start_save(state_dir);
        }
    }

    fn start_save(&mut self, state_dir: Option<&PathBuf>) {
        self.unsaved = Unsaved::default();
        let Some(dir) = state_dir.cloned() else { return };
        let (families, repos) = (self.families.clone(), self.repos.clone());
        self.saves.spawn_blocking(move || {
            let begun = clock::monotonic();
            if let Err(error) = Document::of(&families, &repos).save(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "the proofs can't be saved");
            }
            begun.elapsed()
        });
    }

    /// Saves what isn't yet, and waits for it.
    async fn save(mut self, state_dir: Option<&PathBuf>) {
        while self.saves.join_next().await.is_some() {}
        if self.unsaved.times {
            self.start_save(state_dir);
            while self.saves.join_next().await.is_some() {}
        }
    }
}

const fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
