//! The story of a push, told as it happens: every step is awaited, with a deadline, and printed.
//!
//! It runs on the demo's main task, which may block for a moment while it writes files: sites and clients have threads of
//! their own.

use super::client::{Downloads, Host};
use super::ledger::Ledger;
use super::lines::{Lines, seconds, size};
use super::scene::{MIRRORS, QUICK, REPO_QUERY, STALE, Scene, Servers};
use super::summary::{Share, Span, Sums};
use crate::app::Running;
use crate::clock::{self, Timestamp};
use crate::policy::MirrorState;
use crate::push::Event;
use crate::repo::Sha256;
use anyhow::{Context, bail, ensure};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// For one step.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at what the node publishes.
const LOOK: Duration = Duration::from_millis(50);
/// From the push to the quick mirror's sync.
const SYNC_AFTER: Duration = Duration::from_secs(3);
/// The number of the host that asks for mirrorlists; those that download have smaller ones.
const READER: u8 = 100;
/// The only repo.
const REPO: usize = 0;

/// The story, with all that takes part in it.
pub struct Story<'a> {
    lines: Lines,
    scene: &'a mut Scene,
    node: &'a Running,
    reader: Host,
    servers: Arc<Servers>,
    downloads: Downloads,
    ledger: Arc<Ledger>,
    sums: Sums,
}

impl<'a> Story<'a> {
    /// Before its beginning.
    pub fn new(
        lines: Lines,
        scene: &'a mut Scene,
        node: &'a Running,
        downloads: Downloads,
        ledger: Arc<Ledger>,
    ) -> Self {
        let servers = scene.servers();
        let reader = Host::new(servers.clone(), READER);
        Self { lines, scene, node, reader, servers, downloads, ledger, sums: Sums::default() }
    }

    /// The calm before the first push: the node finds the repo, proves the mirrors, and sends clients to them.
    ///
    /// # Errors
    /// A step that didn't happen.
    pub async fn opening(&mut self) -> anyhow::Result<()> {
        within("the node offers the repo", self.observe(|story| story.sequence() > 0)).await?;
        self.lines.say("offered", format_args!("generation {} of the repo", self.sequence()));
        for mirror in [QUICK, STALE] {
            self.proven(mirror).await?;
            self.tell_of(mirror, "");
        }
        let began = clock::now();
        let hosts = self.downloads.start();
        self.lines.say("clients", format_args!("{hosts} download everything, again and again, and check it"));
        within("every client downloads everything", self.downloads.rounds_since(began)).await??;
        let share = Share::of(&self.ledger.take());
        self.lines.say("share", format_args!("mirrors serve {}", share.words()));
        self.listing(false).await
    }

    /// One push, from the change at the origin to the mirrors' share after its window.
    ///
    /// # Errors
    /// A step that didn't happen, or not as it should.
    pub async fn push(&mut self) -> anyhow::Result<()> {
        let mut events = self.node.pushes().subscribe();
        let change = self.scene.push()?;
        self.lines.say("push", format_args!("{} packages changed at the origin", change.packages));
        let (generation, offered) = self.offer(&mut events, change.at).await?;
        let until = self.opened(&mut events).await?;
        let open = clock::now();
        self.listing(true).await?;
        let inside = tokio::time::sleep(SYNC_AFTER.saturating_sub(clock::now().since(change.at)));
        inside.await;
        self.sync(generation, change.at).await?;
        let closed = self.closed(&mut events).await?;
        let span = Span { generation, open, until, closed };
        self.listing(false).await?;
        within("every client downloads everything", self.downloads.rounds_since(closed)).await??;

        let files = self.ledger.take();
        let (inside, after) = (span.inside(&files), span.after(&files));
        self.lines.say(
            "in the window",
            format_args!("{} files were asked for, {} redirected", inside.files, inside.redirected),
        );
        self.lines.say("share", format_args!("mirrors now serve {}", after.words()));
        self.sums.add(offered, &inside, &after);
        Ok(())
    }

    /// Says how things stand between two pushes.
    pub fn pause(&self) {
        let totals = self.ledger.totals();
        let bytes = size(totals.node_bytes + totals.mirror_bytes);
        self.lines.say(
            "so far",
            format_args!("{} files, {bytes}, {} wrong; Ctrl-C ends", totals.files, totals.wrong),
        );
    }

