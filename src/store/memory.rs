//! The memory tier: small bodies, and open files of larger ones. No IO.

use super::disk::Seal;
use super::evict::{OpenFile, Uses};
use super::object::{Content, Meta, Object, Source, Tier};
use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// What an entry takes beside its body: keys, header values, moka's own.
const OVERHEAD_BYTES: usize = 1024;

/// An object at hand.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) meta: Arc<Meta>,
    pub(super) body: Body,
    pub(super) used: Arc<Uses>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Bytes(Bytes),
    File(Arc<File>),
}

impl Cached {
    /// As an answer; `file_tier` says where its file is.
    pub(super) fn content(&self, file_tier: Tier) -> Content {
        let (source, tier) = match &self.body {
            Body::Bytes(bytes) => (Source::Memory(bytes.clone()), Tier::Memory),
            Body::File(file) => (Source::File(Arc::clone(file)), file_tier),
        };
        Content { meta: Arc::clone(&self.meta), source, tier, stale: false }
    }
}

/// A [`Cached`] as it is kept. Eviction marks it by what they share, and closes its file; whoever finds it then lets go of it.
#[derive(Clone)]
struct Kept<B> {
    meta: Arc<Meta>,
    body: B,
    used: Arc<Uses>,
}

/// Small bodies and open files, each bounded.
#[derive(Clone)]
pub(super) struct Memory {
    bodies: Cache<Object, Kept<Bytes>>,
    files: Cache<Object, Kept<Arc<OpenFile>>>,
    largest_body: u64,
}

impl Memory {
    pub(super) fn new(bytes: u64, largest_body: u64, open_files: u64, idle: Duration) -> Self {
        let bodies = Cache::builder()
            .max_capacity(bytes / 1024)
            .weigher(|_: &Object, kept: &Kept<Bytes>| {
                u32::try_from((kept.body.len() + kept.meta.fields.bytes() + OVERHEAD_BYTES).div_ceil(1024))
                    .unwrap_or(u32::MAX)
            })
            .build();
        // Strictly by recency: what was just opened is about to be read.
        let files = Cache::builder()
            .max_capacity(open_files)
            .time_to_idle(idle)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { bodies, files, largest_body }
    }

    /// Whether a body of this length belongs in memory.
    pub(super) const fn takes(&self, length: u64) -> bool {
        length <= self.largest_body
    }

    /// The largest body that does.
    pub(super) const fn largest(&self) -> u64 {
        self.largest_body
    }

    pub(super) fn find(&self, object: &Object) -> Option<Cached> {
        let cached = self.glance(object)?;
        cached.used.touch();
        Some(cached)
    }

    /// The same, and not taken for a use.
    pub(super) fn glance(&self, object: &Object) -> Option<Cached> {
        // A listed size says where not to look.
        let may_be_small = object.size().is_none_or(|size| self.takes(size));
        let small = may_be_small.then(|| self.bodies.get(object)).flatten();
        let cached = if let Some(Kept { meta, body, used }) = small {
            (!used.is_evicted()).then(|| Cached { meta, body: Body::Bytes(body), used })
        } else {
            let Kept { meta, body, used } = self.files.get(object)?;
            body.file().map(|file| Cached { meta, body: Body::File(file), used })
        };
        if cached.is_none() {
            self.remove(object);
        }
        cached
    }

    /// Whether the open file of an object is as it was when its bytes were verified; else it is let go of. True of all else.
    pub(super) fn stands(&self, object: &Object) -> bool {
        let Some(Cached { body: Body::File(file), used, .. }) = self.glance(object) else { return true };
        let stands = used.sealed().is_none_or(|seal| Seal::of(&file) == Some(seal));
        if !stands {
            self.remove(object);
        }
        stands
    }

    pub(super) fn insert(&self, object: &Object, cached: Cached) {
        let Cached { meta, body, used } = cached;
        match body {
            Body::Bytes(body) => {
                self.files.invalidate(object);
                self.bodies.insert(object.clone(), Kept { meta, body, used });
            }
            Body::File(file) => {
                self.bodies.invalidate(object);
                let body = used.open(file);
                self.files.insert(object.clone(), Kept { meta, body, used });
            }
        }
    }

    pub(super) fn remove(&self, object: &Object) {
        self.bodies.invalidate(object);
        self.files.invalidate(object);
    }

    /// Removes all of which `purged` holds; how many.
    pub(super) fn remove_where(&self, purged: impl Fn(&Object, &Meta) -> bool) -> u64 {
        let bodies = self.bodies.iter().map(|(object, kept)| (object, kept.meta));
        let files = self.files.iter().map(|(object, kept)| (object, kept.meta));
        let mut removed = 0;
        for (object, _) in bodies.chain(files).filter(|(object, meta)| purged(object, meta)) {
            self.remove(&object);
            removed += 1;
        }
        removed
    }

    /// Bytes of small bodies, with what they take beside, rounded up.
    pub(super) fn bytes(&self) -> u64 {
        self.bodies.weighted_size() * 1024
    }

    /// Open files. Those that were just closed count as closed: the count alone lags behind by whole batches.
    pub(super) fn open_files(&self) -> u64 {
        self.files.run_pending_tasks();
        self.files.entry_count()
    }
}
