//! `loadtest push-day`: a scenario of `freshet plan`, played over real sockets on loopback, and held against its plan.
//!
//! The node has core 0; clients and mirrors share core 1. Who comes when, what each wants and when each mirror holds the push are
//! the plan's own draws ([`Cast`]).

mod client;
mod day;
mod mirrors;
mod report;
mod tree;

use crate::node::{MANY_SEATS, Node, Sample, watch};
use crate::peers::{child, node as peer, raise_open_files};
use anyhow::{Context, ensure};
use clap::Args;
use day::{Day, Seen};
use freshet::clock::monotonic;
use freshet::config::scenario::Policy;
use freshet::config::{Delivery, OutsideWindow, Scenario, Scope};
use freshet::plan::report as page;
use freshet::plan::world::World;
use freshet::plan::{self, Cast};
use mirrors::Mirrors;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tree::Tree;

/// The longest day, and the most hosts, that fit a machine.
const LONGEST: Duration = Duration::from_secs(1800);
const MOST_HOSTS: u64 = 20_000;
/// The most bytes of a tree: mirrors keep it in memory.
const MOST_BYTES: u64 = 2 << 30;

/// Plays a push and holds it against its plan.
#[derive(Debug, Args)]
pub struct PushDay {
    /// The scenario: with one region, and hosts that ask for a mirrorlist each time.
    #[arg(long, default_value = "config/scenarios/push-day.toml")]
    scenario: PathBuf,
    /// Half a minute of a few hosts: whether measuring works. No mark counts but that nobody fails.
    #[arg(long, conflicts_with = "scenario")]
    quick: bool,
    /// The binary to measure. Default: the one beside this program.
    #[arg(long)]
    freshet: Option<PathBuf>,
    /// Where push-day.json and push-day.html go.
    #[arg(long, default_value = "target/push-day")]
    out: PathBuf,
}

