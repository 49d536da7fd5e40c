//! `loadtest hold`: the egress budget under more load than it allows.
//!
//! The node has core 0, the crowd core 1, on loopback. What the node may send is in its config; what it sends is its own count
//! of bytes on the wire, each second, and what its clients received.

mod crowd;
mod scenario;
pub mod verdict;

use crate::load::{Engine, Outcome, Pace, Plan, Wire};
use crate::node::{self, MANY_SEATS, Node, Sample};
use crate::peers::mirrors::Mirrors;
use crate::peers::site::{Extent, Files, OWN, Site};
use crate::peers::{child, node as peer, raise_open_files};
use anyhow::{Context, ensure};
use clap::Args;
use crowd::{Crowd, Tally, Wanted};
use scenario::Scenario;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use verdict::Mark;

/// Mirrors that have everything.
const MIRRORS: usize = 4;
/// What they donate: never what stands in the way here.
const DONATED: &str = "1000 Gbit/s";
const MANY: Extent = Extent { large: 8, medium: 600, small: 200, ..Extent::WHOLE };
/// Requests for metadata a second, beside the crowd.
const METADATA_RATE: f64 = 50.0;

/// Runs crowds against a node that may send less than they want.
#[derive(Debug, Args)]
pub struct Hold {
    /// These scenarios alone: default, tight, alone, floor, fair, slow, reload.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds of each, 5 to 600. Default: what its marks need, 30 to 60.
    #[arg(long)]
    seconds: Option<u64>,
    /// Gbit/s of capacity, 1 to 100, in place of each scenario's own: where a core can't fill that.
    #[arg(long)]
    gigabits: Option<u64>,
    /// A twentieth of everything, a few seconds each: whether measuring works. No mark counts but that nobody fails.
    #[arg(long)]
    quick: bool,
    /// The binary to measure. Default: the one beside this program.
    #[arg(long)]
    freshet: Option<PathBuf>,
    /// Where hold.json goes.
    #[arg(long, default_value = "target/hold")]
    out: PathBuf,
}

/// What came of a scenario.
#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    capacity_bits_per_second: u64,
    /// On the wire, by the node's count.
    egress_bits_per_second: Vec<f64>,
    /// By the count of loopback, which has all that is on it.
    carried_bits_per_second: Vec<f64>,
    cpu_seconds: f64,
    seconds: f64,
    marks: Vec<Mark>,
}

/// All that a run has seen.
struct Seen {
    samples: Vec<Sample>,
    tallies: Vec<Tally>,
    metadata: Outcome,
    cpu: f64,
    seconds: f64,
    connections: usize,
}

pub fn run(line: &Hold, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    ensure!(line.seconds.is_none_or(|seconds| (5..=600).contains(&seconds)), "--seconds is 5 to 600");
    let binary = peer::binary(line.freshet.as_deref())?;
    raise_open_files()?;
    child::pin(child::LOAD).context("two cores are needed: one for the node, one for the crowd")?;
    ensure!(line.gigabits.is_none_or(|gigabits| (1..=100).contains(&gigabits)), "--gigabits is 1 to 100");
    let mut all = scenario::all(line.quick);
    for scenario in &mut all {
        scenario.capacity = line.gigabits.map_or(scenario.capacity, |gigabits| gigabits * 1_000_000_000);
    }
    for key in &line.only {
        ensure!(all.iter().any(|scenario| scenario.key == key), "no scenario is called {key}");
    }
    // So many that no client is through with them within a run: one that asks again for what it was redirected for is a bounce.
    let extent = Extent { repos: 0, cold: 0, ..if line.quick { Extent::QUICK } else { MANY } };
    let site = Site::make(&std::env::temp_dir(), extent)?;
    let mirrors = Mirrors::start(&site, MIRRORS)?;
    let mut reports = Vec::new();
    for scenario in
        all.iter().filter(|one| line.only.is_empty() || line.only.iter().any(|key| key == one.key))
    {
        eprintln!("{}: {}", scenario.key, scenario.what);
        let report = one(line, scenario, &binary, &site, &mirrors, stop).with_context(|| scenario.key)?;
        print(&report);
        reports.push(report);
    }
    fs::create_dir_all(&line.out)?;
    fs::write(line.out.join("hold.json"), serde_json::to_vec_pretty(&reports)?)?;
    let failed = reports.iter().flat_map(|report| &report.marks).filter(|mark| !mark.holds).count();
    ensure!(failed == 0, "{failed} marks were missed");
    Ok(())
}

