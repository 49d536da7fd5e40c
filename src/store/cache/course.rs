//! The course of a flight: look on disk, ask the origin, store what it sends while readers follow, commit.
//!
//! The order at the end matters: entry on disk, then memory tier, then out of the flights, so that nobody who looks in
//! between misses it; then readers learn of it. A failure is remembered before they do, so that their retry meets it.

use super::*;

impl Cache {
    pub(super) async fn fly(self: Arc<Self>, object: Object, course: Course) {
        let held = self.look(&object).await;
        if let Some(cached) = held.clone().filter(|held| clock::now() < held.meta.fresh_until) {
            return course.land(Stage::Ready { cached, stale: false });
        }
        let Ok(_permit) = self.fills.acquire().await else { return };
        let ask = held.as_ref().map_or(Ask::Whole, |held| Ask::Unless {
            etag: held.meta.etag.clone(),
            last_modified: held.meta.last_modified_value.clone(),
        });
        match (self.origin.get(&object.path, ask, object.size()).await, held) {
            (Ok(Answer::Body(response)), _) => self.arrive(&object, *response, course).await,
            (Ok(Answer::NotModified(headers)), Some(held)) => {
                let cached = self.renew(&object, &held, &headers);
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
                course.land(match held {
                    Some(cached) if !refusal.is_absent() => Stage::Ready { cached, stale: true },
                    _ => Stage::Failed(refusal),
                });
            }
        }
    }

    /// Decides what becomes of a response: stored while readers follow, or passed to one of them.
    async fn arrive(self: &Arc<Self>, object: &Object, response: Response, course: Course) {
        let lifetime = match storage(&response.headers, self.settings.revalidate, clock::now()) {
            Storage::Store { lifetime } => lifetime,
            // A catalogue lists it to everybody: its bytes are public, whatever the origin's headers say.
            Storage::Pass if object.identity.is_some() => Duration::ZERO,
            Storage::Pass => {
                self.unshared.insert(object.clone(), ());
                return self.hand_over(object, response, course).await;
            }
        };
        let Some((draft, reservation)) = self.draft(response.length).await else {
            self.counters.no_room.fetch_add(1, Ordering::Relaxed);
            return self.hand_over(object, response, course).await;
        };
        self.fill(object, response, lifetime, draft, reservation, course).await;
    }

    async fn fill(
        self: &Arc<Self>,
        object: &Object,
        response: Response,
        lifetime: Duration,
        draft: Draft,
        mut reservation: Reservation,
        course: Course,
    ) {
        let meta = Arc::new(meta(object, &response.headers, response.length, lifetime));
        let if_range = strong_validator(&response.headers);
        let (progress, followed) = watch::channel(Progress::default());
        let file = Arc::clone(&draft.file);
        self.counters.fills_started.fetch_add(1, Ordering::Relaxed);
        course.fill(Filling {
            meta: Arc::clone(&meta),
            file: Arc::clone(&file),
            progress: followed,
            if_range: if_range.clone(),
        });
        let pump = Pump {
            object,
            origin: &self.origin,
            evictor: &self.evictor,
            pool: &self.runtime,
            length: response.length,
            if_range,
            file,
            progress: &progress,
        };
        let end = match pump.run(response.body, &mut reservation).await {
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

    async fn commit(
        self: &Arc<Self>,
        object: &Object,
        meta: Arc<Meta>,
        draft: Draft,
        reservation: Reservation,
    ) -> io::Result<()> {
        let (cache, object) = (Arc::clone(self), object.clone());
        let committing = move || {
            let file = Arc::clone(&draft.file);
            let disk_bytes = cache.disk.commit(draft, &object, &meta)?;
            // In this order: the bound is never passed in between.
            let used = cache.evictor.index.note(cache.disk.key(&object), &object, disk_bytes);
            drop(reservation);
            cache.renewed.invalidate(&object);
            let Some(body) = cache.body_of(&meta, file)? else {
                cache.damaged(&object);
                return Err(io::Error::other("the disk gives back other bytes than were written"));
            };
            cache.memory.insert(&object, Cached { meta, body, used });
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
        self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
        let until = clock::now().plus(DISK_TROUBLE).as_millis();
        self.trouble_until.store(until, Ordering::Relaxed);
        FillError::Disk(error)
    }

    /// Room and a file; `None` where the response has to pass through.
    async fn draft(self: &Arc<Self>, length: Option<u64>) -> Option<(Draft, Reservation)> {
        if clock::now().as_millis() < self.trouble_until.load(Ordering::Relaxed) {
            return None;
        }
        let reservation = self.evictor.reserve(length.unwrap_or(STEP_BYTES) + OVERHEAD_BYTES).await?;
        let (disk, runtime) = (Arc::clone(&self.disk), self.runtime.clone());
        let drafting = self.runtime.spawn_blocking(move || disk.draft(length, &runtime)).await;
        match drafting.map_err(io::Error::other).flatten() {
            Ok(draft) => Some((draft, reservation)),
            Err(error) => {
                self.disk_failed(error);
                None
            }
        }
    }

    fn renew(&self, object: &Object, held: &Cached, headers: &HeaderMap) -> Cached {
        let now = clock::now();
        let lifetime = match storage(headers, self.settings.revalidate, now) {
            Storage::Store { lifetime } => lifetime,
            Storage::Pass => Duration::ZERO,
        };
        let fresh_until = now.plus(lifetime);
        self.renewed.insert(object.clone(), (held.meta.stored, fresh_until));
        let cached = Cached { meta: Arc::new(held.meta.renewed(fresh_until)), ..held.clone() };
        self.memory.insert(object, cached.clone());
        self.counters.revalidated.fetch_add(1, Ordering::Relaxed);
        cached
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
