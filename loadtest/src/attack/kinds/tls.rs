//! TLS: handshakes that cost the server CPU, and sessions that cost it memory.

use super::super::link::Appetite;
use super::super::party::{Opening, Party};
use super::{Kind, PLAIN};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::Write;

/// Connections that are held.
const HELD: usize = 1000;

const TLS: Kind = Kind { is_tls: true, ..PLAIN };

pub const HELLOS: Kind = Kind {
    name: "hellos",
    what: "TLS hellos whose answers aren't waited for",
    is_cpu: true,
    is_quick: true,
    run: greets,
    ..TLS
};

pub const HALF_TLS: Kind = Kind {
    name: "half-tls",
    what: "1000 connections that have sent a hello and stay",
    is_for_seats: true,
    run: |party| {
        let hello = hello(party)?;
        let opening = Opening { to_tls: true, ..Opening::plain(&hello) };
        party.holds(HELD, &opening, b"", Appetite::Nothing)
    },
    ..TLS
};

pub const STALLS: Kind = Kind {
    name: "tls-stalls",
    what: "1000 downloads of 100 MB over TLS that aren't read",
    run: |party| {
        let head = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", party.scene.large[0]);
        let opening = Opening::tls(&party.scene.http1, head.as_bytes());
        party.holds(HELD, &opening, b"", Appetite::Nothing)
    },
    ..TLS
};

/// A hello, as bytes: no server can tell that they are the same each time.
fn hello(party: &Party) -> anyhow::Result<Vec<u8>> {
    let name = ServerName::try_from("localhost")?;
    let mut tls = ClientConnection::new(party.scene.http1.clone(), name)?;
    let mut hello = Vec::new();
    tls.write_tls(&mut hello)?;
    Ok(hello)
}

fn greets(party: &Party) -> anyhow::Result<()> {
    let hello = hello(party)?;
    party.is_on();
    for number in 0.. {
        if party.is_over() {
            break;
        }
        // Over loopback it is connected at once, or the server's queue is full.
        if let Ok(mut socket) = party.socket(number, party.tls, None) {
            let _ = socket.write_all(&hello);
            party.acted(1);
        }
    }
    Ok(())
}
