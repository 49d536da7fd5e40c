//! Files that have to be fetched, and requests that are given up: what they take is the origin's line.

use super::super::link::{Appetite, Link};
use super::super::origin::cold;
use super::super::party::{Flood, Opening, Party};
use super::{Kind, Line, PLAIN};
use freshet::clock::monotonic;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Files asked for at a time, and their MiB.
const FILES: usize = 300;
const FILE_MIB: u64 = 10;
/// A client of these leaves after it.
const STAY: Duration = Duration::from_millis(300);
/// Of a file of which parts are asked for.
const HUGE_MIB: u64 = 1024;
/// Ranges of one request: about 16 KB.
const RANGES: u64 = 1000;
/// Between two requests whose bytes at the origin are counted.
const PAUSE: Duration = Duration::from_millis(100);

/// An origin of 240 Mbit/s.
const NARROW: Line =
    Line { rate: 240_000_000 / 8, latency: Duration::from_millis(5), most_for_request: None };
/// Wide enough to show what a request costs.
const WIDE: Line = Line {
    rate: 2_000_000_000 / 8,
    latency: Duration::from_millis(5),
    // 2 MiB are fetched ahead at first, 8 of several ranges, and kernels hold some MiB.
    most_for_request: Some(16 << 20),
};
const FAR: Line = Line { latency: Duration::from_millis(50), ..NARROW };

pub const FILLS: Kind = Kind {
    name: "fills",
    what: "300 cold files of 10 MiB asked for and left, again and again",
    is_quick: true,
    origin: Some(NARROW),
    run: fills,
    ..PLAIN
};

pub const COLD_RANGES: Kind = Kind {
    name: "ranges",
    what: "1000 ranges of one byte each of a cold file of 1 GiB, left after 100 ms",
    origin: Some(WIDE),
    run: |party| {
        let ranges: Vec<String> = (0..RANGES).map(|number| format!("{0}-{0}", number * (1 << 20))).collect();
        gives_up(party, &ranges.join(","), Appetite::Bytes(4096))
    },
    ..PLAIN
};

pub const GIVEN_UP: Kind = Kind {
    name: "given-up",
    what: "a cold file of 1 GiB as `bytes=0-`, given up after 200 bytes",
    origin: Some(WIDE),
    run: |party| gives_up(party, "0-", Appetite::Bytes(200)),
    ..PLAIN
};

pub const HEADS: Kind = Kind {
    name: "heads",
    what: "HEADs of cold files, as fast as they are answered",
    origin: Some(FAR),
    run: heads,
    ..PLAIN
};

/// A name that was never asked for.
fn fresh(mib: u64) -> String {
    static NAME: AtomicU64 = AtomicU64::new(0);
    cold(mib, NAME.fetch_add(1, Ordering::Relaxed))
}

fn fills(party: &Party) -> anyhow::Result<()> {
    let mut scratch = vec![0; 64 * 1024];
    while !party.is_over() {
        let open = |number| {
            let head = format!("GET {} HTTP/1.1\r\nHost: node\r\n\r\n", fresh(FILE_MIB));
            party.open(number, &Opening::plain(head.as_bytes()))
        };
        let mut links: Vec<Link> = (0..FILES).filter_map(open).collect();
        party.acted(links.len() as u64);
        let begun = monotonic();
        while begun.elapsed() < STAY {
            links.retain_mut(|link| link.turn(Appetite::Nothing, &mut scratch).is_ok());
            std::thread::sleep(STAY / 20);
        }
        party.is_on();
    }
    Ok(())
}

/// Asks for ranges of a file at a time, and leaves it.
fn gives_up(party: &Party, ranges: &str, appetite: Appetite) -> anyhow::Result<()> {
    let mut scratch = vec![0; 64 * 1024];
    for number in 0.. {
        let head = format!("GET {} HTTP/1.1\r\nHost: node\r\nRange: bytes={ranges}\r\n\r\n", fresh(HUGE_MIB));
        let mut link = party.open(number, &Opening::plain(head.as_bytes()));
        party.acted(1);
        let begun = monotonic();
        while begun.elapsed() < PAUSE {
            let enough = match (&mut link, appetite) {
                (Some(link), Appetite::Bytes(most)) => {
                    let is_open = link.turn(appetite, &mut scratch).is_ok();
                    !is_open || link.taken >= most as u64
                }
                _ => true,
            };
            if enough {
                link = None;
            }
            std::thread::sleep(PAUSE / 50);
        }
        party.is_on();
        if party.is_over() {
            break;
        }
    }
    Ok(())
}

fn heads(party: &Party) -> anyhow::Result<()> {
    let flood =
        Flood { opening: Opening::plain(b""), connections: FILES, appetite: Appetite::All, lifetime: None };
    party.floods(&flood, |_, out| {
        let head = write!(out, "HEAD {} HTTP/1.1\r\nHost: node\r\n\r\n", fresh(FILE_MIB));
        head.expect("writing to memory works");
        1
    })
}
