//! What is run, and what has to hold of it.

use super::Seen;
use super::crowd::{Group, Tally, Wanted};
use super::verdict::{self, Mark, percent};
use crate::node::{Sample, carried, rates};
use crate::peers::site::Files;
use freshet::policy::fair::FLOOR;
use std::sync::Arc;
use std::time::Duration;

/// Of a connection that may be anybody's, in bits per second.
const MEGABIT: u64 = 1_000_000;
const GIGABIT: u64 = 1_000_000_000;
/// Seconds until a budget has to be held.
const SETTLED: usize = 3;
/// The promise is that of librepo's patience, with room to spare.
const LONGEST_START: Duration = Duration::from_secs(20);
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// Of the capacity, in a second: the kernel's queues hold what takes 20 ms, and the budget as much.
const MOST_CARRIED: f64 = 1.05;
const METADATA_P99: Duration = Duration::from_millis(50);
/// Bytes that a slow connection may cost.
const MEMORY_EACH: u64 = 40 << 10;

/// One scenario.
pub struct Scenario {
    pub key: &'static str,
    pub what: &'static str,
    /// Bits per second.
    pub capacity: u64,
    /// `shed_from`, `shed_all`.
    pub thresholds: (f64, f64),
    pub mirrors: bool,
    /// The capacity is halved in the middle.
    pub halves: bool,
    pub seconds: u64,
    /// Divides the numbers of clients.
    pub scale: usize,
}

/// All of them, or small ones.
pub fn all(quick: bool) -> Vec<Scenario> {
    let one = |key, what, capacity: u64, seconds| Scenario {
        key,
        what,
        capacity: if quick { capacity / 20 } else { capacity },
        thresholds: (0.80, 0.95),
        mirrors: true,
        halves: false,
        seconds: if quick { 5 } else { seconds },
        scale: if quick { 20 } else { 1 },
    };
    vec![
        one("default", "twice the capacity, with fresh mirrors", 20 * GIGABIT, 60),
        Scenario {
            thresholds: (0.98, 1.0),
            ..one("tight", "the same, up to the capacity", 20 * GIGABIT, 60)
        },
        Scenario { mirrors: false, ..one("alone", "the same without mirrors", 20 * GIGABIT, 60) },
        Scenario {
            mirrors: false,
            ..one("floor", "more transfers than the capacity has floors for", 100 * MEGABIT, 60)
        },
        Scenario {
            mirrors: false,
            ..one("fair", "10 connections of one client, 3 of another", 200 * MEGABIT, 30)
        },
        Scenario {
            mirrors: false,
            ..one("slow", "10,000 slow clients beside 100 fast ones", 100 * GIGABIT, 30)
        },
        Scenario {
            mirrors: false,
            halves: true,
            ..one("reload", "the capacity halved in the middle", 10 * GIGABIT, 30)
        },
    ]
}

type Lookup<'a> = &'a dyn Fn(Files) -> anyhow::Result<Vec<Wanted>>;

impl Scenario {
    /// The lines of the node's config.
    pub fn egress(&self) -> String {
        let (from, all) = self.thresholds;
        format!(
            "egress.capacity = \"{} bit/s\"\negress.shed_from = {from:?}\negress.shed_all = {all:?}\n",
            self.capacity
        )
    }

    /// The crowds that run one after the other.
    pub fn runs(&self, files: Lookup<'_>) -> anyhow::Result<Vec<Vec<Group>>> {
        let scaled = |clients: usize| (clients / self.scale).max(1);
        let group = |name, clients, connections, link, files: Vec<Wanted>| Group {
            name,
            clients,
            connections,
            link,
            files: Arc::from(files),
        };
        let large = || files(Files::Large);
        Ok(match self.key {
            "floor" => vec![vec![group("crowd", scaled(600), 1, 100 * MEGABIT, large()?)]],
            "fair" => vec![vec![
                group("ten", 1, 10, 100 * MEGABIT, large()?),
                group("three", 1, 3, 100 * MEGABIT, large()?),
                group("crowd", scaled(60), 1, 100 * MEGABIT, large()?),
            ]],
            "slow" => {
                let fast = || anyhow::Ok(group("fast", scaled(100), 1, 400 * MEGABIT, files(Files::Medium)?));
                let slow = group("slow", scaled(10_000), 1, 32_000, large()?);
                vec![vec![fast()?], vec![fast()?, slow]]
            }
            _ => vec![vec![group("crowd", 200, 1, self.capacity / 100, self.mixed(files)?)]],
        })
    }

