//! The course of a flight: look on disk, ask the origin, store what it sends while readers follow, commit.
//!
//! The order at the end matters: entry on disk, then memory tier, then out of the flights, so that nobody who looks in
//! between misses it; then readers learn of it. A failure is remembered before they do, so that their retry meets it.

use super::*;

impl Cache {
    pub(super) async fn fly(self: Arc<Self>, object: Object, course: Course) {
        let held = self.look(&object).await;
        let now = clock::now();
        if let Some(cached) = held.clone().filter(|held| now < held.meta.fresh_until) {
            return course.land(Stage::Ready { cached, stale: false });
        }
        if let Some(cached) = held.clone()
            && cached.meta.terms.may_revalidate_behind(self.settings.stale_while_revalidate, now)
        {
            course.offer(Stage::Ready { cached, stale: true });
        }
        let covering = |held: Option<Cached>| held.filter(|held| self.covers(&held.meta));
        let places = if held.is_some() { &self.revalidations } else { &self.fills };
        let Ok(Ok(_place)) = tokio::time::timeout(self.settings.fill_patience, places.acquire()).await else {
            return course.land(match covering(held) {
                Some(cached) => Stage::Ready { cached, stale: true },
                None => Stage::Failed(FetchError::Busy),
            });
        };
        let (answer, exchange) = self.ask_anew(&object, held.as_ref()).await;
        match (answer, held) {
            (Ok(Answer::Body(response)), _) => self.arrive(&object, *response, exchange, course).await,
            (Ok(Answer::NotModified(headers)), Some(held)) => {
                let cached = self.renew(&object, &held, &headers, exchange).await;
                course.land(Stage::Ready { cached, stale: false });
            }
            (Ok(Answer::NotModified(_)), None) => {
                let status = OriginError::Status(hyper::StatusCode::NOT_MODIFIED);
                course.land(Stage::Failed(self.refuse(&object, status)));
            }
            (Err(error), held) => {
                let refusal = self.refuse(&object, error);
                if refusal.is_absent() && held.is_some() {
                    self.discard(&object).await;
                }
                course.land(match covering(held).filter(|_| !refusal.is_absent()) {
                    Some(cached) => Stage::Ready { cached, stale: true },
                    None => Stage::Failed(refusal),
                });
            }
        }
    }

    /// Decides what becomes of a response: stored while readers follow, or passed to one of them.
    async fn arrive(
        self: &Arc<Self>,
        object: &Object,
        response: Response,
        exchange: Exchange,
        course: Course,
    ) {
        let fields = match object.identity {
            None => Fields::of(&response.headers, exchange.received),
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
        let Some((draft, reservation)) = self.draft(response.length, &fields).await else {
            self.counters.no_room.fetch_add(1, Ordering::Relaxed);
            return self.hand_over(object, response, course).await;
        };
        self.fill(object, response, terms, draft, reservation, course).await;
    }

    async fn fill(
        self: &Arc<Self>,
        object: &Object,
        response: Response,
        terms: Terms,
        draft: Draft,
        mut reservation: Reservation,
        course: Course,
    ) {
        let meta = Arc::new(meta(object, &response.headers, response.length, terms));
        let version = Version::of(&response.headers);
        let (progress, followed) = watch::channel(Progress::default());
        let file = Arc::clone(&draft.file);
        self.counters.fills_started.fetch_add(1, Ordering::Relaxed);
        course.fill(Filling {
            meta: Arc::clone(&meta),
            file: Arc::clone(&file),
            progress: followed,
            version: version.clone(),
        });
        let pump = Pump {
            object,
            origin: &self.origin,
            evictor: &self.evictor,
            pool: &self.runtime,
            length: response.length,
            version,
            file,
            progress: &progress,
        };
        let pumped = tokio::select! {
            pumped = pump.run(response.body, &mut reservation) => pumped,
            () = self.deserted(&course, &progress, response.length) => {
                // Nobody learns of it, and whoever asks again begins anew.
                self.counters.fills_abandoned.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let end = match pumped {
            Ok(pumped) => {
                let meta = meta.completed(pumped.length, pumped.sha256);
                match self.commit(object, Arc::new(meta), draft, reservation).await {
                    Ok(()) => End::Committed,
                    Err(error) => End::Uncommitted(Arc::new(self.disk_failed(error))),
                }
            }
            Err(error) => End::Failed(self.failed(object, error)),
        };
        let counter = match &end {
            End::Committed => &self.counters.fills_finished,
            _ => &self.counters.fills_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        drop(course);
        progress.send_modify(|progress| progress.end = end);
    }

    /// Returns once nobody has followed the fill for a while although it is far from its end: a client that asks and
    /// leaves occupies no place among the fills. By then it has left.
    async fn deserted(&self, course: &Course, progress: &watch::Sender<Progress>, length: Option<u64>) {
        const LOOKS: u32 = 5;
        let far = self.settings.abandon_bytes;
        let mut deserted = 0;
        loop {
            tokio::time::sleep((self.settings.linger / LOOKS).max(Duration::from_millis(1))).await;
            let written = progress.borrow().watermark;
            let is_far = match length {
                Some(length) => length.saturating_sub(written) > far.max(length / 2),
                // What has no known end is not taken to be near it.
                None => written > far,
            };
            deserted = if is_far && !course.is_followed(progress) { deserted + 1 } else { 0 };
            if deserted > LOOKS && course.leave_unless_followed(progress) {
                return;
            }
        }
    }

    pub(super) async fn commit(
        self: &Arc<Self>,
        object: &Object,
        meta: Arc<Meta>,
        mut draft: Draft,
        reservation: Reservation,
    ) -> io::Result<()> {
        let (cache, object) = (Arc::clone(self), object.clone());
        let committing = move || {
            let file = Arc::clone(&draft.file);
            let committing = || cache.disk.commit(&mut draft, &object, &meta);
            let disk_bytes = cache.with_directories(OVERHEAD_BYTES, committing)?;
            // In this order: the bound is never passed in between.
            let used = cache.evictor.index.note(cache.disk.key(&object), &object, disk_bytes);
            drop(reservation);
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
        self.refusals.note(object, FetchError::Body(Arc::clone(&error)));
        error
    }

    fn disk_failed(&self, error: io::Error) -> FillError {
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
        let beside = OVERHEAD_BYTES + fields.bytes() as u64;
        let bytes = length.unwrap_or(STEP_BYTES).checked_add(beside)?;
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

    /// Does `work`, which takes about `bytes` of disk; where the directories vanished, makes them anew first. Blocks.
    fn with_directories<T>(&self, bytes: u64, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self.evictor.with_space(bytes, &mut work) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        if self.disk.restore()? {
            let what = "its directories vanished and are made anew";
            self.evictor.trouble.begins(&self.counters, what, clock::now());
            self.evictor.reload(&self.closing);
        }
        self.evictor.with_space(bytes, work)
    }

    async fn hand_over(self: &Arc<Self>, object: &Object, response: Response, course: Course) {
        let outcome = match self.pass_permit().await {
            Ok(permit) => {
                let content = self.passing(object, response, permit);
                Stage::Unshared(Arc::new(Mutex::new(Some(content))))
            }
            Err(error) => Stage::Failed(error),
        };
        course.land(outcome);
    }
}
