//! How much of what could be redirected is shed to mirrors.
//!
//! Two things are known: the *pressure*, what leaves the node now against its capacity, and the *backlog*, what the node has
//! taken on beyond the rate that it aims for. Pressure alone comes too late: what was promised a moment ago isn't sent yet, and
//! by the time it shows, as much again is promised. The backlog is known with each promise, so that the node takes on just
//! what it aims for; pressure says whether any of this matters yet. With slow clients the backlog is large long before the
//! link is full, and all of them are served.

use std::time::Duration;

/// Above this size a file is large: shed first, since it frees most.
const LARGE_BYTES: u64 = 4 << 20;
/// Below this size a file is small: shed last, since a redirect costs its client about as much as the file.
const SMALL_BYTES: u64 = 64 << 10;
/// The backlog at which everything is shed; the longer, the steadier, and the slower.
const FULL: Duration = Duration::from_secs(1);
/// Up to this share only clients that are known to recover from a mirror's failure are shed, all of them in the end; the others
/// follow from there on.
const OTHERS_FROM: f64 = 0.8;
/// No more is remembered, so that one large file for one slow client isn't held against the others for long.
pub const MOST_BACKLOG: Duration = Duration::from_secs(2);

/// The share of its capacity that a node aims for while it sheds.
#[must_use]
pub fn aim(shed_from: f64, shed_all: f64) -> f64 {
    f64::midpoint(shed_from, shed_all)
}

/// Egress divided by capacity.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// Over the last tenth of a second.
    pub now: f64,
    /// Over the last second.
    pub lasting: f64,
}

/// The share to shed under `pressure`, with a `backlog` that takes so long at the rate aimed for.
///
/// None up to `shed_from`, everything from `shed_all` on, once that lasts; in between by the backlog, which settles where
/// what is left comes to the [`aim`].
#[must_use]
pub fn shed_share(pressure: Pressure, backlog: Duration, shed_from: f64, shed_all: f64) -> f64 {
    if pressure.lasting >= shed_all {
        return 1.0;
    }
    // A quarter of the way, so that it is on the whole before the aim is reached.
    let matters = ((pressure.now - shed_from) * 4.0 / (shed_all - shed_from)).clamp(0.0, 1.0);
    matters * (backlog.as_secs_f64() / FULL.as_secs_f64()).min(1.0)
}

/// What bears on whether a request is shed.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Of the file, in bytes.
    pub size: u64,
    /// The node has it at hand.
    pub cached: bool,
    /// Its client is known to come back where a mirror fails it.
    pub recovers: bool,
}

