//! A directory origin: served in place, and what a push removes stays reachable.

use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::repo::{self, ALIASED, Push, REPO, Tree};
use super::support::{client, config, run, scratch};
use std::fs;
use std::process::Command;

fn node(tree: &Tree) -> Node {
    let alias = "[[alias]]\nfrom = \"7\"\nto = \"7.9.2009\"\n";
    let node = Node::start(&config::in_place(
        tree.root(),
        &[config::BRISK, alias, &config::updates("24h")].concat(),
    ));
    node.wait_ready();
    node
}

#[test]
fn files_that_rsync_deletes_stay_reachable() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let node = node(&tree);
    let updated = 5;
    let old = repo::rpm(updated, Push::First);
    let before = fs::read(tree.repo().join(&old)).unwrap();
    let old_metadata: Vec<String> =
        repo::files(&tree.repo()).into_iter().filter(|file| file.contains("primary")).collect();
    let behind =
        Dnf::with_baseurl(&format!("{}{ALIASED}/", node.url())).option("--setopt=t.metadata_expire=86400");
    behind.ok(&["makecache"]);

    tree.sync(Push::Second);
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    assert!(!tree.repo().join(&old).exists(), "it is gone from the tree");
    assert!(client::get(node.http(), &format!("/{ALIASED}/{old}")).body == before, "by the alias");
    assert!(client::get(node.http(), &format!("/{REPO}/{old}")).body == before, "by the canonical name");
    assert_eq!(client::get(node.http(), &format!("/{REPO}/{}", old_metadata[0])).status, 200);
    behind.ok(&["install", &repo::name(updated)]);
    assert_eq!(behind.installed(), [format!("{}-1.0-1", repo::name(updated))]);
    behind.verify();

    let copies = run(Command::new("find")
        .arg(node.dir().join("state"))
        .args(["-type", "f", "-links", "1", "-size", "+200k"]));
    assert_eq!(copies, "", "old files are links, not copies");
    let served: Vec<String> =
        node.access().iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
    assert!(served.iter().all(|reason| reason != "internal"), "{served:?}");
}

#[test]
fn a_file_that_is_replaced_keeps_its_listed_bytes() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let node = node(&tree);
    let package = repo::rpm(2, Push::First);
    let listed = fs::read(tree.repo().join(&package)).unwrap();
    // As rsync does it: a new file renamed over the old one, of the same length.
    let mut other = listed.clone();
    other[5000] ^= 1;
    fs::write(tree.repo().join("incoming"), &other).unwrap();
    fs::rename(tree.repo().join("incoming"), tree.repo().join(&package)).unwrap();
    let served = client::get(node.http(), &format!("/{REPO}/{package}"));
    assert!(served.body == listed, "the catalogue's bytes, not what lies at the name now");
}
