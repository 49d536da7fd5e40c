//! Requests that cost more to answer than to send.

use super::super::link::Appetite;
use super::super::party::{Flood, Opening, Party};
use super::{Kind, PLAIN};
use crate::load::{Engine, Pace, Plan, Wire};
use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// As many connections as the honest clients beside them have.
const FLOODS: usize = super::super::honest::CLOSED;
/// Connections that read as fast as they can.
const READERS: usize = 400;
/// Requests of a pipeline.
const PIPELINE: usize = 5000;
/// How long a pipeline is kept that is no longer answered.
const PIPELINE_FOR: Duration = Duration::from_secs(1);

const CPU: Kind = Kind { is_cpu: true, ..PLAIN };

pub const EGRESS: Kind = Kind {
    name: "egress",
    what: "400 connections that want all of a capacity of 50 Mbit/s",
    capacity: "50 Mbit/s",
    run: downloads,
    ..PLAIN
};

pub const MISSING: Kind = Kind {
    name: "missing",
    what: "requests for what isn't there, as fast as they are answered",
    run: |party| {
        let head = b"GET /none HTTP/1.1\r\nHost: node\r\n\r\n";
        repeats(party, &head.repeat(16), 16, Appetite::All)
    },
    ..CPU
};

pub const PIPELINES: Kind = Kind {
    name: "pipelines",
    what: "5000 requests in one write, whose answers aren't read",
    is_quick: true,
    run: |party| {
        let head = format!("GET {} HTTP/1.1\r\nHost: node\r\n\r\n", party.scene.small);
        repeats(party, &head.into_bytes().repeat(PIPELINE), PIPELINE as u64, Appetite::Nothing)
    },
    ..CPU
};

pub const HOT_RANGES: Kind = Kind {
    name: "hot-ranges",
    what: "200 ranges of one byte each of a file in memory",
    run: |party| {
        let ranges: Vec<String> = (0..200).map(|number| format!("{0}-{0}", 2 * number)).collect();
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: node\r\nRange: bytes={}\r\n\r\n",
            party.scene.large[0],
            ranges.join(",")
        );
        repeats(party, head.as_bytes(), 1, Appetite::All)
    },
    ..CPU
};

pub const AGENTS: Kind =
    Kind { name: "agents", what: "a User-Agent of its own in each request", run: agents, ..CPU };

/// The same over and over.
fn repeats(party: &Party, batch: &[u8], acts: u64, appetite: Appetite) -> anyhow::Result<()> {
    let lifetime = (appetite == Appetite::Nothing).then_some(PIPELINE_FOR);
    let flood = Flood { opening: Opening::plain(b""), connections: FLOODS, appetite, lifetime };
    party.floods(&flood, |_, out| {
        out.extend_from_slice(batch);
        acts
    })
}

fn agents(party: &Party) -> anyhow::Result<()> {
    // One count for all runs: none is known to a server from an earlier one.
    static AGENT: AtomicU64 = AtomicU64::new(0);
    let path = &party.scene.small;
    let flood =
        Flood { opening: Opening::plain(b""), connections: FLOODS, appetite: Appetite::All, lifetime: None };
    party.floods(&flood, |_, out| {
        for _ in 0..16 {
            let agent = AGENT.fetch_add(1, Ordering::Relaxed);
            let head =
                write!(out, "GET {path} HTTP/1.1\r\nHost: node\r\nUser-Agent: libdnf ({agent})\r\n\r\n");
            head.expect("writing to memory works");
        }
        16
    })
}

/// Asks as fast as there are answers. What the node does to it is not what is measured.
fn downloads(party: &Party) -> anyhow::Result<()> {
    let mut engine = Engine::connect(Plan {
        target: party.plain,
        host: party.plain.to_string(),
        paths: party.scene.large.clone(),
        connections: READERS,
        wire: Wire::Plain,
        status: 200,
        pace: Pace::Closed,
        verify: None,
        sources: party.scene.sources.iter().copied().map(IpAddr::V4).collect(),
        // It ends with the measurement.
        stop: party.ended.clone(),
    })?;
    party.acted(READERS as u64);
    party.is_on();
    // Broken off is how it ends.
    let _ = engine.run(party.longest);
    Ok(())
}
