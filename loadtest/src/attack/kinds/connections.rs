//! Connections that are held: what they take is seats.

use super::super::link::Appetite;
use super::super::party::{Opening, Party};
use super::{Kind, PLAIN};

/// Twice the seats.
const HELD: usize = 1000;
/// Of a reader that takes a little now and then: small, so that the server notices how little it takes.
const SMALL_BUFFER: usize = 4096;

const SEATS: Kind = Kind { is_for_seats: true, ..PLAIN };

pub const SILENT: Kind = Kind {
    name: "silent",
    what: "1000 connections that send nothing",
    is_quick: true,
    run: |party| party.holds(HELD, &Opening::plain(b""), b"", Appetite::Nothing),
    ..SEATS
};

pub const SLOW_HEADS: Kind = Kind {
    name: "slow-heads",
    what: "1000 heads that come byte by byte",
    run: |party| {
        let opening = Opening::plain(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ");
        party.holds(HELD, &opening, b"a", Appetite::Nothing)
    },
    ..SEATS
};

pub const SLOW_READS: Kind = Kind {
    name: "slow-reads",
    what: "1000 downloads of 100 MB that aren't read",
    run: |party| party.holds(HELD, &Opening::plain(&large(party)), b"", Appetite::Nothing),
    ..SEATS
};

pub const DRIPS: Kind = Kind {
    name: "drips",
    what: "1000 downloads of 100 MB, of each of which 1 KiB is read now and then",
    run: |party| {
        let head = large(party);
        let opening = Opening { buffer: Some(SMALL_BUFFER), ..Opening::plain(&head) };
        party.holds(HELD, &opening, b"", Appetite::Bytes(1024))
    },
    ..SEATS
};

pub const IDLE: Kind = Kind {
    name: "idle",
    what: "1000 connections that have asked once and stay",
    run: |party| {
        let head = format!("GET {} HTTP/1.1\r\nHost: node\r\n\r\n", party.scene.small);
        party.holds(HELD, &Opening::plain(head.as_bytes()), b"", Appetite::All)
    },
    ..SEATS
};

fn large(party: &Party) -> Vec<u8> {
    format!("GET {} HTTP/1.1\r\nHost: node\r\n\r\n", party.scene.large[0]).into_bytes()
}
