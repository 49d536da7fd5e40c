//! Measured egress: how much the node sends, against what it may; and what of it is to be shed.

use super::pacer::Pacer;
use crate::clock;
use crate::config::{self, Bandwidth};
use crate::metrics::Metrics;
use crate::policy::budget::Budget;
use crate::policy::egress::{self, MOST_BACKLOG, Pressure, shed_share};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often egress is measured.
const EVERY: Duration = Duration::from_millis(10);
/// What is shown is measured over this.
const SHOWN: Duration = Duration::from_secs(1);
/// What decides about shedding is measured over this.
const QUICK: Duration = Duration::from_millis(100);
/// Of the capacity, what is left to freshet at least, whatever else goes through the interface.
const OWN_SHARE: f64 = 0.1;

/// What the kernel's queues of all transfers may hold, in time of the capacity. It counts as sent and isn't yet: where clients take
/// it all at once, so much more is on the wire.
const QUEUED: Duration = Duration::from_millis(20);
/// A queue is no shorter: below it, calls would cost more than they send.
pub const SHORTEST_QUEUE: u32 = 32 << 10;
/// A queue is no longer: what TCP itself has at most.
const LONGEST_QUEUE: u32 = 4 << 20;

/// The budget, and the latest measurement.
#[derive(Debug)]
pub struct Egress {
    settings: watch::Sender<config::Egress>,
    /// Gives out the capacity.
    pub pacer: Pacer,
    /// What the node takes on, against the rate that it aims for.
    taken: Budget,
    /// Responses under way that are longer than the shortest queue.
    transfers: AtomicUsize,
    bits_per_second: AtomicU64,
    /// Of the last second, and of the last tenth of one; `f64` as bits.
    pressure: AtomicU64,
    quick_pressure: AtomicU64,
    shed_from: AtomicU64,
    shed_all: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Egress {
    /// With these settings.
    #[must_use]
    pub fn new(settings: config::Egress, metrics: Arc<Metrics>) -> Self {
        let egress = Self {
            settings: watch::Sender::new(settings.clone()),
            pacer: Pacer::new(metrics.clone()),
            taken: Budget::new(0),
            transfers: AtomicUsize::new(0),
            bits_per_second: AtomicU64::default(),
            pressure: AtomicU64::default(),
            quick_pressure: AtomicU64::default(),
            shed_from: AtomicU64::default(),
            shed_all: AtomicU64::default(),
            metrics,
        };
        egress.set(settings);
        egress
    }

    /// With other settings from now on. Nobody who is being served notices but by the pace.
    pub fn set(&self, settings: config::Egress) {
        let capacity = settings.capacity.map_or(0, Bandwidth::bytes_per_second);
        self.pacer.set(capacity);
        let aim = egress::aim(settings.shed_from, settings.shed_all);
        self.taken.set(share_of(capacity, aim));
        self.shed_from.store(settings.shed_from.to_bits(), Ordering::Relaxed);
        self.shed_all.store(settings.shed_all.to_bits(), Ordering::Relaxed);
        let bits = settings.capacity.map_or(0, Bandwidth::bits_per_second);
        self.metrics.capacity.set(bits.try_into().unwrap_or(i64::MAX));
        self.settings.send_replace(settings);
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> config::Egress {
        self.settings.borrow().clone()
    }

    /// Bits per second over the last second: on the wire as far as freshet knows, or all that left `egress.interface` where
    /// it is configured.
    #[must_use]
    pub fn bits_per_second(&self) -> u64 {
        self.bits_per_second.load(Ordering::Relaxed)
    }

    /// Egress divided by capacity; 0 without a configured capacity.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        f64::from_bits(self.pressure.load(Ordering::Relaxed))
    }

    /// Share of redirectable requests to be shed now.
    #[must_use]
    pub fn shed(&self) -> f64 {
        if !self.pacer.is_on() {
            return 0.0;
        }
        let read = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        let pressure = Pressure { now: read(&self.quick_pressure), lasting: read(&self.pressure) };
        let (from, all) = (read(&self.shed_from), read(&self.shed_all));
        if pressure.now <= from && pressure.lasting <= from {
            return 0.0;
        }
        shed_share(pressure, self.taken.ahead(self.pacer.time(clock::monotonic())), from, all)
    }

    /// The node has taken on a transfer of so many bytes.
    pub fn takes_on(&self, bytes: u64) {
        if self.pacer.is_on() && bytes > 0 {
            self.taken.overdraw(bytes, self.pacer.time(clock::monotonic()), MOST_BACKLOG);
        }
    }

    /// So many bytes of it won't be sent after all.
    pub fn is_relieved(&self, bytes: u64) {
        if bytes > 0 {
            self.taken.refund(bytes);
        }
    }

    /// A response has begun that is longer than the shortest queue; it [is over](Self::is_over) in the end.
    pub fn begins(&self) {
        self.transfers.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had [begun](Self::begins).
    pub fn is_over(&self) {
        self.transfers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Unsent bytes that the kernel may hold of a fast client's connection; 0: as the system has it.
    #[must_use]
    pub fn queue_bytes(&self) -> u32 {
        queue_bytes(self.pacer.bytes_per_second(), self.transfers.load(Ordering::Relaxed))
    }

    /// Measures until `shutdown` turns true.
    pub async fn measure(&self, mut shutdown: watch::Receiver<bool>) {
        let mut changed = self.settings.subscribe();
        let mut meter = Meter::default();
        let mut others = Others::default();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|down| *down) => return,
            }
            if changed.has_changed().unwrap_or(false) {
                // Another counter may count from now on: one says nothing of the other.
                (meter, others) = (Meter::default(), Others::default());
            }
            let settings = changed.borrow_and_update().clone();
            let now = clock::monotonic();
            let own = self.metrics.egress_wire_bytes.get();
            let interface =
                settings.interface.as_deref().and_then(|interface| others.look(interface, own, now));
            meter.note(interface.unwrap_or(own), now);
            self.publish(&settings, meter.rate(SHOWN, now), meter.rate(QUICK, now));
            if let (Some(capacity), Some(other)) = (settings.capacity, others.bytes_per_second) {
                let left = capacity.bytes_per_second().saturating_sub(other);
                self.pacer.set(left.max(share_of(capacity.bytes_per_second(), OWN_SHARE)));
            }
        }
    }

