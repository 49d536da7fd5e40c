//! The course of a flight: look on disk, ask the origin, store what it sends while readers follow, commit.
//!
//! The order at the end matters: entry on disk, then memory tier, then out of the flights, so that nobody who looks in
//! between misses it; then readers learn of it. A failure is remembered before they do, so that their retry meets it.

use super::*;

impl Cache {
    pub(super) async fn fly(self: Arc<Self>, object: Object, mut course: Course) {
        let held = match self.look(&object).await {
            Held::Entry(cached) => Some(cached),
            Held::Nothing => None,
            Held::Suspect(suspect) => match self.prove(&object, suspect, course).await {
                Some(unproven) => {
                    course = unproven;
                    None
                }
                None => return,
            },
        };
        if let Some(cached) = held.clone().filter(|held| clock::now() < held.meta.fresh_until) {
            return course.land(Stage::Ready { cached, stale: false });
        }
        let places = if held.is_some() { &self.revalidations } else { &self.fills };
        let Ok(Ok(_place)) = tokio::time::timeout(self.settings.fill_patience, places.acquire()).await else {
            return course.land(match held {
                Some(cached) => Stage::Ready { cached, stale: true },
                None => Stage::Failed(FetchError::Busy),
            });
        };
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
            written: Arc::clone(&draft.written),
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

    async fn commit(
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
            let overhead_bytes = overhead_bytes(meta.length.unwrap_or(0));
            let disk_bytes = cache.with_directories(overhead_bytes, committing)?;
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
    async fn draft(self: &Arc<Self>, length: Option<u64>) -> Option<(Draft, Reservation)> {
        if self.evictor.trouble.is_paused(clock::now()) {
            return None;
        }
        let bytes = length.unwrap_or(STEP_BYTES);
        let bytes = bytes.checked_add(overhead_bytes(bytes))?;
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
