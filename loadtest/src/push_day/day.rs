//! The day itself: hosts come when the plan says, and do what it says.

use super::client::{Base, Books, Client, Fault, Wanted, lock};
use super::tree::{Tree, path};
use anyhow::{Context, ensure};
use freshet::clock::monotonic;
use freshet::config::Scenario;
use freshet::plan::hosts::Host;
use freshet::plan::world::{File, World};
use freshet::plan::{Cast, drawn, installs, updates};
use indicatif::{ProgressBar, ProgressStyle};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// One in so many files is held against its SHA-256.
const CHECKED: usize = 10;
/// One in so many transactions breaks a transfer off, and takes it up again.
const RESUMES: u32 = 10;

/// What a day needs.
pub struct Day<'a> {
    pub scenario: &'a Scenario,
    pub cast: &'a Cast,
    pub world: &'a World,
    pub tree: &'a Arc<Tree>,
    pub node: SocketAddr,
    pub begun: Instant,
}

/// What came of it. Times are in seconds after the start.
pub struct Seen {
    pub begun: Instant,
    pub books: Books,
    /// When hosts had the push.
    pub updated: Vec<f64>,
    /// Seconds that transactions at the node took.
    pub took: Vec<f64>,
    /// Transactions that a fourth failure ended.
    pub lost: u64,
    pub first_lost: Option<String>,
    /// That had begun and not ended by the end.
    pub unfinished: usize,
}

/// How a task ended.
enum Ended {
    Updated {
        at: f64,
        took: Option<f64>,
    },
    Installed {
        took: Option<f64>,
    },
    Lost(Fault),
    /// It asked no more before the end.
    NeverAsked,
}

impl Day<'_> {
    pub async fn plays(&self, stop: &AtomicBool) -> anyhow::Result<Seen> {
        let books = Arc::new(Mutex::new(Books::default()));
        let mut tasks = JoinSet::new();
        let mut rng = self.cast.rng.clone();
        let end = self.scenario.lasts.as_secs_f64();
        for (number, (host, who)) in self.cast.hosts.iter().enumerate() {
            let client = self.client(number, host, who.agent(), &books);
            let files = self.wanted(&updates(self.world, host, &mut rng), &mut rng);
            tasks.spawn(update(client, *host, files, self.push(), end, self.begun));
        }
        self.adds_installs(&mut tasks, &books, &mut rng);
        let mut seen = Seen {
            begun: self.begun,
            books: Books::default(),
            updated: Vec::new(),
            took: Vec::new(),
            lost: 0,
            first_lost: None,
            unfinished: 0,
        };
        self.runs(&mut tasks, &mut seen, stop).await?;
        seen.unfinished = tasks.len();
        tasks.shutdown().await;
        seen.books = std::mem::take(&mut *lock(&books));
        Ok(seen)
    }

    async fn runs(
        &self,
        tasks: &mut JoinSet<Ended>,
        seen: &mut Seen,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let bar = ProgressBar::new(self.scenario.lasts.as_secs());
        bar.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}")?);
        let mut seconds = tokio::time::interval(Duration::from_millis(500));
        let (mut pushed, total) = (false, self.cast.hosts.len());
        loop {
            let elapsed = (monotonic() - self.begun).as_secs_f64();
            if elapsed >= self.scenario.lasts.as_secs_f64() {
                bar.finish();
                return Ok(());
            }
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            if !pushed && elapsed >= self.push() {
                pushed = true;
                let tree = self.tree.clone();
                tokio::task::spawn_blocking(move || tree.push()).await?.context("the push")?;
            }
            bar.set_position((monotonic() - self.begun).as_secs());
            let state = if pushed { "pushed" } else { "before the push" };
            bar.set_message(format!(
                "{state}: {} of {total} updated, {} lost",
                seen.updated.len(),
                seen.lost
            ));
            tokio::select! {
                _ = seconds.tick() => {}
                Some(ended) = tasks.join_next() => note(ended?, seen),
            }
        }
    }

    fn push(&self) -> f64 {
        self.scenario.push.at.as_secs_f64()
    }

    fn client(&self, number: usize, host: &Host, agent: &str, books: &Arc<Mutex<Books>>) -> Client {
        // Networks of their own, /24, as far as loopback goes.
        let number = u32::try_from(number % (128 * 256)).unwrap_or_default();
        let [.., high, low] = number.to_be_bytes();
        let link = self.scenario.regions[host.region].links[host.link].bytes_per_second();
        let repo = self.scenario.updates();
        Client {
            source: Ipv4Addr::new(127, 64 + high, low, 1),
            agent: agent.to_owned(),
            node: self.node,
            list: format!("/mirrorlist?release={}&arch={}&repo={}", repo.release, repo.arch, repo.name),
            slot_rate: link as f64 / super::client::SLOTS as f64,
            books: books.clone(),
        }
    }

    fn wanted(&self, files: &[&File], rng: &mut fastrand::Rng) -> Vec<Wanted> {
        let repo = self.tree.repo();
        let resumed = (rng.u32(..RESUMES) == 0).then(|| rng.usize(..files.len()));
        let wanted = |(number, file): (usize, &&File)| {
            let path = path(file);
            let resumes = resumed == Some(number);
            let is_checked = resumes || rng.usize(..CHECKED) == 0;
            let body = self.tree.file(&path).filter(|_| is_checked).cloned();
            Wanted { below: path[repo.len() + 1..].to_owned(), body, resumes }
        };
        files.iter().enumerate().map(wanted).collect()
    }

    /// At random moments, as many as the scenario has in an hour.
    fn adds_installs(&self, tasks: &mut JoinSet<Ended>, books: &Arc<Mutex<Books>>, rng: &mut fastrand::Rng) {
        let per_second = self.scenario.installs.per_hour as f64 / 3600.0;
        // Without any the first one never comes.
        let pause = |rng: &mut fastrand::Rng| -(1.0 - rng.f64()).ln() / per_second;
        let (mut at, mut number) = (pause(rng), self.cast.hosts.len());
        while at < self.scenario.lasts.as_secs_f64() {
            let (host, who) = drawn(self.scenario, rng);
            let files = installs(self.world, self.scenario.installs.packages, rng);
            let (client, files) = (self.client(number, &host, who.agent(), books), self.wanted(&files, rng));
            tasks.spawn(install(client, files, at, self.begun));
            (at, number) = (at + pause(rng), number + 1);
        }
    }
}

