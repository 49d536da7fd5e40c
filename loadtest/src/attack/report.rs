//! What came of attacks: marks, lines and a table.

use super::honest::Seen;
use super::kinds::Kind;
use super::subject::HTTP_MEMORY;
use crate::hold::verdict::Mark;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Honest clients wait no longer than so many times as in calm.
const SLOWER: u64 = 2;
/// Below these there is no difference to see: p50 and p99, connecting, fetching a cold file. Attackers and honest clients share a
/// core, whose slices are 3 to 6 ms.
const NOISE_US: [u64; 2] = [5000, 20_000];
const CONNECT_NOISE_US: u64 = 100_000;
const COLD_NOISE_US: u64 = 1_000_000;
const PUSH_NOISE_SECONDS: f64 = 2.0;
/// What the node may take beyond what it has in calm.
const MOST_MEMORY: u64 = HTTP_MEMORY + (256 << 20);
/// Back to calm after the attack.
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);
/// What honest clients get of a core, at least.
const FAIR: f64 = 0.5;

/// The one mark that counts in the short form.
pub const FAILURES: &str = "no honest client fails";

/// What came of an attack on one server.
#[derive(Debug, Serialize)]
pub struct Report {
    pub attack: &'static str,
    pub networks: u16,
    pub server: &'static str,
    pub calm: Seen,
    pub attacked: Seen,
    /// What the attack did: connections, requests or frames.
    pub acts: u64,
    /// At most, beyond calm.
    pub memory_bytes: u64,
    /// Bytes of bodies that the attack had the origin send.
    pub origin_bytes: Option<u64>,
    pub recovered_seconds: f64,
    /// None for nginx, which is there to compare.
    pub marks: Vec<Mark>,
}

/// What p50 and p99 may be under attack, in microseconds.
pub fn bounds(calm: &Seen) -> [u64; 2] {
    [(SLOWER * calm.p50_us).max(NOISE_US[0]), (SLOWER * calm.p99_us).max(NOISE_US[1])]
}

impl Report {
    /// Holds it against the marks.
    pub fn judge(&mut self, kind: &Kind) {
        let (calm, seen) = (&self.calm, &self.attacked);
        let [p50, p99] = bounds(calm);
        let at_most = |what: &str, found: u64, most: u64| {
            Mark::new(what, format!("{found} of at most {most} us"), found <= most)
        };
        let mut marks = vec![
            Mark::new(
                FAILURES,
                format!("{}: {}", seen.failures, seen.first_failure.as_deref().unwrap_or("none")),
                seen.failures == 0,
            ),
            at_most("p50 of honest clients", seen.p50_us, p50),
            at_most("p99 of honest clients", seen.p99_us, p99),
            at_most("connecting", seen.connect_us, (SLOWER * calm.connect_us).max(CONNECT_NOISE_US)),
            Mark::new(
                "memory beyond calm",
                format!("{} of at most {} MiB", self.memory_bytes >> 20, MOST_MEMORY >> 20),
                self.memory_bytes <= MOST_MEMORY,
            ),
            Mark::new(
                "calm again",
                format!("after {:.1} of at most {} s", self.recovered_seconds, RECOVERED_WITHIN.as_secs()),
                self.recovered_seconds <= RECOVERED_WITHIN.as_secs_f64(),
            ),
        ];
        if let (Some(before), Some(cold)) = (&calm.cold, &seen.cold) {
            marks.push(at_most(
                "p99 of fetching cold files",
                cold.p99_us,
                (SLOWER * before.p99_us).max(COLD_NOISE_US),
            ));
        }
        if let (Some(before), Some(push)) = (calm.push_seconds, seen.push_seconds) {
            let most = (2.0 * before).max(PUSH_NOISE_SECONDS);
            marks.push(Mark::new("a push", format!("{push:.2} of at most {most:.2} s"), push <= most));
        }
        if let Some([half, share]) = self.share() {
            let found =
                format!("{:.0} % of calm's requests, {:.0} % of the CPU", half * 100.0, share * 100.0);
            marks.push(Mark::new("a fair half of the core", found, half.max(share) >= FAIR));
        }
        let most = kind.origin.and_then(|line| line.most_for_request);
        if let (Some(most), Some(each)) = (most, self.origin_bytes_each()) {
            let found = format!("{} of at most {} KiB", each >> 10, most >> 10);
            marks.push(Mark::new("the origin's bytes for a request", found, each <= most));
        }
        self.marks = marks;
    }

