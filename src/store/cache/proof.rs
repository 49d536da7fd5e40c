//! Suspects: entries stored before the machine went down, whose bytes are verified before anybody gets them.
//!
//! One of up to 64 MiB is verified whole by the look that finds it. A larger one is a flight: its bytes become readable
//! block by block as they are verified, like those of a fill, so nobody waits for more than what it reads. A block that
//! isn't what was stored fails the readers that wait for it, and removes the entry; where it is among the first, nobody has
//! got anything yet and the object is fetched anew. All other suspects are verified behind, slowly.

use super::*;
use crate::store::disk::{Examined, Finding, Suspect, Verified};

/// Verified at a time.
const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// The pace of what nobody waits for: a fraction of what one disk reads. 200 GiB take an hour.
const BEHIND_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

impl Cache {
    /// Serves a large suspect as it is verified; gives the course back where the object has to be fetched instead.
    pub(super) async fn prove(
        self: &Arc<Self>,
        object: &Object,
        suspect: Box<Suspect>,
        course: Course,
    ) -> Option<Course> {
        let Some(meta) = self.unpurged_entry(object, suspect.found.meta.clone(), &suspect.found.file) else {
            return Some(course);
        };
        let meta = self.current(object, meta);
        if clock::now() >= meta.fresh_until {
            // Whether it is current is for the origin to say, and it is asked for another one.
            return Some(course);
        }
        let (mut verified, mut suspect) = self.verify_step(suspect).await?;
        if matches!(verified, Ok(Verified::Damaged(_)) | Err(_)) {
            self.disproved(object, &verified);
            return Some(course);
        }
        let (meta, file) = (Arc::new(meta), Arc::clone(&suspect.found.file));
        let (progress, followed) = watch::channel(Progress::default());
        course.fill(Filling { meta: Arc::clone(&meta), file, progress: followed, wants: Arc::default() });
        let end = loop {
            match verified {
                Ok(Verified::Until(good)) => {
                    progress.send_modify(|progress| progress.spans.insert(up_to(good)));
                }
                Ok(Verified::Whole(finding)) => {
                    self.proven(finding);
                    break End::Committed;
                }
                Ok(Verified::Damaged(_)) | Err(_) => {
                    let error = self.disproved(object, &verified);
                    break End::Failed(Arc::new(FillError::Disk(error)));
                }
            }
            (verified, suspect) = self.verify_step(suspect).await?;
        };
        if matches!(end, End::Committed) {
            let used = self.evictor.index.note(suspect.found.key, suspect.found.disk_bytes);
            let body = Body::File(Arc::clone(&suspect.found.file));
            self.memory.insert(object, Cached { meta: Arc::clone(&meta), body, used });
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

    /// `None` when the node is going down.
    async fn verify_step(
        self: &Arc<Self>,
        mut suspect: Box<Suspect>,
    ) -> Option<(io::Result<Verified>, Box<Suspect>)> {
        let cache = Arc::clone(self);
        let verifying = move || (cache.disk.verify(&mut suspect, STEP_BYTES), suspect);
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
            let before = suspect.position();
            let verified;
            (verified, suspect) = self.verify_step(suspect).await?;
            let read = suspect.position() - before;
            tokio::time::sleep(Duration::from_secs(1).mul_f64(read as f64 / BEHIND_BYTES_PER_SECOND as f64))
                .await;
            match verified {
                Ok(Verified::Until(_)) => {}
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

const fn up_to(end: u64) -> ByteRange {
    ByteRange { start: 0, end }
}