pub fn run(line: &PushDay, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let scenario = scenario(line)?;
    let binary = peer::binary(line.freshet.as_deref())?;
    raise_open_files()?;
    child::pin(child::LOAD).context("two cores are needed: one for the node, one for clients and mirrors")?;
    let hosts = usize::try_from(scenario.hosts)?;
    let planned = plan::simulate(&scenario, hosts);
    let (cast, world) = (Cast::draw(&scenario, hosts), World::new(&scenario));
    let dir = tempfile::Builder::new().prefix("freshet-push-day-").tempdir()?;
    eprintln!("making the tree");
    let tree = Arc::new(Tree::make(&dir.path().join("tree"), &scenario, &world)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (seen, samples) =
        runtime.block_on(play(&scenario, &cast, &world, &tree, &binary, dir.path(), stop))?;
    let measured = report::outcome(&scenario, &seen, &samples);
    let marks = report::marks(&planned, &measured, &seen, !line.quick);
    let parts = report::parts(&scenario, &planned, &measured, &marks, &seen);
    print!("{}", page::text(&parts));
    fs::create_dir_all(&line.out)?;
    fs::write(line.out.join("push-day.html"), page::html("freshet push-day", &parts)?)?;
    let all = report::Whole { planned: &planned, measured: &measured, marks: &marks };
    fs::write(line.out.join("push-day.json"), serde_json::to_vec_pretty(&all)?)?;
    let missed = marks.iter().filter(|mark| !mark.holds).count();
    ensure!(missed == 0, "{missed} marks were missed");
    Ok(())
}

fn scenario(line: &PushDay) -> anyhow::Result<Scenario> {
    let read = if line.quick {
        Scenario::parse(include_str!("quick.toml"), Path::new("quick.toml"))
    } else {
        Scenario::load(&line.scenario)
    };
    let (scenario, warnings) = read.map_err(|mistakes| {
        anyhow::anyhow!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    ensure!(scenario.regions.len() == 1, "{}: push-day has one node, so one region", line.scenario.display());
    ensure!(
        scenario.kinds.iter().all(|kind| kind.list.is_zero()),
        "{}: push-day's hosts ask for a mirrorlist each time: no checks.list",
        line.scenario.display()
    );
    ensure!(
        scenario.rapid.is_none(),
        "{}: push-day's hosts have one repo: no [rapid]",
        line.scenario.display()
    );
    ensure!(scenario.lasts <= LONGEST, "a push day lasts at most half an hour");
    ensure!(scenario.hosts <= MOST_HOSTS, "a push day has at most {MOST_HOSTS} hosts");
    let bytes: u64 = scenario.push.files.iter().map(|file| file.size + file.drpm.unwrap_or(0)).sum();
    ensure!(bytes <= MOST_BYTES, "a push day pushes at most 2 GiB");
    Ok(scenario)
}

async fn play(
    scenario: &Scenario,
    cast: &Cast,
    world: &World,
    tree: &Arc<Tree>,
    binary: &Path,
    dir: &Path,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<(Seen, Vec<Sample>)> {
    let times: Vec<(f64, f64)> = cast.synced.iter().map(|synced| (synced.holds, f64::INFINITY)).collect();
    let mirrors = Mirrors::start(tree, &with_one_that_dies(times, scenario))?;
    let text = MANY_SEATS.to_owned() + &config(scenario, &mirrors);
    eprintln!("starting the node");
    let (count, at, stopped) = (mirrors.addrs.len(), dir.join("node"), stop.clone());
    let (binary, root) = (binary.to_owned(), tree.root().to_owned());
    let start = move || Node::start(&binary, &Node::in_place(&root), &at, &text, count, &stopped);
    let node = Arc::new(tokio::task::spawn_blocking(start).await??);
    let ended = Arc::new(AtomicBool::new(false));
    let watching = {
        let (node, ended) = (node.clone(), ended.clone());
        tokio::task::spawn_blocking(move || watch(&node, &ended))
    };
    let begun = monotonic();
    mirrors.start.set(begun).ok();
    let day = Day { scenario, cast, world, tree, node: node.address(), begun };
    let seen = day.plays(stop).await;
    ended.store(true, Ordering::Relaxed);
    let samples = watching.await??;
    Ok((seen?, samples))
}

/// The mirror that is first to hold the push dies half way between that and the end.
fn with_one_that_dies(mut times: Vec<(f64, f64)>, scenario: &Scenario) -> Vec<(f64, f64)> {
    let end = scenario.lasts.as_secs_f64();
    if let Some(first) = times.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)).filter(|first| first.0 < end) {
        first.1 = f64::midpoint(first.0, end);
    }
    times
}

/// The node's config, beside what every node of a load test has.
fn config(scenario: &Scenario, mirrors: &Mirrors) -> String {
    let Policy { delivery, window, window_scope, window_max_push, window_min_mirrors, .. } = scenario.policy;
    let region = &scenario.regions[0];
    let delivery = match delivery {
        Delivery::Window => "window",
        Delivery::Own => "own",
        Delivery::Offload => "offload",
    };
    let scope = match window_scope {
        Scope::Repo => "repo",
        Scope::Push => "push",
    };
    let order = match scenario.policy.outside_window {
        OutsideWindow::MirrorsFirst => "mirrors-first",
        OutsideWindow::OwnFirst => "own-first",
    };
    let repo = scenario.updates();
    let mut text = format!(
        r#"
egress.capacity = "{}"
egress.shed_from = {}
egress.shed_all = {}
listing.outside_window = "{order}"
push.poll = "100ms"
mirrors.probe_every = "1s"
mirrors.probe_lagging = "300ms"
mirrors.liveness_every = "1s"
mirrors.timeout = "2s"

[[network]]
addresses = ["127.0.0.0/8"]
continent = "{}"

[[repo]]
name = "{}"
path = "{}"
releases = ["{}"]
arches = ["{}"]
delivery = "{delivery}"
window = "{}ms"
window_scope = "{scope}"
window_max_push = "{window_max_push} B"
window_min_mirrors = {window_min_mirrors}
"#,
        region.capacity,
        scenario.policy.shed_from,
        scenario.policy.shed_all,
        region.continent,
        repo.name,
        repo.path.as_str().replace(&repo.release, "{release}").replace(&repo.arch, "{arch}"),
        repo.release,
        repo.arch,
        window.as_millis(),
    );
    let groups = scenario.mirrors.iter().flat_map(|group| std::iter::repeat_n(group, group.count));
    for ((number, addr), group) in mirrors.addrs.iter().enumerate().zip(groups) {
        let _ = write!(
            text,
            "\n[[mirror]]\nname = \"m{number}\"\nurl = \"http://{addr}/\"\nbandwidth = \"{}\"\ncontinent = \"{}\"\n",
            group.bandwidth, group.continent
        );
    }
    text
}
