//! `loadtest URL`: the load alone, on a server that runs already.

use crate::cpu::{self, Used};
use crate::load::{Engine, Outcome, Pace, Plan, Wire, trusting};
use anyhow::{Context, bail, ensure};
use clap::Args;
use freshet::repo::Sha256;
use hyper::Uri;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The longest run, in seconds.
const LONGEST: f64 = 600.0;

/// What to ask for, and how.
#[derive(Debug, Args)]
pub struct Load {
    /// http or https URLs of one server on loopback; connections ask for them in turn.
    #[arg(required = true)]
    urls: Vec<Uri>,
    /// More paths to ask for, one a line.
    #[arg(long)]
    paths: Option<PathBuf>,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How long, 600 at most.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// An open loop: so many requests a second over all connections, whatever the server does. Latency then counts from
    /// when a request was due. Default: a closed loop, in which each connection asks again at once.
    #[arg(long)]
    rate: Option<f64>,
    /// HTTP/2; for https only.
    #[arg(long)]
    http2: bool,
    /// PEM: the certificates to trust; for https.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The SHA-256 that every body has to have. Default: bodies are thrown away unseen.
    #[arg(long)]
    verify: Option<Sha256>,
    /// The status that is right.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The server's process: CPU time of it and its children is read from /proc before and after.
    #[arg(long)]
    pid: Option<u32>,
}

/// Runs it, and prints what came of it.
pub fn run(line: &Load, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    ensure!((0.1..=LONGEST).contains(&line.seconds), "--seconds is 0.1 to {LONGEST}");
    ensure!((1..=10_000).contains(&line.connections), "--connections is 1 to 10000");
    ensure!(line.rate.is_none_or(|rate| (0.1..=1e7).contains(&rate)), "--rate is 0.1 to 10000000");
    let mut engine = Engine::connect(plan(line, stop)?)?;
    let pids = line.pid.map(cpu::family).transpose()?.unwrap_or_default();
    let before = Used::by(&pids)?;
    let outcome = engine.run(Duration::from_secs_f64(line.seconds))?;
    let used = Used::by(&pids)?.since(&before);
    print(&outcome, line.pid.map(|_| used));
    if let Some(failure) = &outcome.first_failure {
        bail!("{} requests failed; the first: {failure}", outcome.failures);
    }
    Ok(())
}

fn plan(line: &Load, stop: &Arc<AtomicBool>) -> anyhow::Result<Plan> {
    let url = line.urls.first().context("no URL")?;
    let target = loopback(url)?;
    let mut paths = Vec::new();
    for other in &line.urls {
        let same = other.authority() == url.authority() && other.scheme() == url.scheme();
        ensure!(same, "{other} is on another server than {url}");
        paths.push(other.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    }
    if let Some(file) = &line.paths {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        paths.extend(text.lines().filter(|path| path.starts_with('/')).map(str::to_owned));
    }
    Ok(Plan {
        target,
        host: url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
        paths: paths.into(),
        connections: line.connections,
        wire: wire(line, url)?,
        status: line.status,
        pace: line.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
        verify: line.verify,
        sources: Vec::new(),
        stop: stop.clone(),
    })
}

fn wire(line: &Load, url: &Uri) -> anyhow::Result<Wire> {
    if url.scheme_str() == Some("http") {
        ensure!(!line.http2, "--http2 is for https");
        return Ok(Wire::Plain);
    }
    let certificates = line.ca.as_deref().context("https needs --ca FILE")?;
    Ok(if line.http2 {
        Wire::Http2(trusting(certificates, b"h2")?)
    } else {
        Wire::Tls(trusting(certificates, b"http/1.1")?)
    })
}

fn print(outcome: &Outcome, cpu: Option<f64>) {
    let seconds = outcome.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    let (requests, gigabits) = (outcome.requests as f64, outcome.body_bytes as f64 * 8.0 / 1e9);
    println!("requests      {:>12}   {:.0} a second", outcome.requests, requests / seconds);
    println!("body          {gigabits:>12.2} Gbit   {:.2} Gbit a second", gigabits / seconds);
    println!("failures      {:>12}", outcome.failures);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        println!("latency {name:<6}{:>11} us", outcome.latency_us.value_at_quantile(quantile));
    }
    if let Some(cpu) = cpu {
        let (each, bits) = (requests / cpu, gigabits / cpu);
        println!(
            "server CPU    {cpu:>12.2} s   {each:.0} requests, {bits:.2} Gbit a CPU-second, {:.0} % of a core",
            cpu / seconds * 100.0
        );
    }
}

/// The address of the URL, which has to be a loopback one: load never leaves this machine.
fn loopback(url: &Uri) -> anyhow::Result<SocketAddr> {
    let port = match url.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => bail!("{url}: expected an http or https URL"),
    };
    let host = url.host().context("the URL has no host")?.trim_matches(['[', ']']);
    let mut addresses = (host, url.port_u16().unwrap_or(port)).to_socket_addrs()?;
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
        assert!(ok("http://127.0.0.1:8080/x") && ok("http://[::1]/") && ok("https://127.9.9.9/"));
        assert!(!ok("http://192.0.2.1/") && !ok("ftp://127.0.0.1/") && !ok("/x"));
    }
}
