//! How much of what could be redirected is shed to mirrors, from measured egress.

use std::time::Duration;

/// Above this size a file is large: shed first, since it frees most.
const LARGE_BYTES: u64 = 4 << 20;
/// Below this size a file is small: shed last, since a redirect costs its client about as much as the file.
const SMALL_BYTES: u64 = 64 << 10;
/// How long it takes for all shedding to end once the pressure is gone. It starts at once; that asymmetry is the
/// hysteresis that keeps it from flapping.
const RELEASE: Duration = Duration::from_secs(5);

/// The share to shed, `elapsed` after it was `share`, under `pressure` (egress divided by capacity).
///
/// It is 0 up to `shed_from`, 1 from `shed_all` on, linear in between; it rises at once and falls slowly.
#[must_use]
pub fn shed_share(share: f64, pressure: f64, shed_from: f64, shed_all: f64, elapsed: Duration) -> f64 {
    let due = if pressure >= shed_all {
        1.0
    } else {
        ((pressure - shed_from) / (shed_all - shed_from)).clamp(0.0, 1.0)
    };
    due.max(share - elapsed.as_secs_f64() / RELEASE.as_secs_f64())
}

/// Whether one request is shed. `draw` is uniform in [0, 1) and fixed for a client and file, so that a retry
/// gets the same answer.
#[must_use]
pub fn sheds(share: f64, size: Option<u64>, cached: bool, draw: f64) -> bool {
    let size_exponent = match size {
        Some(size) if size >= LARGE_BYTES => 0.5,
        Some(size) if size < SMALL_BYTES => 2.0,
        _ => 1.0,
    };
    let exponent = if cached { size_exponent } else { size_exponent / 2.0 };
    share > 0.0 && draw < share.powf(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let step = |share, pressure, secs| shed_share(share, pressure, 0.8, 0.95, Duration::from_secs(secs));
        assert_eq!(step(0.0, 0.79, 1), 0.0);
        assert_eq!(step(0.0, 0.95, 0), 1.0);
        assert!((step(0.0, 0.875, 0) - 0.5).abs() < 1e-9);
        assert!((step(1.0, 0.0, 1) - 0.8).abs() < 1e-9);
        assert_eq!(step(1.0, 0.0, 6), 0.0);
        assert_eq!(shed_share(0.0, 0.9, 0.9, 0.9, Duration::ZERO), 1.0, "equal thresholds are a switch");
    }

    proptest! {
        #[test]
        fn large_and_cold_go_first_and_full_pressure_takes_all(share in 0.0..=1.0f64, draw in 0.0..1.0f64) {
            let large_cold = sheds(share, Some(LARGE_BYTES), false, draw);
            let large = sheds(share, Some(LARGE_BYTES), true, draw);
            let small = sheds(share, Some(1), true, draw);
            prop_assert!(large_cold >= large && large >= small);
            prop_assert!(sheds(1.0, Some(1), true, draw));
            prop_assert!(!sheds(0.0, None, false, draw));
        }
    }
}
