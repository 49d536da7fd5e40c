//! Rounds: every server does the same work for the same time, one after the other, over and over, in an order that turns
//! round each time (A B C, C B A, ...). What disturbs the machine for longer than a round disturbs all of them; a figure of one
//! round is compared only with the others' of the same round.

use super::Credentials;
use super::server::Server;
use super::site::{Files, Site};
use super::work::{Kind, Name, Spoken, Unit, Work};
use crate::cpu::{Memory, Used};
use crate::load::{Engine, Outcome, Pace, Plan, Wire};
use anyhow::{Context, ensure};
use freshet::repo::Sha256;
use hdrhistogram::Histogram;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Before each round: connections are made, clients' slow start is over, processors have their speed.
const WARM_UP: Duration = Duration::from_millis(300);
/// So many times, while answers aren't yet as they should be.
const MOST_WARM_UPS: usize = 20;
/// More requests than a client's slow start lasts for.
const SLOW_START: u64 = 16;
/// Files that are asked for before the rounds: all that are served.
const MOST_VISITED: usize = 1000;
/// A number that no round has: clients are known by their addresses, and those of a round are new to the node.
const VISIT: usize = 249;
/// Requests a second for the latency beside cold files: far from what any of the servers can do.
const MODERATE: f64 = 5000.0;
/// Connections that stream cold files.
const STREAMS: usize = 4;
/// The threads that stream step back whenever the others' answers arrive.
const NICEST: i32 = 19;

/// What all rounds have in common.
pub struct Terms<'a> {
    pub site: &'a Site,
    pub credentials: &'a Credentials,
    pub rounds: usize,
    pub span: Duration,
    pub stop: Arc<AtomicBool>,
}

/// What one server did in one round.
pub struct Sample {
    /// In the work's unit.
    pub figure: f64,
    pub outcome: Outcome,
    /// CPU seconds of the server.
    pub cpu: f64,
}

/// What one server did in all rounds, in their order.
pub struct Series {
    pub name: Name,
    pub samples: Vec<Sample>,
}

impl Series {
    /// Latencies of all rounds together.
    pub fn latency_us(&self) -> Histogram<u64> {
        let mut all = Histogram::new(3).expect("three digits are allowed");
        for sample in &self.samples {
            all.add(&sample.outcome.latency_us).expect("it grows");
        }
        all
    }
}

/// Lets the servers do the work.
pub fn measure(terms: &Terms<'_>, work: &Work, servers: &[&Server]) -> anyhow::Result<Vec<Series>> {
    let mut series: Vec<Series> =
        servers.iter().map(|server| Series { name: server.name, samples: Vec::new() }).collect();
    for server in servers {
        visit(terms, work, server).with_context(|| format!("{} before the rounds", server.name.word()))?;
    }
    // They have logged the visit by now, or never will: logs are written in batches.
    for server in servers {
        server.wait_logged()?;
    }
    let rounds = if work.kind == Kind::Idle { 1 } else { terms.rounds };
    for number in 0..rounds {
        let mut order: Vec<usize> = (0..servers.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let server = servers[index];
            let sample = round(terms, work, server, number)
                .with_context(|| format!("{}: {} in round {number}", work.key, server.name.word()))?;
            server.empty_logs()?;
            series[index].samples.push(sample);
        }
    }
    Ok(series)
}

/// Asks for every file once, so that caches are warm, and looks whether the first is what it should be.
fn visit(terms: &Terms<'_>, work: &Work, server: &Server) -> anyhow::Result<()> {
    let paths = terms.site.paths(work.files);
    let all = Plan { connections: paths.len().min(MOST_VISITED), ..plan(terms, work, server, VISIT)? };
    let all = Engine::connect(all)?.once()?;
    if work.status != 200 {
        // Where the first answers come from is the server's choice.
        return Ok(());
    }
    whole(&all)?;
    let first = paths.first().context("no files")?;
    let bytes = std::fs::read(terms.site.tree().join(&first[1..]))?;
    let looked_at = Plan {
        connections: 1,
        paths: [first.clone()].into(),
        verify: Some(Sha256::of(&bytes)),
        ..plan(terms, work, server, VISIT)?
    };
    whole(&Engine::connect(looked_at)?.once()?)
}

fn round(terms: &Terms<'_>, work: &Work, server: &Server, number: usize) -> anyhow::Result<Sample> {
    let sample = match work.kind {
        Kind::Throughput => throughput(terms, work, server, number)?,
        Kind::BesideCold => beside_cold(terms, work, server, number)?,
        Kind::Idle => idle(terms, work, server)?,
    };
    whole(&sample.outcome)?;
    ensure!(sample.figure.is_finite() && sample.figure > 0.0, "nothing to report");
    Ok(sample)
}

fn throughput(terms: &Terms<'_>, work: &Work, server: &Server, number: usize) -> anyhow::Result<Sample> {
    let mut engine = Engine::connect(plan(terms, work, server, number)?)?;
    // A node serves a client's first requests itself, until its redirects are known to work: not what is measured.
    let enough = if work.status == 200 { 0 } else { SLOW_START * work.connections as u64 };
    let mut answers = 0;
    for _ in 0..MOST_WARM_UPS {
        let warm_up = engine.run(WARM_UP)?;
        answers += warm_up.requests + warm_up.failures;
        if warm_up.failures == 0 && answers >= enough {
            break;
        }
    }
    sample(terms, work, server, &mut engine)
}

