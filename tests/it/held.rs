//! A push whose files are wrong at the origin is held: the old generation stays whole, and the push goes through by itself
//! once the origin is right.

use super::support::breakage::{Breakage, Broken};
use super::support::client;
use super::support::config;
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, ALIASED, Push, REPO, Tree};
use super::support::{now, run, said, scratch};
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

const HELD: &str = "freshet_push_held{repo=\"updates/7/x86_64\"}";
const ID: &str = "updates/7/x86_64";

fn settings(window: &str, mirrors: &str) -> String {
    let alias = "[[alias]]\nfrom = \"7\"\nto = \"7.9.2009\"\n";
    let repo = config::updates(window).replace("[\"7.9.2009\"]", "[\"7\"]");
    [config::BRISK, alias, &repo, mirrors].concat()
}

fn sequence(status: &Value) -> u64 {
    status["repos"][0]["generation"]["sequence"].as_u64().unwrap_or_default()
}

fn held(status: &Value) -> &Value {
    &status["repos"][0]["held"]
}

fn push(node: &Node, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["push", "--config"])
        .arg(node.dir().join("freshet.toml"))
        .args(args)
        .output()
        .unwrap()
}

fn installed(i: usize, release: u32) -> String {
    format!("{}-1.0-{release}", repo::name(i))
}

#[test]
fn a_push_with_a_missing_package_is_held_until_the_package_is_there() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let at_mirror = Tree::link(Push::First, &dir.path().join("mirror"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(at_mirror.root()));
    let node = Node::start(&config::cached(&origin, &settings("1s", &config::mirror("m", &mirror))));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let client = Dnf::with_baseurl(&format!("{}{ALIASED}/", node.url())).option("--setopt=timeout=5");
    client.ok(&["install", &repo::name(5)]);
    assert_eq!(node.metric(HELD), Some(0.0));

    let missing = repo::rpm(5, Push::Second);
    let mut broken = None;
    tree.sync_with(Push::Second, |tree| {
        broken = Some(Broken::new(Breakage::Missing, &tree.repo(), Some(&origin), &missing));
    });
    let status = node.wait_status("the push is held", |status| !held(status).is_null());
    let asked = now();
    let waited = push(&node, &["--wait"]);
    let after = asked.elapsed();
    assert_eq!(waited.status.code(), Some(1), "{}", said(&waited));
    let reason = format!("{ID}: held: {REPO}/{missing}: the origin has no such file");
    assert!(said(&waited).contains(&reason), "{}", said(&waited));
    // 2 s, and what the waiting itself may be late by on a busy machine.
    assert!(after < Duration::from_secs(2 + 20), "{after:?}");
    assert_eq!((sequence(&status), &held(&status)["files"]), (1, &1.into()), "{status:#}");
    assert_eq!(held(&status)["file"], format!("{REPO}/{missing}"));
    assert_eq!(status["repos"][0]["currency"], "confirmed");
    assert_eq!(node.metric(HELD), Some(1.0));
    let page = client::get(node.admin(), "/").text();
    assert!(page.contains("Push held") && page.contains(missing.rsplit('/').next().unwrap()), "{page}");

    // The old generation is whole, and mirrors deliver it.
    assert_eq!(client.installed(), [installed(5, 1)]);
    client.ok(&["upgrade", "--refresh"]);
    client.ok(&["install", &repo::name(9)]);
    assert_eq!(client.installed(), [installed(5, 1), installed(9, 1)]);
    client.verify();
    assert!(node.access().iter().any(|line| line["decision"] == "redirect"));
    let told = node.log().lines().filter(|line| line.contains("push held")).count();
    assert_eq!(told, 1, "however often the push is looked at: {}", node.log());

    broken.unwrap().mend(Some(&origin));
    let offered = push(&node, &["--wait", "--timeout", "20s", ID]);
    assert!(offered.status.success(), "{}", said(&offered));
    let status = node.status();
    assert_eq!((sequence(&status), held(&status)), (2, &Value::Null), "{status:#}");
    assert_eq!(node.metric(HELD), Some(0.0));
    assert_eq!(node.metric(&format!("freshet_pushes_total{{outcome=\"held\",repo=\"{ID}\"}}")), Some(1.0));
    client.ok(&["upgrade", "--refresh", "--setopt=deltarpm=0"]);
    assert_eq!(client.installed(), [installed(5, 2), installed(9, 2)]);
    client.verify();
}

/// Each file is wrong in another way; each is found, and the push goes through once all are right.
fn every_wrong_file_holds(node: &Node, tree: &Tree, origin: Option<&Origin>) {
    node.wait_ready();
    let mut broken = Vec::new();
    tree.sync_with(Push::Second, |tree| {
        for (number, breakage) in Breakage::OF_FILES.into_iter().enumerate() {
            let file = repo::rpm(1 + 4 * number, Push::Second);
            broken.push((breakage, Broken::new(breakage, &tree.repo(), origin, &file)));
        }
    });
    let (flipped, seen): (Vec<_>, Vec<_>) =
        broken.into_iter().partition(|(breakage, _)| *breakage == Breakage::Flipped);
    for (left, (_, broken)) in seen.into_iter().enumerate().rev() {
        let status = node.wait_status("those that can be seen are counted", |status| {
            held(status)["files"] == left + 1 && sequence(status) == 1
        });
        println!("{}", held(&status));
        broken.mend(origin);
    }
    let (_, flipped) = flipped.into_iter().next().unwrap();
    let file = flipped.url_path();
    let status = node.wait_status("the flipped byte is found", |status| held(status)["file"] == *file);
    assert!(held(&status)["fault"].as_str().unwrap().contains("SHA-256"), "{}", held(&status));
    assert_eq!((&held(&status)["files"], sequence(&status)), (&1.into(), 1));
    let old = client::get(node.http(), &format!("/{REPO}/repodata/repomd.xml")).text();
    flipped.mend(origin);
    node.wait_status("the push is offered", |status| sequence(status) == 2 && held(status).is_null());
    let new = client::get(node.http(), &format!("/{REPO}/repodata/repomd.xml")).text();
    assert_ne!(old, new);
}

