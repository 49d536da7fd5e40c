//! Who was evicted lately, as 32-bit fingerprints in the order of eviction. Pure.
//!
//! Two keys of the same fingerprint are taken for each other: with a million ghosts that happens to one new object in four
//! thousand, which then skips its probation.

use std::collections::{HashMap, VecDeque};

/// Kept even where the cache holds fewer objects.
const LEAST: usize = 1024;

/// A bounded memory of fingerprints.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// The oldest first.
    order: VecDeque<u32>,
    /// Fingerprint to its last number in the order. Those taken out again keep their places in the order.
    numbers: HashMap<u32, u32>,
    /// The number of the oldest in the order; wraps.
    first: u32,
}

impl Ghosts {
    /// Adds one, and forgets the oldest beyond `bound` (or [`LEAST`]).
    pub(super) fn add(&mut self, hash: u64, bound: usize) {
        let fingerprint = fingerprint(hash);
        let number = self.first.wrapping_add(u32::try_from(self.order.len()).unwrap_or(u32::MAX));
        self.order.push_back(fingerprint);
        self.numbers.insert(fingerprint, number);
        while self.order.len() > bound.max(LEAST) {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.numbers.get(&oldest) == Some(&self.first) {
                self.numbers.remove(&oldest);
            }
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Takes one out; whether it was there.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        self.numbers.remove(&fingerprint(hash)).is_some()
    }

    /// What they take, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        // hashbrown: a control byte beside each pair, seven eighths of the places in use.
        self.order.capacity() * size_of::<u32>()
            + self.numbers.capacity() * 8 / 7 * (size_of::<(u32, u32)>() + 1)
    }
}

const fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(number: u32) -> u64 {
        (number as u64) << 32
    }

    #[test]
    fn the_oldest_go_first_and_a_second_death_counts_anew() {
        let mut ghosts = Ghosts { first: u32::MAX - 2, ..Ghosts::default() };
        for number in 0..1024 {
            ghosts.add(of(number), 0);
        }
        assert!(ghosts.take(of(0)) && !ghosts.take(of(0)));
        ghosts.add(of(0), 0);
        // Its first place in the order is gone by now; the second one isn't.
        for number in 2000..2100 {
            ghosts.add(of(number), 0);
        }
        assert!(ghosts.take(of(0)) && !ghosts.take(of(100)) && ghosts.take(of(101)));
        assert!(ghosts.order.len() == 1024 && ghosts.numbers.len() < 1024);
        for number in 0..5000 {
            ghosts.add(of(number), 4000);
        }
        assert!(ghosts.order.len() == 4000 && !ghosts.take(of(999)) && ghosts.take(of(1000)));
    }
}
