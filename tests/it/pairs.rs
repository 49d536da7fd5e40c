//! Documents that belong together: a client that has begun with one generation gets the rest of that one, though the node has gone on.

use super::support::client::{Connection, Response};
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{Push, REPO, Tree};
use super::support::{scratch, wait_until};
use std::fs;

const REPOMD: &str = "repodata/repomd.xml";

/// What makes a text OpenPGP data, as far as a node looks.
const ARMOUR: &str = "-----BEGIN PGP MESSAGE-----\n";

/// Gives a file of a tree's repodata another content, at once.
fn put(tree: &Tree, end: &str, text: &str) {
    let path = tree.repo().join(format!("{REPOMD}{end}"));
    fs::write(path.with_extension("new"), text).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

/// Signs a tree's repomd.xml, by naming it.
fn sign(tree: &Tree, signature: &str) {
    put(tree, ".asc", &format!("{ARMOUR}{signature}"));
    put(tree, ".key", &format!("{ARMOUR}key of {signature}"));
}

/// A client, by its User-Agent, over one connection.
struct Client<'a> {
    agent: &'a str,
    connection: Connection,
}

impl<'a> Client<'a> {
    fn new(node: &Node, agent: &'a str) -> Self {
        Self { agent, connection: Connection::open(node.http()).unwrap() }
    }

    fn get(&mut self, target: &str) -> Response {
        self.connection.request("GET", target, &[("User-Agent", self.agent)]).unwrap()
    }

    fn file(&mut self, end: &str) -> String {
        let response = self.get(&format!("/{REPO}/{REPOMD}{end}"));
        assert_eq!(response.status, 200, "{}", response.text());
        response.text().replace(ARMOUR, "")
    }
}

/// A node with a signed repo, and the repo's tree.
fn signed(dir: &std::path::Path) -> (Tree, Origin, Node) {
    let tree = Tree::link(Push::First, &dir.join("tree"));
    tree.date_now();
    sign(&tree, "first");
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config::cached(&origin, &[config::BRISK, &config::updates("24h")].concat()));
    node.wait_ready();
    (tree, origin, node)
}

/// Another repomd.xml, and its signature after it: before it the node would take that for a new one of the old repomd.xml.
fn push(tree: &Tree, node: &Node) {
    push_unsigned(tree);
    sign(tree, "second");
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
}

fn push_unsigned(tree: &Tree) {
    let repomd = fs::read_to_string(tree.repo().join(REPOMD)).unwrap();
    put(tree, "", &repomd.replace("<revision>", "<revision>9"));
}

#[test]
fn the_signature_of_another_repomd_is_not_passed_on_from_the_origin() {
    let dir = scratch();
    let (tree, origin, node) = signed(dir.path());
    let asc = format!("{REPO}/{REPOMD}.asc");
    assert_eq!(Client::new(&node, "zypper").file(".asc"), "first");
    // That of the old repomd.xml stays; the push is offered without one in the end.
    push_unsigned(&tree);
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    assert!(!origin.seen_for(&asc).is_empty(), "it is there");
    let mut client = Client::new(&node, "zypper");
    client.file("");
    for client in [&mut client, &mut Client::new(&node, "other")] {
        let answer = client.get(&format!("/{asc}"));
        assert_eq!(answer.status, 404, "{}", answer.text());
    }
    // A key is the distribution's, not one repomd.xml's.
    assert_eq!(client.file(".key"), "key of first");
    sign(&tree, "second");
    wait_until("its own signature is taken", || client.get(&format!("/{asc}")).text().ends_with("second"));
}

#[test]
fn a_signature_is_that_of_the_repomd_which_the_client_has() {
    let dir = scratch();
    let (tree, _origin, node) = signed(dir.path());
    let mut over_one = Client::new(&node, "zypper");
    let mut over_many = Client::new(&node, "libdnf");
    let first = over_one.file("");
    assert_eq!(over_many.file(""), first);
    push(&tree, &node);

    // Others that have come meanwhile behind the same address: another client, and the same one over another connection.
    let mut other = Client::new(&node, "other");
    let second = other.file("");
    assert_ne!(first, second);
    assert_eq!((other.file(".asc"), other.file(".key")), ("second".to_owned(), "key of second".to_owned()));
    // librepo opens a connection for each of these.
    assert_eq!(Client::new(&node, "libdnf").file(".asc"), "first");
    assert_eq!(Client::new(&node, "libdnf").file(".key"), "key of first");
    let explained = node.explain(&format!("{REPO}/{REPOMD}.asc"), "libdnf");
    assert_eq!((&explained["decision"], &explained["listed"]["since"]), (&"serve".into(), &1.into()));
    // What it has taken since counts.
    let mut again = Client::new(&node, "libdnf");
    assert_eq!((again.file(""), again.file(".asc")), (second.clone(), "second".to_owned()));
    // A neighbour of one User-Agent has the second; over its own connection the first one's is known all the same.
    assert_eq!(Client::new(&node, "zypper").file(""), second);
    assert_eq!(
        (over_one.file(".asc"), over_one.file(".key")),
        ("first".to_owned(), "key of first".to_owned())
    );
    // Nothing is known of a third: what is current.
    assert_eq!(Client::new(&node, "third").file(".asc"), "second");
}

#[test]
fn where_a_generation_has_no_signature_there_is_none() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config::cached(&origin, &[config::BRISK, &config::updates("24h")].concat()));
    node.wait_ready();
    let mut zypper = Client::new(&node, "ZYpp 17");
    zypper.file("");
    push(&tree, &node);
    assert_eq!(
        zypper.get(&format!("/{REPO}/{REPOMD}.asc")).status,
        404,
        "a signature of other bytes fails the repo"
    );
    let explained = node.explain(&format!("{REPO}/{REPOMD}.asc"), "ZYpp%2017");
    assert_eq!((&explained["decision"], &explained["reason"]), (&"answer".into(), &"not-found".into()));
    zypper.file("");
    assert_eq!(zypper.file(".asc"), "second");
}

#[test]
fn a_metalink_is_followed_by_the_repomd_that_it_names() {
    let dir = scratch();
    let (tree, _origin, node) = signed(dir.path());
    let metalink = "/metalink?repo=updates&release=7.9.2009&arch=x86_64";
    let first = Client::new(&node, "monitor").file("");
    assert_eq!(Client::new(&node, "libdnf").get(metalink).status, 200);
    push(&tree, &node);
    assert_ne!(Client::new(&node, "monitor").file(""), first, "who has no metalink gets what is current");
    assert_eq!(Client::new(&node, "libdnf").file(""), first);
    assert_eq!(Client::new(&node, "libdnf").file(".asc"), "first");
    // The next metalink names the next one.
    assert_eq!(Client::new(&node, "libdnf").get(metalink).status, 200);
    assert_ne!(Client::new(&node, "libdnf").file(""), first);
    assert_eq!(Client::new(&node, "libdnf").file(".asc"), "second");
}
