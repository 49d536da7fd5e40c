//! Who may be connected: so many of a network, so many in all, and who gives a seat up.

use super::support::client::{Connection, head};
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{config, scratch, wait_until};
use std::fs;
use std::net::Ipv4Addr;
use tempfile::TempDir;

const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 200);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);
/// More than sockets and their queues hold.
const LARGE: usize = 64 << 20;

/// A node that serves a small file and a large one, idle connections for long.
fn node(more: &str) -> (Node, TempDir) {
    let dir = scratch();
    fs::write(dir.path().join("small"), "small").unwrap();
    fs::write(dir.path().join("large"), vec![7; LARGE]).unwrap();
    let keys = format!("http.idle_timeout = \"10m\"\nhttp.write_timeout = \"10m\"\n{more}");
    (Node::start(&config::in_place(dir.path(), &keys)), dir)
}

fn small(connection: &mut Connection) {
    assert_eq!(connection.request("GET", "/small", &[]).unwrap().text(), "small");
}

/// Asks for the large file and reads no more than its head.
fn busy(node: &Node, source: Ipv4Addr) -> Connection {
    let mut connection = Connection::open_from(source, node.http()).unwrap();
    connection.send(head("GET", "/large", &[])).unwrap();
    assert_eq!(connection.response_head().unwrap().status, 200);
    connection
}

#[test]
fn idle_connections_give_their_seats_up_to_their_network() {
    let (node, _dir) = node("http.max_connections_per_network = 2");
    let mut idle: Vec<Connection> =
        [HERE, NEIGHBOUR].map(|source| Connection::open_from(source, node.http()).unwrap()).into();
    idle.iter_mut().for_each(small);
    let mut far = Connection::open_from(ELSEWHERE, node.http()).unwrap();
    small(&mut far);
    // One too many: it is served all the same, as an idle one ends without a word.
    let mut third = Connection::open_from(HERE, node.http()).unwrap();
    small(&mut third);
    let ended =
        idle.iter_mut().filter_map(|connection| connection.request("GET", "/small", &[]).err()).count();
    assert!(ended >= 1, "somebody gave a seat up");
    // Those of other networks were left alone.
    small(&mut far);
    assert_eq!(node.metric("freshet_connections_refused_total"), Some(0.0));
}

#[test]
fn a_connection_at_work_keeps_its_seat_and_others_wait() {
    let (node, _dir) = node("http.max_connections_per_network = 2");
    let (mut first, _second) = (busy(&node, HERE), busy(&node, NEIGHBOUR));
    let mut third = Connection::open_from(HERE, node.http()).unwrap();
    third.send(head("GET", "/small", &[])).unwrap();
    wait_until("it waits", || node.metric("freshet_connections_waiting") == Some(1.0));
    assert_eq!(first.read(LARGE).unwrap().len(), LARGE);
    // Now it is idle.
    assert_eq!(third.response("GET").unwrap().text(), "small");
    wait_until("none waits", || node.metric("freshet_connections_waiting") == Some(0.0));
}

#[test]
fn silent_connections_give_their_seats_up_before_idle_ones() {
    let (node, _dir) = node("http.max_connections = 20");
    // Ten networks take all seats and say nothing; one is half-way in a head.
    let sources = (1..=10).flat_map(|network| [1, 2].map(|host| Ipv4Addr::new(127, 2, network, host)));
    let mut silent: Vec<Connection> =
        sources.map(|source| Connection::open_from(source, node.http()).unwrap()).collect();
    silent[3].send("GET /small HT").unwrap();
    wait_until("all seats are taken", || node.metric("freshet_connections{listener=\"http\"}") == Some(20.0));
    let mut honest = Vec::new();
    for network in 1..=5 {
        let mut connection = Connection::open_from(Ipv4Addr::new(127, 4, network, 1), node.http()).unwrap();
        small(&mut connection);
        honest.push(connection);
    }
    // None of them had to go for another.
    honest.iter_mut().for_each(small);
}

