//! A fill: one object on its way from the origin into a file, with many readers.
//!
//! A fill is tended by one task. Readers tell it what they [want](Wants): the whole, which one pass fetches in order, or
//! parts, which runs fetch in blocks. Both write into the same file, and everybody reads what is there, whoever fetched
//! it. What is fetched ahead follows what readers take. Without readers the fill ends: a pass that is soon done
//! only after its end, unless another waits for a place; else after a while, and what is there is kept as parts.

mod order;
mod pace;
mod pump;
mod stream;

pub(super) use order::Pumped;
pub(super) use pace::Pace;

use super::FillError;
use super::cache::Cache;
use super::demand::Demand;
use super::disk::{Written, overhead_bytes};
use super::evict::Reservation;
use super::flight::Course;
use super::object::{Meta, Object};
use super::places::Place;
use super::spans::Spans;
use super::tail::{NEAR_BYTES, Progress};
use super::wants::Wants;
use crate::clock;
use crate::http::ByteRange;
use crate::origin::{OriginBody, OriginError, Version};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{RwLock, watch};
use tokio::task::{JoinError, JoinSet};

/// Runs of one fill at once; more wait.
const MAX_RUNS: usize = 8;
/// Room is reserved in such steps where the origin promised no length.
pub(super) const STEP_BYTES: u64 = 8 << 20;
/// How often, within the time that a fill goes on alone, it is looked whether anybody reads.
const LOOKS: u32 = 5;
/// And at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is being filled.
pub(super) struct Fill {
    pub(super) cache: Arc<Cache>,
    pub(super) object: Object,
    pub(super) meta: Arc<Meta>,
    /// The version that is being filled, if the origin names it.
    pub(super) version: Option<Version>,
    pub(super) length: Option<u64>,
    pub(super) file: Arc<File>,
    pub(super) written: Arc<Written>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) wants: Arc<Wants>,
    /// Given back when the fill has ended.
    pub(super) room: Mutex<Room>,
    /// Held, to read, by each write under way.
    pub(super) writing: Arc<RwLock<()>>,
    /// For whom: the most important of those who have asked.
    pub(super) demand: watch::Receiver<Demand>,
    pub(super) pace: Pace,
    /// The place of the pass, while it asks the origin.
    pub(super) place: Mutex<Option<Arc<Place>>>,
    /// The pass never waits for readers.
    pub(super) unpaced: AtomicBool,
    /// It has no readers, and the pass goes on to the end.
    pub(super) finishes: AtomicBool,
}

/// The body of a 200 that began a fill, and its place among the fills.
pub(super) struct First {
    pub(super) body: OriginBody,
    pub(super) place: Place,
}

/// What a fill takes of a bound.
pub(super) enum Room {
    /// Of the disk tier's.
    Disk(Reservation),
    /// Of what is filled in memory while the disk refuses it: all that it needs. Its readers hold the permits, as they hold
    /// the memory.
    Memory,
}

impl Room {
    fn bytes(&self) -> u64 {
        match self {
            Self::Disk(reservation) => reservation.bytes,
            Self::Memory => u64::MAX,
        }
    }
}

/// How it ended.
pub(super) enum Outcome {
    /// All bytes are there and match. Readers don't know it yet.
    Whole(Pumped),
    /// Readers don't know that either.
    Failed(FillError),
    /// Nobody reads, or the node is going down: what is there may be kept.
    Left,
}

/// The tasks of a fill. Each that asks the origin has a place among the fills.
#[derive(Default)]
struct Tasks {
    /// The pass in order, if it runs.
    pass: JoinSet<Result<Pumped, FillError>>,
    runs: JoinSet<Result<(), (ByteRange, FillError)>>,
    /// Those of the runs, each as long as its run.
    held: Vec<Weak<Place>>,
    /// Wanted, and neither there nor claimed when last looked.
    waiting: Spans,
    /// What a run failed to get although a pass runs: tried again at the next look.
    again: Spans,
    /// Waits for a place for the next run.
    places: JoinSet<Place>,
    /// The one that came.
    spare: Option<Place>,
    /// The places count as abandoned.
    is_abandoned: bool,
    /// The origin gives no parts.
    no_parts: bool,
}

impl Fill {
    /// Fetches what is wanted until all is there, it fails, or nobody wants it. With a `first` body the whole is wanted.
    /// Nothing is written any more once it returns.
    pub(super) async fn tend(self: &Arc<Self>, course: &Course, first: Option<First>) -> Outcome {
        let mut tasks = Tasks::default();
        if first.is_some() {
            self.pass(&mut tasks, first);
        }
        let outcome = self.until_done(course, &mut tasks).await;
        tasks.pass.shutdown().await;
        tasks.runs.shutdown().await;
        tasks.places.shutdown().await;
        self.set_place(None);
        // A task that is gone may have left a write to the blocking pool.
        drop(self.writing.write().await);
        outcome
    }