    /// Stops the clients; what came of all pushes.
    pub async fn end(self) -> Sums {
        self.downloads.stop().await;
        let edge = self.node.edge();
        let bounces = MIRRORS.iter().map(|name| edge.metrics.bounces.with_label_values(&[*name]).get()).sum();
        Sums { bounces, ..self.sums }
    }

    /// Detected, warmed, offered: the new generation, and the time from `pushed` to its offer.
    async fn offer(
        &self,
        events: &mut broadcast::Receiver<Event>,
        pushed: Timestamp,
    ) -> anyhow::Result<(Sha256, Duration)> {
        let detected = next(events, "the push is detected", |event| match event {
            Event::Detected { generation, files, bytes, .. } => Some((*generation, *files, *bytes)),
            _ => None,
        });
        let (generation, files, bytes) = detected.await?;
        self.lines.say(
            "detected",
            format_args!(
                "repomd.xml {generation:?}…: {files} new packages, {}; {} s after the push",
                size(bytes),
                age(pushed)
            ),
        );
        let warmed = next(events, "its packages are in the cache", |event| match event {
            Event::Warmed { files, bytes, failed, .. } => Some((*files, *bytes, *failed)),
            _ => None,
        });
        let (files, bytes, failed) = warmed.await?;
        ensure!(failed == 0, "{failed} of the push's packages could not be fetched");
        self.lines.say(
            "warmed",
            format_args!("{files} packages in the cache, {}, every SHA-256 right", size(bytes)),
        );
        let offered = next(events, "the push is offered", |event| match event {
            Event::Offered { generation, sequence, at, .. } => Some((*generation, *sequence, *at)),
            _ => None,
        });
        let (offered, sequence, at) = offered.await?;
        ensure!(offered == generation, "{offered:?} was offered instead of {generation:?}");
        self.lines.say(
            "offered",
            format_args!("generation {sequence}; {} s after the push", seconds(at.since(pushed))),
        );
        Ok((generation, at.since(pushed)))
    }

    /// When the window that opens is to end.
    async fn opened(&self, events: &mut broadcast::Receiver<Event>) -> anyhow::Result<Timestamp> {
        let opened = next(events, "the window opens", |event| match event {
            Event::WindowOpened { until, .. } => Some(*until),
            _ => None,
        });
        let until = opened.await?;
        let left = seconds(until.since(clock::now()));
        self.lines.say("window open", format_args!("the node delivers everything, for {left} s more"));
        Ok(until)
    }

    /// The quick mirror syncs: metadata first, which proves nothing; then the packages.
    async fn sync(&self, generation: Sha256, pushed: Timestamp) -> anyhow::Result<()> {
        let (quick, stale) = (format!("mirror {}", MIRRORS[QUICK]), format!("mirror {}", MIRRORS[STALE]));
        self.scene.sync_metadata()?;
        self.lines.say(&quick, "syncs its metadata: it has the new repomd.xml, but not the packages");
        let caught = self.observe(|story| {
            let state = story.mirror(QUICK);
            let pair = &state.pairs[REPO];
            pair.seen == Some(generation) && !pair.note.contains("not checked yet")
        });
        within("the prober looks at the quick mirror's files", caught).await?;
        ensure!(!self.is_current(QUICK), "{quick} counts as fresh though it lacks the new packages");
        self.tell_of(QUICK, "");
        self.lines.say("", "so it gets no redirects for what is new, only for what it had before");
        self.scene.sync_packages()?;
        self.lines.say(&quick, "syncs its packages");
        self.proven(QUICK).await?;
        self.tell_of(QUICK, &format!(": fresh {} s after the push", age(pushed)));
        ensure!(!self.is_current(STALE), "{stale} counts as fresh though it never synced");
        self.tell_of(STALE, "");
        let takes = match self.mirror(STALE).pairs[REPO].proof {
            Some(_) => "takes only what hasn't changed since",
            None => "takes nothing: what it shows is too old to be known",
        };
        self.lines.say("", format_args!("so it stays out of the mirrorlist, and {takes}"));
        Ok(())
    }