/// Whether one request is shed. `draw` is uniform in [0, 1) and fixed for a client and file, so that a retry
/// gets the same answer.
#[must_use]
pub fn sheds(share: f64, candidate: Candidate, draw: f64) -> bool {
    let by_size = match candidate.size {
        LARGE_BYTES.. => 0.5,
        SMALL_BYTES.. => 1.0,
        _ => 2.0,
    };
    let by_cache = if candidate.cached { 1.0 } else { 0.5 };
    let share = match candidate.recovers {
        true => (share / OTHERS_FROM).min(1.0),
        false => ((share - OTHERS_FROM) / (1.0 - OTHERS_FROM)).max(0.0),
    };
    share > 0.0 && draw < share.powf(by_size * by_cache)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::budget::Budget;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn pressure_gates_and_backlog_decides() {
        let share = |pressure, millis| {
            let pressure = Pressure { now: pressure, lasting: pressure };
            shed_share(pressure, Duration::from_millis(millis), 0.8, 0.96)
        };
        assert_eq!(share(0.80, 2000), 0.0);
        assert!((share(0.82, 1000) - 0.5).abs() < 1e-9);
        assert!((share(0.90, 250) - 0.25).abs() < 1e-9);
        assert_eq!(share(0.90, 0), 0.0);
        assert_eq!(share(0.96, 0), 1.0);
        let burst = Pressure { now: 1.0, lasting: 0.9 };
        assert_eq!(shed_share(burst, Duration::ZERO, 0.8, 0.96), 0.0, "a burst isn't too much yet");
        assert_eq!(
            share(0.96, 0),
            shed_share(burst, Duration::ZERO, 0.9, 0.9),
            "equal thresholds are a switch"
        );
    }

    /// A node of 1 MB/s. `offered` times its capacity arrives in transfers of `size` bytes, each of which takes `ticks` ticks
    /// of 10 ms unless the node is full. Gives egress over capacity for each second.
    /// So much of it can be redirected, and of that `recovers` for clients that recover; the rest is shed last.
    fn run(
        offered: f64,
        (size, ticks): (u64, u64),
        (redirectable, recovers): (f64, f64),
        (from, all): (f64, f64),
    ) -> Vec<f64> {
        const CAPACITY: f64 = 1e6;
        let mut random = fastrand::Rng::with_seed(7);
        let taken = Budget::new((CAPACITY * aim(from, all)) as u64);
        let (mut live, mut waiting): (Vec<f64>, f64) = (Vec::new(), 0.0);
        let (mut egress, mut recent) = (Vec::new(), VecDeque::from([0.0; 100]));
        let mut second = 0.0;
        for tick in 1..=3000u64 {
            let now = Duration::from_millis(tick * 10);
            waiting += offered * CAPACITY / 100.0;
            while waiting >= size as f64 {
                waiting -= size as f64;
                let lasting = recent.iter().sum::<f64>() / CAPACITY;
                let latest = recent.iter().rev().take(10).sum::<f64>() / CAPACITY * 10.0;
                let pressure = Pressure { now: latest, lasting };
                let share = shed_share(pressure, taken.ahead(now), from, all);
                let recovers = random.f64() < recovers;
                let candidate = Candidate { size: SMALL_BYTES, cached: true, recovers };
                let is_shed = random.f64() < redirectable && sheds(share, candidate, random.f64());
                // None of those before the last of the others.
                assert!(
                    recovers
                        || !is_shed
                        || sheds(share, Candidate { recovers: true, ..candidate }, 0.999_999)
                );
                if !is_shed {
                    taken.overdraw(size, now, MOST_BACKLOG);
                    live.push(size as f64);
                }
            }
            let most = size as f64 / ticks as f64;
            let wanted: f64 = live.iter().map(|left| left.min(most)).sum();
            let slowed = if wanted > 0.0 { (CAPACITY / 100.0 / wanted).min(1.0) } else { 1.0 };
            let sent: f64 = wanted * slowed;
            for left in &mut live {
                *left -= left.min(most) * slowed;
            }
            live.retain(|left| *left > 1e-6);
            recent.pop_front();
            recent.push_back(sent);
            second += sent;
            if tick % 100 == 0 {
                egress.push(second / CAPACITY);
                second = 0.0;
            }
        }
        egress
    }

    #[test]
    fn what_is_left_keeps_within_the_thresholds_whatever_transfers_are_like() {
        // (offered, bytes of a transfer, its ticks, what is redirectable and of that for clients that recover, seconds until it
        // is steady)
        for (offered, size, ticks, redirectable, steady) in [
            (2.0, 100, 1, (1.0, 1.0), 3),
            (2.0, 10_000, 10, (1.0, 1.0), 3),
            (16.0, 10_000, 4, (1.0, 1.0), 3),
            (2.0, 10_000, 100, (0.8, 1.0), 3),
            (1.5, 20_000, 500, (1.0, 1.0), 12),
            (8.0, 1_000, 1000, (1.0, 1.0), 20),
            (2.0, 10_000, 10, (1.0, 0.2), 3),
            (2.0, 10_000, 10, (1.0, 0.0), 3),
        ] {
            let egress = run(offered, (size, ticks), redirectable, (0.8, 0.95));
            for (second, share) in egress.iter().enumerate().skip(steady) {
                let fits = (0.8..=1.0).contains(share);
                assert!(
                    fits,
                    "{offered} x, {size} B over {ticks}, {redirectable:?}: {share} in second {second}: {egress:.3?}"
                );
            }
            let tight = run(offered, (size, ticks), redirectable, (0.98, 1.0));
            let mean = tight[steady..].iter().sum::<f64>() / (tight.len() - steady) as f64;
            assert!((0.96..=1.0).contains(&mean), "{offered} x, {size} B over {ticks}: {mean}: {tight:.3?}");
        }
    }

    #[test]
    fn below_the_threshold_nothing_is_shed() {
        let egress = run(0.75, (10_000, 50), (1.0, 0.5), (0.8, 0.95));
        let mean = egress[5..].iter().sum::<f64>() / (egress.len() - 5) as f64;
        assert!(mean > 0.745, "{egress:.3?}");
    }

    proptest! {
        #[test]
        fn large_and_cold_go_first_those_who_may_not_recover_last_and_full_pressure_takes_all(
            share in 0.0..=1.0f64,
            draw in 0.0..1.0f64,
        ) {
            let candidate = |size, cached, recovers| Candidate { size, cached, recovers };
            let sheds_of = |size, cached, recovers| sheds(share, candidate(size, cached, recovers), draw);
            let large_cold = sheds_of(LARGE_BYTES, false, true);
            let large = sheds_of(LARGE_BYTES, true, true);
            let small = sheds_of(1, true, true);
            prop_assert!(large_cold >= large && large >= small);
            prop_assert!(small >= sheds_of(1, true, false) && small >= sheds_of(LARGE_BYTES, false, false));
            prop_assert!(sheds(1.0, candidate(1, true, false), draw));
            prop_assert!(!sheds(0.0, candidate(LARGE_BYTES, false, true), draw));
            prop_assert!(share > OTHERS_FROM || !sheds_of(LARGE_BYTES, false, false), "others suffice");
        }
    }
}
