//! Fills: one fetch for a crowd, nothing wrong kept, nothing complete lost.

use super::support::client::{self, Connection, End};
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::{scratch, wait_until};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn config(origin: &Origin) -> String {
    format!(
        r#"
        [node]
        name = "node"
        [http]
        listen = ["{{http}}"]
        [admin]
        listen = "{{admin}}"
        [origin]
        url = "{}"
        [cache]
        disk = "{{dir}}/cache"
        disk_size = "4 GiB"
        revalidate = "1h"
        "#,
        origin.url()
    )
}

/// A file whose every 8 bytes tell their own offset.
fn numbered(path: &Path, length: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..length as u64).step_by(8).flat_map(u64::to_be_bytes).take(length).collect();
    fs::write(path, &body).unwrap();
    body
}

#[test]
fn two_hundred_clients_on_one_cold_file_make_one_fetch() {
    const LENGTH: usize = 100_000_000;
    const CLIENTS: usize = 200;
    let tree = scratch();
    let body = numbered(&tree.path().join("big.iso"), LENGTH);
    let origin = Origin::serve(tree.path());
    origin.act("big.iso", [Act::Throttle(50_000_000)]);
    let node = Node::start(&config(&origin));

    let begun = AtomicUsize::new(0);
    let origin_sent_at_last_begin = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = Connection::open(node.http()).unwrap();
                connection.send(client::head("GET", "/big.iso", &[])).unwrap();
                let head = connection.response_head().unwrap();
                assert_eq!(head.header("content-length"), Some("100000000"));
                let first = connection.read(1).unwrap();
                if begun.fetch_add(1, Ordering::SeqCst) + 1 == CLIENTS {
                    origin_sent_at_last_begin.store(usize::try_from(origin.sent()).unwrap(), Ordering::SeqCst);
                }
                assert!(first == body[..1]);
                let mut at = 1;
                while at < LENGTH {
                    let piece = connection.read((LENGTH - at).min(1 << 20)).unwrap();
                    assert!(piece == body[at..at + piece.len()], "bytes from {at} on");
                    at += piece.len();
                }
            });
        }
    });
    assert_eq!(origin.seen_for("big.iso").len(), 1, "one fetch");
    let sent = origin_sent_at_last_begin.load(Ordering::SeqCst);
    println!("the last client had its first byte when the origin had sent {sent} of {LENGTH} bytes");
    assert!(sent < LENGTH / 10, "the last client's first byte came after {sent} bytes");
    assert!(client::get(node.http(), "/big.iso").body == body);
    assert_eq!(origin.seen_for("big.iso").len(), 1, "kept");
}

#[test]
fn killed_in_the_middle_of_fills_nothing_wrong_is_served() {
    const LENGTH: usize = 3_000_000;
    let tree = scratch();
    let names: Vec<String> = (0..20).map(|i| format!("f{i}.bin")).collect();
    let bodies: Vec<Vec<u8>> = (0..20).map(|i| numbered(&tree.path().join(&names[i]), LENGTH + i)).collect();
    let origin = Origin::serve(tree.path());
    let mut node = Node::start(&config(&origin));
    for round in 0..20 {
        let (done, half) = (&names[round], &names[(round + 1) % 20]);
        assert!(node.get(&format!("/{done}")).body == bodies[round], "round {round}");
        node.wait_status("the file is committed", |status| status["cache"]["objects"].as_u64() == Some(round as u64 + 1));
        if round < 19 {
            origin.act(half, [Act::Gate(LENGTH / 2)]);
            let mut connection = Connection::open(node.http()).unwrap();
            connection.send(client::head("GET", &format!("/{half}"), &[])).unwrap();
            connection.response_head().unwrap();
            assert!(connection.read(LENGTH / 4).unwrap() == bodies[round + 1][..LENGTH / 4]);
            node.kill9();
            assert!(!matches!(connection.response("GET"), Ok(_)), "a cut body must not end cleanly");
            origin.act(half, []);
        } else {
            node.kill9();
        }
        node.launch();
        origin.forget();
        for complete in 0..=round {
            assert!(node.get(&format!("/{}", names[complete])).body == bodies[complete], "{complete} after round {round}");
        }
        assert_eq!(origin.seen().len(), 0, "what was complete is a hit: {:?}", origin.seen());
        assert_eq!(fs::read_dir(node.dir().join("cache/tmp")).unwrap().count(), 0, "half a fill is not kept");
    }
}

#[test]
fn a_lying_origin_never_ends_a_body_cleanly() {
    const LENGTH: usize = 2_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.bin"), LENGTH);
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config(&origin));
    for (what, act) in [
        ("ends early", Act::Truncate(LENGTH / 3)),
        ("resets", Act::Reset(LENGTH / 3)),
        ("promises too much", Act::Length(LENGTH + 1)),
    ] {
        origin.act("f.bin", [act]);
        let mut connection = Connection::open(node.http()).unwrap();
        match connection.request("GET", "/f.bin", &[]) {
            Ok(response) => assert!(response.status >= 500, "{what}: {} clean bytes", response.body.len()),
            Err(end) => assert!(matches!(end, End::Reset | End::Truncated(_)), "{what}: {end:?}"),
        }
    }
    origin.act("f.bin", [Act::Status(500)]);
    wait_until("the node tells of the origin's error", || node.get("/f.bin").status == 503);
    origin.act("f.bin", []);
    wait_until("the node recovers", || node.get("/f.bin").status == 200);
    assert!(node.get("/f.bin").body == body);
    assert!(node.metric("freshet_store_events_total{event=\"fills_failed\"}").is_some_and(|failed| failed >= 3.0));
}

#[test]
fn a_client_that_leaves_does_not_end_the_fill() {
    const LENGTH: usize = 4_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.bin"), LENGTH);
    let origin = Origin::serve(tree.path());
    origin.act("f.bin", [Act::Gate(LENGTH / 2)]);
    let node = Node::start(&config(&origin));
    let mut first = Connection::open(node.http()).unwrap();
    first.send(client::head("GET", "/f.bin", &[])).unwrap();
    first.response_head().unwrap();
    first.read(1000).unwrap();
    let mut second = Connection::open(node.http()).unwrap();
    second.send(client::head("GET", "/f.bin", &[])).unwrap();
    second.response_head().unwrap();
    drop(first);
    origin.release("f.bin");
    assert!(second.read(LENGTH).unwrap() == body);
    assert_eq!(origin.seen_for("f.bin").len(), 1);
}

#[test]
fn a_far_range_of_a_running_fill_is_fetched_beside_it() {
    const LENGTH: usize = 40_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.iso"), LENGTH);
    let origin = Origin::serve(tree.path());
    origin.act("f.iso", [Act::Throttle(4_000_000)]);
    let node = Node::start(&config(&origin));
    let mut whole = Connection::open(node.http()).unwrap();
    whole.send(client::head("GET", "/f.iso", &[])).unwrap();
    whole.response_head().unwrap();
    let part = client::request(node.http(), "GET", "/f.iso", &[("Range", "bytes=39000000-39000999")]);
    assert_eq!(part.status, 206);
    assert!(part.body == body[39_000_000..39_001_000]);
    let seen = origin.seen_for("f.iso");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("range"), Some("bytes=39000000-39000999"));
    assert!(seen[1].header("if-range").is_some(), "versions must not mix");
    assert!(seen[0].sent() < LENGTH as u64, "it didn't wait for the fill");
}
