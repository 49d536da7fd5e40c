//! Fills: one fetch for a crowd, nothing wrong kept, nothing complete lost.

use super::support::client::{self, Connection, End};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin, Seen};
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
    assert!(node.get("/f").body == body, "no client meets the damage");
    assert_eq!(origin.seen_for("f").len(), 2);
}

#[test]
fn an_origin_that_dies_in_the_middle_costs_readers_nothing() {
    const LENGTH: usize = 10_000_000;
    const FILES: usize = 6;
    const CLIENTS: usize = 30;
    let tree = scratch();
    let names: Vec<String> = (0..FILES).map(|file| format!("f{file}.iso")).collect();
    let body = numbered(&tree.path().join(&names[0]), LENGTH);
    names[1..].iter().for_each(|name| drop(numbered(&tree.path().join(name), LENGTH)));
    let mut origin = Origin::serve(tree.path());
    names.iter().for_each(|name| origin.act(name, [Act::Gate(LENGTH / 2)]));
    let node = Node::start(&config::cached(&origin, "origin.patience = \"60s\""));
    let attached = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (node, names, body, attached) = (&node, &names, &body, &attached);
            scope.spawn(move || {
                let mut connection = Connection::open(node.http()).unwrap();
                connection.send(client::head("GET", &format!("/{}", names[client % FILES]), &[])).unwrap();
                connection.response_head().unwrap();
                let first = connection.read(LENGTH / 4).unwrap();
                attached.fetch_add(1, Ordering::SeqCst);
                let rest = connection.read(LENGTH - LENGTH / 4).unwrap();
                assert!(first == body[..LENGTH / 4] && rest == body[LENGTH / 4..]);
            });
        }
        wait_until("all read", || attached.load(Ordering::SeqCst) == CLIENTS);
        origin.kill();
        // Long enough for the node to take it for dead, and to ask by single probes only.
        wait_until("it is taken for dead", || node.status()["origin"]["state"] == "down");
        names.iter().for_each(|name| origin.act(name, []));
        origin.revive();
    });
    for name in &names {
        let seen = origin.seen_for(name);
        println!("{name}: the origin died at {} of {LENGTH}, asked {} times", seen[0].sent(), seen.len());
        assert!(seen.len() == 2 && seen[1].header("if-range").is_some());
        assert!(seen[1].sent() <= LENGTH as u64 - seen[0].sent() + (1 << 20), "only what was missing");
    }
    assert_eq!(node.metric("freshet_store_events_total{event=\"resumed\"}"), Some(FILES as f64));
    assert_eq!(node.metric("freshet_responses_cut_total"), Some(0.0));
}

#[test]
fn a_reader_that_stalls_slows_nobody_else() {
    const LENGTH: usize = 50_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.iso"), LENGTH);
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, "http.write_timeout = \"10m\""));
    // Ten that read the head, and then nothing.
    let stalled: Vec<Connection> = (0..10)
        .map(|_| {
            let mut connection = Connection::open(node.http()).unwrap();
            connection.send(client::head("GET", "/f.iso", &[])).unwrap();
            connection.response_head().unwrap();
            connection
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert!(client::get(node.http(), "/f.iso").body == body));
        }
    });
    assert_eq!(origin.seen_for("f.iso").len(), 1);
    for mut connection in stalled {
        assert!(connection.read(LENGTH).unwrap() == body, "and those get theirs when they like");
    }
}

#[test]
fn a_byte_of_a_large_file_costs_a_block_and_is_kept() {
    const LENGTH: usize = 40_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.iso"), LENGTH);
    let origin = Origin::serve(tree.path());
    let mut node = Node::start(&config::cached(&origin, "cache.linger = \"100ms\""));
    let get = |node: &Node, range: &str| {
        let answer = client::request(node.http(), "GET", "/f.iso", &[("Range", range)]);
        assert_eq!(answer.status, 206, "{range}");
        answer
    };
    let total = || origin.seen_for("f.iso").iter().map(Seen::sent).sum::<u64>();
    assert!(get(&node, "bytes=30000000-30000000").body == body[30_000_000..=30_000_000]);
    // To the end, from the end, and what is here already.
    assert!(get(&node, "bytes=39000000-").body == body[39_000_000..]);
    assert!(get(&node, "bytes=-5").body == body[LENGTH - 5..]);
    assert!(get(&node, "bytes=30000001-30000009").body == body[30_000_001..=30_000_009]);
    assert!(total() <= 4 << 20, "{}", total());
    // More than once, if the requests were far apart.
    node.wait_status("the parts are put away", |status| {
        status["cache"]["events"]["parts_kept"].as_u64() >= Some(1) && status["cache"]["flights"] == 0
    });
    assert!(node.sigterm().success());
    node.launch();
    assert!(node.get("/f.iso").body == body);
    assert!(total() <= LENGTH as u64, "no byte is fetched twice: {}", total());
}