    fn publish(&self, settings: &config::Egress, shown: f64, quick: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let pressure = |rate: f64| {
            settings.capacity.map_or(0.0, |capacity| rate * 8.0 / capacity.bits_per_second() as f64)
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is not negative"
        )]
        self.bits_per_second.store((shown * 8.0) as u64, Ordering::Relaxed);
        self.pressure.store(pressure(shown).to_bits(), Ordering::Relaxed);
        self.quick_pressure.store(pressure(quick).to_bits(), Ordering::Relaxed);
        self.metrics.pressure.set(pressure(shown));
        self.metrics.shed_share.set(self.shed());
    }
}

/// Each transfer's part of what all queues may hold, as a power of two so that it seldom changes. 0: nothing bounds it.
fn queue_bytes(bytes_per_second: u64, transfers: usize) -> u32 {
    if bytes_per_second == 0 {
        return 0;
    }
    let all = bytes_per_second / 1000 * u64::try_from(QUEUED.as_millis()).unwrap_or(1);
    let each = u32::try_from(all / (transfers as u64).max(1)).unwrap_or(u32::MAX);
    (1 << each.max(1).ilog2()).clamp(SHORTEST_QUEUE, LONGEST_QUEUE)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a rate"
)]
fn share_of(rate: u64, share: f64) -> u64 {
    (rate as f64 * share) as u64
}

/// What leaves an interface besides what freshet sends: rsync, retransmissions, whatever else the host does.
#[derive(Default)]
struct Others {
    interface: Option<Meter>,
    own: Option<Meter>,
    /// `None` where that can't be told.
    bytes_per_second: Option<u64>,
}

impl Others {
    /// Reads the interface's own counter, beside what freshet has sent so far.
    fn look(&mut self, interface: &str, own: u64, now: Instant) -> Option<u64> {
        // A read of sysfs takes microseconds and never blocks on a device.
        let path: PathBuf = ["/sys/class/net", interface, "statistics/tx_bytes"].iter().collect();
        let sent: Option<u64> = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let Some(sent) = sent else {
            *self = Self::default();
            return None;
        };
        let rate = |meter: &mut Option<Meter>, total| {
            let meter = meter.get_or_insert_default();
            meter.note(total, now);
            meter.rate(SHOWN, now)
        };
        let other = rate(&mut self.interface, sent) - rate(&mut self.own, own);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0")]
        let other = other.max(0.0) as u64;
        self.bytes_per_second = Some(other);
        Some(sent)
    }
}

/// A total that grows, and when.
#[derive(Default)]
struct Meter {
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// The total so far.
    fn note(&mut self, total: u64, now: Instant) {
        self.samples.push_back((now, total));
        while self.samples.len() > 2 && now - self.samples[1].0 >= SHOWN {
            self.samples.pop_front();
        }
    }

    /// Bytes per second over the last `time`, at most [`SHOWN`].
    fn rate(&self, time: Duration, now: Instant) -> f64 {
        let begin = self.samples.iter().rev().find(|(at, _)| now - *at >= time).or(self.samples.front());
        let (Some((at, before)), Some((_, total))) = (begin, self.samples.back()) else { return 0.0 };
        let seconds = (now - *at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let bytes = total.saturating_sub(*before) as f64;
        if seconds > 0.0 { bytes / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_queues_hold_what_the_capacity_takes_20_ms_for_as_far_as_they_may_be_that_short() {
        let gigabyte = 1_000_000_000;
        for (rate, transfers, expected) in [
            (0, 5, 0),
            (gigabyte, 0, LONGEST_QUEUE),
            (gigabyte, 3, LONGEST_QUEUE),
            (gigabyte, 100, 128 << 10),
            (gigabyte, 100_000, SHORTEST_QUEUE),
            (1000, 1, SHORTEST_QUEUE),
        ] {
            assert_eq!(queue_bytes(rate, transfers), expected, "{rate} B/s, {transfers} transfers");
            let all = u64::from(expected) * transfers as u64;
            assert!(expected == SHORTEST_QUEUE || all <= rate / 50, "{rate} B/s, {transfers} transfers");
        }
    }

    #[test]
    fn rates_are_those_of_the_last_second_and_of_the_last_tenth() {
        let mut meter = Meter::default();
        let start = clock::monotonic();
        for tick in 0..=500u64 {
            let now = start + EVERY * u32::try_from(tick).unwrap();
            meter.note(tick * 100, now);
            let rate = meter.rate(SHOWN, now);
            assert!(tick == 0 || (rate - 10_000.0).abs() < 1.0, "{rate}");
        }
        let mut shown = Vec::new();
        for tick in 501..=610u32 {
            let now = start + EVERY * tick;
            meter.note(50_000, now);
            shown.push(meter.rate(SHOWN, now));
            assert!(tick < 510 || meter.rate(QUICK, now) < 1.0);
        }
        assert!(shown.is_sorted_by(|a, b| a > b || *b == 0.0), "{shown:?}");
        assert!(shown[100] < 1.0, "{shown:?}");
    }
}
