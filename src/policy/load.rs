//! How much each mirror is being sent, against what it donates.

use crate::clock::Timestamp;
use crate::config::Bandwidth;
use std::sync::Mutex;
use std::time::Duration;

/// Requests overtake each other, so `now` may go back a little. Beyond this the wall clock was set back, and the bucket
/// drains from there on; else it would stay as full as it is until the clock has caught up.
const OVERTAKEN: Duration = Duration::from_secs(60);

/// A leaky bucket for each mirror: redirects fill it by the file's size, time drains it by the donated bandwidth.
#[derive(Debug)]
pub struct MirrorLoad {
    /// Seconds of its bandwidth that a mirror may be sent ahead: evens out bursts, and lets one large file through.
    ahead_seconds: f64,
    buckets: Vec<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    bytes_per_second: f64,
    level_bytes: f64,
    at: Timestamp,
}

impl Bucket {
    fn level(&mut self, now: Timestamp) -> f64 {
        if self.at > now.plus(OVERTAKEN) {
            self.at = now;
        }
        (self.level_bytes - self.bytes_per_second * now.since(self.at).as_secs_f64()).max(0.0)
    }
}

impl MirrorLoad {
    /// One bucket for each donated bandwidth, of which a mirror may be sent so much ahead (`mirrors.ahead`).
    pub fn new(donated: impl IntoIterator<Item = Bandwidth>, ahead: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate, not an account")]
        let bucket = |bandwidth: Bandwidth| Bucket {
            bytes_per_second: bandwidth.bytes_per_second() as f64,
            level_bytes: 0.0,
            at: Timestamp::EPOCH,
        };
        let buckets = donated.into_iter().map(|bandwidth| Mutex::new(bucket(bandwidth))).collect();
        Self { ahead_seconds: ahead.as_secs_f64(), buckets }
    }

    /// Whether mirror number `mirror` may be sent more now.
    #[must_use]
    pub fn has_room(&self, mirror: usize, now: Timestamp) -> bool {
        let mut bucket = self.lock(mirror);
        bucket.level(now) < bucket.bytes_per_second * self.ahead_seconds
    }

    /// Bytes that mirror number `mirror` has been sent ahead, and that it may be.
    #[must_use]
    pub fn ahead(&self, mirror: usize, now: Timestamp) -> (u64, u64) {
        let mut bucket = self.lock(mirror);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes, none below 0")]
        let bytes = |bytes: f64| bytes as u64;
        (bytes(bucket.level(now)), bytes(bucket.bytes_per_second * self.ahead_seconds))
    }

    /// Counts a redirect of `bytes` to mirror number `mirror`.
    pub fn sent(&self, mirror: usize, bytes: u64, now: Timestamp) {
        let mut bucket = self.lock(mirror);
        #[expect(clippy::cast_precision_loss, reason = "a rate, not an account")]
        let level = bucket.level(now) + bytes as f64;
        bucket.level_bytes = level;
        bucket.at = bucket.at.max(now);
    }

    fn lock(&self, mirror: usize) -> std::sync::MutexGuard<'_, Bucket> {
        self.buckets[mirror].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_sent_ahead_is_as_configured() {
        let now = Timestamp::from_secs(1000);
        for seconds in [1, 10, 60] {
            let donated = [Bandwidth::from_bits_per_second(80_000_000)];
            let load = MirrorLoad::new(donated, Duration::from_secs(seconds));
            assert_eq!(load.ahead(0, now), (0, seconds * 10_000_000));
            load.sent(0, seconds * 10_000_000 - 1, now);
            assert!(load.has_room(0, now));
            load.sent(0, 1, now);
            assert!(!load.has_room(0, now));
            let later = now.plus(Duration::from_millis(500));
            assert_eq!(load.ahead(0, later), (seconds * 10_000_000 - 5_000_000, seconds * 10_000_000));
        }
    }

    #[test]
    fn a_mirror_is_sent_no_more_than_it_donates() {
        let load = MirrorLoad::new([Bandwidth::from_bits_per_second(8_000_000)], AHEAD); // 1 MB/s
        let mut sent = 0;
        let mut now = Timestamp::from_secs(1000);
        for _ in 0..100 {
            while load.has_room(0, now) {
                load.sent(0, 100_000, now);
                sent += 100_000;
            }
            now = now.plus(Duration::from_secs(1));
        }
        let allowed = 100 * 1_000_000 + 10 * 1_000_000;
        assert!(sent <= allowed + 100_000, "{sent}");
        assert!(sent >= allowed - 1_100_000, "{sent}");
    }
    #[test]
    fn a_clock_that_is_set_back_fills_no_bucket() {
        let load = MirrorLoad::new([Bandwidth::from_bits_per_second(8_000_000)], AHEAD); // 1 MB/s
        let before = Timestamp::from_secs(10_000);
        load.sent(0, 15_000_000, before);
        let after = Timestamp::from_secs(10_000 - 3600);
        assert!(!load.has_room(0, after), "the level is kept");
        assert!(load.has_room(0, after.plus(Duration::from_secs(6))), "it drains from the new time on");

        // A request that was overtaken by others makes no time pass twice.
        let load = MirrorLoad::new([Bandwidth::from_bits_per_second(8_000_000)], AHEAD);
        load.sent(0, 15_000_000, before);
        for _ in 0..1000 {
            load.sent(0, 0, Timestamp::from_millis(before.as_millis() - 50));
            load.sent(0, 0, before);
        }
        assert!(!load.has_room(0, before));
    }
}
