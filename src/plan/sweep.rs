//! The same push under other settings, and the cheapest that is good enough.

use super::outcome::Outcome;
use super::report::LONG_AT_MIRROR;
use super::simulate;
use crate::config::{Bandwidth, Delivery, Scenario};
use serde::Serialize;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

/// Hosts that are played for each setting at most: fewer than for a plan, since many are tried.
pub const SAMPLE: usize = 8000;
/// Capacities, as multiples of those in the scenario.
const CAPACITIES: [f64; 6] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0];
/// Hours of windows; 0: mirrors deliver at once as far as they are fresh.
const WINDOWS: [u64; 5] = [0, 6, 12, 24, 48];
/// `shed_from` and `shed_all`, besides the scenario's.
const LATE: (f64, f64) = (0.9, 0.98);

/// What is wanted: `95% in 12h`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Target {
    /// Of all hosts.
    pub share: f64,
    /// After the push, in seconds.
    pub within: f64,
}

/// A text is no target.
#[derive(Debug, thiserror::Error)]
#[error("expected a share and a time after the push, such as \"95% in 12h\"")]
pub struct NotATarget;

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let (share, within) = text.split_once(" in ").ok_or(NotATarget)?;
        let percent: f64 =
            share.trim().strip_suffix('%').and_then(|n| n.trim().parse().ok()).ok_or(NotATarget)?;
        let within = humantime::parse_duration(within.trim()).map_err(|_| NotATarget)?;
        if !(percent > 0.0 && percent <= 100.0) || within.is_zero() {
            return Err(NotATarget);
        }
        Ok(Self { share: percent / 100.0, within: within.as_secs_f64() })
    }
}

/// One setting, and what it comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// Of the scenario's capacities.
    pub capacity: f64,
    /// In seconds; 0: `delivery = "offload"`.
    pub window: f64,
    /// See [`crate::config::Egress`].
    pub shed_from: f64,
    /// See [`crate::config::Egress`].
    pub shed_all: f64,
    /// Share of hosts that have the push within the target's time.
    pub updated: f64,
    /// Seconds for which some region is short.
    pub short_for: f64,
    /// Seconds that somebody waits at most for others at a mirror.
    pub mirror_wait: f64,
    /// Bytes that leave the nodes.
    pub served: f64,
    /// Its share of hosts is reached, and neither nodes nor mirrors are short.
    pub meets: bool,
}

/// Every setting, and the best that any could do: what hosts would have if nothing were ever short or late but their own looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sweep {
    /// What is wanted.
    pub target: Target,
    /// Share of hosts that look in time.
    pub possible: f64,
    /// In no order of merit.
    pub tried: Vec<Tried>,
}

