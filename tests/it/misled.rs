//! Mirrors that would lead the prober elsewhere: to another port, or by their name into the node's own network.

use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{Push, REPO, Tree};
use super::support::{config, scratch, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A hosts file of the node's own, in a mount namespace.
const WITH_NAMES: [&str; 6] =
    ["unshare", "-rm", "sh", "-c", "mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"];
const REPOMD: &str = "repodata/repomd.xml";

/// A node with one mirror, known by a name whose addresses the test says.
struct Named {
    node: Node,
    hosts: PathBuf,
    _origin: Origin,
}

impl Named {
    fn start(dir: &Path, master: &Tree, port: u16, addresses: &[&str]) -> Self {
        let origin = Origin::serve(master.root());
        let hosts = dir.join("hosts");
        write(&hosts, addresses);
        let command = WITH_NAMES.map(|word| word.replace("{hosts}", hosts.to_str().unwrap()));
        let table = format!("[[mirror]]\nname = \"m\"\nurl = \"http://mirror.test:{port}/\"\n");
        let settings = "mirrors.timeout = \"1s\"\n";
        let text = [settings, config::BRISK, &config::updates("1ms"), &table].concat();
        let node = Node::start_by(&command.each_ref().map(String::as_str), &config::cached(&origin, &text));
        Self { node, hosts, _origin: origin }
    }

    fn wait_said(&self, what: &str) {
        self.node.wait_status(what, |status| status["mirrors"][0].to_string().contains(what));
    }
}

/// In place, since the file is what is mounted.
fn write(hosts: &Path, addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} mirror.test\n")).collect();
    fs::write(hosts, format!("127.0.0.1 localhost\n{lines}")).unwrap();
}

fn asked(of: &Origin) -> usize {
    of.seen().len() + of.absent().len()
}

fn is_fresh(status: &Value) -> bool {
    status["mirrors"][0]["repos"][0]["fresh"] == true
}

#[test]
fn a_mirror_cannot_send_the_prober_to_another_port() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror, inside) =
        (Origin::serve(tree.root()), Origin::serve(tree.root()), Origin::serve(tree.root()));
    let location = format!("{}{REPO}/{REPOMD}", inside.url());
    mirror.act(&format!("{REPO}/{REPOMD}"), [Act::Status(302), Act::Header("Location", location)]);
    let text = [config::BRISK, &config::updates("1ms"), &config::mirror("m", &mirror)].concat();
    let node = Node::start(&config::cached(&origin, &text));
    node.wait_status("what it says", |status| {
        status["mirrors"][0].to_string().contains("redirects to http://127.0.0.1:")
    });
    assert_eq!(asked(&inside), 0);
}

#[test]
fn a_name_leads_to_no_metadata_service() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    for address in ["169.254.169.254", "0.0.0.0", "224.0.0.1"] {
        let named = Named::start(dir.path(), &tree, 80, &[address]);
        named.wait_said(&format!("resolves to {address}, which is not a public address"));
    }
}

#[test]
fn a_name_that_was_public_leads_nowhere_inside_later() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let inside = Origin::serve(tree.root());
    // Of the addresses for examples (RFC 5737), which no host has; the one inside is left out at once.
    let named = Named::start(dir.path(), &tree, inside.addr().port(), &["127.0.0.1", "192.0.2.1"]);
    named.node.wait_status("it is asked for", |status| status["mirrors"][0]["state"] == "down");
    write(&named.hosts, &["127.0.0.1"]);
    named.wait_said("resolves to 127.0.0.1, which is not a public address");
    assert_eq!(asked(&inside), 0);
}

#[test]
fn a_mirror_that_is_inside_is_probed_there_by_address_and_by_name() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let mirror = Origin::serve(tree.root());
    let named = Named::start(dir.path(), &tree, mirror.addr().port(), &["127.0.0.1"]);
    named.node.wait_status("the mirror is proven", is_fresh);
    let text = [config::BRISK, &config::updates("1ms"), &config::mirror("m", &mirror)].concat();
    let node = Node::start(&config::cached(&Origin::serve(tree.root()), &text));
    node.wait_status("its host is up", |status| status["mirrors"][0]["state"] == "up");
}

#[test]
fn a_redirect_leads_to_the_address_that_gave_it() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let first = Origin::serve(tree.root());
    let second = Origin::behind(&first, [127, 0, 0, 2].into(), tree.root());
    let repomd = format!("{REPO}/{REPOMD}");
    // No connection is kept on which the redirect could be followed.
    let close = Act::Header("Connection", "close".to_owned());
    first.act("*", [close.clone()]);
    let location = Act::Header("Location", "/led".to_owned());
    first.act(&repomd, [Act::Hang, Act::Status(302), location, close]);
    let named = Named::start(dir.path(), &tree, first.addr().port(), &["127.0.0.1"]);
    wait_until("the first host is asked", || !first.seen_for(&repomd).is_empty());
    // The name stands for another host by the time of the redirect.
    write(&named.hosts, &["127.0.0.2"]);
    first.release(&repomd);
    let led = |of: &Origin| of.absent().iter().any(|seen| seen.path == "led");
    wait_until("the redirect is followed", || led(&first) || led(&second));
    assert!(led(&first) && !led(&second), "to the host that gave it");
}
