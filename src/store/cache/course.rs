//! The course of a flight: look on disk, ask the origin, store what it sends while readers follow, commit.
//!
//! The order at the end matters: entry on disk, then memory tier, then out of the flights, so that nobody who looks in
//! between misses it; then readers learn of it. A failure is remembered before they do, so that their retry meets it.

use super::*;
use crate::store::fill::Pace;
use std::future::Future;

/// What becomes a fill.
pub(super) struct Opening {
    pub(super) meta: Arc<Meta>,
    pub(super) version: Option<Version>,
    pub(super) draft: Draft,
    pub(super) room: Room,
    /// What is in the draft already.
    pub(super) spans: Spans,
    pub(super) first: Option<First>,
    pub(super) wants: Arc<Wants>,
}

impl Cache {
    pub(super) async fn fly(self: Arc<Self>, object: Object, interest: Interest, mut course: Course) {
        let Some(looked) = unless_deserted(&course, self.look(&object)).await else {
            return course.land(Stage::Again);
        };
        let held = match looked {
            Held::Entry(cached) => Some(cached),
            Held::Nothing => None,
            Held::Suspect(suspect) => match self.prove(&object, suspect, course).await {
                Some((given_back, held)) => {
                    course = given_back;
                    held
                }
                None => return,
            },
        };
        let now = clock::now();
        if let Some(cached) = held.clone().filter(|held| now < held.meta.fresh_until) {
            return course.land(Stage::Ready { cached, stale: false });
        }
        if let Some(cached) = held.clone()
            && cached.meta.terms.may_revalidate_behind(self.settings.stale_while_revalidate, now)
        {
            course.offer(Stage::Ready { cached, stale: true });
            course.goes_on_behind();
        }
        let Some(held) = held else { return self.begin(&object, interest, course).await };
        match self.place(&self.revalidations, &course).await {
            Ok(place) => self.revalidate(&object, held, interest, place, course).await,
            Err(_) if self.covers(&held.meta) => course.land(Stage::Ready { cached: held, stale: true }),
            Err(instead) => course.land(instead),
        }
    }

    /// A place for what the course is for, within reason; else what it comes to. A flight that no request awaits any more leaves the
    /// line.
    async fn place(&self, places: &Places, course: &Course) -> Result<Place, Stage> {
        let mut patience = std::pin::pin!(tokio::time::sleep(self.settings.fill_patience));
        let mut demand = course.demand();
        loop {
            let now = *demand.borrow_and_update();
            tokio::select! {
                place = places.acquire(now) => return Ok(place),
                // It is more urgent now.
                Ok(()) = demand.changed() => {}
                () = course.deserted() => return Err(Stage::Again),
                () = &mut patience => return Err(Stage::Failed(FetchError::Busy)),
            }
        }
    }

    async fn revalidate(
        self: &Arc<Self>,
        object: &Object,
        held: Cached,
        interest: Interest,
        place: Place,
        course: Course,
    ) {
        let asking = self.ask_anew(object, Some(&held));
        let Some((answer, exchange)) = unless_left(&course, &place, asking).await else {
            return course.land(Stage::Again);
        };
        match answer {
            Ok(Answer::Body(response) | Answer::Whole(response)) => {
                self.arrive(object, *response, exchange, (interest, place), course).await;
            }
            Ok(Answer::NotModified(headers)) => {
                let cached = self.renew(object, &held, &headers, exchange).await;
                course.land(Stage::Ready { cached, stale: false });
            }
            Err(error) => {
                let refusal = self.refuse(object, error);
                if refusal.is_answer() {
                    self.discard(object).await;
                }
                course.land(if !refusal.is_answer() && self.covers(&held.meta) {
                    Stage::Ready { cached: held, stale: true }
                } else {
                    Stage::Failed(refusal)
                });
            }
        }
    }

