//! Parts that a fill leaves behind, and how the next one goes on with them.

use super::course::Opening;
use super::*;
use crate::store::disk::Parts;

impl Cache {
    /// Whether there is something of the object on disk.
    pub(super) async fn keeps_some(self: &Arc<Self>, object: &Object) -> bool {
        let (cache, key) = (Arc::clone(self), self.disk.key(object));
        self.runtime.spawn_blocking(move || cache.disk.holds(&key)).await.unwrap_or(false)
    }

    /// What an earlier fill left, if it still is of what the origin has.
    pub(super) async fn kept_parts(self: &Arc<Self>, object: &Object, demand: Demand) -> Option<Opening> {
        let bans = self.purges.version();
        let (cache, asked) = (Arc::clone(self), object.clone());
        let taking = move || cache.disk.take_parts(&asked, &cache.runtime);
        let taken = self.runtime.spawn_blocking(taking).await.map_err(io::Error::other).flatten();
        let parts = taken.inspect_err(|error| self.unreadable(object, error)).ok().flatten()?;
        let mut reservation = self.evictor.index.reclaim(&self.disk.key(object));
        // Where the index didn't know them, they have to find room once more.
        let missing = (parts.disk_bytes + overhead_bytes(0)).saturating_sub(reservation.bytes);
        if missing > 0 {
            reservation.join(self.evictor.reserve(missing).await?);
        }
        // A ban that came, or did its work, in between may have been of them.
        if self.purges.version() != bans || self.purges.verdict(object, &parts.meta).is_some() {
            return None;
        }
        let Parts { draft, meta, version, spans, .. } = parts;
        let meta = if object.identity.is_some() || clock::now() < meta.fresh_until {
            Arc::new(meta)
        } else {
            // Of what may be stale the head tells whether it is.
            match self.ask_head(object, demand).await {
                Ok(head) if head.is_of(&version) && head.meta.length == meta.length => head.meta,
                Err(error) if may_pass(&error) => {
                    self.put_away(object, Arc::new(meta), version, spans, (draft, reservation)).await;
                    return None;
                }
                _ => return None,
            }
        };
        let (spans, room, wants) = (spans.into_iter().collect(), Room::Disk(reservation), Arc::default());
        Some(Opening { meta, version: Some(version), draft, room, spans, first: None, wants })
    }

    /// Puts away what a fill has fetched, where the next one could go on with it.
    pub(super) async fn keep_parts(self: &Arc<Self>, fill: &Fill, draft: Draft) {
        let spans: Vec<ByteRange> = {
            let progress = fill.progress.borrow();
            let mut sure = progress.spans.clone();
            if let Some(start) = progress.unsure_from {
                sure.remove(ByteRange { start, end: u64::MAX });
            }
            sure.iter().collect()
        };
        let Some(version) = fill.version.clone() else { return };
        if spans.is_empty() || self.evictor.trouble.is_paused(clock::now()) {
            return;
        }
        let Some(room) = fill.take_room() else { return };
        let meta = Arc::clone(&fill.meta);
        if self.put_away(&fill.object, meta, version, spans, (draft, room)).await {
            self.counters.parts_kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it worked.
    async fn put_away(
        self: &Arc<Self>,
        object: &Object,
        meta: Arc<Meta>,
        version: Version,
        spans: Vec<ByteRange>,
        (mut draft, mut room): (Draft, Reservation),
    ) -> bool {
        let (cache, object) = (Arc::clone(self), object.clone());
        let keeping = move || {
            let kept = cache.disk.keep(&mut draft, &object, &meta, &version, &spans)?;
            room.spend(cache.disk.key(&object), kept);
            Ok(())
        };
        match self.runtime.spawn_blocking(keeping).await.map_err(io::Error::other).flatten() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => false,
            Err(error) => {
                self.disk_failed(error);
                false
            }
        }
    }
}

/// Whether the same question may have another answer soon.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Origin(error) => error.may_pass(),
        FetchError::Busy => true,
        _ => false,
    }
}