    async fn until_done(self: &Arc<Self>, course: &Course, tasks: &mut Tasks) -> Outcome {
        let mut looks = tokio::time::interval(self.look_interval());
        let mut left_since = None;
        loop {
            let is_left = !self.is_followed(course);
            let left = self.tell_use(is_left, tasks);
            tokio::select! {
                () = self.wants.told() => {}
                Some(ended) = tasks.pass.join_next() => return passed(ended),
                Some(ended) = tasks.runs.join_next() => {
                    if let Err(error) = self.run_ended(ended, tasks) {
                        return Outcome::Failed(error);
                    }
                }
                Some(Ok(place)) = tasks.places.join_next() => tasks.spare = Some(place),
                () = course.closing() => return Outcome::Left,
                () = pace::called(&left), if is_left => {
                    if course.withdraws_unless(|| self.has_readers()) {
                        return Outcome::Left;
                    }
                }
                _ = looks.tick() => {
                    tasks.again = Spans::default();
                    let finishes = is_left && !tasks.pass.is_empty() && self.ends_soon();
                    self.finish(finishes);
                    left_since = left_since.filter(|_| is_left && !finishes);
                    if is_left && !finishes {
                        let since = *left_since.get_or_insert_with(clock::monotonic);
                        let is_over = clock::monotonic() - since >= self.cache.settings.linger;
                        if is_over && course.withdraws_unless(|| self.has_readers()) {
                            return Outcome::Left;
                        }
                    }
                }
            }
            self.take(tasks);
            self.start(tasks);
        }
    }

    /// Whether anybody reads it.
    pub(super) fn has_readers(&self) -> bool {
        // One is the fill's own, one the flight's.
        Arc::strong_count(&self.wants) > 2
    }

    fn is_followed(&self, course: &Course) -> bool {
        // In this order: who waits for the stage becomes who reads.
        course.is_awaited() || self.has_readers()
    }

    fn look_interval(&self) -> Duration {
        (self.cache.settings.linger / LOOKS).clamp(Duration::from_millis(1), LOOK_EVERY)
    }

    /// Takes what is wanted now.
    fn take(self: &Arc<Self>, tasks: &mut Tasks) {
        let wanted = self.wants.now();
        tasks.waiting = Spans::default();
        // Without a version parts can't be told apart.
        let (Some(length), Some(_), false) = (self.length, &self.version, tasks.no_parts) else {
            if !wanted.parts.is_empty() {
                self.unpace();
            }
            if wanted.whole || !wanted.parts.is_empty() {
                self.pass(tasks, None);
            }
            return;
        };
        if wanted.whole {
            self.pass(tasks, None);
        }
        for ByteRange { start, end } in wanted.parts.iter().filter(|range| range.start < length) {
            tasks.waiting.insert(ByteRange { start, end: end.min(length) });
        }
        tasks.again.iter().for_each(|range| tasks.waiting.remove(range));
    }

    /// Starts the pass in order, unless it runs.
    fn pass(self: &Arc<Self>, tasks: &mut Tasks, first: Option<First>) {
        if tasks.pass.is_empty() {
            let fill = Arc::clone(self);
            tasks.pass.spawn(async move {
                if first.is_none() {
                    fill.make_room_for_all().await?;
                }
                order::in_order(fill, first).await
            });
        }
    }

    /// Starts the runs that may start. Where there is no place, one is waited for.
    fn start(self: &Arc<Self>, tasks: &mut Tasks) {
        while !tasks.waiting.is_empty()
            && tasks.runs.len() < MAX_RUNS
            // First: with a claim nobody may wait for a place, since others wait for the claim.
            && let Some(place) = self.place_for_run(tasks)
            && let Some(range) = self.claim(&mut tasks.waiting, !tasks.pass.is_empty())
        {
            self.cache.counters.parts_fetched.fetch_add(1, Ordering::Relaxed);
            let running = order::run(Arc::clone(self), range);
            let place = Arc::new(place);
            tasks.held.retain(|held| held.strong_count() > 0);
            tasks.held.push(Arc::downgrade(&place));
            tasks.runs.spawn(async move {
                let _place = place;
                running.await
            });
        }
        if tasks.waiting.is_empty() {
            // Nothing is left to start: a place that is kept for it, or waited for, is another's.
            tasks.spare = None;
            tasks.places = JoinSet::new();
        }
        // Parts have made it whole: what remains is to check it.
        if tasks.pass.is_empty()
            && self.length.is_some_and(|length| self.progress.borrow().spans.is_whole(length))
        {
            self.pass(tasks, None);
        }
    }

