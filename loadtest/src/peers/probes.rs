//! `loadtest probes`: what the node's prober costs, among mirrors that answer at once.

use super::child;
use super::mirrors::{Load, Mirrors};
use super::site::{Extent, Site};
use super::{Credentials, Setup, node, raise_open_files};
use crate::cpu::Used;
use anyhow::{Context, ensure};
use freshet::clock::monotonic;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(200);

/// Measures the prober. The node has core 0, the mirrors core 1.
#[derive(Debug, clap::Args)]
pub struct Probes {
    /// Mirrors, 1 to 4000.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=4000))]
    mirrors: u16,
    /// How many times as often as by default they are asked, 1 to 100.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    hasten: u32,
    /// Seconds, 1 to 3600. By default two rounds of each repo on each mirror.
    #[arg(long)]
    seconds: Option<u64>,
    /// The binary to measure. Default: the one beside this program.
    #[arg(long)]
    freshet: Option<PathBuf>,
}

pub fn run(line: &Probes, stop: &AtomicBool) -> anyhow::Result<()> {
    let seconds = line.seconds.unwrap_or(1200 / u64::from(line.hasten));
    ensure!((1..=3600).contains(&seconds), "--seconds is 1 to 3600");
    let binary = node::binary(line.freshet.as_deref())?;
    raise_open_files()?;
    child::pin(child::LOAD).context("two cores are needed: one for the node, one for the mirrors")?;
    let site = Site::make(
        &std::env::temp_dir(),
        Extent { large: 1, medium: 1, small: 1, cold: 1, ..Extent::WHOLE },
    )?;
    let credentials = Credentials::make(site.dir())?;
    let mirrors = Mirrors::start(&site, line.mirrors.into())?;
    let setup = Setup { hasten: line.hasten, ..Setup::one() };
    eprintln!("proving {} mirrors of {} repos", line.mirrors, site.repos() + 1);
    let begun = monotonic();
    let server = node::start(&binary, &site, Some(&mirrors), &credentials, &setup, stop)?;
    let pids = server.pids()?;
    report_proving(&mirrors, begun.elapsed(), Used::ever(&pids)?, site.repos() + 1);
    server.settle(stop)?;
    let (begun, before, asked) = (monotonic(), Used::by(&pids)?, mirrors.load());
    while begun.elapsed() < Duration::from_secs(seconds) {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(LOOK);
    }
    let share = Used::by(&pids)?.since(&before) / begun.elapsed().as_secs_f64() * 100.0;
    println!(
        "{} mirrors, {} repos, {} times as often as by default, over {seconds} s: {share:.2} % of a core, so {:.2} % by default",
        line.mirrors,
        site.repos() + 1,
        line.hasten,
        share / f64::from(line.hasten)
    );
    let Load { connections, requests } = mirrors.load().since(asked);
    println!(
        "at the mirrors, by default: {:.0} connections and {:.0} requests a minute",
        by_default(connections, begun.elapsed(), line.hasten),
        by_default(requests, begun.elapsed(), line.hasten)
    );
    Ok(())
}

/// What it took to prove all mirrors.
#[expect(clippy::cast_precision_loss, reason = "a report")]
fn report_proving(mirrors: &Mirrors, took: Duration, cpu_seconds: f64, repos: usize) {
    let (Load { connections, requests }, count) = (mirrors.load(), mirrors.count() as f64);
    println!(
        "{count} mirrors of {repos} repos proven after {:.1} s, by {cpu_seconds:.1} CPU seconds; for each mirror {:.1} ms, {:.0} \
         connections and {:.0} requests",
        took.as_secs_f64(),
        cpu_seconds * 1000.0 / count,
        connections as f64 / count,
        requests as f64 / count
    );
}

/// How many a minute it would be if the mirrors were asked as often as by default.
#[expect(clippy::cast_precision_loss, reason = "a report")]
fn by_default(number: u64, during: Duration, hasten: u32) -> f64 {
    number as f64 / during.as_secs_f64() * 60.0 / f64::from(hasten)
}
