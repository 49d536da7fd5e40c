//! TLS handshakes: a network that floods delays its own.

use super::http2::LENGTH;
use super::support::client::connect_from;
use super::support::http2::{connection, settings, tls};
use super::support::node::Node;
use super::support::{scratch, wait_until};
use super::tls::certificate;
use rustls::{HandshakeKind, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FLOOD: Ipv4Addr = Ipv4Addr::new(127, 7, 0, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 8, 0, 1);
const WAITING: &str = "freshet_tls_handshakes_waiting";
const DELAYED: &str = "freshet_tls_handshakes_delayed_total";

/// A node with one thread that serves, and the certificate to trust.
fn node(dir: &Path, key: &str) -> (Node, PathBuf) {
    certificate(dir);
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("large"), vec![7; LENGTH]).unwrap();
    let text = format!(
        "[node]\nname = \"node\"\nstate = \"{{dir}}/state\"\nworkers = 1\n\
         [https]\nlisten = [\"{{https}}\"]\ncertificate = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"\n{key}\n\
         [admin]\nlisten = \"{{admin}}\"\n[origin]\npath = {tree:?}\n",
        dir.display()
    );
    (Node::start(&text), dir.join("cert.pem"))
}

/// What a client sends first.
fn hello(certificate: &Path) -> Vec<u8> {
    let mut hello = Vec::new();
    connection(&settings(certificate, "http/1.1")).write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn a_network_that_floods_with_hellos_delays_its_own_handshakes_and_no_other() {
    let dir = scratch();
    // So 48 flights may come at once, and 6 in a second.
    let (node, certificate) = node(dir.path(), "handshakes_per_network = 2");
    let hello = hello(&certificate);
    let flood: Vec<TcpStream> = (0..98)
        .map(|_| {
            let mut tcp = connect_from(FLOOD, node.https()).unwrap();
            tcp.write_all(&hello).unwrap();
            tcp
        })
        .collect();
    wait_until("the flood waits", || node.metric(WAITING) >= Some(30.0) && node.metric(DELAYED) >= Some(1.0));
    let mut honest = tls(connect_from(ELSEWHERE, node.https()).unwrap(), &certificate, "http/1.1");
    honest.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut body = Vec::new();
    honest.read_to_end(&mut body).unwrap();
    assert!(body.len() > LENGTH);
    assert!(node.metric(WAITING) > Some(0.0), "the flood went first");
    // The last of it has its turn, too.
    let mut flood = flood;
    let mut last = flood.pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    last.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_handshake_that_waits_for_the_nodes_turn_is_not_slow_and_goes_before_those_that_begin() {
    const CLIENTS: usize = 16;
    let dir = scratch();
    // So 24 flights may come at once, and 3 in a second.
    let (node, certificate) =
        node(dir.path(), "handshakes_per_network = 1\n[http]\nlisten = []\nhead_timeout = \"1s\"");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = tls(connect_from(FLOOD, node.https()).unwrap(), &certificate, "http/1.1");
            client.conn.write_tls(&mut client.sock).unwrap();
            client
        })
        .collect();
    for client in &clients {
        client.sock.peek(&mut [0]).expect("an answer to the first flight");
    }
    // Of the second flights eight or more have to wait, the last one for more than two seconds. Others begin meanwhile.
    let mut others: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut other = connect_from(FLOOD, node.https()).unwrap();
            other.write_all(&hello(&certificate)).unwrap();
            other
        })
        .collect();
    for client in &mut clients {
        client.write_all(b"HEAD /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    }
    for client in &mut clients {
        client.read_exact(&mut [0; 12]).expect("an answer");
    }
    assert!(node.metric(DELAYED) >= Some(1.0), "none had to wait");
    assert!(others.iter_mut().any(|other| matches!(other.read(&mut [0]), Ok(0) | Err(_))), "all went before");
}

#[test]
fn handshakes_of_others_cost_no_client_its_session() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "");
    let known = settings(&certificate, "http/1.1");
    let ask = || {
        let tcp = TcpStream::connect(node.https()).unwrap();
        let mut tls = StreamOwned::new(connection(&known), tcp);
        tls.write_all(b"HEAD /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        tls.read_to_end(&mut Vec::new()).unwrap();
        tls.conn.handshake_kind()
    };
    assert_eq!(ask(), Some(HandshakeKind::Full));
    for _ in 0..300 {
        let mut other = tls(TcpStream::connect(node.https()).unwrap(), &certificate, "http/1.1");
        other.write_all(b"HEAD /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        other.read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!(ask(), Some(HandshakeKind::Resumed));
}