    /// What isn't here as a whole: goes on with parts, begins with some, or asks for all of it. Only this last takes a place
    /// among the fills: a HEAD waits in a line of its own.
    async fn begin(self: &Arc<Self>, object: &Object, interest: Interest, course: Course) {
        let demand = *course.demand().borrow();
        // Who wants all of it must not get a head, and be cut where the parts end: while the origin is down this is its probe.
        if interest == Interest::Whole
            && !self.origin.is_up()
            && self.keeps_some(object).await
            && let Err(refusal) = self.ask_head(object, demand).await
        {
            return course.land(Stage::Failed(refusal));
        }
        if let Some(kept) = self.kept_parts(object, demand).await {
            return self.fill(object, kept, course).await;
        }
        if interest == Interest::Parts && object.size().is_none_or(|size| size >= self.settings.part_from) {
            let head = match unless_deserted(&course, self.ask_head(object, demand)).await {
                Some(Ok(head)) => head,
                Some(Err(refusal)) => return course.land(Stage::Failed(refusal)),
                None => return course.land(Stage::Again),
            };
            if head.takes_parts(self.settings.part_from) {
                return match self.draft(None, &head.meta.fields).await {
                    Some((draft, reservation)) => {
                        let Head { meta, version, .. } = head;
                        let (room, spans, wants) =
                            (Room::Disk(reservation), Spans::default(), Arc::default());
                        let opening = Opening { meta, version, draft, room, spans, first: None, wants };
                        self.fill(object, opening, course).await;
                    }
                    None => {
                        self.counters.no_room.fetch_add(1, Ordering::Relaxed);
                        course.land(Stage::Unshared(Arc::default()));
                    }
                };
            }
        }
        let place = match self.place(&self.fills, &course).await {
            Ok(place) => place,
            Err(instead) => return course.land(instead),
        };
        let asking = self.ask_anew(object, None);
        let Some((answer, exchange)) = unless_left(&course, &place, asking).await else {
            return course.land(Stage::Again);
        };
        match answer {
            Ok(Answer::Body(response) | Answer::Whole(response)) => {
                self.arrive(object, *response, exchange, (interest, place), course).await;
            }
            Ok(Answer::NotModified(_)) => {
                let status = OriginError::Status(hyper::StatusCode::NOT_MODIFIED);
                course.land(Stage::Failed(self.refuse(object, status)));
            }
            Err(error) => course.land(Stage::Failed(self.refuse(object, error))),
        }
    }

    /// Decides what becomes of a response: stored while readers follow, or passed to one of them.
    async fn arrive(
        self: &Arc<Self>,
        object: &Object,
        response: Response,
        exchange: Exchange,
        (interest, place): (Interest, Place),
        course: Course,
    ) {
        let fields = match object.identity {
            None => Fields::of(&response.headers, exchange.date),
            Some(_) => Fields::default(),
        };
        let terms = match freshness::judge(&response.headers, self.settings.revalidate, exchange) {
            // A catalogue lists it to everybody: its bytes are public, whatever the origin's headers say.
            _ if object.identity.is_some() => Terms::none(exchange.received),
            Storage::Store(terms) if fields.fit() => terms,
            Storage::Store(_) | Storage::Pass => {
                // What was stored before is not what the origin would answer now, not even stale.
                self.discard(object).await;
                self.unshared.insert(object.clone(), ());
                return self.hand_over(object, response, course).await;
            }
        };
        let version = Version::of(&response.headers);
        let is_large = response.length.is_some_and(|length| length >= self.settings.part_from);
        let in_parts = interest == Interest::Parts && is_large && version.is_some();
        if in_parts {
            // It isn't what the origin has any more, and parts have its place on disk.
            self.discard(object).await;
        }
        let first = First { body: response.body, place };
        let (draft, room, first, wants) =
            match self.draft(response.length.filter(|_| !in_parts), &fields).await {
                Some((draft, reservation)) => {
                    (draft, Room::Disk(reservation), Some(first).filter(|_| !in_parts), Arc::default())
                }
                None => {
                    self.counters.no_room.fetch_add(1, Ordering::Relaxed);
                    match self.draft_in_memory(response.length) {
                        Some((draft, wants)) => (draft, Room::Memory, Some(first), Arc::new(wants)),
                        None => {
                            let response = Response { body: first.body, ..response };
                            return self.hand_over(object, response, course).await;
                        }
                    }
                }
            };
        let meta = Arc::new(meta(object, &response.headers, response.length, terms));
        let opening = Opening { meta, version, draft, room, spans: Spans::default(), first, wants };
        self.fill(object, opening, course).await;
    }

