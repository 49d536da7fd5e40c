//! What the origin lately refused: a brief memory, so that a crowd doesn't ask it for the same nothing.

use super::FetchError;
use super::object::Object;
use crate::origin::OriginError;
use crate::repo::{Hasher, Sha256};
use moka::Expiry;
use moka::sync::Cache;
use std::time::{Duration, Instant};

/// Refusals remembered at once, as many as 10,000 without a page of the origin's; others make room. Anybody can invent paths
/// that don't exist, so what one takes must not depend on the length of its path: a digest, and an error whose texts are
/// bounded.
const MAX_BYTES: u64 = 10_000 * REFUSAL_BYTES as u64;
/// What one takes, roughly, beside a page of the origin's.
const REFUSAL_BYTES: u32 = 512;
/// An origin that wasn't asked cost nothing, and may be asked again at any moment.
const WITHHELD: Duration = Duration::from_millis(250);

/// How long which refusal is remembered.
struct Memory {
    absent: Duration,
    failed: Duration,
}

impl Expiry<Sha256, FetchError> for Memory {
    fn expire_after_create(&self, _: &Sha256, refusal: &FetchError, _: Instant) -> Option<Duration> {
        Some(match refusal {
            FetchError::Absent | FetchError::IsDirectory => self.absent,
            FetchError::Answered(passed) => passed.lifetime(self.absent),
            FetchError::Origin(error) if matches!(**error, OriginError::Withheld { .. }) => {
                self.failed.min(WITHHELD)
            }
            _ => self.failed,
        })
    }

    fn expire_after_update(
        &self,
        object: &Sha256,
        refusal: &FetchError,
        updated: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(object, refusal, updated)
    }
}

/// Lately refused objects.
pub(super) struct Refusals(Cache<Sha256, FetchError>);

impl Refusals {
    pub(super) fn new(absent: Duration, failed: Duration) -> Self {
        let memory = Memory { absent, failed };
        let weigh = |_: &Sha256, refusal: &FetchError| match refusal {
            FetchError::Answered(passed) => {
                u32::try_from(passed.bytes()).unwrap_or(u32::MAX).saturating_add(REFUSAL_BYTES)
            }
            _ => REFUSAL_BYTES,
        };
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).expire_after(memory).build())
    }

    pub(super) fn find(&self, object: &Object) -> Option<FetchError> {
        self.0.get(&key(object))
    }

    pub(super) fn note(&self, object: &Object, refusal: FetchError) {
        self.0.insert(key(object), refusal);
    }

    pub(super) fn forget(&self, object: &Object) {
        self.0.invalidate(&key(object));
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

/// Collision-proof: nobody may make an object look absent.
fn key(object: &Object) -> Sha256 {
    let mut hasher = Hasher::default();
    if let Some(identity) = object.identity {
        hasher.update(identity.digest.as_bytes());
        hasher.update(&identity.size.to_le_bytes());
    }
    // No path has a NUL in it.
    hasher.update(&[0]);
    hasher.update(object.name().as_bytes());
    hasher.finish()
}
