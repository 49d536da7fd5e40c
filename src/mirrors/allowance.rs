//! How many files are compared at first proofs: a mirror that is new has every repo proven at once, and each file of it is new.
//! Pure but for its lock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So many at once.
const BURST: usize = 16;
/// One more each time that this has passed.
const EVERY: Duration = Duration::from_secs(15);

/// What one mirror's first proofs may compare, over all its repos and both families, besides one file each.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<Option<State>>);

#[derive(Debug)]
struct State {
    left: usize,
    /// Up to when time has been counted.
    counted: Instant,
}

impl Allowance {
    /// Takes as many files as there are, and at most `most`.
    pub(super) fn take(&self, most: usize, now: Instant) -> usize {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { left, counted } = state.get_or_insert(State { left: BURST, counted: now });
        while *left < BURST && *counted + EVERY <= now {
            (*left, *counted) = (*left + 1, *counted + EVERY);
        }
        if *left == BURST {
            *counted = now;
        }
        let taken = most.min(*left);
        *left -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_used_up_at_once_and_comes_back_with_time() {
        let (allowance, begun) = (Allowance::default(), Instant::from(crate::clock::monotonic()));
        let take = |most, secs| allowance.take(most, begun + Duration::from_secs(secs));
        let taken: Vec<usize> = (0..8).map(|_| take(3, 0)).collect();
        assert_eq!(taken, [3, 3, 3, 3, 3, 1, 0, 0]);
        assert_eq!([take(3, 14), take(3, 15), take(3, 29), take(3, 61)], [0, 1, 0, 3]);
        assert_eq!(take(100, 1_000_000), BURST);
        assert_eq!(take(100, 1_000_001), 0);
    }
}