    /// Mostly a megabyte, as packages are.
    fn mixed(&self, files: Lookup<'_>) -> anyhow::Result<Vec<Wanted>> {
        Ok([files(Files::Medium)?, files(Files::Small)?, files(Files::Large)?].concat())
    }

    /// What has to hold of its runs.
    pub fn marks(&self, seen: &[Seen]) -> Vec<Mark> {
        let Some(last) = seen.last() else { return Vec::new() };
        let shares: Vec<f64> = rates(&last.samples).iter().map(|rate| rate / self.capacity as f64).collect();
        let mut marks = nobody_fails(&last.tallies);
        // Slow clients have much in the kernel's queues still.
        if matches!(self.key, "default" | "tight" | "alone" | "reload") {
            marks.push(received(last));
        }
        if matches!(self.key, "default" | "tight" | "alone") {
            marks.extend(self.on_the_wire(last));
        }
        match self.key {
            "default" => {
                marks.push(verdict::seconds(&shares, SETTLED, self.thresholds.0, 1.0));
                marks.push(redirected(last));
                marks.push(metadata(last));
            }
            "tight" => {
                marks.push(verdict::mean(&shares, SETTLED, 0.02));
                marks.push(verdict::seconds(&shares, SETTLED, 0.95, 1.05));
                marks.push(redirected(last));
                marks.push(metadata(last));
            }
            "alone" => {
                marks.push(verdict::seconds(&shares, SETTLED, 0.95, 1.05));
                marks.extend(nobody_starves(last));
                marks.push(metadata(last));
                marks.push(flat(&last.samples));
            }
            "floor" => {
                marks.extend(nobody_starves(last));
                marks.push(metadata(last));
                let yielded = last.samples.last().map_or(0.0, |sample| sample.yielded_bytes);
                marks.push(Mark::new(
                    "the capacity yields, and says so",
                    format!("{:.1} MB", yielded / 1e6),
                    yielded > 0.0,
                ));
            }
            "fair" => marks.push(ten_and_three(last)),
            "slow" => marks.extend(beside_slow(seen)),
            "reload" => {
                let half = shares.len() / 2;
                let before = &shares[SETTLED.min(half)..half];
                marks.push(verdict::seconds(before, 0, 0.95, 1.05));
                marks.push(verdict::seconds(&shares[half..], SETTLED, 0.475, 0.525));
            }
            _ => {}
        }
        marks
    }
}

impl Scenario {
    /// What loopback carries may be what the kernel's queues held, beside what the node sends. Nothing is said where there is other
    /// traffic on it: in a network namespace of its own there is none.
    fn on_the_wire(&self, seen: &Seen) -> Option<Mark> {
        let sum = |rates: &[f64]| rates.iter().sum::<f64>();
        let (counted, carried) = (rates(&seen.samples), carried(&seen.samples));
        if sum(&carried) > sum(&counted) * 1.05 {
            return None;
        }
        let shares: Vec<f64> = carried.iter().map(|rate| rate / self.capacity as f64).collect();
        let highest = verdict::bounds(shares.get(SETTLED..)?).1;
        Some(Mark::new(
            "the wire carries no more than 105 % in any second",
            percent(highest),
            highest <= MOST_CARRIED,
        ))
    }
}

/// Nobody's transfer failed or was broken off.
pub fn nobody_fails(tallies: &[Tally]) -> Vec<Mark> {
    let failures: u64 = tallies.iter().map(|tally| tally.failures).sum();
    let transfers: u64 = tallies.iter().map(|tally| tally.transfers).sum();
    let first = tallies.iter().find_map(|tally| tally.first_failure.clone());
    let found =
        first.map_or_else(|| format!("{transfers} transfers"), |first| format!("{failures}: {first}"));
    vec![Mark::new("no client fails", found, failures == 0)]
}

