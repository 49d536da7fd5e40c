//! Suspects: entries whose bytes are verified before a client gets them. They were stored before the machine went down, or
//! leave the disk for the first time in this process.
//!
//! One of up to 64 MiB is verified whole before it is used, in steps of 8 MiB. A larger one is a flight: its bytes become readable
//! block by block as they are verified, like those of a fill, those first that somebody reads, so nobody waits for more than
//! what it reads. A block that isn't what was stored fails the readers that wait for it, and removes the entry; where it is
//! among the first, nobody has got anything yet and the object is fetched anew. What was stored before the machine went down
//! is verified behind, slowly, if nobody asks for it.

use super::*;
use crate::store::disk::{Examined, Finding, Suspect, Verified};

/// Verified at a time.
const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// A suspect of up to so many bytes is verified before a client gets any of it: a fraction of a second's reading.
pub(super) const WHOLE_BYTES: u64 = 64 * 1024 * 1024;
/// The pace of what nobody waits for: a fraction of what one disk reads. 200 GiB take an hour.
const BEHIND_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// How often it is looked whether anybody still reads, while nothing is wanted.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Cache {
    /// Serves a large suspect as it is verified. Gives the course back where the origin is to be asked: whether what is held
    /// is current, or, where it is nothing, for the object.
    pub(super) async fn prove(
        self: &Arc<Self>,
        object: &Object,
        suspect: Box<Suspect>,
        course: Course,
    ) -> Option<(Course, Option<Cached>)> {
        let Some(meta) = self.unpurged_entry(object, suspect.found.meta.clone(), &suspect.found.file) else {
            return Some((course, None));
        };
        let meta = Arc::new(self.current(object, meta));
        if clock::now() >= meta.fresh_until {
            let held = self.prove_whole(object, meta, suspect).await?;
            return Some((course, held));
        }
        let (mut verified, mut suspect) = self.verify_step(suspect, 0).await?;
        if matches!(verified, Ok(Verified::Damaged(_)) | Err(_)) {
            self.disproved(object, &verified);
            return Some((course, None));
        }
        let (file, wants) = (Arc::clone(&suspect.found.file), Arc::new(Wants::default()));
        let (progress, followed) = watch::channel(Progress::default());
        course.fill(Filling {
            meta: Arc::clone(&meta),
            file,
            progress: followed,
            wants: Arc::clone(&wants),
            tier: Tier::Disk,
            surplus: None,
        });
        let end = loop {
            match verified {
                Ok(Verified::Some) => progress.send_modify(|progress| progress.spans = suspect.good.clone()),
                Ok(Verified::Whole(finding)) => {
                    self.proven(finding);
                    break End::Committed;
                }
                Ok(Verified::Damaged(_)) | Err(_) => {
                    let error = self.disproved(object, &verified);
                    break End::Failed(Arc::new(FillError::Disk(error)));
                }
            }
            let Some(from) = next_wanted(&wants, &suspect.good, &course).await else {
                // Nobody reads, or the node is going down.
                course.land(Stage::Again);
                return None;
            };
            (verified, suspect) = self.verify_step(suspect, from).await?;
        };
        if matches!(end, End::Committed) {
            self.take_proven(object, &meta, &suspect);
        }
        drop(course);
        progress.send_modify(|progress| {
            if matches!(end, End::Committed) {
                progress.spans.insert(up_to(meta.length.unwrap_or(0)));
            }
            progress.end = end;
        });
        None
    }

    /// What a suspect is that is small enough to be verified before a client gets any of it.
    pub(super) async fn proven_whole(self: &Arc<Self>, object: &Object, suspect: Box<Suspect>) -> Held {
        let Some(meta) = self.unpurged_entry(object, suspect.found.meta.clone(), &suspect.found.file) else {
            return Held::Nothing;
        };
        let meta = Arc::new(self.current(object, meta));
        match self.prove_whole(object, meta, suspect).await.flatten() {
            Some(cached) => Held::Entry(cached),
            None => Held::Nothing,
        }
    }

    /// The same of what may be stale: all of it is verified before the origin is asked whether it is. `None` when the node is
    /// going down.
    async fn prove_whole(
        self: &Arc<Self>,
        object: &Object,
        meta: Arc<Meta>,
        mut suspect: Box<Suspect>,
    ) -> Option<Option<Cached>> {
        loop {
            let verified;
            (verified, suspect) = self.verify_step(suspect, 0).await?;
            match verified {
                Ok(Verified::Some) => {}
                Ok(Verified::Whole(finding)) => {
                    self.proven(finding);
                    return Some(Some(self.take_proven(object, &meta, &suspect)));
                }
                Ok(Verified::Damaged(_)) | Err(_) => {
                    self.disproved(object, &verified);
                    return Some(None);
                }
            }
        }
    }

    /// Takes into the memory tier what was verified.
    fn take_proven(&self, object: &Object, meta: &Arc<Meta>, suspect: &Suspect) -> Cached {
        let used = self.evictor.index.note(suspect.found.key, suspect.found.disk_bytes);
        used.seal(suspect.found.seal);
        let body = Body::File(Arc::clone(&suspect.found.file));
        let cached = Cached { meta: Arc::clone(meta), body, used };
        self.memory.insert(object, cached.clone());
        cached
    }

    /// `None` when the node is going down.
    async fn verify_step(
        self: &Arc<Self>,
        mut suspect: Box<Suspect>,
        from: u64,
    ) -> Option<(io::Result<Verified>, Box<Suspect>)> {
        let cache = Arc::clone(self);
        let verifying = move || (cache.disk.verify(&mut suspect, from, STEP_BYTES), suspect);
        self.runtime.spawn_blocking(verifying).await.ok()
    }

    fn disproved(&self, object: &Object, verified: &io::Result<Verified>) -> io::Error {
        match verified {
            Err(error) => {
                self.unreadable(object, error);
                io::Error::other(error.to_string())
            }
            Ok(verified) => {
                if *verified == Verified::Damaged(Finding::New) {
                    self.damaged(object);
                }
                io::Error::other("the entry isn't what was stored")
            }
        }
    }

    /// Verifies what nobody asks for, until no suspect is left.
    pub(super) fn verify_behind(self: &Arc<Self>) {
        if !self.disk.is_settled() {
            drop(self.runtime.spawn(Arc::clone(self).verify_all()));
        }
    }

    async fn verify_all(self: Arc<Self>) {
        let epoch = self.disk.epoch();
        let mut settled = true;
        for shard in 0..=u8::MAX {
            let Some(keys) = self.blocking(move |cache| cache.disk.keys(shard)).await else { return };
            for key in keys.unwrap_or_else(|_| {
                settled = false;
                Vec::new()
            }) {
                let Some(examined) = self.blocking(move |cache| cache.disk.examine(&key)).await else {
                    return;
                };
                match examined {
                    Ok(Examined::Settled) => {}
                    Ok(Examined::Damaged) => self.rotten(&key),
                    Ok(Examined::Suspect(suspect)) => match self.verify_slowly(suspect).await {
                        Some(is_settled) => settled &= is_settled,
                        None => return,
                    },
                    Err(_) => settled = false,
                }
            }
        }
        if settled {
            let _ = self.blocking(move |cache| cache.disk.settle(epoch)).await;
        }
    }

    /// Whether it is known now; `None` when the node is going down.
    async fn verify_slowly(self: &Arc<Self>, mut suspect: Box<Suspect>) -> Option<bool> {
        let key = suspect.found.key;
        loop {
            let before = suspect.good.bytes();
            let verified;
            (verified, suspect) = self.verify_step(suspect, 0).await?;
            let read = suspect.good.bytes() - before;
            tokio::time::sleep(Duration::from_secs(1).mul_f64(read as f64 / BEHIND_BYTES_PER_SECOND as f64))
                .await;
            match verified {
                Ok(Verified::Some) => {}
                Ok(Verified::Whole(finding)) => {
                    self.proven(finding);
                    return Some(true);
                }
                Ok(Verified::Damaged(finding)) => {
                    if finding == Finding::New {
                        self.rotten(&key);
                    }
                    return Some(true);
                }
                Err(_) => {
                    self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
                    return Some(false);
                }
            }
        }
    }

    fn proven(&self, finding: Finding) {
        if finding == Finding::New {
            self.counters.verified.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rotten(&self, key: &Key) {
        tracing::warn!("a cached file isn't what was stored before the machine went down: it is dropped");
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        self.evictor.index.forget(key);
    }

    /// `None` when the node is going down.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let cache = Arc::clone(self);
        if self.closing.load(Ordering::Relaxed) {
            return None;
        }
        self.runtime.spawn_blocking(move || work(&cache)).await.ok()
    }
}

/// Waits until a reader wants bytes that aren't known to be good; where they begin. `None` once nobody reads, or the node is
/// going down.
async fn next_wanted(wants: &Arc<Wants>, good: &Spans, course: &Course) -> Option<u64> {
    loop {
        let wanted = wants.now();
        // One is the flight's, one is kept here.
        if course.withdraws_unless(|| Arc::strong_count(wants) > 2) {
            return None;
        }
        let missing = wanted.parts.iter().find_map(|part| good.gaps(part).first().map(|gap| gap.start));
        if let Some(from) = missing.or(wanted.whole.then_some(0)) {
            return Some(from);
        }
        tokio::select! {
            () = wants.told() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = course.closing() => return None,
        }
    }
}

const fn up_to(end: u64) -> ByteRange {
    ByteRange { start: 0, end }
}
