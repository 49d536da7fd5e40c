//! `loadtest attack`: what clients that mean harm do to others.
//!
//! The node has core 0, attackers and honest clients core 1, on loopback; a network is 127.a.b/24. Honest clients connect anew once
//! the attack is on, and ask for repomd.xml at a fixed rate; latency counts from when a request was due. The same is measured in
//! calm before. What is CPU on the attackers' side slows the honest ones, too: they share a core.

mod assault;
mod http2;

use crate::hold::verdict::Mark;
use crate::load::{Engine, Outcome, Pace, Plan, Wire};
use crate::node::Node;
use crate::peers::site::{Extent, Files, Site};
use crate::peers::{child, node as peer, raise_open_files};
use anyhow::{Context, ensure};
use assault::{Assault, Kind, Scene};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Requests of honest clients a second.
const HONEST_RATE: f64 = 50.0;
const HONEST_CONNECTIONS: usize = 8;
const CAPACITY: &str = "50 Mbit/s";
/// Seats, so few that an attack from ten networks can take all.
const SEATS: usize = 500;
const SEATS_OF_NETWORK: usize = 50;
/// What the node may take beyond what it has in calm.
const MOST_MEMORY: u64 = 256 << 20;
/// Honest clients wait no longer than so many times as in calm; below [`NOISE`] there is no difference to see here.
const SLOWER: u64 = 2;
const NOISE: Duration = Duration::from_millis(20);

/// Attacks a node and measures what others notice.
#[derive(Debug, Args)]
pub struct Attack {
    /// These attacks alone: silent, slow-heads, slow-reads, egress, missing, hellos, streams, frames.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Networks that attack, 1 to 200.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    networks: Vec<u16>,
    /// Seconds of each, 3 to 60.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// From one network, 3 s each: whether measuring works. No mark counts but that no honest client fails.
    #[arg(long)]
    quick: bool,
    /// The binary to measure. Default: the one beside this program.
    #[arg(long)]
    freshet: Option<PathBuf>,
    /// Where attack.json goes.
    #[arg(long, default_value = "target/attack")]
    out: PathBuf,
}

/// What came of an attack.
#[derive(Debug, Serialize)]
struct Report {
    attack: &'static str,
    networks: u16,
    calm_us: Quantiles,
    attacked_us: Quantiles,
    after_us: Quantiles,
    failures: u64,
    memory_bytes: u64,
    marks: Vec<Mark>,
}

/// Latencies, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50: u64,
    p99: u64,
}

impl From<&Outcome> for Quantiles {
    fn from(outcome: &Outcome) -> Self {
        let at = |quantile| outcome.latency_us.value_at_quantile(quantile);
        Self { p50: at(0.5), p99: at(0.99) }
    }
}

pub fn run(line: &Attack, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    ensure!((3..=60).contains(&line.seconds), "--seconds is 3 to 60");
    ensure!(line.networks.iter().all(|networks| (1..=200).contains(networks)), "--networks is 1 to 200");
    for name in &line.only {
        ensure!(Kind::ALL.iter().any(|kind| kind.name() == name), "no attack is called {name}");
    }
    let binary = peer::binary(line.freshet.as_deref())?;
    raise_open_files()?;
    child::pin(child::LOAD).context("two cores are needed: one for the node, one for its clients")?;
    let site = Site::make(&std::env::temp_dir(), Extent { repos: 0, cold: 0, ..Extent::QUICK })?;
    let networks: &[u16] = if line.quick { &[1] } else { &line.networks };
    let mut reports = Vec::new();
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| line.only.is_empty() || line.only.iter().any(|name| name == kind.name()))
    {
        for count in networks {
            let span = Duration::from_secs(if line.quick { 3 } else { line.seconds });
            let report = one(kind, *count, span, &binary, &site, stop).with_context(|| kind.name())?;
            print(&report);
            reports.push(report);
        }
    }
    fs::create_dir_all(&line.out)?;
    fs::write(line.out.join("attack.json"), serde_json::to_vec_pretty(&reports)?)?;
    let counts = |mark: &&Mark| !mark.holds && (!line.quick || mark.what == FAILURES);
    let missed = reports.iter().flat_map(|report| &report.marks).filter(counts).count();
    ensure!(missed == 0, "{missed} marks were missed");
    Ok(())
}

