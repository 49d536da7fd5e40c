//! `freshet demo`: a distribution in miniature, in one process.
//!
//! An origin, two external mirrors and a node, all on loopback, each over real sockets; [`client`] plays the users,
//! [`story`] makes pushes and tells what comes of them, [`summary`] holds that against what freshet promises.
//! Everything that is written lies in one temporary directory.

pub mod client;
pub mod ledger;
pub mod lines;
pub mod repository;
pub mod scene;
pub mod site;
pub mod story;
pub mod summary;

use crate::app::Running;
use crate::config::Config;
use anyhow::{Context, bail};
use client::Downloads;
use ledger::Ledger;
use lines::Lines;
use scene::Scene;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use story::Story;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Threads that serve the sites and run the clients.
const THREADS: usize = 2;
/// From one push to the next.
const EVERY: Duration = Duration::from_secs(20);

/// Runs the demo: one push with `once`, else one after the other until SIGINT or SIGTERM. Whether every byte and every
/// step was right; what was not has been printed.
///
/// # Errors
/// The demo can't be set up: no temporary directory, no port on loopback.
pub fn run(once: bool) -> anyhow::Result<bool> {
    let lines = Lines::start();
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let mut scene = runtime.block_on(async { Scene::set() })?;
    scene.describe(&lines);
    let node = Running::start(load(&scene)?).context("the node")?;
    scene.ports_are_taken();
    scene.links(&lines);

    let ledger = Arc::new(Ledger::new(lines));
    let (told, sums) = runtime.block_on(async {
        let downloads = Downloads::new(scene.servers(), ledger.clone());
        let mut story = Story::new(lines, &mut scene, &node, downloads, ledger.clone());
        let told = until_signal(tell(&mut story, once)).await;
        (told, story.end().await)
    });
    node.drain();

    let interrupted = once && matches!(told, Ok(End::Signal));
    let told = told.and_then(|_| if interrupted { bail!("interrupted") } else { Ok(()) });
    if let Err(error) = &told {
        lines.say("WRONG", format_args!("{error:#}"));
    }
    let right = summary::print(lines, &sums, &ledger.totals()) && told.is_ok();
    if !right && !interrupted {
        let kept = scene.keep();
        lines.plain(format_args!("\n  what the node wrote is kept in {}", kept.display()));
    }
    Ok(right)
}

/// How the story ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Told,
    Signal,
}

async fn tell(story: &mut Story<'_>, once: bool) -> anyhow::Result<()> {
    story.opening().await?;
    loop {
        let pause = tokio::time::sleep(EVERY);
        story.push().await?;
        if once {
            return Ok(());
        }
        story.pause();
        pause.await;
    }
}

async fn until_signal(story: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<End> {
    let mut signals = JoinSet::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut caught = signal(kind)?;
        signals.spawn(async move { caught.recv().await });
    }
    let story = pin!(story);
    tokio::select! {
        told = story => told.map(|()| End::Told),
        _ = signals.join_next() => Ok(End::Signal),
    }
}

/// The node's config, from the file that a newcomer may look at.
fn load(scene: &Scene) -> anyhow::Result<Config> {
    let path = scene.write_config()?;
    match Config::load(&path) {
        Ok((config, _)) => Ok(config),
        Err(mistakes) => {
            let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            bail!("the demo's own config: {}", all.join("; "))
        }
    }
}
