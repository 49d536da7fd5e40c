//! `loadtest peers`: freshet beside what an operator would pick instead, in one run on one machine.
//!
//! Each server has the same tree, an access log and its usual settings for such a tree. The server is on one core and the load
//! on the other, on loopback; what is compared is what a CPU-second of the server does, so that a neighbour who takes time from
//! the machine takes little from the figures. `contest` has the rounds, `statistics` what they say, `work` the table.

pub mod child;
mod contest;
pub mod mirrors;
pub mod nginx;
pub mod node;
mod plot;
pub mod probes;
mod report;
mod server;
pub mod site;
mod statistics;
mod varnish;
mod work;

use crate::load::trusting;
use anyhow::{Context, bail, ensure};
use clap::Args;
use contest::Terms;
use mirrors::Mirrors;
use report::{Report, Row};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConfig;
use server::Server;
use site::{Extent, Site};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use work::{Kind, Name, Work};

/// Mirrors that the node knows and has proven.
const MIRRORS: usize = 1000;
const MIRRORS_QUICK: usize = 20;
const ROUNDS: usize = 20;
const ROUNDS_QUICK: usize = 2;
const SECONDS: f64 = 1.5;
const SECONDS_QUICK: f64 = 0.3;
const IDLE_QUICK: usize = 200;

/// Compares freshet with nginx and Varnish on this machine.
#[derive(Debug, Args)]
pub struct Peers {
    /// Two short rounds of a few works: whether measuring works.
    #[arg(long)]
    quick: bool,
    /// These works alone, by their keys.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds of each work, 1 to 200. Default: 20.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each server in each round, 0.1 to 60. Default: 1.5.
    #[arg(long)]
    seconds: Option<f64>,
    /// The binary to measure. Default: the one beside this program.
    #[arg(long)]
    freshet: Option<PathBuf>,
    /// Mirrors that freshet knows, 1 to 4000, in all works but those of memory. Default: 1000.
    #[arg(long)]
    mirrors: Option<usize>,
    /// Install nginx and Varnish by apt-get where they are missing.
    #[arg(long)]
    install: bool,
    /// Where peers.json, peers.svg and peers.md go.
    #[arg(long, default_value = "target/peers")]
    out: PathBuf,
    /// Where the servers' tree lies meanwhile; 3 GB. Default: the system's directory for temporary files.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// A certificate for the run, and clients that trust it.
pub struct Credentials {
    certificate: PathBuf,
    key: PathBuf,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// How servers are started for some works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    label: &'static str,
    cores: &'static [usize],
    /// Files may lie outside of the page cache.
    cold: bool,
    /// The node knows mirrors.
    mirrors: bool,
    /// How many times as often as by default it asks them.
    hasten: u32,
}

impl Setup {
    const fn one() -> Self {
        Self { label: "one", cores: child::ONE, cold: false, mirrors: true, hasten: 1 }
    }

    fn of(work: &Work) -> Self {
        let one = Self::one();
        match work.kind {
            Kind::BesideCold => Self { label: "cold", cold: true, ..one },
            // A process that has done nothing before: its allocator has no free memory to hand out.
            Kind::Idle => Self { label: work.key, mirrors: false, ..one },
            Kind::Throughput if work.cores == 2 => Self { label: "two", cores: child::BOTH, ..one },
            Kind::Throughput => one,
        }
    }

