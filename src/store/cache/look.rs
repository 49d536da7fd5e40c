//! Looks at the disk: with what is there taken into memory, or left as it was.

use super::proof::WHOLE_BYTES;
use super::*;

/// What a look at the disk gave.
pub(super) enum Held {
    Entry(Cached),
    /// Its bytes are to be verified first.
    Suspect(Box<Suspect>),
    Nothing,
}

impl Cache {
    /// Looks on disk, and takes what is there into the memory tier.
    pub(super) async fn look(self: &Arc<Self>, object: &Object) -> Held {
        let (cache, asked) = (Arc::clone(self), object.clone());
        let looking = move || match cache.look_now(&asked) {
            Ok(held) => held,
            Err(error) => {
                cache.unreadable(&asked, &error);
                Held::Nothing
            }
        };
        match self.runtime.spawn_blocking(looking).await.unwrap_or(Held::Nothing) {
            Held::Suspect(suspect) if suspect.length <= WHOLE_BYTES => {
                self.proven_whole(object, suspect).await
            }
            held => held,
        }
    }

    fn look_now(&self, object: &Object) -> io::Result<Held> {
        let sealed = self.evictor.index.sealed(&self.disk.key(object));
        let found = match self.disk.look(object, Trust::Sealed(sealed, self.memory.largest()))? {
            Look::Found(found) => found,
            Look::Suspect(suspect) => return Ok(Held::Suspect(suspect)),
            Look::Missing => return Ok(Held::Nothing),
            Look::Damaged => {
                self.damaged(object);
                return Ok(Held::Nothing);
            }
        };
        if found.verified {
            self.counters.verified.fetch_add(1, Ordering::Relaxed);
        }
        let version = self.purges.version();
        let Some(meta) = self.unpurged_entry(object, found.meta, &found.file) else {
            return Ok(Held::Nothing);
        };
        let meta = self.current(object, meta);
        let Some(body) = self.body_of(&meta, found.file)? else {
            self.damaged(object);
            return Ok(Held::Nothing);
        };
        let used = self.evictor.index.note(found.key, found.disk_bytes);
        used.seal(found.seal);
        self.evictor.confirm(&found.key);
        let cached = Cached { meta: Arc::new(meta), body, used };
        self.memory.insert(object, cached.clone());
        if self.purges.version() != version {
            // A ban came, or did its work, in between.
            self.memory.remove(object);
        }
        Ok(Held::Entry(cached))
    }

    /// What is in memory or on disk, and stays as it was: no use is noted, and nothing is taken into memory.
    pub(in crate::store) async fn glance(self: &Arc<Self>, object: &Object) -> Option<Content> {
        if let Some(cached) = self.memory.glance(object) {
            return Some(self.unpurged(object, cached)?.content(Tier::Disk));
        }
        let (cache, object) = (Arc::clone(self), object.clone());
        let looking = move || {
            let found = match cache.disk.look(&object, Trust::Epoch).ok()? {
                Look::Found(found) => found,
                Look::Damaged => {
                    cache.damaged(&object);
                    return None;
                }
                Look::Suspect(_) | Look::Missing => return None,
            };
            let meta = cache.unpurged_entry(&object, found.meta, &found.file)?;
            let meta = cache.current(&object, meta);
            Some(Content {
                meta: Arc::new(meta),
                source: Source::File(found.file),
                tier: Tier::Disk,
                stale: false,
            })
        };
        self.runtime.spawn_blocking(looking).await.ok().flatten()
    }

    /// A small body comes into memory, and is checked on the way: `None` if it isn't what was stored.
    pub(super) fn body_of(&self, meta: &Meta, file: Arc<std::fs::File>) -> io::Result<Option<Body>> {
        let Some(length) = meta.length.filter(|length| self.memory.takes(*length)) else {
            return Ok(Some(Body::File(file)));
        };
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        let intact = meta.sha256 == Some(Sha256::of(&bytes));
        Ok(intact.then(|| Body::Bytes(bytes.into())))
    }
}