const FAILURES: &str = "no honest client fails";

fn one(
    kind: Kind,
    networks: u16,
    span: Duration,
    binary: &Path,
    site: &Site,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Report> {
    let dir = site.dir().join(format!("{}-{networks}", kind.name()));
    fs::create_dir_all(&dir)?;
    let scene = Scene::make(&dir, site, networks)?;
    let more = format!(
        "http.max_connections = {SEATS}\nhttp.max_connections_per_network = {SEATS_OF_NETWORK}\n{}\negress.capacity = \"{CAPACITY}\"\n",
        scene.listener()
    );
    let node = Node::start(binary, &site.tree(), &dir, &more, 0, stop)?;
    let honest = |span| ask(node.address(), site, span, stop);
    let calm = honest(span);
    let before = node.sample(Duration::ZERO)?.memory.rss;
    let assault = Assault::begin(kind, &scene, node.address(), span, stop)?;
    let attacked = honest(span);
    let memory_bytes = node.sample(Duration::ZERO)?.memory.rss.saturating_sub(before);
    assault.end()?;
    let after = honest(Duration::from_secs(2));
    let failures = attacked.failures + after.failures;
    let (calm_us, attacked_us) = (Quantiles::from(&calm), Quantiles::from(&attacked));
    let bound = (SLOWER * calm_us.p99).max(u64::try_from(NOISE.as_micros()).unwrap_or(u64::MAX));
    let after_us = Quantiles::from(&after);
    let first = attacked.first_failure.or(after.first_failure);
    let marks = vec![
        Mark::new(
            FAILURES,
            first.map_or_else(|| "0".to_owned(), |first| format!("{failures}: {first}")),
            failures == 0,
        ),
        Mark::new(
            "p99 of honest clients",
            format!("{} of at most {bound} us", attacked_us.p99),
            attacked_us.p99 <= bound,
        ),
        Mark::new("memory beyond calm", format!("{} KiB", memory_bytes >> 10), memory_bytes <= MOST_MEMORY),
    ];
    Ok(Report {
        attack: kind.name(),
        networks,
        calm_us,
        attacked_us,
        after_us,
        failures,
        memory_bytes,
        marks,
    })
}

/// Honest clients, that connect anew.
fn ask(target: SocketAddr, site: &Site, span: Duration, stop: &Arc<AtomicBool>) -> Outcome {
    let plan = Plan {
        target,
        host: target.to_string(),
        paths: site.paths(Files::Repomd).into(),
        connections: HONEST_CONNECTIONS,
        wire: Wire::Plain,
        status: 200,
        pace: Pace::Open { rate: HONEST_RATE },
        verify: None,
        sources: vec![IpAddr::V4(Ipv4Addr::new(127, 250, 0, 1))],
        stop: stop.clone(),
    };
    let asked = Engine::connect(plan).and_then(|mut engine| engine.run(span));
    // That none of them is answered is what an attack may come to.
    asked.unwrap_or_else(|error| Outcome {
        failures: 1,
        first_failure: Some(error.to_string()),
        ..Outcome::empty()
    })
}

fn print(report: &Report) {
    let Report { attack, networks, calm_us, attacked_us, after_us, memory_bytes, .. } = report;
    println!(
        "{attack:<10} from {networks:>3} networks: p50 {} us (calm {}, after {}), p99 {} us (calm {}, after {}), {} KiB more",
        attacked_us.p50,
        calm_us.p50,
        after_us.p50,
        attacked_us.p99,
        calm_us.p99,
        after_us.p99,
        memory_bytes >> 10
    );
    for mark in report.marks.iter().filter(|mark| !mark.holds) {
        println!("  MISS {}: {}", mark.what, mark.found);
    }
}