    async fn fill(self: &Arc<Self>, object: &Object, opening: Opening, course: Course) {
        let Opening { meta, version, draft, room, spans, first, wants } = opening;
        let listed_length = object.size();
        let (progress, followed) = watch::channel(Progress { spans, listed_length, ..Progress::default() });
        let fill = Arc::new(Fill {
            cache: Arc::clone(self),
            object: object.clone(),
            length: meta.length,
            meta,
            version,
            file: Arc::clone(&draft.file),
            written: Arc::clone(&draft.written),
            progress,
            wants,
            room: Mutex::new(room),
            writing: Arc::default(),
            demand: course.demand(),
            pace: Pace::default(),
            place: Mutex::default(),
            unpaced: AtomicBool::new(false),
            finishes: AtomicBool::new(false),
        });
        self.counters.fills_started.fetch_add(1, Ordering::Relaxed);
        course.fill(Filling {
            meta: Arc::clone(&fill.meta),
            file: Arc::clone(&fill.file),
            progress: followed,
            wants: Arc::clone(&fill.wants),
            tier: Tier::Fill,
            surplus: Some(Arc::clone(&self.surplus)),
        });
        match fill.tend(&course, first).await {
            Outcome::Whole(pumped) => {
                fill.progress.send_modify(|progress| progress.end = End::Complete);
                let end = self.store(&fill, pumped, draft).await;
                let counter = match &end {
                    End::Committed => &self.counters.fills_finished,
                    _ => &self.counters.fills_failed,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                drop(course);
                fill.progress.send_modify(|progress| progress.end = end);
            }
            Outcome::Failed(error) => {
                let keeps = matches!(&error, FillError::Origin(error) if error.may_pass());
                let error = self.failed(object, error);
                self.counters.fills_failed.fetch_add(1, Ordering::Relaxed);
                // Nobody joins any more: who asks from now on waits for the end, and meets the refusal.
                course.offer(Stage::Waiting);
                fill.progress.send_modify(|progress| progress.end = End::Failed(error));
                if keeps {
                    self.keep_parts(&fill, draft).await;
                }
                course.land(Stage::Again);
            }
            Outcome::Left => {
                self.counters.fills_abandoned.fetch_add(1, Ordering::Relaxed);
                self.keep_parts(&fill, draft).await;
                course.land(Stage::Again);
            }
        }
    }

    async fn store(self: &Arc<Self>, fill: &Fill, pumped: Pumped, draft: Draft) -> End {
        let meta = Arc::new(fill.meta.completed(pumped.length, pumped.sha256));
        let Some(room) = fill.take_room() else { return End::Uncommitted(Arc::new(FillError::NoRoom)) };
        match self.commit(&fill.object, meta, draft, room).await {
            Ok(()) => End::Committed,
            Err(error) => End::Uncommitted(Arc::new(self.disk_failed(error))),
        }
    }

    pub(super) async fn commit(
        self: &Arc<Self>,
        object: &Object,
        meta: Arc<Meta>,
        mut draft: Draft,
        mut room: Reservation,
    ) -> io::Result<()> {
        let (cache, object) = (Arc::clone(self), object.clone());
        let committing = move || {
            let file = Arc::clone(&draft.file);
            let committing = || cache.disk.commit(&mut draft, &object, &meta);
            let disk_bytes = cache.with_directories(overhead_bytes(meta.length.unwrap_or(0)), committing)?;
            let key = cache.disk.key(&object);
            let used = room.spend(key, disk_bytes);
            if let Some(seal) = Seal::of(&file) {
                used.seal(seal);
            }
            cache.evictor.confirm(&key);
            drop(room);
            cache.renewed.invalidate(&object);
            let Some(body) = cache.body_of(&meta, file)? else {
                cache.damaged(&object);
                return Err(io::Error::other("the disk gives back other bytes than were written"));
            };
            cache.memory.insert(&object, Cached { meta, body, used });
            cache.evictor.trouble.ends(clock::now());
            Ok(())
        };
        self.runtime.spawn_blocking(committing).await.map_err(io::Error::other)?
    }

    /// Remembers a failed fill. A full disk is no reason to refuse the next one: that will pass through.
    fn failed(&self, object: &Object, error: FillError) -> Arc<FillError> {
        let error = match error {
            FillError::Disk(error) => return Arc::new(self.disk_failed(error)),
            FillError::NoRoom => {
                self.counters.no_room.fetch_add(1, Ordering::Relaxed);
                self.unshared.insert(object.clone(), ());
                return Arc::new(FillError::NoRoom);
            }
            other => Arc::new(other),
        };
        if matches!(*error, FillError::Origin(OriginError::RangeIgnored)) {
            self.heads.invalidate(object);
        }
        self.refusals.note(object, FetchError::Body(Arc::clone(&error)));
        error
    }

    pub(super) fn disk_failed(&self, error: io::Error) -> FillError {
        let (trouble, now) = (&self.evictor.trouble, clock::now());
        trouble.begins(&self.counters, &error.to_string(), now);
        if error.kind() != io::ErrorKind::NotFound {
            trouble.pauses(now);
        }
        FillError::Disk(error)
    }

    /// Room and a file; `None` where the response has to pass through.
    pub(super) async fn draft(
        self: &Arc<Self>,
        length: Option<u64>,
        fields: &Fields,
    ) -> Option<(Draft, Reservation)> {
        if self.evictor.trouble.is_paused(clock::now()) {
            return None;
        }
        let bytes = length.unwrap_or(STEP_BYTES);
        let bytes = bytes.checked_add(overhead_bytes(bytes) + fields.bytes() as u64)?;
        let reservation = self.evictor.reserve(bytes).await?;
        let cache = Arc::clone(self);
        let drafting = self.runtime.spawn_blocking(move || {
            cache.with_directories(bytes, || cache.disk.draft(length, &cache.runtime))
        });
        match drafting.await.map_err(io::Error::other).flatten() {
            Ok(draft) => Some((draft, reservation)),
            // The object's fault, not the disk's.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            Err(error) => {
                self.disk_failed(error);
                None
            }
        }
    }

