//! HTTP/2: what a client that doesn't take what it asked for, or sends what asks for nothing, may cost.

use super::support::http2::{DATA, GOAWAY, HEADERS, Http2, PING, RST_STREAM};
use super::support::node::Node;
use super::support::scratch;
use super::tls::{certificate, secure_node};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub const LENGTH: usize = 4 << 20;
/// As many streams as the node allows.
pub const STREAMS: u32 = 64;

/// A node with a file of 4 MiB, and the certificate to trust.
pub fn node(dir: &Path, more: &str) -> (Node, PathBuf) {
    certificate(dir);
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("large"), vec![7; LENGTH]).unwrap();
    (secure_node(dir, &format!("{more}\n[origin]\npath = {tree:?}\n")), dir.join("cert.pem"))
}

/// Asks for the file on so many streams, and takes no more than the one byte of each that the window allows.
pub fn stalled(node: &Node, certificate: &Path, streams: u32) -> Http2 {
    try_stalled(node, certificate, streams).unwrap()
}

/// The same, or why the node has ended the connection.
pub fn try_stalled(node: &Node, certificate: &Path, streams: u32) -> io::Result<Http2> {
    let mut http2 = Http2::open(node.https(), certificate, 1);
    for number in 0..streams {
        http2.try_get(2 * number + 1, "/large")?;
    }
    let mut began = 0;
    while began < streams {
        began += u32::from(http2.frame()?.kind == DATA);
    }
    Ok(http2)
}

#[test]
fn streams_that_are_not_read_hold_little_memory_and_stop_no_other() {
    const CONNECTIONS: u64 = 20;
    let dir = scratch();
    let (mut node, certificate) = node(dir.path(), "");
    let _first = stalled(&node, &certificate, STREAMS);
    let before = node.memory_bytes();
    let mut all: Vec<Http2> = (0..CONNECTIONS).map(|_| stalled(&node, &certificate, STREAMS - 1)).collect();
    let each = node.memory_bytes().saturating_sub(before) / CONNECTIONS;
    // 64 KiB of bodies; the rest is TLS, heads of 64 requests, and what h2 keeps of a stream.
    assert!(each < 1 << 20, "{each} bytes for each connection");

    let http2 = &mut all[0];
    let stream = 2 * STREAMS + 1;
    assert_eq!(download(http2, stream), LENGTH);
}

#[test]
fn pings_do_not_keep_a_connection_whose_streams_are_not_read() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "[http]\nlisten = []\nwrite_timeout = \"2s\"");
    let mut http2 = stalled(&node, &certificate, 1);
    http2.patient_for(Duration::from_millis(100));
    let ended = loop {
        if let Err(error) = http2.send(PING, 0, &[1; 8]) {
            break error;
        }
        match http2.frame() {
            Err(error) if ![ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                break error;
            }
            // A tenth of a second until the next one.
            _ => while http2.frame().is_ok() {},
        }
    };
    println!("{ended}");
    assert_eq!(node.metric("freshet_http2_floods_total"), Some(0.0), "it was too slow, not too busy");
}

#[test]
fn a_connection_whose_client_takes_nothing_is_reset() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "[http]\nlisten = []\nwrite_timeout = \"2s\"");
    let mut http2 = stalled(&node, &certificate, 1);
    let ended = loop {
        if let Err(error) = http2.frame() {
            break error;
        }
    };
    // Closed, the kernel would go on sending what it has.
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");
}

#[test]
fn a_request_with_a_body_is_refused_at_its_end() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "");
    let mut http2 = Http2::open(node.https(), &certificate, 1 << 20);
    for stream in [1, 3, 5] {
        http2.begin(stream, "/large");
        http2.send(DATA, stream, b"half").unwrap();
        http2.end(stream, b"and half");
        let mut frames = Vec::new();
        loop {
            let frame = http2.frame().unwrap();
            let ends = frame.stream == stream && (frame.is_last() || frame.kind == RST_STREAM);
            frames.push(frame);
            if ends {
                break;
            }
        }
        assert!(frames.iter().all(|frame| frame.kind != RST_STREAM), "{frames:?}");
        assert!(frames.iter().any(|frame| frame.stream == stream && frame.kind == HEADERS), "{frames:?}");
    }
    let refused = node.wait_access("they are refused", |line| line["status"] == 400);
    assert_eq!(refused["protocol"], "2");
}

/// What came of a request for the large file: how much, and whether all.
pub fn download(http2: &mut Http2, stream: u32) -> usize {
    http2.get(stream, "/large");
    http2.open_window(stream, u32::try_from(LENGTH).unwrap());
    let mut got = 0;
    loop {
        let frame = http2.frame().unwrap();
        assert!(frame.stream != stream || frame.kind != RST_STREAM, "{frame:?}");
        if frame.stream == stream {
            got += if frame.kind == DATA { frame.payload.len() } else { 0 };
            if frame.is_last() {
                return got;
            }
        }
    }
}

#[test]
fn a_connection_that_gives_its_seat_up_has_sent_all() {
    const HERE: [u8; 4] = [127, 0, 0, 1];
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "[http]\nlisten = []\nmax_connections_per_network = 2");
    // Two more than have seats, all of one network: each that has its answer is asked for its seat at once.
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (addr, certificate) = (node.https(), certificate.clone());
            thread::spawn(move || {
                assert_eq!(addr.ip(), IpAddr::from(HERE));
                for _ in 0..20 {
                    let mut http2 = Http2::open(addr, &certificate, 1);
                    assert_eq!(download(&mut http2, 1), LENGTH);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_flood_of_frames_that_ask_for_nothing_is_cut_off_with_a_word() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "");
    let mut http2 = stalled(&node, &certificate, 1);
    // It may end before it has taken all.
    let _ = (0..5000).try_for_each(|_| http2.send(PING, 0, &[1; 8]));
    let calm = std::iter::from_fn(|| http2.frame().ok()).find(|frame| frame.kind == GOAWAY);
    let calm = calm.expect("a GOAWAY");
    assert_eq!(calm.payload[4..8], [0, 0, 0, 0xb], "ENHANCE_YOUR_CALM");
    assert_eq!(node.metric("freshet_http2_floods_total"), Some(1.0));
    stalled(&node, &certificate, 1);
}