#[test]
fn every_wrong_file_holds_a_push_at_an_http_origin() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config::cached(&origin, &settings("24h", "")));
    every_wrong_file_holds(&node, &tree, Some(&origin));
}

#[test]
fn every_wrong_file_holds_a_push_in_a_directory() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let node = Node::start(&config::in_place(tree.root(), &settings("24h", "")));
    every_wrong_file_holds(&node, &tree, None);
}

#[test]
fn an_operator_has_a_held_push_offered_anyway() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let mut node = Node::start(&config::in_place(tree.root(), &settings("24h", "")));
    node.wait_ready();
    let missing = repo::rpm(61, Push::Second);
    tree.sync_with(Push::Second, |tree| drop(Broken::new(Breakage::Missing, &tree.repo(), None, &missing)));
    node.wait_status("the push is held", |status| !held(status).is_null());
    // A restart doesn't let it through either.
    node.kill9();
    node.launch();
    let status = node.wait_status("it is held again", |status| !held(status).is_null());
    assert_eq!(sequence(&status), 1);

    let unnamed = push(&node, &["--anyway"]);
    assert!(!unnamed.status.success(), "{}", said(&unnamed));
    let offered = push(&node, &["--wait", "--anyway", ID]);
    assert!(offered.status.success(), "{}", said(&offered));
    let file = format!("{REPO}/{missing}");
    let status = node.wait_status("what is wrong is named", |status| {
        sequence(status) == 2 && status["repos"][0]["faults"][&file].is_string()
    });
    assert!(held(&status).is_null(), "{status:#}");
    let client = Dnf::with_baseurl(&format!("{}{ALIASED}/", node.url()));
    client.ok(&["install", &repo::name(5)]);
    assert_eq!(client.installed(), [installed(5, 2)]);
}

#[test]
fn no_answer_that_fails_clients_lets_a_push_through_and_a_slow_one_does() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let brief = "origin.first_byte_timeout = \"1s\"\npush.warm_for = \"1s\"\n";
    let node = Node::start(&config::cached(&origin, &[brief, &settings("24h", "")].concat()));
    node.wait_ready();
    let mut broken = Vec::new();
    tree.sync_with(Push::Second, |tree| {
        for (number, breakage) in Breakage::OF_ANSWERS.into_iter().enumerate() {
            let file = repo::rpm(57 - 4 * number, Push::Second);
            broken.push((breakage, Broken::new(breakage, &tree.repo(), Some(&origin), &file)));
        }
    });
    for (breakage, broken) in broken {
        // Whatever is left of them is told, one way or another.
        let status = node.wait_status("the push is not offered", |status| {
            status["repos"][0]["push"]["last_error"].is_string()
        });
        println!("{breakage:?}: {}", status["repos"][0]["push"]["last_error"]);
        assert_eq!(sequence(&status), 1, "{breakage:?}");
        if breakage.fails_clients() {
            broken.mend(Some(&origin));
        }
    }
    node.wait_status("the push is offered", |status| sequence(status) == 2);
}

/// Metadata without checksums in their names, listed by SHA-512: each push uses the names of the one before.
fn simple_names(tree: &Tree) {
    run(Command::new("createrepo_c")
        .args([
            "--quiet",
            "--no-database",
            "--general-compress-type=gz",
            "--simple-md-filenames",
            "-s",
            "sha512",
        ])
        .arg(tree.repo()));
}

fn metadata(node: &Node) -> [Vec<u8>; 3] {
    ["repomd.xml", "primary.xml.gz", "filelists.xml.gz"]
        .map(|name| client::get(node.http(), &format!("/{REPO}/repodata/{name}")).body)
}

fn of_tree(tree: &Tree) -> [Vec<u8>; 3] {
    ["repomd.xml", "primary.xml.gz", "filelists.xml.gz"]
        .map(|name| fs::read(tree.repo().join("repodata").join(name)).unwrap())
}

#[test]
fn metadata_are_of_one_generation_while_a_push_is_held() {
    let dir = scratch();
    let [tree, next] = [(Push::First, "tree"), (Push::Second, "next")].map(|(push, name)| {
        let tree = Tree::link(push, &dir.path().join(name));
        simple_names(&tree);
        tree
    });
    let (old, new) = (of_tree(&tree), of_tree(&next));
    let missing = Broken::new(Breakage::Missing, &next.repo(), None, &repo::rpm(61, Push::Second));
    let origin = Origin::serve(tree.root());
    let nodes = [
        Node::start(&config::cached(&origin, &settings("24h", ""))),
        Node::start(&config::in_place(tree.root(), &settings("24h", ""))),
    ];
    nodes.iter().for_each(Node::wait_ready);
    assert!(nodes.iter().all(|node| metadata(node) == old));

    tree.take(&next);
    for node in &nodes {
        node.wait_status("the push is held", |status| !held(status).is_null());
        assert!(metadata(node) == old, "of the old generation, all of them");
    }
    missing.mend(None);
    tree.take(&next);
    for node in &nodes {
        node.wait_status("the push is offered", |status| sequence(status) == 2);
        assert!(metadata(node) == new, "of the new generation, all of them");
    }
}
