//! Measured egress: how much the node sends, against what it may.

use crate::clock;
use crate::config;
use crate::metrics::Metrics;
use crate::policy::egress::shed_share;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often egress is measured.
const EVERY: Duration = Duration::from_millis(100);
/// The time that a rate is measured over.
const OVER: Duration = Duration::from_secs(1);

/// The latest measurement.
#[derive(Debug, Default)]
pub struct Egress {
    bits_per_second: AtomicU64,
    pressure: AtomicU64,
    shed: AtomicU64,
}

impl Egress {
    /// Bits per second over the last second: TCP payload, or all that left `egress.interface` where it is configured.
    #[must_use]
    pub fn bits_per_second(&self) -> u64 {
        self.bits_per_second.load(Ordering::Relaxed)
    }

    /// Egress divided by capacity; 0 without a configured capacity.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        f64::from_bits(self.pressure.load(Ordering::Relaxed))
    }

    /// Share of redirectable requests to be shed.
    #[must_use]
    pub fn shed(&self) -> f64 {
        f64::from_bits(self.shed.load(Ordering::Relaxed))
    }

    /// Measures until `shutdown` turns true.
    pub async fn measure(
        &self,
        settings: config::Egress,
        metrics: Arc<Metrics>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let capacity = settings.capacity.map_or(0, config::Bandwidth::bits_per_second);
        metrics.capacity.set(capacity.try_into().unwrap_or(i64::MAX));
        let mut meter = Meter { samples: VecDeque::new() };
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = clock::monotonic();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|down| *down) => return,
            }
            let now = clock::monotonic();
            let bytes = sent_bytes(&settings, &metrics);
            let bits_per_second = meter.rate(bytes, now) * 8.0;
            #[expect(clippy::cast_precision_loss, reason = "a ratio")]
            let pressure =
                settings.capacity.map_or(0.0, |capacity| bits_per_second / capacity.bits_per_second() as f64);
            let shed = shed_share(self.shed(), pressure, settings.shed_from, settings.shed_all, now - before);
            before = now;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is not negative"
            )]
            self.bits_per_second.store(bits_per_second as u64, Ordering::Relaxed);
            self.pressure.store(pressure.to_bits(), Ordering::Relaxed);
            self.shed.store(shed.to_bits(), Ordering::Relaxed);
            metrics.pressure.set(pressure);
            metrics.shed_share.set(shed);
        }
    }
}

/// Bytes sent since some start: by the interface's own counter, which sees rsync and retransmissions too, else by ours.
fn sent_bytes(settings: &config::Egress, metrics: &Metrics) -> u64 {
    let counted = settings.interface.as_ref().and_then(|interface| {
        // A read of sysfs takes microseconds and never blocks on a device.
        let path: PathBuf = ["/sys/class/net", interface, "statistics/tx_bytes"].iter().collect();
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    counted.unwrap_or_else(|| metrics.egress_bytes.get())
}

struct Meter {
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Bytes per second over the last [`OVER`], given the total so far.
    fn rate(&mut self, total: u64, now: Instant) -> f64 {
        self.samples.push_back((now, total));
        while self.samples.len() > 2 && now - self.samples[1].0 >= OVER {
            self.samples.pop_front();
        }
        let (at, before) = self.samples[0];
        let seconds = (now - at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let bytes = total.saturating_sub(before) as f64;
        if seconds > 0.0 { bytes / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut meter = Meter { samples: VecDeque::new() };
        let start = clock::monotonic();
        for tick in 0..=50u64 {
            let rate = meter.rate(tick * 1000, start + EVERY * u32::try_from(tick).unwrap());
            assert!(tick == 0 || (rate - 10_000.0).abs() < 1.0, "{rate}");
        }
        let rates: Vec<f64> = (51..=61u32).map(|tick| meter.rate(50_000, start + EVERY * tick)).collect();
        assert!(rates.is_sorted_by(|a, b| a > b || *b == 0.0), "{rates:?}");
        assert!(rates[10] < 1.0, "{rates:?}");
    }
}
