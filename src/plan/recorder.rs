//! Keeps the books of a simulation, and makes an [`Outcome`] of them.

use super::outcome::{Outcome, Point, RegionOutcome, RegionPoint, Spread};
use crate::config::Scenario;
use crate::policy::Reason;

/// Points of a plot.
pub(super) const POINTS: u32 = 240;

/// The books. Bytes are those of one of the sample; [`Recorder::outcome`] makes those of all hosts of them.
pub(super) struct Recorder {
    weight: f64,
    step: f64,
    push: f64,
    regions: Vec<RegionOutcome>,
    reasons: [f64; Reason::ALL.len()],
    points: Vec<Point>,
    /// Of the point that is being made.
    current: Vec<RegionPoint>,
    sent: Vec<f64>,
    updated: Vec<f64>,
    transactions: Vec<f64>,
    by_mirrors_alone: Vec<f64>,
    sampled: usize,
    closed: Option<f64>,
    mirror_wait: f64,
}

/// Who delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Nodes,
    Redirect,
    Mirror,
}

/// How things stand at the end of a point.
pub(super) struct Standing<'a> {
    pub(super) fresh: usize,
    pub(super) open: bool,
    /// Bytes on the wire that left each region so far.
    pub(super) sent: &'a [f64],
}

impl Recorder {
    pub(super) fn new(scenario: &Scenario, sampled: usize, weight: f64) -> Self {
        let region = |region: &crate::config::scenario::Region| RegionOutcome {
            name: region.name.clone(),
            capacity: region.capacity.bits_per_second() as f64,
            ..RegionOutcome::default()
        };
        let count = scenario.regions.len();
        Self {
            weight,
            step: scenario.lasts.as_secs_f64() / f64::from(POINTS),
            push: scenario.push.at.as_secs_f64(),
            regions: scenario.regions.iter().map(region).collect(),
            reasons: [0.0; Reason::ALL.len()],
            points: Vec::new(),
            current: vec![RegionPoint::default(); count],
            sent: vec![0.0; count],
            updated: Vec::new(),
            transactions: Vec::new(),
            by_mirrors_alone: Vec::new(),
            sampled,
            closed: None,
            mirror_wait: 0.0,
        }
    }

    /// Seconds of one point.
    pub(super) fn step(&self) -> f64 {
        self.step
    }

    /// Of the region's clients, one gets so many bytes.
    pub(super) fn delivers(&mut self, region: usize, by: By, bytes: f64) {
        let (total, now) = (&mut self.regions[region], &mut self.current[region]);
        let (total, now) = match by {
            By::Nodes => (&mut total.served, &mut now.taken),
            By::Redirect => (&mut total.redirected, &mut now.redirected),
            By::Mirror => (&mut total.direct, &mut now.direct),
        };
        *total += bytes;
        *now += bytes;
    }

    pub(super) fn decided(&mut self, reason: Reason, bytes: f64) {
        self.reasons[reason as usize] += bytes;
    }

    /// A transfer got so many bytes per second.
    pub(super) fn rate(&mut self, region: usize, bytes_per_second: f64) {
        let slowest = &mut self.regions[region].slowest;
        *slowest = Some(slowest.map_or(bytes_per_second, |slowest| slowest.min(bytes_per_second)));
    }

    /// One has the push, at `at` after the start.
    pub(super) fn updates(&mut self, at: f64) {
        self.updated.push(at - self.push);
    }

    /// One would have it from a mirror.
    pub(super) fn would_update(&mut self, at: f64) {
        self.by_mirrors_alone.push(at - self.push);
    }

    /// One whom a list sent to a mirror waits for others there.
    pub(super) fn waits_at_mirror(&mut self, seconds: f64) {
        self.mirror_wait = self.mirror_wait.max(seconds);
    }

    /// A transaction took so many seconds.
    pub(super) fn took(&mut self, seconds: f64) {
        self.transactions.push(seconds);
    }

    /// A point is over, at `now` after the start.
    pub(super) fn point(&mut self, now: f64, standing: &Standing<'_>) {
        let bits = |bytes: f64| bytes * 8.0 / self.step;
        let mut regions = self.current.clone();
        for ((point, sent), before) in regions.iter_mut().zip(standing.sent).zip(&mut self.sent) {
            point.egress = bits(sent - *before);
            *before = *sent;
            for value in [&mut point.taken, &mut point.redirected, &mut point.direct] {
                *value = bits(*value * self.weight);
            }
        }
        for (region, point) in self.regions.iter_mut().zip(&regions) {
            region.peak = region.peak.max(point.egress);
            region.needed = region.needed.max(point.taken);
            if point.taken > region.capacity {
                region.short_for += self.step;
            }
        }
        let at = now - self.push;
        if self.points.last().is_some_and(|last| last.open) && !standing.open {
            self.closed = Some(at);
        }
        let Standing { fresh, open, .. } = *standing;
        self.points.push(Point { at, fresh, open, regions, ..Point::default() });
        self.current.fill(RegionPoint::default());
    }

    pub(super) fn outcome(mut self, scenario: &Scenario) -> Outcome {
        for region in &mut self.regions {
            for bytes in [&mut region.served, &mut region.redirected, &mut region.direct] {
                *bytes *= self.weight;
            }
        }
        for times in [&mut self.updated, &mut self.by_mirrors_alone, &mut self.transactions] {
            times.sort_by(f64::total_cmp);
        }
        let share =
            |times: &[f64], at| times.partition_point(|time| *time <= at) as f64 / self.sampled as f64;
        for point in &mut self.points {
            point.updated = share(&self.updated, point.at);
            point.by_mirrors_alone = share(&self.by_mirrors_alone, point.at);
        }
        let quantile = |percent: usize| {
            self.transactions.get(self.transactions.len() * percent / 100).copied().unwrap_or_default()
        };
        let mut reasons: Vec<(&'static str, f64)> = Reason::ALL
            .iter()
            .map(|reason| (reason.word(), self.reasons[*reason as usize] * self.weight))
            .filter(|(_, bytes)| *bytes > 0.0)
            .collect();
        reasons.sort_by(|a, b| b.1.total_cmp(&a.1));
        let end = scenario.lasts.as_secs_f64() - self.push;
        let by_the_end = |times: &[f64]| times.iter().copied().filter(|time| *time <= end).collect();
        Outcome {
            hosts: scenario.hosts,
            weight: self.weight,
            lasts: scenario.lasts.as_secs_f64(),
            push_at: self.push,
            updated: Spread::of(by_the_end(&self.updated), self.sampled),
            by_mirrors_alone: Spread::of(by_the_end(&self.by_mirrors_alone), self.sampled),
            transaction: (quantile(50), quantile(99)),
            longest: self.transactions.last().copied().unwrap_or_default(),
            closed: self.closed,
            mirror_wait: self.mirror_wait,
            regions: self.regions,
            reasons,
            points: self.points,
        }
    }
}