    /// A directory of the server's own.
    fn directory(&self, site: &Site, server: &str) -> anyhow::Result<PathBuf> {
        let dir = site.dir().join(self.label).join(server);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// Runs it.
pub fn run(line: &Peers, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let rounds = line.rounds.unwrap_or(if line.quick { ROUNDS_QUICK } else { ROUNDS });
    let seconds = line.seconds.unwrap_or(if line.quick { SECONDS_QUICK } else { SECONDS });
    ensure!((1..=200).contains(&rounds), "--rounds is 1 to 200");
    ensure!((0.1..=60.0).contains(&seconds), "--seconds is 0.1 to 60");
    ensure!(line.mirrors.is_none_or(|mirrors| (1..=4000).contains(&mirrors)), "--mirrors is 1 to 4000");
    let mut works = work::chosen(&line.only, line.quick).map_err(anyhow::Error::msg)?;
    if line.quick {
        works
            .iter_mut()
            .filter(|work| work.kind == Kind::Idle)
            .for_each(|work| work.connections = IDLE_QUICK);
    }
    if cfg!(debug_assertions) && !line.quick {
        eprintln!("this is a build for development: its load may be too weak, and its freshet is slow");
    }
    let binary = node::binary(line.freshet.as_deref())?;
    let peers = installed(line.install)?;
    raise_open_files()?;
    child::pin(child::LOAD).context("two cores are needed: one for the server, one for the load")?;

    let extent = if line.quick { Extent::QUICK } else { Extent::WHOLE };
    let parent = line.scratch.clone().unwrap_or_else(std::env::temp_dir);
    eprintln!("making the tree");
    let site = Site::make(&parent, extent)?;
    let credentials = Credentials::make(site.dir())?;
    let mirrors = line.mirrors.unwrap_or(if line.quick { MIRRORS_QUICK } else { MIRRORS });
    let mirrors = Mirrors::start(&site, mirrors)?;
    let terms = Terms {
        site: &site,
        credentials: &credentials,
        rounds,
        span: Duration::from_secs_f64(seconds),
        stop: stop.clone(),
    };
    let mut report = Report::new(rounds, seconds, mirrors.count());
    let stage = Stage { terms: &terms, binary: &binary, mirrors: &mirrors, peers: &peers };
    let played = stage.play(&works, &mut report);
    if !report.rows.is_empty() {
        report.write(&line.out)?;
    }
    played
}

/// Servers come and go, by what the works need.
struct Stage<'a> {
    terms: &'a Terms<'a>,
    binary: &'a Path,
    mirrors: &'a Mirrors,
    peers: &'a [Name],
}

impl Stage<'_> {
    /// A row that can't be measured keeps no other from being told.
    fn play(&self, works: &[Work], report: &mut Report) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        let mut setups: Vec<Setup> = works.iter().map(Setup::of).collect();
        setups.dedup();
        for setup in setups {
            let works: Vec<&Work> = works.iter().filter(|work| Setup::of(work) == setup).collect();
            eprintln!("starting servers: {}", setup.label);
            let servers = self.start(&works, &setup)?;
            for server in &servers {
                let calm = server.settle(&self.terms.stop)?;
                eprintln!("{}: {:.1} % of a core while nobody asks", server.name.word(), calm * 100.0);
                report.calm(setup.label, server.name, calm);
            }
            report.met(&servers);
            for work in works {
                let taking_part: Vec<&Server> =
                    servers.iter().filter(|server| work.is_for(server.name)).collect();
                eprintln!("{}", work.title);
                match contest::measure(self.terms, work, &taking_part) {
                    Ok(series) => {
                        let row = Row::of(work, &series);
                        println!("{}", row.text());
                        report.rows.push(row);
                    }
                    Err(error) if self.terms.stop.load(Ordering::Relaxed) => return Err(error),
                    Err(error) => {
                        eprintln!("not reported: {error:#}");
                        failed.push(work.key);
                    }
                }
            }
        }
        ensure!(failed.is_empty(), "not reported: {}", failed.join(", "));
        Ok(())
    }

    /// Those that one of the works is for.
    fn start(&self, works: &[&Work], setup: &Setup) -> anyhow::Result<Vec<Server>> {
        let (site, credentials) = (self.terms.site, self.terms.credentials);
        let is_wanted = |name| self.peers.contains(&name) && works.iter().any(|work| work.is_for(name));
        let mirrors = setup.mirrors.then_some(self.mirrors);
        let mut servers =
            vec![node::start(self.binary, site, mirrors, credentials, setup, &self.terms.stop)?];
        if self.peers.contains(&Name::Nginx) {
            servers.push(nginx::start(site, credentials, setup)?);
        }
        if is_wanted(Name::Varnish) {
            // It fills its cache from nginx before the rounds.
            let backend = servers.last().context("Varnish is filled from nginx")?;
            let backend = backend.address(work::Spoken::Plain)?;
            servers.push(varnish::start(site, backend, setup)?);
        }
        Ok(servers)
    }
}

impl Credentials {
    fn make(dir: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let (http1, http2) = (trusting(&certificate, b"http/1.1")?, trusting(&certificate, b"h2")?);
        Ok(Self { certificate, key, http1, http2 })
    }
}

/// The peers that are there.
fn installed(install: bool) -> anyhow::Result<Vec<Name>> {
    let packages = [(Name::Nginx, "nginx"), (Name::Varnish, "varnishd")];
    let is_missing = |command: &str| !child::is_installed(command);
    if install && packages.iter().any(|(_, command)| is_missing(command)) {
        let mut apt = child::command("apt-get");
        apt.args(["install", "-y", "--no-install-recommends", "nginx", "varnish"]);
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        if !apt.status().context("apt-get")?.success() {
            bail!("apt-get could not install nginx and varnish");
        }
    }
    let (there, missing): (Vec<_>, Vec<_>) =
        packages.into_iter().partition(|(_, command)| !is_missing(command));
    for (name, command) in missing {
        eprintln!("{} is left out: no {command} (try --install)", name.word());
    }
    let mut there: Vec<Name> = there.into_iter().map(|(name, _)| name).collect();
    if !there.contains(&Name::Nginx) {
        // It would have nobody to fill its cache from.
        there.clear();
    }
    Ok(there)
}

/// Thousands of connections are open at once; what is started inherits it.
/// As many files as this process may open.
pub fn raise_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raising the number of open files")
}
