//! Time: the only place that reads a clock.
//!
//! Everything else takes `now` as an argument, so that policy, planner and tests can run in virtual time.
//!
//! What lasts is measured by the monotonic clock. [`now`], the node's time, is the wall clock of the start, carried on by the
//! monotonic one: it never steps, so that nothing expires or lasts too long because the wall clock is set. [`date`] is the wall
//! clock as it stands. [`Ahead`] is what lies between the two since the wall clock was set: a date from outside (a header, a
//! file's time) becomes a time of the node before it is compared with one, and a time of the node becomes a date before it is
//! shown, sent, or kept on disk.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, of the node or of the wall clock, in milliseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch; also what "never" compares as.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The point `later` after this one; saturates.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become the epoch.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.0)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with milliseconds, UTC. What lies past the year 9999, which the format can't say, shows as its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST: Timestamp = Timestamp(253_402_300_799_999);
        humantime::format_rfc3339_millis(SystemTime::from((*self).min(LAST))).fmt(f)
    }
}

/// How far the wall clock is ahead of the node's time, in milliseconds: by how much it was set since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ahead(i64);

impl Ahead {
    /// Less than this, in milliseconds, is nothing that anybody has to know of.
    const LEAST: u64 = 1000;

    /// At the moment that is `now` for the node, and `date` by the wall clock.
    #[must_use]
    pub fn at(now: Timestamp, date: Timestamp) -> Self {
        let [date, now] = [date, now].map(|time| i64::try_from(time.0).unwrap_or(i64::MAX));
        let ahead = date.saturating_sub(now);
        Self(if ahead.unsigned_abs() < Self::LEAST { 0 } else { ahead })
    }

    /// The date of a time of the node. The epoch, which stands for "never", stays.
    #[must_use]
    pub const fn date_of(self, time: Timestamp) -> Timestamp {
        if time.0 == 0 { time } else { Timestamp(time.0.saturating_add_signed(self.0)) }
    }

    /// The time of the node that a date is.
    #[must_use]
    pub const fn time_of(self, date: Timestamp) -> Timestamp {
        Self(self.0.saturating_neg()).date_of(date)
    }

    /// Whether the clock was set between the two. They are measured, and differ by a millisecond now and then.
    #[must_use]
    pub const fn differs_from(self, other: Self) -> bool {
        self.0.abs_diff(other.0) >= Self::LEAST
    }

    /// In seconds, positive if the wall clock was set forward.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0 / 1000
    }

    /// None.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

/// The node's time.
#[must_use]
pub fn now() -> Timestamp {
    static START: OnceLock<(Instant, Timestamp)> = OnceLock::new();
    let (start, at) = START.get_or_init(|| (monotonic(), date()));
    at.plus(monotonic().saturating_duration_since(*start))
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one caller")]
pub fn date() -> Timestamp {
    SystemTime::now().into()
}

/// How far the wall clock is ahead of the node's time.
#[must_use]
pub fn ahead() -> Ahead {
    Ahead::at(now(), date())
}

/// A time of the node as a date, for people.
#[must_use]
pub fn shown(time: Timestamp) -> String {
    ahead().date_of(time).to_string()
}

/// The monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one caller")]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_of_the_node() {
        let (now, hour) = (Timestamp::from_secs(1_700_000_000), 3_600_000);
        for (date, ahead) in
            [(0, 0), (999, 0), (-999, 0), (1000, 1000), (5 * hour, 5 * hour), (-5 * hour, -5 * hour)]
        {
            let set = Ahead::at(now, Timestamp(now.0.saturating_add_signed(date)));
            assert_eq!(set, Ahead(ahead), "{date}");
            let event = now.plus(Duration::from_secs(60));
            assert_eq!(set.date_of(event).0, event.0.saturating_add_signed(ahead));
            assert_eq!(set.time_of(set.date_of(event)), event);
            assert_eq!(set.date_of(Timestamp::EPOCH), Timestamp::EPOCH, "never");
            assert_eq!(set.as_secs(), ahead / 1000);
            assert_eq!(set.differs_from(Ahead(1)), ahead.abs() > 1000, "{date}");
            assert!(!set.differs_from(Ahead(ahead + 1)));
        }
        assert_eq!(Ahead(i64::MIN).date_of(now), Timestamp::EPOCH);
        assert_eq!(Ahead(hour).date_of(Timestamp::from_millis(u64::MAX)), Timestamp::from_millis(u64::MAX));
    }

    #[test]
    fn the_node_s_time_goes_on() {
        let before = now();
        assert!(now() >= before);
        assert!(ahead().is_zero(), "nothing sets the clock meanwhile");
    }
}
