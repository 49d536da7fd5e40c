//! When requests are due in an open loop. Pure.

use std::time::{Duration, Instant};

/// Evenly spaced moments within a span.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begun: Instant,
    spacing_seconds: f64,
    total: u64,
    taken: u64,
}

impl Schedule {
    /// `rate` requests a second, from `begun` on, for `span`.
    pub fn new(begun: Instant, rate: f64, span: Duration) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and no exact number"
        )]
        let total = (rate * span.as_secs_f64()) as u64;
        Self { begun, spacing_seconds: 1.0 / rate, total, taken: 0 }
    }

    /// The next moment that isn't taken yet.
    pub fn next(&self) -> Option<Instant> {
        #[expect(clippy::cast_precision_loss, reason = "no more than some millions")]
        let after = self.spacing_seconds * self.taken as f64;
        (self.taken < self.total).then(|| self.begun + Duration::from_secs_f64(after))
    }

    /// Takes the next moment if it has come: the request is due then, even if `now` is later.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next().filter(|due| *due <= now)?;
        self.taken += 1;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freshet::clock::monotonic;

    #[test]
    fn all_moments_come_evenly_spaced_and_a_late_one_keeps_its_own() {
        let begun = monotonic();
        let mut schedule = Schedule::new(begun, 100.0, Duration::from_secs(1));
        assert_eq!(schedule.take(begun), Some(begun), "the first is due at once");
        assert_eq!(schedule.take(begun), None);
        // Nobody looked for half a second: fifty have been due, each at its own moment.
        let late = begun + Duration::from_millis(501);
        let due: Vec<_> = std::iter::from_fn(|| schedule.take(late)).collect();
        assert_eq!(due.len(), 50);
        assert!(
            due.windows(2)
                .all(|pair| (pair[1] - pair[0]).abs_diff(Duration::from_millis(10)).as_nanos() < 100)
        );
        let rest = std::iter::from_fn(|| schedule.take(begun + Duration::from_secs(60))).count();
        assert_eq!(rest, 49);
        assert_eq!(schedule.next(), None, "the span is over");
    }
}
