//! What clients cost that ask and leave: the origin a few MiB, and others nothing.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin, Seen};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{scratch, wait_until};
use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn sparse(path: &Path, length: u64) {
    fs::File::create(path).unwrap().set_len(length).unwrap();
}

fn abandoned(node: &Node) -> f64 {
    node.metric("freshet_store_events_total{event=\"fills_abandoned\"}").unwrap_or(0.0)
}

#[test]
fn a_client_that_leaves_has_cost_the_origin_a_few_mebibytes() {
    let tree = scratch();
    let names = ["whole.iso", "range.iso"];
    let origin = Origin::serve(tree.path());
    for name in names {
        sparse(&tree.path().join(name), 256 * MIB);
        // A line of 400 Mbit/s: without one, the kernel's queues take as much again.
        origin.act(name, [Act::Throttle(50_000_000)]);
    }
    let node = Node::start(&config::cached(&origin, ""));
    for (name, range) in names.into_iter().zip([None, Some(("Range", "bytes=0-"))]) {
        let mut connection = Connection::open(node.http()).unwrap();
        let headers: Vec<_> = range.into_iter().collect();
        connection.send(client::head("GET", &format!("/{name}"), &headers)).unwrap();
        connection.response_head().unwrap();
        connection.read(200).unwrap();
    }
    wait_until("the fills have ended", || abandoned(&node) == 2.0);
    for name in names {
        let sent: u64 = origin.seen_for(name).iter().map(Seen::sent).sum();
        println!("{name}: 200 bytes taken, {sent} sent by the origin");
        assert!(sent <= 8 * MIB, "{name}: {sent}");
    }
    wait_until("what came is put away", || {
        node.metric("freshet_store_events_total{event=\"parts_kept\"}") == Some(2.0)
    });
    let kept = node.metric("freshet_store{what=\"disk_bytes\"}").unwrap();
    assert!(kept <= (16 * MIB) as f64, "what is missing takes no room: {kept}");
}

#[test]
fn a_thousand_ranges_cost_what_is_read_and_nothing_after_the_client_has_left() {
    let tree = scratch();
    sparse(&tree.path().join("f.iso"), 256 * MIB);
    let origin = Origin::serve(tree.path());
    origin.act("f.iso", [Act::Throttle(4_000_000)]);
    let node = Node::start(&config::cached(&origin, ""));
    let ranges: Vec<String> = (0..1024).map(|n| format!("{0}-{0}", n * 255 * 1024)).collect();
    let wanted = format!("bytes={}", ranges.join(","));
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(client::head("GET", "/f.iso", &[("Range", &wanted)])).unwrap();
    assert_eq!(connection.response_head().unwrap().status, 206);
    // The first ten parts or so.
    connection.read(1500).unwrap();
    let before = origin.sent();
    drop(connection);
    wait_until("the fill has ended", || abandoned(&node) == 1.0);
    let after = origin.sent();
    println!(
        "{} bytes of ranges: {before} sent by the origin while they were read, {after} in all",
        wanted.len()
    );
    assert!(after <= 20 * MIB, "{after}");
    assert!(origin.seen_for("f.iso").len() <= 20, "blocks that are wanted together are asked for together");
}

#[test]
fn files_that_are_asked_for_and_left_hold_up_no_push_and_no_client() {
    const FILES: usize = 300;
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config::cached(&origin, &[config::BRISK, &config::updates("24h")].concat()));
    node.wait_ready();
    let names: Vec<String> = (0..FILES).map(|file| format!("cold{file}.iso")).collect();
    for name in &names {
        sparse(&tree.root().join(name), MIB);
        origin.act(name, [Act::Gate(64 << 10)]);
    }
    fs::write(tree.root().join("other.txt"), "other").unwrap();
    let cold = || origin.seen().iter().filter(|seen| seen.path.starts_with("cold")).count();
    let mut clients: Vec<Connection> = Vec::new();
    for name in &names {
        let mut connection = Connection::open(node.http()).unwrap();
        connection.send(client::head("GET", &format!("/{name}"), &[])).unwrap();
        clients.push(connection);
    }
    // While they are there, pushes and what is listed have places of their own.
    wait_until("all places are taken that there are for them", || cold() == 176);
    let package = |number| format!("/{REPO}/{}", repo::rpm(number, Push::First));
    assert_eq!(node.get(&package(2)).status, 200);
    tree.sync(Push::Second);
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    assert!(node.status()["repos"][0]["push"]["last_error"].is_null());
    // Once they have left, nothing more is asked for on their behalf, and another client has a place at once.
    let is_asked_for = |name: &String| !origin.seen_for(name).is_empty();
    let (served, waiting): (Vec<_>, Vec<_>) =
        names.iter().zip(clients).partition(|(name, _)| is_asked_for(name));
    drop(waiting);
    let flights = || node.metric("freshet_store{what=\"flights\"}");
    wait_until("those that waited have left the line", || flights() == Some(176.0));
    drop(served);
    assert_eq!(node.get("/other.txt").text(), "other");
    assert_eq!(node.get(&package(4)).status, 200);
    wait_until("all of them have ended", || flights() == Some(0.0));
    assert_eq!(cold(), 176, "none that waited was asked for");
}