/// What a CPU-second of the server does in the round's time.
fn sample(terms: &Terms<'_>, work: &Work, server: &Server, engine: &mut Engine) -> anyhow::Result<Sample> {
    let pids = server.pids()?;
    let before = Used::by(&pids)?;
    let outcome = engine.run(terms.span)?;
    let cpu = Used::by(&pids)?.since(&before);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let figure = match work.unit {
        Unit::Gigabits => outcome.body_bytes as f64 * 8.0 / 1e9 / cpu,
        Unit::Requests => outcome.requests as f64 / 1e3 / cpu,
        Unit::Micros => outcome.latency_us.value_at_quantile(0.99) as f64,
        Unit::Kibibytes => f64::NAN,
    };
    Ok(Sample { figure, outcome, cpu })
}

/// Latency of small hot files at a moderate rate, while files that aren't in the page cache are streamed.
fn beside_cold(terms: &Terms<'_>, work: &Work, server: &Server, number: usize) -> anyhow::Result<Sample> {
    let hot = plan(terms, work, server, number)?;
    let mut engine = Engine::connect(Plan { pace: Pace::Open { rate: MODERATE }, ..hot.clone() })?;
    let paths = terms.site.paths(Files::Cold).into();
    let mut cold = Engine::connect(Plan { paths, connections: STREAMS, ..hot })?;
    engine.run(WARM_UP)?;
    terms.site.chill()?;
    let span = terms.span;
    std::thread::scope(|scope| {
        let streaming = scope.spawn(move || {
            rustix::process::nice(NICEST).context("stepping back")?;
            cold.run(span)
        });
        let sample = sample(terms, work, server, &mut engine)?;
        let streamed = streaming.join().expect("it doesn't panic")?;
        whole(&streamed).context("cold files")?;
        ensure!(streamed.body_bytes > 0, "no cold bytes came");
        Ok(sample)
    })
}

/// What connections take that had one request each. The kernel's share of them (some KiB for a socket) is the same for all
/// servers, and not in it.
fn idle(terms: &Terms<'_>, work: &Work, server: &Server) -> anyhow::Result<Sample> {
    let pids = server.pids()?;
    let before = Memory::of(&pids)?;
    let mut engine = Engine::connect(plan(terms, work, server, 0)?)?;
    let outcome = engine.once()?;
    let after = Memory::of(&pids)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kibibytes = after.pss.saturating_sub(before.pss) as f64 / 1024.0 / work.connections as f64;
    Ok(Sample { figure: kibibytes, outcome, cpu: 0.0 })
}

/// A row with a failure in it isn't reported.
fn whole(outcome: &Outcome) -> anyhow::Result<()> {
    let first = outcome.first_failure.as_deref().unwrap_or_default();
    ensure!(outcome.failures == 0, "{} requests failed; the first: {first}", outcome.failures);
    ensure!(outcome.requests > 0 || outcome.body_bytes > 0, "no answers");
    Ok(())
}

fn plan(terms: &Terms<'_>, work: &Work, server: &Server, round: usize) -> anyhow::Result<Plan> {
    let wire = match work.spoken {
        Spoken::Plain => Wire::Plain,
        Spoken::Tls => Wire::Tls(terms.credentials.http1.clone()),
        Spoken::Http2 => Wire::Http2(terms.credentials.http2.clone()),
    };
    Ok(Plan {
        target: server.address(work.spoken)?,
        host: "localhost".to_owned(),
        paths: terms.site.paths(work.files).into(),
        connections: work.connections,
        wire,
        status: work.status,
        pace: Pace::Closed,
        verify: None,
        sources: if work.files == Files::Offloaded { networks(work.connections, round) } else { Vec::new() },
        stop: terms.stop.clone(),
    })
}

/// An address for each connection, each in a network of its own; half of these have a mirror nearby. Other hosts in each
/// round: a node takes many connections from one address within a short time for a crowd behind it.
fn networks(connections: usize, round: usize) -> Vec<IpAddr> {
    let byte = |number: usize| u8::try_from(number % 256).expect("below 256");
    let address = |number: usize| {
        let (second, third) = (100 + number % 2, number / 2);
        IpAddr::V4(Ipv4Addr::new(
            127,
            byte(second),
            byte(third % 100 + number / 200 * 100),
            byte(1 + round % 250),
        ))
    };
    (0..connections).map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn clients_come_from_networks_of_their_own_and_are_others_in_each_round() {
        let of = |round| networks(256, round).into_iter().collect::<HashSet<_>>();
        assert_eq!(of(0).len(), 256);
        assert!((1..200).all(|round| of(round).is_disjoint(&of(round - 1))));
        let nets: HashSet<_> = networks(256, 3)
            .iter()
            .map(|addr| match addr {
                IpAddr::V4(v4) => v4.octets()[1..3].to_vec(),
                IpAddr::V6(_) => unreachable!("none"),
            })
            .collect();
        assert_eq!(nets.len(), 256);
    }
}
