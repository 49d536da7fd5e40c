//! Fills: one fetch for a crowd, nothing wrong kept, nothing complete lost.

use super::support::client::{self, Connection, End};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::{run, scratch, wait_until};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    origin.act("big.iso", [Act::Throttle(50_000_000), Act::Gate(LENGTH / 20)]);
    let node = Node::start(&config::cached(&origin, ""));

    // The origin stops short of a tenth until every client has its first bytes.
    let begun = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = Connection::open(node.http()).unwrap();
                connection.send(client::head("GET", "/big.iso", &[])).unwrap();
                let head = connection.response_head().unwrap();
                assert_eq!(head.header("content-length"), Some("100000000"));
                let mut at = 0;
                while at < LENGTH {
                    let piece = connection.read((LENGTH - at).min(1 << 20)).unwrap();
                    assert!(piece == body[at..at + piece.len()], "bytes from {at} on");
                    at += piece.len();
                    if at == 1 << 20 {
                        begun.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        wait_until("every client has its first bytes", || begun.load(Ordering::SeqCst) == CLIENTS);
        let sent = origin.sent();
        println!("{CLIENTS} clients had their first MiB when the origin had sent {sent} of {LENGTH} bytes");
        assert!(sent < LENGTH as u64 / 10);
        origin.release("big.iso");
    });
    assert_eq!(origin.seen_for("big.iso").len(), 1, "one fetch");
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
    let mut node = Node::start(&config::cached(&origin, ""));
    for round in 0..20 {
        let (done, half) = (&names[round], &names[(round + 1) % 20]);
        assert!(node.get(&format!("/{done}")).body == bodies[round], "round {round}");
        node.wait_status("the file is committed", |status| {
            status["cache"]["objects"].as_u64() == Some(round as u64 + 1)
        });
        if round < 19 {
            origin.act(half, [Act::Gate(LENGTH / 2)]);
            let mut connection = Connection::open(node.http()).unwrap();
            connection.send(client::head("GET", &format!("/{half}"), &[])).unwrap();
            connection.response_head().unwrap();
            assert!(connection.read(LENGTH / 4).unwrap() == bodies[round + 1][..LENGTH / 4]);
            node.kill9();
            assert!(connection.read(LENGTH - LENGTH / 4).is_err(), "a cut body must not end cleanly");
            origin.act(half, []);
        } else {
            node.kill9();
        }
        node.launch();
        origin.forget();
        for complete in 0..=round {
            assert!(
                node.get(&format!("/{}", names[complete])).body == bodies[complete],
                "{complete} after round {round}"
            );
        }
        assert_eq!(origin.seen().len(), 0, "what was complete is a hit: {:?}", origin.seen());
        assert_eq!(fs::read_dir(node.dir().join("cache/tmp")).unwrap().count(), 0, "half a fill is not kept");
    }
}

#[test]
fn a_lying_origin_never_ends_a_body_cleanly() {
    const LENGTH: usize = 2_000_000;
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, "origin.patience = \"0s\""));
    for (what, act, may_be_whole) in [
        // Where an origin answers ranges, a fill goes on from where it stopped.
        ("ends-early", Act::Truncate(LENGTH / 3), true),
        ("resets", Act::Reset(LENGTH / 3), true),
        ("never-gets-anywhere", Act::Truncate(0), false),
        ("promises-too-much", Act::Length(LENGTH + 1), false),
        ("fails", Act::Status(500), false),
    ] {
        let body = numbered(&tree.path().join(what), LENGTH);
        let target = format!("/{what}");
        origin.act(what, [act]);
        let mut connection = Connection::open(node.http()).unwrap();
        match connection.request("GET", &target, &[]) {
            Ok(response) if response.status == 200 => {
                assert!(may_be_whole && response.body == body, "{what}");
            }
            Ok(response) => assert_eq!(response.status, 503, "{what}"),
            Err(end) => assert!(matches!(end, End::Reset | End::Truncated(_)), "{what}: {end:?}"),
        }
        origin.act(what, []);
        wait_until("the node recovers", || {
            let mut connection = Connection::open(node.http()).unwrap();
            connection
                .request("GET", &target, &[])
                .is_ok_and(|response| response.status == 200 && response.body == body)
        });
    }
    assert!(
        node.metric("freshet_store_events_total{event=\"fills_failed\"}").is_some_and(|failed| failed >= 2.0)
    );
}

