//! When mirrors hold what is pushed.

use crate::config::Scenario;

/// When one mirror gets a push; seconds after the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Synced {
    /// It holds all of it. Infinite if it never does.
    pub holds: f64,
    /// The nodes have proven that.
    pub proven: f64,
}

/// For each mirror, in the order of the groups.
///
/// A mirror syncs every so often, and some sync from others, that have to hold it by then: most of the delay that users of
/// mirrors see comes of that.
#[must_use]
pub fn synced(scenario: &Scenario, rng: &mut fastrand::Rng) -> Vec<Synced> {
    let (sync, count) = (&scenario.sync, scenario.mirrors.iter().map(|group| group.count).sum::<usize>());
    let push = scenario.published().as_secs_f64();
    let mut all: Vec<Synced> = Vec::with_capacity(count);
    let mut dead = Vec::with_capacity(count);
    for mirror in 0..count {
        // Drawn in any case, so that one setting doesn't change what all others draw.
        let (dies, upstream, is_second) =
            (rng.f64(), rng.usize(..mirror.max(1)), rng.f64() < sync.second_hand);
        let (phase, pace, look) = (rng.f64(), rng.f64(), rng.f64());
        let (least, most) = (sync.every.0.as_secs_f64(), sync.every.1.as_secs_f64());
        let every = least + (most - least) * pace;
        let takes = sync.takes.as_secs_f64().min(every);
        let from = if is_second && mirror > 0 { all[upstream].holds } else { push };
        // The first of its syncs that begins then or later.
        let begins = push + phase * every;
        let begins = begins + ((from - begins) / every).ceil().max(0.0) * every;
        let measured = measured(scenario, rng);
        let holds = measured.map_or(begins + takes, |after| push + after);
        dead.push(measured.is_none() && dies < sync.dead);
        all.push(Synced { holds, proven: holds + look * sync.proven.as_secs_f64() });
    }
    // Only now: nobody syncs from a dead one for long.
    for (synced, _) in all.iter_mut().zip(dead).filter(|(_, dead)| *dead) {
        *synced = Synced { holds: f64::INFINITY, proven: f64::INFINITY };
    }
    all
}

/// One of the delays that were measured, in seconds.
fn measured(scenario: &Scenario, rng: &mut fastrand::Rng) -> Option<f64> {
    let measured = &scenario.sync.measured;
    (!measured.is_empty()).then(|| measured[rng.usize(..measured.len())].as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn delays(text: &str) -> Vec<f64> {
        let (scenario, _) = Scenario::parse(text, Path::new("s.toml")).unwrap();
        let mut all: Vec<f64> = synced(&scenario, &mut fastrand::Rng::with_seed(1))
            .iter()
            .map(|synced| synced.holds / 3600.0)
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn most_mirrors_hold_a_push_after_16_to_18_hours() {
        let all = delays("");
        let late = |share: f64| all[(all.len() as f64 * share) as usize];
        assert!((15.0..20.0).contains(&late(0.95)), "{}", late(0.95));
        assert!((3.0..9.0).contains(&late(0.5)), "{}", late(0.5));
        assert!(all.last().unwrap().is_infinite(), "a few are dead");
    }

    #[test]
    fn first_hand_mirrors_hold_it_after_their_next_sync() {
        let all = delays("[sync]\nsecond_hand = 0\ndead = 0\ntakes = \"1h\"");
        assert!(all[0] >= 1.0 && *all.last().unwrap() <= 7.0);
    }

    #[test]
    fn what_was_measured_counts_instead() {
        let all = delays("[sync]\nmeasured = [\"1h\", \"3h\"]");
        assert!(all.iter().all(|delay| [1.0, 3.0].contains(delay)));
    }
}
