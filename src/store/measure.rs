//! For benchmarks alone, which live in a crate of their own: what they need of the store's inside. Not for other use.

pub use super::evict::policy::{Counted, MOST_USES, Policy, Victim};

use super::evict::Uses;
use crate::repo::Sha256;
use std::fs::File;
use std::sync::Arc;

/// All that an index can hold for objects, at its largest.
pub struct FullIndex(Policy<Sha256, Option<Arc<Uses>>>);

impl FullIndex {
    /// So many objects, each asked for since the start and its file opened and closed, and as many ghosts.
    #[must_use]
    pub fn of(objects: u32, file: &Arc<File>) -> Self {
        let mut policy = Policy::<Sha256, Option<Arc<Uses>>>::new(1 << 50);
        for number in 0..2 * objects {
            if number >= objects {
                policy.evict();
            }
            let uses = policy.store(Sha256::of(&number.to_le_bytes()), 4096).get_or_insert_default();
            drop(uses.open(Arc::clone(file)));
        }
        Self(policy)
    }

    /// Objects in it.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.0.len()
    }

    /// By counting; what hangs on each object apart.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}
