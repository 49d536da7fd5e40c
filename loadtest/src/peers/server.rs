//! A server that takes part, ready to be asked.

use super::child::Running;
use super::work::{Name, Spoken};
use crate::cpu;
use anyhow::Context;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;

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

    /// Bytes in its logs: it does write them.
    pub fn logged_bytes(&self) -> anyhow::Result<u64> {
        self.logs.iter().map(|log| Ok(log.metadata()?.len())).sum()
    }
}
