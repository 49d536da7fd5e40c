//! The nodes of one region, taken together: their line, and what they shed.

use super::line::Line;
use crate::policy::budget::Budget;
use crate::policy::egress::{self, MOST_BACKLOG, Pressure};
use std::collections::VecDeque;
use std::time::Duration;

/// Pressure is looked at in steps of a tenth of a second, as the node does.
const STEP: f64 = 0.1;
/// Steps in a second.
const STEPS: usize = 10;

/// One region's nodes.
#[derive(Debug)]
pub struct Node {
    /// The line out.
    pub line: Line,
    capacity: f64,
    thresholds: (f64, f64),
    /// What is taken on, in the time of the policy.
    taken: Budget,
    /// So many seconds of the plan are one of the policy's, which then sees as many transfers in it as a node does.
    pace: f64,
    /// Bytes of each of the latest steps.
    recent: VecDeque<f64>,
    sent: f64,
    /// Share that is shed, as of the latest step: what the backlog makes of it changes within.
    pressure: Pressure,
}

impl Node {
    /// With a capacity and links in bytes per second.
    #[must_use]
    pub fn new(
        capacity: f64,
        links: impl IntoIterator<Item = f64>,
        thresholds: (f64, f64),
        pace: f64,
    ) -> Self {
        let (from, all) = thresholds;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes per second")]
        let taken = Budget::new((capacity * pace * egress::aim(from, all)) as u64);
        Self {
            line: Line::new(capacity, links),
            capacity,
            thresholds,
            taken,
            pace,
            recent: VecDeque::from(vec![0.0; STEPS]),
            sent: 0.0,
            pressure: Pressure { now: 0.0, lasting: 0.0 },
        }
    }

    /// How long until pressure is looked at again, in seconds.
    #[must_use]
    pub fn step(&self) -> f64 {
        STEP * self.pace
    }

    /// Looks at what was sent since the last time.
    pub fn looks(&mut self, now: f64) {
        let sent = self.line.sent(now);
        self.recent.pop_front();
        self.recent.push_back(sent - self.sent);
        self.sent = sent;
        let of_capacity = |bytes: f64, steps: f64| bytes / (self.capacity * self.step() * steps);
        self.pressure = Pressure {
            now: of_capacity(self.recent[STEPS - 1], 1.0),
            lasting: of_capacity(self.recent.iter().sum(), STEPS as f64),
        };
    }

    /// The share that is to be shed.
    #[must_use]
    pub fn shed(&self, now: f64) -> f64 {
        let (from, all) = self.thresholds;
        egress::shed_share(self.pressure, self.taken.ahead(self.time(now)), from, all)
    }

    /// It has taken on so many bytes.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
    pub fn takes_on(&self, bytes: f64, now: f64) {
        self.taken.overdraw(bytes as u64, self.time(now), MOST_BACKLOG);
    }

    /// `now` in the policy's time.
    fn time(&self, now: f64) -> Duration {
        Duration::from_secs_f64(now.max(0.0) / self.pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transfers of 1 s each, for twice what the node has.
    #[test]
    fn what_is_taken_on_settles_where_the_policy_aims() {
        for pace in [1.0, 30.0] {
            let mut node = Node::new(1e6, [10_000.0], (0.8, 0.95), pace);
            let mut random = fastrand::Rng::with_seed(1);
            let (mut next_look, mut now, mut early) = (node.step(), 0.0, (0.0, 0.0));
            for number in 0..40_000 {
                now += 10_000.0 * pace / 2e6;
                while let Some(end) = node.line.next_end().filter(|end| *end <= now) {
                    node.line.ended(end);
                }
                if next_look <= now {
                    node.looks(now);
                    next_look += node.step();
                }
                if random.f64() >= node.shed(now) {
                    node.takes_on(10_000.0 * pace, now);
                    node.line.join(0, 10_000.0 * pace, number, now);
                }
                if number == 10_000 {
                    early = (now, node.line.sent(now));
                }
            }
            let egress = (node.line.sent(now) - early.1) / (now - early.0) / 1e6;
            assert!((0.8..0.97).contains(&egress), "at pace {pace}: {egress}");
        }
    }
}
