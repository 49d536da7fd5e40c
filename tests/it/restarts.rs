//! First starts and restarts, with and without an origin; draining.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{said, scratch, wait_until};
use std::process::Command;

fn config(origin: &Origin, mirror: Option<&Origin>) -> String {
    let mirror = mirror.map_or_else(String::new, |mirror| config::mirror("m", mirror));
    let keys = r#"
        origin.connect_timeout = "2s"
        origin.patience = "0s"
        push.give_up = "1s"
        "#;
    config::cached(origin, &[keys, config::BRISK, &config::updates("24h"), &mirror].concat())
}

#[test]
fn an_empty_cache_and_a_dead_origin_is_unready_and_says_why() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let mut origin = Origin::serve(tree.root());
    origin.kill();
    let node = Node::start(&config(&origin, None));
    let ready = || client::get(node.admin(), "/readyz");
    wait_until("it has tried", || ready().text().contains("refused"));
    let said = ready();
    assert_eq!(said.status, 503);
    assert!(said.text().contains("updates/7.9.2009/x86_64"), "{}", said.text());
    assert_eq!(client::get(node.admin(), "/healthz").status, 200);
    assert_eq!(node.get(&format!("/{REPO}/repodata/repomd.xml")).status, 503);
    origin.revive();
    node.wait_ready();
    assert_eq!(node.get(&format!("/{REPO}/repodata/repomd.xml")).status, 200);
}

#[test]
fn a_restart_with_a_dead_origin_serves_what_it_has() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (mut origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let mut node = Node::start(&config(&origin, Some(&mirror)));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let (cached, uncached) =
        (format!("/{REPO}/{}", repo::rpm(3, Push::First)), format!("/{REPO}/{}", repo::rpm(4, Push::First)));
    let before = node.get(&cached);
    let status = node.status();
    let metadata: Vec<String> =
        repo::files(&tree.repo()).into_iter().filter(|file| file.starts_with("repodata/")).collect();

    assert!(node.sigterm().success());
    origin.kill();
    node.launch();
    node.wait_ready();
    assert!(node.get(&cached).body == before.body);
    for file in &metadata {
        assert_eq!(node.get(&format!("/{REPO}/{file}")).status, 200, "{file}");
    }
    let now = node.status();
    assert_eq!(now["repos"][0]["generation"]["id"], status["repos"][0]["generation"]["id"]);
    assert_eq!(now["repos"][0]["window"]["closes"], status["repos"][0]["window"]["closes"]);
    node.wait_status("the persisted proof counts once the mirror answers", |status| {
        status["mirrors"][0]["repos"][0]["fresh"] == true
    });
    let elsewhere = node.get(&uncached);
    assert_eq!(
        (elsewhere.status, elsewhere.header("location")),
        (302, Some(&*format!("{}{}", mirror.url(), &uncached[1..])))
    );
    let line = node.wait_access("the redirect", |line| line["path"] == uncached);
    assert_eq!(line["reason"], "origin-down");
}

#[test]
fn sigterm_finishes_transfers_and_accepts_no_more() {
    const LENGTH: usize = 3_000_000;
    let tree = scratch();
    std::fs::write(tree.path().join("f"), vec![7; LENGTH]).unwrap();
    let origin = Origin::serve(tree.path());
    origin.act("f", [Act::Gate(LENGTH / 2)]);
    let mut node = Node::start(&config::cached(&origin, ""));
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(client::head("GET", "/f", &[])).unwrap();
    connection.response_head().unwrap();
    node.signal("TERM");
    wait_until("it accepts no more", || Connection::open(node.http()).is_err());
    let unready = client::get(node.admin(), "/readyz");
    assert_eq!((unready.status, unready.text().contains("draining")), (503, true), "{}", unready.text());
    origin.release("f");
    assert!(connection.read(LENGTH).unwrap() == vec![7; LENGTH]);
    assert!(node.wait_exit().success());
}

#[test]
fn two_nodes_do_not_share_a_cache_or_a_port() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    let own = std::fs::read_to_string(node.dir().join("freshet.toml")).unwrap();
    let other = scratch();
    let start = |config: &str| {
        let file = other.path().join("freshet.toml");
        std::fs::write(&file, config).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_freshet"))
            .args(["serve", "--config"])
            .arg(file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        said(&output)
    };
    // Ports are asked for first.
    let elsewhere = own
        .replace(&format!("\"{}\"", node.http()), "\"127.0.0.1:0\"")
        .replace(&format!("\"{}\"", node.admin()), "\"127.0.0.1:0\"");
    let text = start(&elsewhere);
    assert!(text.contains("cache") && text.contains("another"), "{text}");
    let text = start(&own.replace("/cache", "/other-cache"));
    assert!(text.contains("listening on") && text.contains("in use"), "{text}");
}