/// Tries settings for the scenario, each with so many hosts played.
#[must_use]
pub fn sweep(scenario: &Scenario, target: Target, sample: usize) -> Sweep {
    let mut boundless = scaled(scenario, 1000.0);
    boundless.policy.delivery = Delivery::Own;
    let possible = updated_by(&simulate(&boundless, sample), target.within);
    let mut thresholds = vec![(scenario.policy.shed_from, scenario.policy.shed_all)];
    thresholds.extend((thresholds[0] != LATE).then_some(LATE));
    let mut tried = Vec::new();
    for capacity in CAPACITIES {
        for window in WINDOWS.map(|hours| Duration::from_secs(hours * 3600)) {
            for thresholds in &thresholds {
                let setting = Setting { capacity, window, thresholds: *thresholds };
                tried.push(attempt(scenario, target, setting, sample));
            }
        }
    }
    Sweep { target, possible, tried }
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
struct Setting {
    capacity: f64,
    window: Duration,
    thresholds: (f64, f64),
}

fn attempt(scenario: &Scenario, target: Target, setting: Setting, sample: usize) -> Tried {
    let Setting { capacity, window, thresholds: (shed_from, shed_all) } = setting;
    let mut scenario = scaled(scenario, capacity);
    let policy = &mut scenario.policy;
    policy.delivery = if window.is_zero() { Delivery::Offload } else { Delivery::Window };
    (policy.window, policy.shed_from, policy.shed_all) = (window, shed_from, shed_all);
    let outcome = simulate(&scenario, sample);
    let updated = updated_by(&outcome, target.within);
    let short_for = outcome.regions.iter().map(|region| region.short_for).fold(0.0, f64::max);
    Tried {
        capacity,
        window: window.as_secs_f64(),
        shed_from,
        shed_all,
        updated,
        short_for,
        served: outcome.regions.iter().map(|region| region.served).sum(),
        mirror_wait: outcome.mirror_wait,
        meets: updated >= target.share && short_for <= 0.0 && outcome.mirror_wait <= LONG_AT_MIRROR,
    }
}

/// With that multiple of each region's capacity.
fn scaled(scenario: &Scenario, factor: f64) -> Scenario {
    let mut scaled = scenario.clone();
    for region in &mut scaled.regions {
        region.capacity = times(region.capacity, factor);
    }
    scaled
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bits per second")]
fn times(bandwidth: Bandwidth, factor: f64) -> Bandwidth {
    // In whole megabits, so that it can be written down.
    let mbit = (bandwidth.bits_per_second() as f64 * factor / 1e6).round().max(1.0);
    Bandwidth::from_bits_per_second(mbit as u64 * 1_000_000)
}

/// Share of hosts that had the push so many seconds after it.
fn updated_by(outcome: &Outcome, within: f64) -> f64 {
    // Points are means of their step: the nearest one before or at that time.
    outcome.points.iter().rfind(|point| point.at <= within * (1.0 + 1e-9)).map_or(0.0, |point| point.updated)
}

impl Sweep {
    /// The cheapest setting that meets the target: the least capacity, then the fewest bytes out of the nodes.
    #[must_use]
    pub fn cheapest(&self) -> Option<&Tried> {
        let meets = self.tried.iter().filter(|tried| tried.meets);
        meets.min_by(|a, b| a.capacity.total_cmp(&b.capacity).then(a.served.total_cmp(&b.served)))
    }

    /// The one that comes nearest to it: the most hosts in time, then the least short, then the cheapest.
    #[must_use]
    pub fn nearest(&self) -> Option<&Tried> {
        let order = |a: &&Tried, b: &&Tried| {
            let more = b.updated.total_cmp(&a.updated);
            more.then(a.short_for.total_cmp(&b.short_for)).then(a.capacity.total_cmp(&b.capacity))
        };
        self.tried.iter().min_by(order)
    }
}

/// The setting as it stands in a node's config.
#[must_use]
pub fn snippet(scenario: &Scenario, tried: &Tried) -> String {
    let mut text = String::from("[egress]\n");
    for region in &scenario.regions {
        let capacity = times(region.capacity, tried.capacity);
        let _ = writeln!(text, "# capacity = \"{capacity}\"  # {}, of all its nodes together", region.name);
    }
    let _ = writeln!(text, "shed_from = {}\nshed_all = {}\n\n[[repo]]", tried.shed_from, tried.shed_all);
    if tried.window > 0.0 {
        let window = humantime::format_duration(Duration::from_secs_f64(tried.window));
        let scope = match scenario.policy.window_scope {
            crate::config::Scope::Repo => "repo",
            crate::config::Scope::Push => "push",
        };
        let _ = writeln!(text, "delivery = \"window\"\nwindow = \"{window}\"\nwindow_scope = \"{scope}\"");
    } else {
        text.push_str("delivery = \"offload\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn targets_read() {
        let target: Target = "95% in 12h".parse().unwrap();
        assert_eq!((target.share, target.within), (0.95, 12.0 * 3600.0));
        for text in ["95 in 12h", "0% in 1h", "101% in 1h", "95% in soon", "95%", "95% in 0s"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_cheapest_that_meets_a_target_holds() {
        let text = "hosts = 100000\nlasts = \"30h\"\n[push]\npackages = 20\n[[checks]]\nname = \"x\"\nevery = \"4h\"\n\
            [[region]]\nname = \"all\"\ncapacity = \"8 Gbit/s\"\n[[mirrors]]\ncount = 50";
        let (scenario, _) = Scenario::parse(text, Path::new("s.toml")).unwrap();
        let sweep = sweep(&scenario, "95% in 6h".parse().unwrap(), 1000);
        assert!(sweep.possible > 0.99, "{}", sweep.possible);
        let cheapest = sweep.cheapest().unwrap();
        let worse = sweep.tried.iter().filter(|tried| tried.capacity < cheapest.capacity);
        assert!(worse.clone().count() > 0 && worse.clone().all(|tried| !tried.meets), "less doesn't do");
        assert!(cheapest.window > 0.0, "mirrors alone are too late");
        // Lists would send all to the few mirrors that are first.
        assert!(sweep.tried.iter().any(|tried| tried.window <= 0.0 && tried.mirror_wait > LONG_AT_MIRROR));
        // What is written down is a config.
        let snippet = snippet(&scenario, cheapest);
        let (repo, egress) = (snippet.contains("delivery = \"window\""), snippet.contains("shed_from = 0."));
        assert!(repo && egress, "{snippet}");
        assert!(toml::from_str::<toml::Table>(&snippet).is_ok(), "{snippet}");

        let never = super::sweep(&scenario, "95% in 1h".parse().unwrap(), 1000);
        assert!(never.cheapest().is_none() && never.possible < 0.3, "hosts look every 4 h");
        assert!(never.nearest().is_some());
    }
}
