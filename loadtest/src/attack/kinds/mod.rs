//! The attacks: what each is, and what measuring it needs. The modules have how they are made.

mod connections;
mod fills;
mod http2;
mod requests;
mod tls;

use super::party::Party;
use std::time::Duration;

/// An attack.
pub struct Kind {
    /// As on the command line.
    pub name: &'static str,
    /// What it is, for the help and the table.
    pub what: &'static str,
    /// Honest clients beside it speak TLS.
    pub is_tls: bool,
    /// It takes CPU: honest clients are to have a fair half of the node's core.
    pub is_cpu: bool,
    /// It is one of those of the short form.
    pub is_quick: bool,
    /// Seats are so few that an attack from ten networks can take all.
    pub is_for_seats: bool,
    /// The node's `egress.capacity`.
    pub capacity: &'static str,
    /// It asks for files that have to be fetched.
    pub origin: Option<Line>,
    /// Makes it, until the party is over.
    pub run: fn(&Party) -> anyhow::Result<()>,
}

/// An origin's line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Bytes a second.
    pub rate: u64,
    /// Before each answer.
    pub latency: Duration,
    /// What a request may cost the origin, in bytes of bodies, where that is what is attacked.
    pub most_for_request: Option<u64>,
}

const PLAIN: Kind = Kind {
    name: "",
    what: "",
    is_tls: false,
    is_cpu: false,
    is_quick: false,
    is_for_seats: false,
    capacity: "10 Gbit/s",
    origin: None,
    run: |_| Ok(()),
};

/// All of them, in the order of the table.
pub const ALL: [&Kind; 24] = [
    &connections::SILENT,
    &connections::SLOW_HEADS,
    &connections::SLOW_READS,
    &connections::DRIPS,
    &connections::IDLE,
    &requests::EGRESS,
    &requests::MISSING,
    &requests::PIPELINES,
    &requests::HOT_RANGES,
    &requests::AGENTS,
    &fills::FILLS,
    &fills::COLD_RANGES,
    &fills::GIVEN_UP,
    &fills::HEADS,
    &tls::HELLOS,
    &tls::HALF_TLS,
    &tls::STALLS,
    &http2::STREAMS,
    &http2::PINGS,
    &http2::SETTINGS,
    &http2::WINDOWS,
    &http2::RESETS,
    &http2::CONTINUATIONS,
    &http2::HPACK,
];
