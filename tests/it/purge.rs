//! Purges by the admin API and the command line.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::{run, scratch, wait_until};
use serde_json::Value;
use std::fs;
use std::process::Command;

const ALIAS: &str = "[[alias]]\nfrom = \"7\"\nto = \"7.9\"\n";
/// Large enough not to lie in memory.
const LENGTH: usize = 2_000_000;

fn purge(node: &Node, query: &str) -> (u16, Value) {
    let answer = client::request(node.admin(), "POST", &format!("/api/v1/purge?{query}"), &[]);
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

/// Small and large files, all of them cached.
fn filled(origin: &Origin, node: &Node, paths: &[&str]) {
    for (at, path) in paths.iter().enumerate() {
        let length = if at % 2 == 0 { 1000 } else { LENGTH };
        origin.put(path, vec![at as u8; length]);
        assert_eq!(node.get(&format!("/{path}")).body.len(), length);
    }
    wait_until("all are committed", || node.status()["cache"]["objects"] == paths.len());
    for path in paths {
        node.get(&format!("/{path}"));
        assert_eq!(origin.seen_for(path).len(), 1, "{path}");
    }
    origin.forget();
}

#[test]
fn what_is_purged_hard_is_gone() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ALIAS));
    let paths = ["7.9/updates/a", "7.9/updates/b", "7.9/updates/b2", "7.9/os/c", "x.iso"];
    filled(&origin, &node, &paths);
    let refetched = || -> Vec<&str> {
        paths
            .iter()
            .filter(|path| {
                node.get(&format!("/{path}"));
                !origin.seen_for(path).is_empty()
            })
            .copied()
            .collect()
    };
    assert!(refetched().is_empty());
    let (status, answer) = purge(&node, "path=/x.iso");
    assert_eq!((status, &answer["removed"], &answer["path"]), (200, &1.into(), &"/x.iso".into()), "{answer}");
    assert_eq!(refetched(), ["x.iso"]);
    wait_until("it is kept again", || node.status()["cache"]["objects"] == paths.len());
    origin.forget();
    let (status, answer) = purge(&node, "prefix=/7/updates/b");
    assert_eq!(
        (status, &answer["removed"], &answer["prefix"]),
        (200, &2.into(), &"/7.9/updates/b".into()),
        "{answer}"
    );
    let gone = node.status();
    assert_eq!((&gone["cache"]["objects"], &gone["cache"]["bans"]), (&3.into(), &0.into()));
    assert_eq!(gone["cache"]["events"]["purged"], 3);
    assert_eq!(refetched(), ["7.9/updates/b", "7.9/updates/b2"]);
    // By the command line, everything.
    let said = run(Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["purge", "--prefix", "/", "--config"])
        .arg(node.dir().join("freshet.toml")));
    assert!(said.starts_with("/*: purged; removed "), "{said}");
    origin.forget();
    assert_eq!(refetched(), paths);
    // Remembered absence goes as well.
    assert_eq!(node.get("/late").status, 404);
    origin.put("late", "here");
    assert_eq!(node.get("/late").status, 404);
    purge(&node, "path=/late");
    assert_eq!(node.get("/late").text(), "here");
}

#[test]
fn a_hard_purge_reaches_what_lies_here_in_parts() {
    const LENGTH: usize = 40_000_000;
    let tree = scratch();
    let body: Vec<u8> = (0..LENGTH).map(|i| (i * 7 + i / 251) as u8).collect();
    fs::write(tree.path().join("f.iso"), &body).unwrap();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, "cache.linger = \"100ms\""));
    let part = || {
        let range = [("Range", "bytes=30000000-30000009")];
        let answer = client::request(node.http(), "GET", "/f.iso", &range);
        assert!(answer.status == 206 && answer.body == body[30_000_000..30_000_010]);
    };
    let kept = |times: u64| {
        node.wait_status("the parts are put away", |status| {
            status["cache"]["events"]["parts_kept"] == times && status["cache"]["flights"] == 0
        });
    };
    part();
    kept(1);
    let ranges = || origin.seen_for("f.iso").iter().filter(|seen| seen.header("range").is_some()).count();
    part();
    kept(2);
    assert_eq!(ranges(), 1, "it was here");
    let (status, answer) = purge(&node, "path=/f.iso");
    assert_eq!((status, &answer["removed"]), (200, &1.into()), "{answer}");
    assert_eq!(node.status()["cache"]["objects"], 0);
    part();
    assert_eq!(ranges(), 2, "and isn't any more");
}

