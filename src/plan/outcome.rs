//! What came of a scenario.

use serde::Serialize;

/// All of it. Times are in seconds after the push where nothing else is said, bytes are those of files, rates in bits per
/// second are on the wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// That wanted the push.
    pub hosts: u64,
    /// Hosts that one of the sample stood for.
    pub weight: f64,
    /// From the start to the end, in seconds.
    pub lasts: f64,
    /// From the start to the push, in seconds.
    pub push_at: f64,
    /// Each region, in the order of the scenario.
    pub regions: Vec<RegionOutcome>,
    /// When hosts had the push.
    pub updated: Spread,
    /// When they would have had it if only mirrors delivered.
    pub by_mirrors_alone: Spread,
    /// Seconds that a transaction at the nodes took: half, and 99 of 100, took less.
    pub transaction: (f64, f64),
    /// The longest of them, in seconds.
    pub longest: f64,
    /// The longest that somebody waited for others at a mirror that a list named, in seconds.
    pub mirror_wait: f64,
    /// When the window closed; None if it is open at the end, or never was.
    pub closed: Option<f64>,
    /// Bytes by the reason of the decision, the most first.
    pub reasons: Vec<(&'static str, f64)>,
    /// As it went.
    pub points: Vec<Point>,
}

/// What came of one region.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RegionOutcome {
    /// As the scenario has it.
    pub name: String,
    /// Of its nodes, in bits per second.
    pub capacity: f64,
    /// Bytes that its nodes served.
    pub served: f64,
    /// Bytes that they redirected.
    pub redirected: f64,
    /// Bytes that clients fetched from mirrors that a mirrorlist named.
    pub direct: f64,
    /// The most that left the nodes, over one step of the points, in bits per second.
    pub peak: f64,
    /// The most that the nodes had to take on, since nobody else could: what they would have needed, in bits per second.
    pub needed: f64,
    /// For how long that was more than the capacity, in seconds.
    pub short_for: f64,
    /// What the slowest transfer of a host got, in bytes per second; None without any.
    pub slowest: Option<f64>,
}

impl RegionOutcome {
    /// Of all that was asked of the nodes, the share that they redirected.
    #[must_use]
    pub fn redirected_share(&self) -> f64 {
        share(self.redirected, self.served + self.redirected)
    }
}

/// After how long shares of all hosts had it, in seconds; None if they hadn't by the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them.
    pub p50: Option<f64>,
    /// 80 of 100.
    pub p80: Option<f64>,
    /// 95 of 100.
    pub p95: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
}

impl Spread {
    /// Of these times, and as many hosts in all.
    #[must_use]
    pub fn of(mut times: Vec<f64>, hosts: usize) -> Self {
        times.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let after =
            |share: f64| times.get(((hosts as f64 * share).ceil() as usize).saturating_sub(1)).copied();
        Self { p50: after(0.5), p80: after(0.8), p95: after(0.95), p99: after(0.99) }
    }
}

/// One step of the time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Its end, in seconds after the push; negative before it.
    pub at: f64,
    /// Share of hosts that have the push.
    pub updated: f64,
    /// Share of them that would have it if only mirrors delivered.
    pub by_mirrors_alone: f64,
    /// Mirrors that are proven to hold it.
    pub fresh: usize,
    /// The window is open.
    pub open: bool,
    /// Each region, in the order of the scenario.
    pub regions: Vec<RegionPoint>,
}

/// One region within one step: means in bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RegionPoint {
    /// That left the nodes.
    pub egress: f64,
    /// That they took on.
    pub taken: f64,
    /// That they redirected.
    pub redirected: f64,
    /// That clients fetched from mirrors directly.
    pub direct: f64,
}

impl Outcome {
    /// Of all that was asked of the nodes, the share that they redirected.
    #[must_use]
    pub fn redirected_share(&self) -> f64 {
        let sum = |of: fn(&RegionOutcome) -> f64| self.regions.iter().map(of).sum::<f64>();
        share(sum(|region| region.redirected), sum(|region| region.served + region.redirected))
    }

    /// Of all bytes, the share that mirrors delivered, asked by whomever.
    #[must_use]
    pub fn mirrors_share(&self) -> f64 {
        let sum = |of: fn(&RegionOutcome) -> f64| self.regions.iter().map(of).sum::<f64>();
        let by_mirrors = sum(|region| region.redirected + region.direct);
        share(by_mirrors, sum(|region| region.served) + by_mirrors)
    }
}

fn share(part: f64, all: f64) -> f64 {
    if all > 0.0 { part / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_never_come_count_too() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0, 4.0], 5);
        assert_eq!((spread.p50, spread.p80, spread.p95), (Some(3.0), Some(4.0), None));
    }
}