    /// By when the window is closed.
    async fn closed(&self, events: &mut broadcast::Receiver<Event>) -> anyhow::Result<Timestamp> {
        let closed = next(events, "the window closes", |event| match event {
            Event::WindowExtended { .. } => Some(None),
            Event::WindowClosed { .. } => Some(Some(clock::now())),
            _ => None,
        });
        let Some(closed) = closed.await? else { bail!("the window was kept open, though a mirror is fresh") };
        self.lines
            .say("window closed", "fresh mirrors take over, each for the files that it is proven to hold");
        Ok(closed)
    }

    /// Checks the mirrorlist: inside a window it names the node alone, outside of it the fresh mirrors before it. The
    /// metalink has the SHA-256 of the current repomd.xml.
    async fn listing(&self, is_open: bool) -> anyhow::Result<()> {
        let list = self.reader.text(&format!("mirrorlist?{REPO_QUERY}")).await?;
        let names = |base: &String| list.lines().any(|line| line.starts_with(base.as_str()));
        ensure!(names(&self.servers.node), "the mirrorlist doesn't name the node:\n{list}");
        for (index, base) in self.servers.mirrors.iter().enumerate() {
            let expected = !is_open && self.is_current(index);
            ensure!(
                names(base) == expected,
                "mirror {}: in the mirrorlist? expected {expected}:\n{list}",
                MIRRORS[index]
            );
        }
        let metalink = self.reader.text(&format!("metalink?{REPO_QUERY}")).await?;
        let repos = self.node.edge().published.repos.load();
        let current = repos.views()[REPO].history.current().context("no generation")?;
        ensure!(metalink.contains(&current.id.hex()), "the metalink hasn't the current repomd.xml's SHA-256");
        let fresh = (0..MIRRORS.len()).filter(|index| !is_open && self.is_current(*index));
        let fresh: Vec<&str> = fresh.map(|index| MIRRORS[index]).collect();
        match fresh.join(" and ") {
            none if none.is_empty() => self.lines.say("mirrorlist", "names the node alone"),
            names => self.lines.say("mirrorlist", format_args!("names {names}, then the node")),
        }
        Ok(())
    }

    /// Waits until a mirror is proven to hold the current generation.
    async fn proven(&self, mirror: usize) -> anyhow::Result<()> {
        let what = format!("mirror {} is proven fresh", MIRRORS[mirror]);
        within(&what, self.observe(|story| story.is_current(mirror)))
            .await
            .with_context(|| self.mirror(mirror).pairs[REPO].note.clone())
    }

    /// Says how a mirror stands, in the prober's words.
    fn tell_of(&self, mirror: usize, so: &str) {
        let state = self.mirror(mirror);
        self.lines
            .say(&format!("mirror {}", MIRRORS[mirror]), format_args!("{}{so}", state.pairs[REPO].note));
    }

    async fn observe(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn mirror(&self, index: usize) -> Arc<MirrorState> {
        self.node.edge().published.mirrors.load().states()[index].clone()
    }

    fn is_current(&self, mirror: usize) -> bool {
        self.mirror(mirror).is_current(REPO, self.sequence())
    }

    fn sequence(&self) -> u32 {
        self.node.edge().published.repos.load().views()[REPO].sequence()
    }
}

/// The next event that `pick` takes. A push that fails has gone wrong: the origin is whole at any time.
async fn next<T>(
    events: &mut broadcast::Receiver<Event>,
    what: &str,
    pick: impl Fn(&Event) -> Option<T>,
) -> anyhow::Result<T> {
    let picked = async {
        loop {
            let event = events.recv().await.context("no more events of pushes")?;
            if let Event::Failed { error, .. } = &event {
                bail!("the push failed: {error}");
            }
            if let Some(picked) = pick(&event) {
                return Ok(picked);
            }
        }
    };
    within(what, picked).await?
}

async fn within<T>(what: &str, step: impl Future<Output = T>) -> anyhow::Result<T> {
    let done = tokio::time::timeout(DEADLINE, step).await;
    done.map_err(|_| anyhow::anyhow!("{what}: not within {} s", DEADLINE.as_secs()))
}

/// Seconds since then.
fn age(then: Timestamp) -> String {
    seconds(clock::now().since(then))
}