/// The repo, and mirrors of it.
fn contents(mirrors: Option<&Mirrors>) -> String {
    let mut text = format!("\n[[repo]]\nname = \"own\"\npath = \"{OWN}\"\n");
    for (number, url) in mirrors.iter().flat_map(|mirrors| mirrors.urls()).enumerate() {
        text += &format!(
            "\n[[mirror]]\nname = \"m{number}\"\nurl = \"{url}\"\nbandwidth = \"{DONATED}\"\ncountry = \"DE\"\n"
        );
    }
    text
}

fn one(
    line: &Hold,
    scenario: &Scenario,
    binary: &Path,
    site: &Site,
    mirrors: &Mirrors,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Report> {
    let dir = site.dir().join(scenario.key);
    let mirrors = scenario.mirrors.then_some(mirrors);
    let config = format!("{MANY_SEATS}{}{}", scenario.egress(), contents(mirrors));
    let count = mirrors.map_or(0, Mirrors::count);
    let node = Node::start(binary, &Node::in_place(&site.tree()), &dir, &config, count, stop)?;
    let span = Duration::from_secs(line.seconds.unwrap_or(scenario.seconds));
    let files = |files| wanted(site, files);
    let mut seen = Vec::new();
    for groups in scenario.runs(&files)? {
        seen.push(measure(scenario, &node, groups, span, site, stop)?);
    }
    let last = seen.last().context("a scenario has a run")?;
    let marks = if line.quick { scenario::nobody_fails(&last.tallies) } else { scenario.marks(&seen) };
    Ok(Report {
        scenario: scenario.key,
        capacity_bits_per_second: scenario.capacity,
        egress_bits_per_second: node::rates(&last.samples),
        carried_bits_per_second: node::carried(&last.samples),
        cpu_seconds: last.cpu,
        seconds: last.seconds,
        marks,
    })
}

/// One run of a crowd, with somebody beside it who wants metadata.
fn measure(
    scenario: &Scenario,
    node: &Node,
    groups: Vec<crowd::Group>,
    span: Duration,
    site: &Site,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Seen> {
    let mut crowd = Crowd::connect(node.address(), groups, 6)?;
    let mut metadata = Engine::connect(Plan {
        target: node.address(),
        host: node.address().to_string(),
        // The rest may be redirected.
        paths: site.paths(Files::Repomd).into(),
        connections: 8,
        wire: Wire::Plain,
        status: 200,
        pace: Pace::Open { rate: METADATA_RATE },
        verify: None,
        sources: Vec::new(),
        stop: stop.clone(),
    })?;
    let (ended, second) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = node.used()?;
    let begun = freshet::clock::monotonic();
    let (tallies, metadata, samples) = std::thread::scope(|scope| {
        let samples = scope.spawn(|| node::watch(node, &ended));
        let metadata = scope.spawn(|| metadata.run(span));
        let reloading = scenario.halves.then(|| {
            scope.spawn(|| {
                while second.load(Ordering::Relaxed) < span.as_secs() / 2 && !ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let capacity = |bits: u64| format!("egress.capacity = \"{bits} bit/s\"");
                node.reload(&capacity(scenario.capacity), &capacity(scenario.capacity / 2))
            })
        });
        let tallies = crowd.run(span, &second, stop);
        ended.store(true, Ordering::Relaxed);
        let reloaded = reloading.map_or(Ok(()), |reloading| reloading.join().expect("it doesn't panic"));
        let (metadata, samples) = (metadata.join(), samples.join());
        anyhow::Ok((
            reloaded.and(tallies)?,
            metadata.expect("it doesn't panic")?,
            samples.expect("it doesn't panic")?,
        ))
    })?;
    let cpu = node.used()?.since(&before);
    let (seconds, connections) = (begun.elapsed().as_secs_f64(), crowd.connections());
    Ok(Seen { samples, tallies, metadata, cpu, seconds, connections })
}

/// Files of the tree with their sizes.
fn wanted(site: &Site, files: Files) -> anyhow::Result<Vec<Wanted>> {
    let one = |path: String| {
        let size = fs::metadata(site.tree().join(&path[1..]))?.len();
        Ok(Wanted { path, size })
    };
    site.paths(files).into_iter().map(one).collect()
}

fn print(report: &Report) {
    let rates = &report.egress_bits_per_second;
    let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    println!(
        "{:<8} {:.3} Gbit/s in the mean of a capacity of {:.3}, {:.2} of a core",
        report.scenario,
        mean / 1e9,
        report.capacity_bits_per_second as f64 / 1e9,
        report.cpu_seconds / report.seconds
    );
    for mark in &report.marks {
        println!("  {} {:<64} {}", if mark.holds { "ok  " } else { "MISS" }, mark.what, mark.found);
    }
}
