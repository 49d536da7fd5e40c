//! A server that takes part, ready to be asked.

use super::child::Running;
use super::work::{Name, Spoken};
use crate::cpu::{self, Used};
use anyhow::{Context, ensure};
use freshet::clock::monotonic;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than any of them keeps a batch of log lines.
const LOGGED_WITHIN: Duration = Duration::from_secs(10);
/// What a server that nobody asks may use of a core.
const CALM: f64 = 0.03;
const CALM_FOR: Duration = Duration::from_secs(1);
/// One that isn't calm by then never is.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// It ends when this is dropped.
pub struct Server {
    pub name: Name,
    /// What it says of its version.
    pub version: String,
    plain: SocketAddr,
    tls: Option<SocketAddr>,
    /// The server's own, and what it needs beside it (varnishncsa).
    running: Vec<Running>,
    logs: Vec<PathBuf>,
}

impl Server {
    pub fn new(name: Name, version: String, plain: SocketAddr, running: Vec<Running>) -> Self {
        Self { name, version, plain, tls: None, running, logs: Vec::new() }
    }

    /// It speaks TLS there, too.
    #[must_use]
    pub fn with_tls(self, tls: SocketAddr) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// It writes its access log there.
    #[must_use]
    pub fn with_log(mut self, log: PathBuf) -> Self {
        self.logs.push(log);
        self
    }

    /// Where to ask.
    pub fn address(&self, spoken: Spoken) -> anyhow::Result<SocketAddr> {
        match spoken {
            Spoken::Plain => Ok(self.plain),
            Spoken::Tls | Spoken::Http2 => self.tls.context("it has no TLS"),
        }
    }

    /// All its processes.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let families = self.running.iter().map(|running| cpu::family(running.pid()));
        Ok(families.collect::<anyhow::Result<Vec<_>>>()?.concat())
    }

    /// Empties its logs, which it appends to: some hundred megabytes a round would fill the disk, and be written to it in
    /// the midst of somebody else's.
    pub fn empty_logs(&self) -> anyhow::Result<()> {
        for log in &self.logs {
            File::options()
                .write(true)
                .open(log)
                .and_then(|file| file.set_len(0))
                .with_context(|| format!("{} writes no access log to {}", self.name.word(), log.display()))?;
        }
        Ok(())
    }

    /// Waits until it has done what a start brings with it; returns which share of a core it goes on using.
    pub fn settle(&self, stop: &AtomicBool) -> anyhow::Result<f64> {
        let begun = monotonic();
        loop {
            let pids = self.pids()?;
            let (from, before) = (monotonic(), Used::by(&pids)?);
            std::thread::sleep(CALM_FOR);
            let share = Used::by(&pids)?.since(&before) / from.elapsed().as_secs_f64();
            if share < CALM || from > begun + SETTLED_WITHIN {
                return Ok(share);
            }
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        }
    }

    /// Waits until it has written something to its access log: it does log.
    pub fn wait_logged(&self) -> anyhow::Result<()> {
        let begun = monotonic();
        for log in &self.logs {
            while log.metadata()?.len() == 0 {
                ensure!(monotonic() < begun + LOGGED_WITHIN, "{} writes no access log", self.name.word());
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }
}
