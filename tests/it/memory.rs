//! What connections may hold of memory: `http.memory`.

use super::http2::{LENGTH, STREAMS, download, node, stalled, try_stalled};
use super::support::client::{Connection, head};
use super::support::http2::{Http2, Tls, tls};
use super::support::node::Node;
use super::support::{config, scratch, wait_until};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CEILING: u64 = 16 << 20;
const HELD: &str = "freshet_connections_memory_bytes";
const ENDED: &str = "freshet_connections_ended_for_memory_total";

/// Asks for the file over HTTP/1.1, and reads no more than the first bytes of the answer.
fn stalled_reader(node: &Node, certificate: &Path) -> std::io::Result<Tls> {
    let mut tls = tls(TcpStream::connect(node.https())?, certificate, "http/1.1");
    tls.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    tls.read_exact(&mut [0; 12])?;
    Ok(tls)
}

/// Sets a flag when it is dropped.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn held(node: &Node) -> u64 {
    node.metric(HELD).expect("a metric") as u64
}

#[test]
fn connections_that_take_nothing_stay_below_the_ceiling_and_others_are_served() {
    let dir = scratch();
    let (mut node, certificate) = node(dir.path(), "[http]\nlisten = []\nmemory = \"16 MiB\"");
    let first = stalled(&node, &certificate, STREAMS);
    let before = node.memory_bytes();
    let is_over = AtomicBool::new(false);
    let (mut readers, mut many) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let mut downloads = 0;
            while downloads < 3 || !is_over.load(Ordering::Relaxed) {
                let mut http2 = Http2::open(node.https(), &certificate, 1 << 20);
                assert_eq!(download(&mut http2, 1), LENGTH);
                downloads += 1;
            }
        });
        // Also where an assertion fails.
        let over = Sets(&is_over);
        for number in 0..240 {
            if number % 2 == 0 {
                many.extend(try_stalled(&node, &certificate, STREAMS).ok());
            } else {
                readers.extend(stalled_reader(&node, &certificate).ok());
            }
            let held = held(&node);
            assert!(held <= CEILING, "{held} bytes are held");
        }
        drop(over);
        honest.join().unwrap();
    });
    let ended = node.metric(ENDED).unwrap();
    assert!(ended > 0.0);
    let more = node.memory_bytes().saturating_sub(before);
    println!("{more} bytes more, {} held, {ended} ended", held(&node));
    assert!(more < 3 * CEILING, "{more} bytes more in the process");
    drop((readers, many));
    drop(first);
    wait_until("all is given back", || held(&node) == 0);
}

#[test]
fn a_connection_that_ends_for_memory_is_reset() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "[http]\nlisten = []\nmemory = \"16 MiB\"");
    let mut all = Vec::new();
    wait_until("some have ended", || {
        all.extend(try_stalled(&node, &certificate, STREAMS).ok());
        node.metric(ENDED) > Some(0.0)
    });
    let ends = all.iter_mut().map(|http2| {
        http2.patient_for(Duration::from_millis(100));
        loop {
            if let Err(error) = http2.frame() {
                break error.kind();
            }
        }
    });
    let goes_on = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    let ended: Vec<ErrorKind> = ends.filter(|kind| !goes_on.contains(kind)).collect();
    assert!(!ended.is_empty() && ended.iter().all(|kind| *kind == ErrorKind::ConnectionReset), "{ended:?}");
}

#[test]
fn a_connection_at_rest_holds_nothing() {
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "[http]\nlisten = []");
    let mut http2 = Http2::open(node.https(), &certificate, 1 << 20);
    assert_eq!(download(&mut http2, 1), LENGTH);
    wait_until("it is at rest", || held(&node) == 0);
    let reader = stalled_reader(&node, &certificate).unwrap();
    wait_until("one stalls", || held(&node) >= 40 << 10);
    let one = held(&node);
    assert!(one <= 88 << 10, "{one} bytes of one that stalls");
    drop(reader);
    wait_until("it has ended", || held(&node) == 0);
}

#[test]
fn a_listing_that_is_not_read_counts_once_for_all_that_have_it_and_readers_end() {
    // As many bytes as the names alone take, which stand in it twice.
    const LISTING: u64 = 1500 * 400;
    const LISTINGS: u64 = CEILING / LISTING;
    let dir = scratch();
    for directory in 0..LISTINGS {
        let directory = dir.path().join(format!("{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..1500 {
            fs::write(directory.join(format!("{file:0200}")), "").unwrap();
        }
    }
    let node = Node::start(&config::in_place(dir.path(), "http.memory = \"16 MiB\""));
    let ask = |directory: u64| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&node.http().into()).unwrap();
        let mut stream = TcpStream::from(socket);
        write!(stream, "GET /{directory}/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    };
    let mut readers: Vec<TcpStream> = (0..5).map(|_| ask(0)).collect();
    let one = held(&node);
    assert!((LISTING..2 * LISTING).contains(&one), "{one} bytes of five that read the same one");
    for directory in 1..LISTINGS {
        readers.push(ask(directory));
        let held = held(&node);
        assert!(held <= CEILING, "{held} bytes are held");
    }
    wait_until("some have ended", || node.metric(ENDED) > Some(0.0));
    drop(readers);
    wait_until("all is given back", || held(&node) == 0);
}

#[test]
fn the_heads_of_many_ranges_count() {
    const RANGES: usize = 1000;
    const ASKED: u32 = 16;
    let dir = scratch();
    let (node, certificate) = node(dir.path(), "");
    let mut http2 = Http2::open(node.https(), &certificate, 1);
    let ranges: Vec<String> = (0..RANGES).map(|number| format!("{0}-{0}", 2 * number)).collect();
    let ranges = format!("bytes={}", ranges.join(","));
    for number in 0..ASKED {
        http2.get_ranges(2 * number + 1, "/large", &ranges);
    }
    // Each part has a head of a hundred bytes and more.
    wait_until("they are answered", || held(&node) > (ASKED as usize * RANGES * 100) as u64);
    drop(http2);
    wait_until("all is given back", || held(&node) == 0);
}

#[test]
fn a_long_head_leaves_nothing_behind() {
    const CONNECTIONS: usize = 300;
    const LONG: usize = 60_000;
    let dir = scratch();
    fs::write(dir.path().join("small"), "small").unwrap();
    let mut node = Node::start(&config::in_place(dir.path(), ""));
    let long = "a".repeat(LONG);
    let addr = node.http();
    let ask = || {
        let mut connection = Connection::open(addr).unwrap();
        connection.send(head("GET", "/small", &[("User-Agent", &long)])).unwrap();
        assert_eq!(connection.response("GET").unwrap().text(), "small");
        connection
    };
    // What many at once take of the allocator.
    drop((0..10).map(|_| ask()).collect::<Vec<_>>());
    let before = node.memory_bytes();
    let idle = (0..CONNECTIONS).map(|_| ask()).collect::<Vec<_>>();
    let more = node.memory_bytes().saturating_sub(before);
    assert!(more < (CONNECTIONS * LONG / 3) as u64, "{more} bytes of {CONNECTIONS} idle connections");
    drop(idle);
    let line = node.wait_access("it is logged", |line| line["path"] == "/small");
    assert_eq!(line["user_agent"].as_str().unwrap().len(), 512);
}
