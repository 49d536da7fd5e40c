//! A budget of bytes over time, that may be spent ahead.
//!
//! It remembers one number: until when what was spent will have been earned. Spending moves that time on, by as much as the
//! bytes take at the budget's rate (the virtual scheduling form of the generic cell rate algorithm, ITU-T I.371). Times are
//! given as what has passed since some fixed moment, the same one in all calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What wasn't spent is lost after this: so much can be sent at once after a quiet time, and so late may whoever spends come
/// without loss. 25 ms are 2.5 % of a second.
const KEPT: Duration = Duration::from_millis(25);

/// A budget; shared, never locked.
#[derive(Debug)]
pub struct Budget {
    /// 0: without bound.
    bytes_per_second: AtomicU64,
    /// Nanoseconds.
    spent_until: AtomicU64,
}

impl Budget {
    /// Of so many bytes per second; 0 is no bound.
    #[must_use]
    pub const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: AtomicU64::new(bytes_per_second), spent_until: AtomicU64::new(0) }
    }

    /// From now on so many bytes per second; 0 is no bound. What is spent stays so.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes per second; 0 is no bound.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    /// Spends `bytes`, whether they are earned or not.
    pub fn spend(&self, bytes: u64, now: Duration) {
        let (cost, kept) = (self.cost(bytes), nanos(now.saturating_sub(KEPT)));
        self.update(|until| until.max(kept).saturating_add(cost));
    }

    /// Spends `bytes`, but no further ahead than `most`: what is beyond is forgiven.
    pub fn overdraw(&self, bytes: u64, now: Duration, most: Duration) {
        let (cost, kept) = (self.cost(bytes), nanos(now.saturating_sub(KEPT)));
        let last = nanos(now + most);
        self.update(|until| until.max(kept).saturating_add(cost).min(last.max(until)));
    }

    /// Gives `bytes` back that were spent and not sent.
    pub fn refund(&self, bytes: u64) {
        let cost = self.cost(bytes);
        self.update(|until| until.saturating_sub(cost));
    }

    /// How long it takes until all that is spent is earned; zero if it is.
    #[must_use]
    pub fn ahead(&self, now: Duration) -> Duration {
        if self.bytes_per_second() == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.spent_until.load(Ordering::Relaxed)).saturating_sub(now)
    }

    /// How long `bytes` take, in nanoseconds.
    fn cost(&self, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * 1_000_000_000;
        cost.checked_div(u128::from(self.bytes_per_second()))
            .map_or(0, |cost| cost.try_into().unwrap_or(u64::MAX))
    }

    fn update(&self, next: impl Fn(u64) -> u64) {
        let spent = |until| Some(next(until));
        // Always `Ok`: the closure never declines.
        let _ = self.spent_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent);
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(10);

    #[test]
    fn a_second_of_bytes_takes_a_second() {
        let budget = Budget::new(1_000_000);
        budget.spend(1_000_000, START);
        assert_eq!(budget.ahead(START), Duration::from_secs(1) - KEPT, "what was kept is spent first");
        assert_eq!(budget.ahead(START + Duration::from_secs(1)), Duration::ZERO);
        budget.refund(500_000);
        assert_eq!(budget.ahead(START), Duration::from_millis(475));
    }

    #[test]
    fn without_bound_nothing_is_ever_ahead() {
        let budget = Budget::new(0);
        budget.spend(u64::MAX, START);
        assert_eq!(budget.ahead(START), Duration::ZERO);
    }

    #[test]
    fn what_is_overdrawn_is_forgiven() {
        let budget = Budget::new(1000);
        let most = Duration::from_millis(50);
        budget.overdraw(1_000_000, START, most);
        assert_eq!(budget.ahead(START), most);
        budget.spend(1000, START);
        budget.overdraw(1, START, most);
        assert_eq!(budget.ahead(START), Duration::from_millis(1050), "nothing that was spent is forgiven");
    }

    proptest! {
        /// Whoever spends only when nothing is ahead sends no more than the rate, one last piece, and what was kept.
        #[test]
        fn no_more_than_the_rate(steps in prop::collection::vec((0u64..50, 1u64..5000), 1..300)) {
            let budget = Budget::new(100_000);
            let (mut now, mut sent, mut last) = (START, 0, 0);
            for (millis, bytes) in steps {
                now += Duration::from_millis(millis);
                if budget.ahead(now).is_zero() {
                    budget.spend(bytes, now);
                    (sent, last) = (sent + bytes, bytes);
                }
            }
            let earned = 100_000.0 * (now - START + KEPT).as_secs_f64();
            prop_assert!(sent as f64 <= earned + last as f64 + 1.0, "{sent} of {earned}");
        }
    }
}