fn note(ended: Ended, seen: &mut Seen) {
    match ended {
        Ended::Updated { at, took } => {
            seen.updated.push(at);
            seen.took.extend(took);
        }
        Ended::Installed { took } => seen.took.extend(took),
        Ended::Lost(fault) => {
            seen.lost += 1;
            seen.first_lost.get_or_insert_with(|| fault.to_string());
        }
        Ended::NeverAsked => {}
    }
}

/// A host that wants the push: it asks until it is offered, and fetches it.
async fn update(
    client: Client,
    host: Host,
    files: Vec<Wanted>,
    push: f64,
    end: f64,
    begun: Instant,
) -> Ended {
    let mut at = host.ask_from(push).at;
    loop {
        if at >= end {
            return Ended::NeverAsked;
        }
        tokio::time::sleep_until((begun + Duration::from_secs_f64(at)).into()).await;
        match client.asks().await {
            Err(fault) => return Ended::Lost(fault),
            Ok(base) if base.revision >= 2 => {
                return match transaction(&client, &base, files).await {
                    Ok(took) => Ended::Updated { at: begun.elapsed().as_secs_f64(), took },
                    Err(fault) => Ended::Lost(fault),
                };
            }
            Ok(_) => at = host.ask_from(at + 1e-3).at,
        }
    }
}

/// A host that installs something.
async fn install(client: Client, files: Vec<Wanted>, at: f64, begun: Instant) -> Ended {
    tokio::time::sleep_until((begun + Duration::from_secs_f64(at)).into()).await;
    let done = async { transaction(&client, &client.asks().await?, files).await };
    match done.await {
        Ok(took) => Ended::Installed { took },
        Err(fault) => Ended::Lost(fault),
    }
}

/// Metadata, then packages. The seconds that it took, at the node.
async fn transaction(client: &Client, base: &Base, files: Vec<Wanted>) -> Result<Option<f64>, Fault> {
    let begun = monotonic();
    let metadata =
        base.metadata.iter().map(|below| Wanted { below: below.clone(), body: None, resumes: false });
    client.fetch(base, metadata.collect()).await?;
    client.fetch(base, files).await?;
    Ok(base.is_node.then(|| begun.elapsed().as_secs_f64()))
}
