//! `loadtest attack`: what clients that mean harm do to others.
//!
//! The server has core 0, attackers and honest clients core 1, on loopback; a network is 127.a.b/24. Honest clients connect anew
//! once the attack is on, and ask for repomd.xml at a fixed rate; latency counts from when a request was due. The same is measured
//! in calm before, beside a thread that computes as attackers do. These yield to honest clients on their core by their niceness.
//! nginx gets the same, beside, without marks.
//!
//! `kinds` has the attacks, `party` what they are made with, `honest` what is measured, `report` the marks.

mod honest;
mod kinds;
mod link;
mod origin;
mod party;
mod report;
mod subject;

use crate::peers::{child, node as peer, raise_open_files};
use anyhow::{Context, ensure};
use clap::Args;
use honest::{Honest, cold_files};
use kinds::Kind;
use origin::Origin;
use party::{Assault, Scene};
use report::{FAILURES, Report};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use subject::{Served, Subject};

/// Attacks a node and measures what others notice.
#[derive(Debug, Args)]
pub struct Attack {
    /// These attacks alone; `--list` names them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// List the attacks.
    #[arg(long)]
    list: bool,
    /// Networks that attack, 1 to 200.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    networks: Vec<u16>,
    /// Seconds of each, 2 to 60.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measure again what misses a mark, at most so often in all, 1 to 10. The best counts.
    #[arg(long, default_value_t = 3)]
    tries: usize,
    /// Attack nginx as well, where it is installed. Default: true, with --quick false.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    nginx: Option<bool>,
    /// Five attacks from one network, 1 s each: whether measuring works. No mark counts but that no honest client fails.
    #[arg(long)]
    quick: bool,
    /// The binary to measure. Default: the one beside this program.
    #[arg(long)]
    freshet: Option<PathBuf>,
    /// Where attack.json and attack.md go.
    #[arg(long, default_value = "target/attack")]
    out: PathBuf,
}

/// How long is measured.
#[derive(Clone, Copy)]
struct Spans {
    calm: Duration,
    attack: Duration,
    /// Of clients that ask as fast as they are answered.
    closed: Duration,
    /// For a push to be offered. Without it there is none.
    offered_within: Option<Duration>,
}

pub fn run(line: &Attack, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    if line.list {
        kinds::ALL.iter().for_each(|kind| println!("{:<13} {}", kind.name, kind.what));
        return Ok(());
    }
    ensure!((2..=60).contains(&line.seconds), "--seconds is 2 to 60");
    ensure!((1..=10).contains(&line.tries), "--tries is 1 to 10");
    ensure!(line.networks.iter().all(|networks| (1..=200).contains(networks)), "--networks is 1 to 200");
    for name in &line.only {
        ensure!(kinds::ALL.iter().any(|kind| kind.name == name), "no attack is called {name}: see --list");
    }
    let binary = peer::binary(line.freshet.as_deref())?;
    raise_open_files()?;
    child::pin(child::LOAD).context("two cores are needed: one for the node, one for its clients")?;
    let is_chosen = |kind: &&&Kind| match line.only.as_slice() {
        [] => !line.quick || kind.is_quick,
        only => only.iter().any(|name| name == kind.name),
    };
    let second = Duration::from_secs(1);
    let spans = if line.quick {
        Spans { calm: second, attack: second, closed: second / 4, offered_within: None }
    } else {
        Spans {
            calm: 2 * second,
            attack: second * u32::try_from(line.seconds)?,
            closed: 3 * second / 2,
            offered_within: Some(60 * second),
        }
    };
    let is_nginx_there = child::is_installed("nginx");
    let dir = tempfile::Builder::new().prefix("freshet-attack-").tempdir()?;
    let cold = cold_files(spans.calm) + cold_files(spans.attack);
    let origin = Origin::start(&dir.path().join("origin"), cold)?;
    let stage = Stage { binary: &binary, dir: dir.path(), origin: &origin, spans, stop };
    let mut reports = Vec::new();
    for kind in kinds::ALL.iter().filter(is_chosen) {
        for count in if line.quick { &[1] } else { line.networks.as_slice() } {
            let tries = if line.quick { 1 } else { line.tries };
            reports.push(stage.best(kind, *count, tries).with_context(|| kind.name)?);
            if is_nginx_there && line.nginx.unwrap_or(!line.quick) {
                let beside =
                    stage.one(kind, *count, true).with_context(|| format!("{}, nginx", kind.name))?;
                println!("{}", beside.text());
                reports.push(beside);
            }
            // After each: what comes later may fail.
            write(&reports, &line.out)?;
        }
    }
    let missed = reports.iter().flat_map(Report::missed);
    let missed = missed.filter(|mark| !line.quick || mark.what == FAILURES).count();
    ensure!(missed == 0, "{missed} marks were missed");
    Ok(())
}

