//! Bytes that several responses have at once: counted once against the ceiling, while one has them.

use super::Memory;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in memory that are lent to responses.
#[derive(Debug)]
pub struct Shared {
    bytes: Bytes,
    lent: AtomicUsize,
    memory: Arc<Memory>,
}

/// What one response has, with all slices of it.
struct Loan(Arc<Shared>);

impl Shared {
    /// Bytes that no response has yet.
    #[must_use]
    pub fn new(bytes: Bytes, memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self { bytes, lent: AtomicUsize::new(0), memory })
    }

    /// The bytes themselves.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes for one response. They count until the last slice of the last loan is dropped.
    #[must_use]
    pub fn lend(self: &Arc<Self>) -> Bytes {
        if self.lent.fetch_add(1, Ordering::Relaxed) == 0 {
            self.memory.adds(self.bytes.len() as u64);
        }
        Bytes::from_owner(Loan(self.clone()))
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.0.lent.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.memory.subtracts(self.0.bytes.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;

    #[test]
    fn what_several_responses_have_counts_once_until_the_last_slice_is_dropped() {
        let memory = Memory::new(1 << 30, IntCounter::new("ended", "for others").unwrap());
        let shared = Shared::new(Bytes::from(vec![7; 1000]), memory.clone());
        assert_eq!(memory.held(), 0);
        let (first, second) = (shared.lend(), shared.lend());
        assert_eq!((memory.held(), &first[..], second.len()), (1000, &[7; 1000][..], 1000));
        drop(first);
        let slice = second.slice(990..);
        drop(second);
        assert_eq!(memory.held(), 1000);
        drop(slice);
        assert_eq!(memory.held(), 0);
        drop(shared.lend());
        assert_eq!(memory.held(), 0);
    }
}
