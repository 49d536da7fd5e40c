//! Parts that a fill leaves behind, and how the next one goes on with them.

use super::course::Opening;
use super::*;
use crate::store::disk::Parts;
use crate::store::disk::files::System;

impl Cache {
    /// What an earlier fill left, if it still is of what the origin has.
    pub(super) async fn kept_parts(self: &Arc<Self>, object: &Object) -> Option<Opening> {
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
        if self.purges.verdict(object, &parts.meta).is_some() {
            return None;
        }
        let Parts { draft, meta, version, spans, .. } = parts;
        let meta = if object.identity.is_some() || clock::now() < meta.fresh_until {
            Arc::new(meta)
        } else {
            // Of what may be stale the head tells whether it is.
            let head = self.ask_head(object).await.ok()?;
            let is_same = head.is_of(&version) && head.meta.length == meta.length;
            if !is_same {
                return None;
            }
            head.meta
        };
        let spans = spans.into_iter().collect();
        let room = Room::Disk(reservation);
        Some(Opening { meta, version: Some(version), draft, room, spans, first: None })
    }

    /// Puts away what a fill has fetched, where the next one could go on with it.
    pub(super) async fn keep_parts(self: &Arc<Self>, fill: &Fill, draft: Draft) {
        let spans: Vec<ByteRange> = fill.progress.borrow().spans.iter().collect();
        let Some(version) = fill.version.clone() else { return };
        if spans.is_empty() || self.evictor.trouble.is_paused(clock::now()) {
            return;
        }
        let (cache, object, meta) = (Arc::clone(self), fill.object.clone(), Arc::clone(&fill.meta));
        let Some(mut room) = fill.take_room() else { return };
        let keeping = move || {
            let mut draft: Draft<System> = draft;
            let kept = cache.disk.keep(&mut draft, &object, &meta, &version, &spans)?;
            room.spend(cache.disk.key(&object), kept);
            Ok(())
        };
        match self.runtime.spawn_blocking(keeping).await.map_err(io::Error::other).flatten() {
            Ok(()) => {
                self.counters.parts_kept.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => {
                self.disk_failed(error);
            }
        }
    }
}
