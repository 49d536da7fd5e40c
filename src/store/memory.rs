//! The memory tier: small bodies, and open files of larger ones. No IO.

use super::evict::LastUse;
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
    pub(super) used: Arc<LastUse>,
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

/// Small bodies and open files, each bounded.
#[derive(Clone)]
pub(super) struct Memory {
    bodies: Cache<Object, Cached>,
    files: Cache<Object, Cached>,
    largest_body: u64,
}

impl Memory {
    pub(super) fn new(bytes: u64, largest_body: u64, open_files: u64, idle: Duration) -> Self {
        let bodies = Cache::builder()
            .max_capacity(bytes / 1024)
            .weigher(|_: &Object, cached: &Cached| match &cached.body {
                Body::Bytes(body) => {
                    u32::try_from((body.len() + OVERHEAD_BYTES).div_ceil(1024)).unwrap_or(u32::MAX)
                }
                Body::File(_) => 1,
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

    pub(super) fn find(&self, object: &Object) -> Option<Cached> {
        let cached = self.bodies.get(object).or_else(|| self.files.get(object))?;
        cached.used.touch();
        Some(cached)
    }

    pub(super) fn insert(&self, object: &Object, cached: Cached) {
        match cached.body {
            Body::Bytes(_) => {
                self.files.invalidate(object);
                self.bodies.insert(object.clone(), cached);
            }
            Body::File(_) => {
                self.bodies.invalidate(object);
                self.files.insert(object.clone(), cached);
            }
        }
    }

    pub(super) fn remove(&self, object: &Object) {
        self.bodies.invalidate(object);
        self.files.invalidate(object);
    }

    /// Closes the files of what was removed: moka keeps them until it tidies up, and they keep their blocks.
    pub(super) fn release(&self) {
        self.files.run_pending_tasks();
    }

    /// Bytes of small bodies, with what they take beside, rounded up.
    pub(super) fn bytes(&self) -> u64 {
        self.bodies.weighted_size() * 1024
    }

    /// Open files.
    pub(super) fn open_files(&self) -> u64 {
        self.files.entry_count()
    }
}