/// As zchunk's downloader asks: the header, then up to 256 ranges at once, in the order that it needs them.
#[test]
fn zchunk_ranges_of_a_cold_file_come_in_the_order_asked() {
    const LENGTH: usize = 40_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("primary.zck"), LENGTH);
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    let head = client::request(node.http(), "GET", "/primary.zck", &[("Range", "bytes=0-999")]);
    assert!(head.status == 206 && head.body == body[..1000]);
    let mut random = fastrand::Rng::with_seed(7);
    let ranges: Vec<(usize, usize)> = (0..256)
        .map(|_| {
            let start = random.usize(..LENGTH - 1000);
            (start, start + random.usize(1..1000))
        })
        .collect();
    let list: Vec<String> = ranges.iter().map(|(start, end)| format!("{start}-{}", end - 1)).collect();
    let wanted = format!("bytes={}", list.join(","));
    let answer = client::request(node.http(), "GET", "/primary.zck", &[("Range", &wanted)]);
    assert_eq!(answer.status, 206);
    let boundary = answer.header("content-type").unwrap().split("boundary=").nth(1).unwrap().to_owned();
    let mut expected = Vec::new();
    for (start, end) in ranges {
        let last = end - 1;
        expected.extend(
            format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {start}-{last}/{LENGTH}\r\n\r\n")
                .into_bytes(),
        );
        expected.extend(&body[start..end]);
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    let kind = answer.header("content-type").unwrap();
    assert!(answer.body == expected, "{kind}: {} bytes, {} expected", answer.body.len(), expected.len());
    let seen = origin.seen_for("primary.zck");
    let sent: u64 = seen.iter().map(Seen::sent).sum();
    println!("256 ranges of a cold file: {} requests to the origin, {sent} bytes", seen.len());
    assert!(sent <= LENGTH as u64 && seen.len() <= 1 + LENGTH.div_ceil(1 << 20));
}

#[test]
fn ranges_of_a_cold_file_follow_the_rfc() {
    const LENGTH: usize = 20_000_000;
    let tree = scratch();
    let body = numbered(&tree.path().join("f.iso"), LENGTH);
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    let ask = |fields: &[(&str, &str)]| client::request(node.http(), "GET", "/f.iso", fields);
    let bodies = || origin.seen_for("f.iso").iter().map(Seen::sent).sum::<u64>();
    let unsatisfiable = ask(&[("Range", "bytes=20000000-")]);
    assert_eq!(
        (unsatisfiable.status, unsatisfiable.header("content-range")),
        (416, Some("bytes */20000000"))
    );
    let etag = ask(&[("Range", "bytes=0-0")]).header("etag").unwrap().to_owned();
    let unchanged = ask(&[("Range", "bytes=5-9"), ("If-None-Match", &etag)]);
    assert_eq!(unchanged.status, 304);
    assert!(bodies() <= 1 << 20, "none of these needs more than a block: {}", bodies());
    for (range, start, end) in [
        ("bytes=-7", LENGTH - 7, LENGTH),
        ("bytes=19999990-99999999", LENGTH - 10, LENGTH),
        ("bytes=1000000-1000009", 1_000_000, 1_000_010),
        ("bytes=15000000-", 15_000_000, LENGTH),
    ] {
        for condition in [None, Some(("If-Range", &*etag))] {
            let fields: Vec<(&str, &str)> = [("Range", range)].into_iter().chain(condition).collect();
            let answer = ask(&fields);
            let expected = format!("bytes {start}-{}/{LENGTH}", end - 1);
            assert_eq!((answer.status, answer.header("content-range")), (206, Some(&*expected)), "{range}");
            assert!(answer.body == body[start..end], "{range}");
        }
    }
    // Unordered and overlapping ones come as they were asked for.
    let answer = ask(&[("Range", "bytes=900-999,0-99")]);
    let text = answer.text();
    assert!(answer.status == 206 && text.find("bytes 900-999/").unwrap() < text.find("bytes 0-99/").unwrap());
    // Of another version, or too much of a good thing: the whole.
    for fields in [
        &[("Range", "bytes=5-9"), ("If-Range", "\"another\"")][..],
        &[("Range", "bytes=0-,0-,0-")],
        &[("Range", "bytes=9-5")],
        &[("Range", "lines=1-2")],
    ] {
        let answer = ask(fields);
        assert!(answer.status == 200 && answer.body == body, "{fields:?}");
    }
    assert!(bodies() <= LENGTH as u64, "and no byte was fetched twice: {}", bodies());
}