#[test]
fn a_client_that_leaves_does_not_end_the_fill() {
    const LENGTH: usize = 4_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.bin"), LENGTH);
    let origin = Origin::serve(tree.path());
    origin.act("f.bin", [Act::Gate(LENGTH / 2)]);
    let node = Node::start(&config::cached(&origin, ""));
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
    let node = Node::start(&config::cached(&origin, ""));
    let mut whole = Connection::open(node.http()).unwrap();
    whole.send(client::head("GET", "/f.iso", &[])).unwrap();
    whole.response_head().unwrap();
    let part = client::request(node.http(), "GET", "/f.iso", &[("Range", "bytes=39000000-39000999")]);
    assert_eq!(part.status, 206);
    assert!(part.body == body[39_000_000..39_001_000]);
    let seen = origin.seen_for("f.iso");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("range"), Some("bytes=38797312-39845887"), "in whole blocks");
    assert!(seen[1].header("if-range").is_some(), "versions must not mix");
    assert!(seen[0].sent() < LENGTH as u64, "it didn't wait for the fill");
}

#[test]
fn a_silent_origin_is_given_up_in_time() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    origin.put("f", "body");
    origin.act("f", [Act::Hang]);
    let node = Node::start(&config::cached(
        &origin,
        "origin.patience = \"0s\"\norigin.first_byte_timeout = \"300ms\"",
    ));
    let answer = node.get("/f");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("waited"), "{}", answer.text());
    origin.act("f", []);
    wait_until("the node recovers", || node.get("/f").text() == "body");
}

#[test]
fn what_must_not_be_stored_is_not_shared() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    for (name, value) in
        [("Cache-Control", "no-store"), ("Cache-Control", "private"), ("Set-Cookie", "a=b"), ("Vary", "*")]
    {
        origin.forget();
        let path = format!("{name}-{value}");
        origin.put(&path, "body");
        origin.act(&path, [Act::Header(name, value.to_owned())]);
        for _ in 0..3 {
            assert_eq!(node.get(&format!("/{path}")).text(), "body", "{path}");
        }
        assert_eq!(origin.seen_for(&path).len(), 3, "{path}");
    }
}

#[test]
fn a_range_from_an_origin_without_ranges_waits_for_the_fill() {
    const LENGTH: usize = 12_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f"), LENGTH);
    let origin = Origin::serve(tree.path());
    origin.act("f", [Act::NoRanges, Act::Throttle(20_000_000)]);
    let node = Node::start(&config::cached(&origin, ""));
    let part = client::request(node.http(), "GET", "/f", &[("Range", "bytes=11000000-11000999")]);
    assert_eq!(part.status, 206);
    assert!(part.body == body[11_000_000..11_001_000]);
}

#[test]
fn a_damaged_cache_file_heals() {
    const LENGTH: usize = 2_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f"), LENGTH);
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    assert!(node.get("/f").body == body);
    node.wait_status("it is committed", |status| status["cache"]["objects"] == 1);
    assert!(node.get("/f").body == body);
    let objects = run(Command::new("find").arg(node.dir().join("cache/objects")).args(["-type", "f"]));
    let file = fs::File::options().write(true).open(objects.trim()).unwrap();
    file.set_len(LENGTH as u64 / 2).unwrap();
    let mut connection = Connection::open(node.http()).unwrap();
    assert!(matches!(connection.request("GET", "/f", &[]), Err(End::Reset | End::Truncated(_))));
    wait_until("it is fetched anew", || {
        let mut connection = Connection::open(node.http()).unwrap();
        connection.request("GET", "/f", &[]).is_ok_and(|response| response.body == body)
    });
    assert_eq!(origin.seen_for("f").len(), 2);
}
