//! Load for a node, its comparison with other servers, and benchmarks of the store's parts.
//!
//! Load goes to loopback only, is bounded in time, and stops by itself.

#![forbid(unsafe_code)]

mod attack;
mod caches;
mod cpu;
mod eviction;
mod hold;
mod index;
mod load;
mod node;
mod one;
mod peers;
mod proofs;
mod push_day;
mod repodata;
mod trace;

use clap::{Parser, Subcommand};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Asks for URLs over many connections for some seconds, and tells what came and what it cost the server.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct CommandLine {
    #[command(subcommand)]
    benchmark: Option<Benchmark>,
    #[command(flatten)]
    load: one::Load,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// What clients that mean harm do to others.
    Attack(attack::Attack),
    /// Hit ratios of the disk tier's order of eviction, against others and the best possible.
    Eviction(eviction::Eviction),
    /// Whether the node holds its egress budget, fails nobody and is fair, under more load than it may serve.
    Hold(hold::Hold),
    /// A start over many objects on disk: time to the first answer and to the whole index, memory for each.
    Index(index::Index),
    /// What the prober takes of a core.
    Probes(peers::probes::Probes),
    /// Nanoseconds of a proof, a redirect, a mirrorlist, without HTTP.
    Proofs(proofs::Proofs),
    /// A push with clients and mirrors over real sockets, held against its plan.
    PushDay(push_day::PushDay),
    /// Time and memory that a push's primary.xml takes to read.
    Repodata(repodata::Repodata),
    /// freshet beside nginx and Varnish on this machine, with everything on.
    Peers(peers::Peers),
}

fn main() -> anyhow::Result<()> {
    let line = CommandLine::parse();
    match line.benchmark {
        Some(Benchmark::Attack(line)) => attack::run(&line, &stop_on_signals()?),
        Some(Benchmark::Eviction(line)) => {
            eviction::run(&line);
            Ok(())
        }
        Some(Benchmark::Hold(line)) => hold::run(&line, &stop_on_signals()?),
        Some(Benchmark::Index(line)) => index::run(&line),
        Some(Benchmark::Probes(line)) => peers::probes::run(&line, &*stop_on_signals()?),
        Some(Benchmark::Proofs(line)) => {
            proofs::run(&line);
            Ok(())
        }
        Some(Benchmark::PushDay(line)) => push_day::run(&line, &stop_on_signals()?),
        Some(Benchmark::Repodata(line)) => repodata::run(&line),
        Some(Benchmark::Peers(line)) => peers::run(&line, &stop_on_signals()?),
        None => one::run(&line.load, &stop_on_signals()?),
    }
}

/// Turns true at SIGINT or SIGTERM, so that what was started can be ended.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}
