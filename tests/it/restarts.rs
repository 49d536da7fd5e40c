//! First starts and restarts, with and without an origin; draining.

use super::support::client::{self, Connection};
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{scratch, wait_until};

fn config(origin: &Origin, mirror: Option<&Origin>) -> String {
    let mirror = mirror
        .map_or(String::new(), |mirror| format!("[[mirror]]\nname = \"m\"\nurl = \"{}\"\n", mirror.url()));
    format!(
        r#"
        [node]
        name = "node"
        urls = ["http://{{http}}/"]
        [http]
        listen = ["{{http}}"]
        drain_timeout = "20s"
        [admin]
        listen = "{{admin}}"
        [origin]
        url = "{}"
        connect_timeout = "2s"
        patience = "0s"
        [cache]
        disk = "{{dir}}/cache"
        disk_size = "2 GiB"
        [push]
        poll = "200ms"
        give_up = "1s"
        [mirrors]
        probe_every = "300ms"
        liveness_every = "300ms"
        [[repo]]
        name = "updates"
        path = "{{release}}/updates/{{arch}}"
        releases = ["7.9.2009"]
        arches = ["x86_64"]
        window = "24h"
        {mirror}
        "#,
        origin.url()
    )
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
    let mut node = Node::start(&super::fills::config(&origin));
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