#[test]
fn a_network_that_waits_gets_no_other_one_refused() {
    let (node, _dir) = node("http.max_connections = 2");
    let (mut first, mut second) = (busy(&node, HERE), busy(&node, ELSEWHERE));
    let crowd = [1, 2].map(|host| {
        let mut waits = Connection::open_from(Ipv4Addr::new(127, 5, 0, host), node.http()).unwrap();
        waits.send(head("GET", "/small", &[])).unwrap();
        wait_until("it waits", || node.metric("freshet_connections_waiting") == Some(f64::from(host)));
        waits
    });
    let mut other = Connection::open_from(Ipv4Addr::new(127, 6, 0, 1), node.http()).unwrap();
    other.send(head("GET", "/small", &[])).unwrap();
    wait_until("one had to go", || node.metric("freshet_connections_refused_total") == Some(1.0));
    let [mut older, mut younger] = crowd;
    younger.end();
    for large in [&mut first, &mut second] {
        assert_eq!(large.read(LARGE).unwrap().len(), LARGE);
    }
    for waits in [&mut older, &mut other] {
        assert_eq!(waits.response("GET").unwrap().text(), "small");
    }
}

#[test]
fn idle_connections_give_their_seats_up_to_everybody() {
    let (node, _dir) = node("http.max_connections = 3");
    let networks = (1..=3).map(|network| Ipv4Addr::new(127, 1, network, 1));
    let mut idle: Vec<Connection> =
        networks.map(|source| Connection::open_from(source, node.http()).unwrap()).collect();
    idle.iter_mut().for_each(small);
    let mut fourth = Connection::open_from(ELSEWHERE, node.http()).unwrap();
    small(&mut fourth);
}

#[test]
fn a_network_that_waits_too_much_is_refused_and_keeps_nobody_else_waiting() {
    let (node, _dir) = node("http.max_connections = 4\nhttp.max_connections_per_network = 1");
    let _busy = busy(&node, HERE);
    let waiting: Vec<Connection> =
        (0..4).map(|_| Connection::open_from(NEIGHBOUR, node.http()).unwrap()).collect();
    wait_until("four wait", || node.metric("freshet_connections_waiting") == Some(4.0));
    let mut refused = Connection::open_from(HERE, node.http()).unwrap();
    refused.end();
    assert_eq!(node.metric("freshet_connections_refused_total"), Some(1.0));
    let mut far = Connection::open_from(ELSEWHERE, node.http()).unwrap();
    small(&mut far);
    drop(waiting);
}

#[test]
fn a_network_that_takes_nearly_all_seats_is_redirected() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let tables = config::updates("1h") + &config::mirror("m", &mirror);
    let keys = format!("http.max_connections = 40\negress.capacity = \"1 Gbit/s\"\n{}", config::BRISK);
    tree.date_now();
    let node = Node::start(&config::cached(&origin, &format!("{keys}{tables}")));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let package = format!("/{REPO}/{}", repo::rpm(0, Push::First));
    let ask = |source| {
        let mut connection = Connection::open_from(source, node.http()).unwrap();
        connection.request("GET", &package, &[("User-Agent", "libdnf")]).unwrap().status
    };
    assert_eq!(ask(ELSEWHERE), 200, "the window is open");
    let mut far = Connection::open_from(ELSEWHERE, node.http()).unwrap();
    let mut others: Vec<Connection> =
        (0..39).map(|_| Connection::open_from(HERE, node.http()).unwrap()).collect();
    wait_until("nearly all seats are taken", || {
        node.metric("freshet_connections{listener=\"http\"}").is_some_and(|open| open >= 39.0)
    });
    let served = far.request("GET", &package, &[("User-Agent", "libdnf")]).unwrap();
    assert_eq!(served.status, 200, "another network pays nothing for it");
    let redirected = others[1].request("GET", &package, &[("User-Agent", "libdnf")]).unwrap();
    assert_eq!(redirected.status, 302);
    let metadata = others[0].request("GET", &format!("/{REPO}/repodata/repomd.xml"), &[]).unwrap();
    assert_eq!(metadata.status, 200);
}