fn write(reports: &[Report], out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out)?;
    fs::write(out.join("attack.json"), serde_json::to_vec_pretty(reports)?)?;
    Ok(fs::write(out.join("attack.md"), report::table(reports))?)
}

/// What all attacks have in common.
#[derive(Clone, Copy)]
struct Stage<'a> {
    binary: &'a Path,
    dir: &'a Path,
    origin: &'a Origin,
    spans: Spans,
    stop: &'a Arc<AtomicBool>,
}

impl Stage<'_> {
    /// What misses a mark is measured again: the machine may have had other things to do.
    fn best(&self, kind: &Kind, networks: u16, tries: usize) -> anyhow::Result<Report> {
        let mut best: Option<Report> = None;
        for _ in 0..tries {
            let mut report = self.one(kind, networks, false)?;
            report.judge(kind);
            println!("{}", report.text());
            let missed = report.missed().count();
            if best.as_ref().is_none_or(|best| missed < best.missed().count()) {
                best = Some(report);
            }
            if missed == 0 {
                break;
            }
        }
        best.context("at least one try")
    }

    fn one(&self, kind: &Kind, networks: u16, is_nginx: bool) -> anyhow::Result<Report> {
        let Self { binary, dir, origin, spans, stop } = *self;
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        let dir = tempfile::tempdir_in(dir)?;
        let scene = Scene::make(dir.path(), networks)?;
        let tree = Served::Tree(origin);
        let origin = kind.origin.map(|line| {
            origin.behind(line);
            origin
        });
        let served = origin.map_or(tree, Served::Fetched);
        let subject = if is_nginx {
            Subject::nginx(dir.path(), &scene, served)?
        } else {
            Subject::freshet(binary, dir.path(), kind, &scene, served, stop)?
        };
        let offered_within = spans.offered_within;
        let honest = Honest { subject: &subject, kind, scene: &scene, origin, offered_within, stop };
        let cold = origin.map(Origin::packages).unwrap_or_default();
        let (first, second) = cold.split_at(cold.len().min(cold_files(spans.calm)));
        let calm = honest.ask_in_calm(spans.calm, spans.closed, first)?;
        ensure!(calm.failures == 0, "in calm: {:?}", calm.first_failure);
        let resting = subject.rests()?;
        let sent = origin.map_or(0, Origin::sent);
        let longest = (spans.attack + spans.closed) * 2;
        let assault = Assault::begin(kind, &scene, subject.addresses(), longest, stop)?;
        let attacked = honest.ask(spans.attack, spans.closed, second)?;
        let memory_bytes = subject.peak()?.saturating_sub(resting);
        let acts = assault.acts();
        assault.end()?;
        let recovered_seconds = honest.recovers(report::bounds(&calm)).as_secs_f64();
        let honest_bytes = attacked.cold.map_or(0, |cold| origin::honest_bytes(cold.requests));
        Ok(Report {
            attack: kind.name,
            networks,
            server: subject.name(),
            calm,
            attacked,
            acts,
            memory_bytes,
            origin_bytes: origin.map(|origin| (origin.sent() - sent).saturating_sub(honest_bytes)),
            recovered_seconds,
            marks: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_have_names_of_their_own_and_five_are_quick() {
        let names: std::collections::BTreeSet<_> = kinds::ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), kinds::ALL.len());
        assert!(kinds::ALL.iter().all(|kind| !kind.name.is_empty() && !kind.what.is_empty()));
        assert_eq!(kinds::ALL.iter().filter(|kind| kind.is_quick).count(), 5);
    }
}