#[test]
fn what_is_purged_softly_is_asked_for_again_first() {
    let tree = scratch();
    let mut origin = Origin::serve(tree.path());
    let mut node = Node::start(&config::cached(&origin, "origin.patience = \"0s\""));
    let paths = ["a/1", "a/2", "b/3"];
    filled(&origin, &node, &paths);
    let (status, answer) = purge(&node, "prefix=/a/&mode=soft");
    assert_eq!((status, &answer["marked"], &answer["removed"]), (200, &2.into(), &0.into()), "{answer}");
    for path in ["a/1", "a/2"] {
        for _ in 0..3 {
            assert_eq!(node.get(&format!("/{path}")).status, 200);
        }
        let seen = origin.seen_for(path);
        assert_eq!(seen.len(), 1, "{path}: asked once");
        assert!(seen[0].header("if-none-match").is_some(), "{path}: whether it is current");
        assert_eq!(seen[0].sent(), 0, "{path}");
    }
    node.get("/b/3");
    assert!(origin.seen_for("b/3").is_empty());
    // The mark is on disk, and what is stale serves while the origin is dead.
    purge(&node, "path=/a/2&mode=soft");
    assert!(node.sigterm().success());
    origin.kill();
    node.launch();
    let stale = node.get("/a/2");
    assert_eq!((stale.status, stale.body.len()), (200, LENGTH));
    assert_eq!(node.status()["cache"]["events"]["served_stale"], 1);
    origin.revive();
    origin.forget();
    wait_until("it is asked for again", || {
        node.get("/a/2");
        origin.seen_for("a/2").iter().any(|seen| seen.header("if-none-match").is_some())
    });
}

#[test]
fn a_fill_from_before_a_purge_counts_as_purged() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    let (old, new) = (vec![1; LENGTH], vec![2; LENGTH + 1]);
    origin.put("f", &*old);
    origin.act("f", [Act::Gate(LENGTH / 2)]);
    let mut first = Connection::open(node.http()).unwrap();
    first.send(client::head("GET", "/f", &[])).unwrap();
    first.response_head().unwrap();
    assert!(first.read(LENGTH / 4).unwrap() == old[..LENGTH / 4]);
    origin.act("f", []);
    origin.put("f", &*new);
    let (status, answer) = purge(&node, "path=/f");
    assert_eq!(
        (status, &answer["complete"], &answer["persisted"]),
        (202, &false.into(), &true.into()),
        "{answer}"
    );
    assert!(node.dir().join("cache/purges").exists());
    assert_eq!(node.status()["cache"]["bans"], 1);
    assert!(node.get("/f").body == new, "past the fill");
    origin.release("f");
    assert!(first.read(LENGTH - LENGTH / 4).unwrap() == old[LENGTH / 4..], "it goes on for who follows it");
    wait_until("what it committed is swept", || node.status()["cache"]["bans"] == 0);
    assert!(!node.dir().join("cache/purges").exists());
    assert!(node.get("/f").body == new);
}

#[test]
fn a_purge_outlives_a_restart() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let mut node = Node::start(&config::cached(&origin, ""));
    filled(&origin, &node, &["a/1", "a/2", "b/3"]);
    node.kill9();
    // Now: what is fetched after it isn't of before it.
    let purged = freshet::clock::now().as_millis();
    // As a process that was killed before its sweep was through leaves it.
    let bans = format!("[{{\"scope\":{{\"prefix\":\"a/\"}},\"mode\":\"hard\",\"since\":{purged}}}]");
    fs::write(node.dir().join("cache/purges"), bans).unwrap();
    node.launch();
    for (path, asked) in [("a/1", 1), ("a/2", 1), ("b/3", 0)] {
        assert_eq!(node.get(&format!("/{path}")).status, 200);
        assert_eq!(origin.seen_for(path).len(), asked, "{path}");
    }
    // One that can't be read may have meant anything.
    node.kill9();
    fs::write(node.dir().join("cache/purges"), "?").unwrap();
    origin.forget();
    node.launch();
    assert_eq!(node.get("/b/3").status, 200);
    assert!(origin.seen_for("b/3")[0].header("if-none-match").is_some());
}

#[test]
fn a_tree_that_is_served_in_place_has_nothing_to_purge_but_open_files() {
    let tree = scratch();
    fs::write(tree.path().join("f"), "file").unwrap();
    let node = Node::start(&config::in_place(tree.path(), ""));
    assert_eq!(node.get("/f").text(), "file");
    let (status, answer) = purge(&node, "path=/f");
    assert_eq!(
        (status, &answer["served_in_place"], &answer["memory"]),
        (200, &true.into(), &1.into()),
        "{answer}"
    );
    assert_eq!(node.get("/f").text(), "file");
}