    /// Memory for what the disk doesn't take, so that a crowd still makes one fetch; `None` where that is used up.
    fn draft_in_memory(&self, length: Option<u64>) -> Option<(Draft, Wants)> {
        let mib = u32::try_from(length?.div_ceil(MIB)).ok()?;
        let permits = Arc::clone(&self.unstored_mib).try_acquire_many_owned(mib).ok()?;
        // Without one it passes through.
        let draft = self.disk.draft_in_memory(&self.runtime).ok()?;
        self.counters.fills_unstored.fetch_add(1, Ordering::Relaxed);
        Some((draft, Wants::with_memory(permits)))
    }

    /// Does `work`, which takes about `bytes` of disk; where the directories vanished, makes them anew first. Blocks.
    fn with_directories<T>(
        self: &Arc<Self>,
        bytes: u64,
        mut work: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.evictor.with_space(bytes, &mut work) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        if self.disk.restore()? {
            let what = "its directories vanished or were replaced, and are made anew";
            self.evictor.trouble.begins(&self.counters, what, clock::now());
            self.evictor.reload(&self.closing);
            self.verify_behind();
        }
        self.evictor.with_space(bytes, work)
    }

    async fn hand_over(self: &Arc<Self>, object: &Object, response: Response, course: Course) {
        let demand = *course.demand().borrow();
        let outcome = match self.pass_place(demand).await {
            Ok(place) => {
                let content = self.passing(object, response, place, demand);
                Stage::Unshared(Arc::new(Mutex::new(Some(content))))
            }
            Err(error) => Stage::Failed(error),
        };
        course.land(outcome);
    }
}

/// What `work` gives; `None` where no request waits for it any more.
async fn unless_deserted<T>(course: &Course, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = course.deserted() => None,
    }
}

/// The same of work that holds a place: it goes on while no other wants the place.
async fn unless_left<T>(course: &Course, place: &Place, work: impl Future<Output = T>) -> Option<T> {
    let left = async {
        course.deserted().await;
        place.is_abandoned();
        place.called().await;
    };
    let done = tokio::select! {
        biased;
        done = work => done,
        () = left => return None,
    };
    place.is_busy();
    Some(done)
}
