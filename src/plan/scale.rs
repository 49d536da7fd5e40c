//! How one host of the sample stands for many.
//!
//! Those that it stands for come one after the other. So it takes longer than a host would, at a rate that is no large part of
//! the region's capacity; and what it asks for at once is larger, so that the policy's clocks, which look at tenths of a second, run
//! slower by as much.

use super::node::Node;
use super::transaction::{BUNDLES, SLOTS};
use crate::clock::Timestamp;
use crate::config::{Bandwidth, Scenario};

/// One of the sample takes at most this part of a region's capacity.
const PART: f64 = 40.0;
/// And this part of a second of it at a time, in the time of the policy.
const AT_ONCE: f64 = 0.1;
/// Bytes that Ethernet adds to each packet.
const ETHERNET: f64 = 14.0;
/// Bytes of the heads of IP and TCP in each packet, with timestamps.
const TCP_IP: f64 = 52.0;

/// The sample against all hosts. Rates are in bytes per second on the wire.
#[derive(Debug)]
pub struct Scale<'a> {
    scenario: &'a Scenario,
    /// Hosts that one of the sample stands for.
    pub weight: f64,
    /// Bytes on the wire for one of a file.
    pub wire: f64,
    /// Seconds of the plan for one of the policy's.
    pace: f64,
}

impl<'a> Scale<'a> {
    /// For so many that are played.
    #[must_use]
    pub fn new(scenario: &'a Scenario, sampled: usize) -> Self {
        let weight = scenario.hosts as f64 / sampled as f64;
        let mtu = scenario.clients.mtu as f64;
        let wire = (mtu + ETHERNET) / (mtu - TCP_IP);
        Self { scenario, weight, wire, pace: pace(scenario, weight * wire) }
    }

    /// One of the sample is one host.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.weight <= 1.0
    }

    /// What one of three transfers of a host gets.
    #[must_use]
    pub fn alone(&self, region: usize, link: usize) -> f64 {
        self.scenario.regions[region].links[link].bytes_per_second() as f64 / SLOTS as f64
    }

    /// The same of one of the sample, for each host that it stands for.
    #[must_use]
    pub fn sampled(&self, region: usize, link: usize) -> f64 {
        let capacity = self.scenario.regions[region].capacity.bytes_per_second() as f64;
        let most =
            if self.is_exact() { f64::INFINITY } else { capacity / (PART * SLOTS as f64 * self.weight) };
        self.alone(region, link).min(most)
    }

    /// The region's nodes, for transfers of the sample.
    #[must_use]
    pub fn node(&self, region: usize) -> Node {
        let settings = &self.scenario.regions[region];
        let links = (0..settings.links.len()).map(|link| self.sampled(region, link) * self.weight);
        let thresholds = (self.scenario.policy.shed_from, self.scenario.policy.shed_all);
        Node::new(settings.capacity.bytes_per_second() as f64, links, thresholds, self.pace)
    }

    /// What a mirror donates in one second of the policy's.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bits per second")]
    pub fn donated(&self, bandwidth: Bandwidth) -> Bandwidth {
        Bandwidth::from_bits_per_second((bandwidth.bits_per_second() as f64 * self.pace) as u64)
    }

    /// `now`, in seconds, by the clock that goes with that.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after the start")]
    pub fn time(&self, now: f64) -> Timestamp {
        Timestamp::from_millis((now / self.pace * 1000.0) as u64)
    }
}

/// So long that nobody takes much of a second at once. `weight`: bytes on the wire for one of a host's.
fn pace(scenario: &Scenario, weight: f64) -> f64 {
    if weight <= 2.0 {
        return 1.0;
    }
    let rapid = || scenario.rapid.iter().flat_map(|rapid| &rapid.files);
    let files = || scenario.push.files.iter().chain(rapid()).map(|file| file.size);
    let bundle = (files().sum::<u64>() / BUNDLES as u64 * 2).max(files().max().unwrap_or(0));
    let bytes = bundle.max(scenario.push.metadata) as f64 * weight;
    let capacity = scenario.regions.iter().map(|region| region.capacity.bytes_per_second()).min();
    (bytes / (capacity.unwrap_or(1) as f64 * AT_ONCE)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_sample_takes_a_small_part_and_one_host_its_link() {
        let text =
            "hosts = 1000000\n[[region]]\nname = \"r\"\ncapacity = \"20 Gbit/s\"\nlinks = [\"1 Gbit/s\"]";
        let (scenario, _) = Scenario::parse(text, Path::new("s.toml")).unwrap();
        let scale = Scale::new(&scenario, 10_000);
        let region = 20e9 / 8.0;
        assert!((scale.sampled(0, 0) * 3.0 * scale.weight - region / PART).abs() < 1.0);
        assert!((scale.wire - 1514.0 / 1448.0).abs() < 1e-9);
        // The largest file of all that it stands for is a tenth of what the region sends in one of the policy's seconds.
        let largest = scenario.push.files.iter().map(|file| file.size).max().unwrap() as f64;
        let second = region * scale.node(0).step() * 10.0;
        assert!((largest * scale.weight * scale.wire / second - AT_ONCE).abs() < 0.001);
        let exact = Scale::new(&scenario, 1_000_000);
        assert!(exact.is_exact());
        assert_eq!(exact.sampled(0, 0), exact.alone(0, 0));
        assert_eq!(exact.time(7.0), Timestamp::from_secs(7));
    }
}