    fn place_for_run(self: &Arc<Self>, tasks: &mut Tasks) -> Option<Place> {
        let place = tasks.spare.take().or_else(|| self.cache.fills.try_acquire(*self.demand.borrow()));
        if place.is_none() && tasks.places.is_empty() {
            let fill = Arc::clone(self);
            tasks.places.spawn(async move { fill.wait_for_place().await });
        }
        place
    }

    /// Claims the next gap in what waits. What the pass in order reaches soon isn't worth a request.
    fn claim(&self, waiting: &mut Spans, passing: bool) -> Option<ByteRange> {
        let mut claimed = None;
        let at = self.progress.borrow().filled_to.unwrap_or(0);
        let goes_to = self.goes_to(at).min(at.saturating_add(NEAR_BYTES));
        self.progress.send_if_modified(|progress| {
            let mut taken: Spans = progress.spans.iter().chain(progress.claimed.iter()).collect();
            if passing && goes_to > 0 {
                taken.insert(ByteRange { start: 0, end: goes_to });
            }
            while let Some(wanted) = waiting.first() {
                let gap = taken.gaps(wanted).first().copied();
                let Some(gap) = gap else {
                    waiting.remove(wanted);
                    continue;
                };
                waiting.remove(ByteRange { start: wanted.start, end: gap.end });
                progress.claimed.insert(gap);
                claimed = Some(gap);
                break;
            }
            false
        });
        claimed
    }

    /// An error ends the fill: nobody else would fetch what the run didn't.
    fn run_ended(
        self: &Arc<Self>,
        ended: Result<Result<(), (ByteRange, FillError)>, JoinError>,
        tasks: &mut Tasks,
    ) -> Result<(), FillError> {
        let (range, error) = match ended {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => failed,
            Err(_) => return Err(FillError::Abandoned),
        };
        self.progress.send_modify(|progress| progress.claimed.remove(range));
        match error {
            // An origin that gives no parts, or has another version by now: only the whole can tell.
            FillError::Origin(OriginError::RangeIgnored) => {
                tasks.no_parts = true;
                self.unpace();
                self.pass(tasks, None);
                Ok(())
            }
            // The pass gets there, if nothing else does.
            FillError::Origin(_) if !tasks.pass.is_empty() => {
                tasks.again.insert(range);
                Ok(())
            }
            error => Err(error),
        }
    }

    /// These bytes are in the file.
    fn arrived(&self, range: ByteRange) {
        self.pace.arrived(range.len());
        self.progress.send_modify(|progress| {
            progress.spans.insert(range);
            progress.claimed.remove(range);
        });
    }

    /// Room and blocks for a part.
    async fn make_room(&self, range: ByteRange) -> Result<(), FillError> {
        let all = self.length.map_or(u64::MAX, |length| length.saturating_add(overhead_bytes(length)));
        let missing = range.len().min(all.saturating_sub(self.room().bytes()));
        if missing > 0 {
            self.reserve(missing).await?;
        }
        let (cache, file) = (Arc::clone(&self.cache), Arc::clone(&self.file));
        let reserving = move || cache.evictor.with_space(range.len(), || cache.disk.reserve(&file, range));
        let reserved = self.cache.runtime.spawn_blocking(reserving).await;
        reserved.map_err(io::Error::other).flatten().map_err(FillError::Disk)
    }

    /// Room for all that isn't reserved yet.
    async fn make_room_for_all(&self) -> Result<(), FillError> {
        let length = self.length.unwrap_or(0);
        let all = length.saturating_add(overhead_bytes(length));
        let missing = all.saturating_sub(self.room().bytes());
        if missing > 0 { self.reserve(missing).await } else { Ok(()) }
    }

    /// Room up to `end`, of a body whose length nobody promised.
    async fn make_room_to(&self, end: u64) -> Result<(), FillError> {
        while end > self.room().bytes() {
            self.reserve(STEP_BYTES).await?;
        }
        Ok(())
    }

    async fn reserve(&self, bytes: u64) -> Result<(), FillError> {
        if matches!(*self.room(), Room::Memory) {
            return Ok(());
        }
        let more = self.cache.evictor.reserve(bytes).await.ok_or(FillError::NoRoom)?;
        if let Room::Disk(reservation) = &mut *self.room() {
            reservation.join(more);
        }
        Ok(())
    }

    /// The room on disk, for who stores what is in it; `None` where the bytes are in memory.
    pub(super) fn take_room(&self) -> Option<Reservation> {
        match &mut *self.room() {
            Room::Disk(reservation) => Some(reservation.take()),
            Room::Memory => None,
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn passed(ended: Result<Result<Pumped, FillError>, JoinError>) -> Outcome {
    match ended {
        Ok(Ok(pumped)) => Outcome::Whole(pumped),
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Failed(FillError::Abandoned),
    }
}