/// What the node counts is what its clients get, heads of requests and packets aside.
fn received(seen: &Seen) -> Mark {
    let (Some(first), Some(last)) = (seen.samples.first(), seen.samples.last()) else {
        return Mark::new("two samples", "fewer", false);
    };
    let received = seen.tallies.iter().map(Tally::bytes).sum::<u64>() + seen.metadata.body_bytes;
    let share = received as f64 / (last.wire_bytes - first.wire_bytes).max(1.0);
    Mark::new("clients receive what the node counts, within 2 %", percent(share), (share - 1.0).abs() < 0.02)
}

fn redirected(seen: &Seen) -> Mark {
    let bytes: u64 = seen.tallies.iter().map(|tally| tally.redirected_bytes).sum();
    let served: u64 = seen.tallies.iter().map(Tally::bytes).sum();
    let share = bytes as f64 / (bytes + served).max(1) as f64;
    Mark::new("the excess is redirected", format!("{} of bytes", percent(share)), share > 0.3)
}

fn metadata(seen: &Seen) -> Mark {
    let p99 = Duration::from_micros(seen.metadata.latency_us.value_at_quantile(0.99));
    let failed =
        seen.metadata.first_failure.as_ref().map_or_else(String::new, |first| format!("; failed: {first}"));
    let found = format!("{:.1} ms of {} requests{failed}", p99.as_secs_f64() * 1e3, seen.metadata.requests);
    Mark::new("metadata within 50 ms at p99", found, seen.metadata.failures == 0 && p99 < METADATA_P99)
}

fn nobody_starves(seen: &Seen) -> [Mark; 3] {
    let start = seen.tallies.iter().map(|tally| tally.longest_start).max().unwrap_or_default();
    let gap = seen.tallies.iter().map(|tally| tally.longest_gap).max().unwrap_or_default();
    let slowest = seen.tallies.iter().filter_map(|tally| tally.slowest).min();
    let rate =
        slowest.map_or_else(|| "none lasted".to_owned(), |rate| format!("{:.1} kB/s", rate as f64 / 1e3));
    [
        Mark::new(
            "nobody waits over 20 s for a first byte",
            format!("{:.2} s", start.as_secs_f64()),
            start < LONGEST_START,
        ),
        Mark::new("no gap of 5 s", format!("{:.2} s", gap.as_secs_f64()), gap < LONGEST_GAP),
        Mark::new("nobody falls under 32 kB/s", rate, slowest.is_none_or(|rate| rate >= FLOOR)),
    ]
}

fn flat(samples: &[Sample]) -> Mark {
    let after = |second: u64| samples.iter().find(|sample| sample.at >= Duration::from_secs(second));
    let rss = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.memory.rss);
    let (early, late) = (rss(after(10)), rss(samples.last()));
    let found = format!("{:.1} MiB, then {:.1}", early as f64 / 1048576.0, late as f64 / 1048576.0);
    Mark::new("memory stays flat", found, late < early + early / 10)
}

fn ten_and_three(seen: &Seen) -> Mark {
    let [ten, three, _] = &seen.tallies[..] else { return Mark::new("three groups", "others", false) };
    let ratio = ten.bytes() as f64 / three.bytes().max(1) as f64;
    Mark::new("10 connections get no more than 3", format!("{ratio:.2} times as much"), ratio < 1.1)
}

fn beside_slow(seen: &[Seen]) -> Vec<Mark> {
    let [alone, beside] = seen else { return vec![Mark::new("two runs", "others", false)] };
    // From then on the slow ones are under way, and not ten thousand who ask at once.
    let fast = |seen: &Seen| {
        let seconds = &seen.tallies[0].per_second;
        let steady = seconds.get(SETTLED..seconds.len().saturating_sub(1)).unwrap_or_default();
        steady.iter().sum::<u64>() as f64 / steady.len() as f64
    };
    let share = fast(beside) / fast(alone);
    let memory = |seen: &Seen| seen.samples.iter().map(|sample| sample.memory.pss).max().unwrap_or(0);
    let more = (beside.connections - alone.connections).max(1) as u64;
    let each = memory(beside).saturating_sub(memory(alone)) / more;
    vec![
        Mark::new("fast ones get at least 90 % of what they get alone", percent(share), share >= 0.9),
        Mark::new(
            "a slow one costs at most 40 KiB",
            format!("{:.1} KiB", each as f64 / 1024.0),
            each <= MEMORY_EACH,
        ),
    ]
}
