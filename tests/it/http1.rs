//! HTTP/1 towards clients: what is on its way, and how it ends.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::{scratch, wait_until};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

const LENGTH: usize = 12_000_000;

#[test]
fn a_head_goes_out_before_its_body_is_there() {
    let tree = scratch();
    fs::write(tree.path().join("slow"), b"at last").unwrap();
    let origin = Origin::serve(tree.path());
    origin.act("slow", [Act::Gate(0)]);
    let node = Node::start(&config::cached(&origin, ""));
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(client::head("GET", "/slow", &[])).unwrap();
    let head = connection.response_head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("7")));
    origin.release("slow");
    assert_eq!(connection.read(7).unwrap(), b"at last");
}

#[test]
fn pipelines_take_turns_request_by_request() {
    const REQUESTS: usize = 400;
    let tree = scratch();
    let node = Node::start(&config::in_place(tree.path(), "node.workers = 1"));
    let pipeline = |path| client::head("HEAD", path, &[("Host", "node")]).repeat(REQUESTS);
    let mut clients = ["/one", "/two"].map(|path| (path, Connection::open(node.http()).unwrap()));
    for (path, connection) in &mut clients {
        connection.send(pipeline(path)).unwrap();
    }
    for (_, connection) in &mut clients {
        (0..REQUESTS).for_each(|_| assert_eq!(connection.response("HEAD").unwrap().status, 404));
    }
    let paths = || -> Vec<String> {
        let lines = node.access();
        lines.iter().filter_map(|line| line["path"].as_str().map(ToOwned::to_owned)).collect()
    };
    wait_until("all are logged", || paths().len() == 2 * REQUESTS);
    let paths = paths();
    // Where one has begun and the other hasn't ended.
    let begins = |path: &str| paths.iter().position(|logged| logged == path).unwrap();
    let ends = |path: &str| paths.iter().rposition(|logged| logged == path).unwrap();
    let beside = begins("/one").max(begins("/two"))..=ends("/one").min(ends("/two"));
    let both = &paths[beside];
    let changes = both.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(both.len() > REQUESTS / 2, "they were there together: {}", both.len());
    assert!(changes * 4 > both.len(), "{changes} changes in {} requests", both.len());
}

#[test]
fn many_small_ranges_take_turns_with_other_requests() {
    const OTHERS: usize = 2000;
    let tree = scratch();
    fs::write(tree.path().join("file"), vec![b'x'; 4096]).unwrap();
    let node = Node::start(&config::in_place(tree.path(), "node.workers = 1"));
    let ranges: Vec<String> = (0..200).map(|number| format!("{0}-{0}", 2 * number)).collect();
    let ranges = format!("bytes={}", ranges.join(","));
    let wanted = client::head("GET", "/file", &[("Host", "node"), ("Range", &ranges)]).repeat(6);
    let other = client::head("HEAD", "/other", &[("Host", "node")]).repeat(OTHERS);
    let mut others = Connection::open(node.http()).unwrap();
    let mut ranged = Connection::open(node.http()).unwrap();
    others.send(other).unwrap();
    ranged.send(wanted).unwrap();
    (0..6).for_each(|_| assert_eq!(ranged.response("GET").unwrap().status, 206));
    (0..OTHERS).for_each(|_| assert_eq!(others.response("HEAD").unwrap().status, 404));
    let ranged = || -> Vec<usize> {
        let lines = node.access();
        (0..lines.len()).filter(|line| lines[*line]["path"] == "/file").collect()
    };
    wait_until("all are logged", || node.access().len() == OTHERS + 6);
    let ranged = ranged();
    // After the first, and as long as the others go on.
    let between: Vec<usize> = ranged.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(between[..3].iter().all(|others| *others > 20), "others between two of them: {between:?}");
}

#[test]
fn what_ends_with_its_connection_is_reset_where_it_is_cut() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let chunk = format!("{LENGTH:x}\r\n").into_bytes();
    let answer = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        &chunk[..],
        &vec![b'x'; LENGTH],
        b"\r\n0\r\n\r\n",
    ];
    origin.act("endless", [Act::Raw(answer.concat())]);
    let node = Node::start(&config::cached(&origin, "http.write_timeout = \"500ms\""));
    let mut stream = TcpStream::connect(node.http()).unwrap();
    stream.write_all(b"GET /endless HTTP/1.0\r\n\r\n").unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200 OK\r\n"));
    node.wait_access("the stalled reader is given up", |line| {
        line["path"] == "/endless" && line["complete"] == false
    });
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn what_a_client_says_after_its_last_request_costs_it_nothing() {
    let tree = scratch();
    let body: Vec<u8> = (0..LENGTH).map(|i| (i * 7 + i / 251) as u8).collect();
    fs::write(tree.path().join("f"), &body).unwrap();
    let node = Node::start(&config::in_place(tree.path(), ""));
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(client::head("GET", "/f", &[("Connection", "close")])).unwrap();
    connection.response_head().unwrap();
    let mut got = connection.read(1_000_000).unwrap();
    connection.send("\r\n").unwrap();
    // Until the node has nothing more to do, and the kernel has the rest.
    while !node.access().iter().any(|line| line["path"] == "/f") && got.len() + 100_000 < LENGTH {
        got.extend(connection.read(100_000).unwrap());
    }
    node.wait_access("it is complete", |line| line["path"] == "/f" && line["complete"] == true);
    got.extend(connection.read(LENGTH - got.len()).unwrap());
    assert!(got == body);
}
