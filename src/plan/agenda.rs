//! What is to come, in order of time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events; of two at one time, the one that was added first comes first.
#[derive(Debug)]
pub struct Agenda<E> {
    queue: BinaryHeap<Reverse<(At, u64, E)>>,
    added: u64,
}

/// Seconds, ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct At(f64);

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl<E: Ord> Agenda<E> {
    /// With nothing on it.
    #[must_use]
    pub const fn new() -> Self {
        Self { queue: BinaryHeap::new(), added: 0 }
    }

    /// `event` is to come `at` so many seconds.
    pub fn add(&mut self, at: f64, event: E) {
        self.added += 1;
        self.queue.push(Reverse((At(at), self.added, event)));
    }

    /// When the next one comes; infinite without one.
    #[must_use]
    pub fn next(&self) -> f64 {
        self.queue.peek().map_or(f64::INFINITY, |Reverse((at, ..))| at.0)
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<E> {
        self.queue.pop().map(|Reverse((.., event))| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_being_added() {
        let mut agenda = Agenda::new();
        for (at, event) in [(2.0, 'c'), (1.0, 'z'), (1.0, 'a'), (0.5, 'm')] {
            agenda.add(at, event);
        }
        assert_eq!(agenda.next(), 0.5);
        let order: String = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(order, "mzac");
        assert_eq!(agenda.next(), f64::INFINITY);
    }
}
