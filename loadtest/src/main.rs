//! Load for a node: many kept-alive connections, each with one request at a time, as librepo's are. Beside it, benchmarks of
//! the store's parts.
//!
//! Sends to loopback only, is bounded in time, and stops by itself.

#![forbid(unsafe_code)]

mod caches;
mod eviction;
mod index;
mod run;
mod server;
mod trace;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use hyper::Uri;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// The longest run, in seconds.
const LONGEST: u64 = 600;

/// Fetches one URL over many connections for some seconds, and tells what came and what it cost the server.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct CommandLine {
    #[command(subcommand)]
    benchmark: Option<Benchmark>,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Hit ratios of the disk tier's order of eviction, against others and the best possible.
    Eviction(eviction::Eviction),
    /// A start over many objects on disk: time to the first answer and to the whole index, memory for each.
    Index(index::Index),
}

#[derive(Debug, Args)]
struct Load {
    /// An http URL on loopback.
    #[arg(required = true)]
    url: Option<Uri>,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds, 600 at most.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The server's process: its CPU time is read from /proc before and after.
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    let line = CommandLine::parse();
    match line.benchmark {
        Some(Benchmark::Eviction(line)) => {
            eviction::run(&line);
            Ok(())
        }
        Some(Benchmark::Index(line)) => index::run(&line),
        None => load(&line.load),
    }
}

fn load(line: &Load) -> anyhow::Result<()> {
    let url = line.url.as_ref().context("no URL")?;
    ensure!((1..=LONGEST).contains(&line.seconds), "--seconds is 1 to {LONGEST}");
    ensure!((1..=10_000).contains(&line.connections), "--connections is 1 to 10000");
    let target = loopback(url)?;
    let before = line.pid.map(server::cpu_seconds).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let span = Duration::from_secs(line.seconds);
    let result = runtime.block_on(run::closed_loop(target, url, line.connections, span))?;
    let after = line.pid.map(server::cpu_seconds).transpose()?;

    let seconds = result.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    let (requests, gigabits) = (result.requests as f64, result.body_bytes as f64 * 8.0 / 1e9);
    println!("requests      {:>12}   {:.0} a second", result.requests, requests / seconds);
    println!("body          {gigabits:>12.2} Gbit   {:.2} Gbit a second", gigabits / seconds);
    println!("failures      {:>12}", result.failures);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        println!("latency {name:<6}{:>11} us", result.latency_us.value_at_quantile(quantile));
    }
    if let (Some(before), Some(after)) = (before, after) {
        let cpu = after - before;
        println!(
            "server CPU    {cpu:>12.2} s   {:.0} requests, {:.2} Gbit a CPU-second",
            requests / cpu,
            gigabits / cpu
        );
    }
    ensure!(result.failures == 0, "{} requests failed", result.failures);
    Ok(())
}

/// The address of the URL, which has to be a loopback one: load never leaves this machine.
fn loopback(url: &Uri) -> anyhow::Result<SocketAddr> {
    if url.scheme_str() != Some("http") {
        bail!("{url}: expected an http URL");
    }
    let host = url.host().context("the URL has no host")?.trim_matches(['[', ']']);
    let mut addresses = (host, url.port_u16().unwrap_or(80)).to_socket_addrs()?;
    addresses
        .find(|addr| addr.ip().is_loopback())
        .with_context(|| format!("{host} is not a loopback address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_target() {
        let ok = |url: &str| loopback(&url.parse().unwrap()).is_ok();
        assert!(ok("http://127.0.0.1:8080/x") && ok("http://[::1]/") && ok("http://127.9.9.9/"));
        assert!(!ok("http://192.0.2.1/") && !ok("https://127.0.0.1/") && !ok("/x"));
    }
}
