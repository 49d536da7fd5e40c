//! What the origin lately refused: a brief memory, so that a crowd doesn't ask it for the same nothing.

use super::FetchError;
use super::object::Object;
use moka::Expiry;
use moka::sync::Cache;
use std::time::{Duration, Instant};

/// Refusals remembered at once; the oldest make room.
const MAX_REFUSALS: u64 = 65_536;

/// How long which refusal is remembered.
struct Memory {
    absent: Duration,
    failed: Duration,
}

impl Expiry<Object, FetchError> for Memory {
    fn expire_after_create(&self, _: &Object, refusal: &FetchError, _: Instant) -> Option<Duration> {
        Some(match refusal {
            FetchError::Absent | FetchError::IsDirectory => self.absent,
            _ => self.failed,
        })
    }

    fn expire_after_update(
        &self,
        object: &Object,
        refusal: &FetchError,
        updated: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(object, refusal, updated)
    }
}

/// Lately refused objects.
pub(super) struct Refusals(Cache<Object, FetchError>);

impl Refusals {
    pub(super) fn new(absent: Duration, failed: Duration) -> Self {
        let memory = Memory { absent, failed };
        Self(Cache::builder().max_capacity(MAX_REFUSALS).expire_after(memory).build())
    }

    pub(super) fn find(&self, object: &Object) -> Option<FetchError> {
        self.0.get(object)
    }

    pub(super) fn note(&self, object: &Object, refusal: FetchError) {
        self.0.insert(object.clone(), refusal);
    }

    pub(super) fn forget(&self, object: &Object) {
        self.0.invalidate(object);
    }
}