    pub fn missed(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(|mark| !mark.holds)
    }

    /// Of clients that ask as fast as they are answered: their requests against calm, and their part of the CPU that the server
    /// used, by what a request costs in calm.
    fn share(&self) -> Option<[f64; 2]> {
        let (calm, seen) = (self.calm.closed?, self.attacked.closed?);
        Some([
            seen.requests_per_second / calm.requests_per_second,
            calm.cpu_seconds_each / seen.cpu_seconds_each.max(f64::MIN_POSITIVE),
        ])
    }

    fn origin_bytes_each(&self) -> Option<u64> {
        self.origin_bytes.map(|bytes| bytes / self.acts.max(1))
    }

    /// A line for the terminal, and one for each mark that is missed.
    pub fn text(&self) -> String {
        let Self { attack, networks, server, calm, attacked, acts, memory_bytes, recovered_seconds, .. } =
            self;
        let mut text = format!(
            "{attack:<13} from {networks:>3} networks, {server:<7}: p50 {} us (calm {}), p99 {} us (calm {}), connecting {} us, {} of {} failed, {} MiB more, calm after {recovered_seconds:.1} s; {acts} acts",
            attacked.p50_us,
            calm.p50_us,
            attacked.p99_us,
            calm.p99_us,
            attacked.connect_us,
            attacked.failures,
            attacked.requests + attacked.failures,
            memory_bytes >> 20,
        );
        if let Some(further) = self.further() {
            let _ = write!(text, "; {further}");
        }
        for mark in self.missed() {
            let _ = write!(text, "\n  MISS {}: {}", mark.what, mark.found);
        }
        text
    }

    /// What only some attacks have.
    fn further(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let (Some(before), Some(cold)) = (&self.calm.cold, &self.attacked.cold) {
            parts.push(format!("cold files p99 {} ms ({})", cold.p99_us / 1000, before.p99_us / 1000));
        }
        if let (Some(before), Some(push)) = (self.calm.push_seconds, self.attacked.push_seconds) {
            parts.push(format!("push {push:.1} s ({before:.1})"));
        }
        if let Some(each) = self.origin_bytes_each() {
            parts.push(format!("{:.1} MiB of the origin a request", each as f64 / f64::from(1 << 20)));
        }
        if let Some([half, share]) = self.share() {
            parts.push(format!(
                "{:.0} % of calm's requests, {:.0} % of the CPU",
                half * 100.0,
                share * 100.0
            ));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// A table in Markdown: a row for each attack and number of networks, the node's figures and nginx's.
pub fn table(reports: &[Report]) -> String {
    let mut text = "| attack | networks | p50 | p99 | failed | memory | calm after | further | nginx p50 | p99 | failed | memory |\n| --- | --: | --: | --: | --: | --: | --: | --- | --: | --: | --: | --: |\n".to_owned();
    for report in reports.iter().filter(|report| report.server != "nginx") {
        let is_beside = |other: &&Report| {
            other.server == "nginx" && (other.attack, other.networks) == (report.attack, report.networks)
        };
        let beside = reports.iter().find(is_beside).map_or_else(
            || "- | - | - | -".to_owned(),
            |nginx| format!("{} | {}", latencies(nginx), losses(nginx)),
        );
        let is_missed = if report.missed().next().is_some() { " *" } else { "" };
        let _ = writeln!(
            text,
            "| {}{is_missed} | {} | {} | {} | {:.1} s | {} | {beside} |",
            report.attack,
            report.networks,
            latencies(report),
            losses(report),
            report.recovered_seconds,
            report.further().unwrap_or_default(),
        );
    }
    text
}

fn latencies(report: &Report) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    let Report { calm, attacked, .. } = report;
    format!(
        "{:.2} ms ({:.2}) | {:.1} ms ({:.1})",
        ms(attacked.p50_us),
        ms(calm.p50_us),
        ms(attacked.p99_us),
        ms(calm.p99_us)
    )
}

fn losses(report: &Report) -> String {
    format!("{} | {} MiB", report.attacked.failures, report.memory_bytes >> 20)
}
