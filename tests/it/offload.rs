//! Clients that follow no redirect, beside others that do.

use super::support::client::Connection;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{config, scratch};
use std::net::Ipv4Addr;

/// A node with one mirror that donates `bandwidth` and may take all packages.
fn node(origin: &Origin, mirror: &Origin, bandwidth: &str) -> Node {
    let mirror = config::mirror("slow", mirror).replace("100 Gbit/s", bandwidth);
    let node =
        Node::start(&config::cached(origin, &[config::BRISK, &config::updates("1ms"), &mirror].concat()));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    node
}

/// Whether a client, by address and User-Agent, is redirected for a package; else why not.
fn asks(node: &Node, addr: [u8; 4], agent: &str, package: usize) -> Result<(), String> {
    let mut connection = Connection::open_from(Ipv4Addr::from(addr), node.http()).unwrap();
    let target = format!("/{REPO}/{}", repo::rpm(package, Push::First));
    let response = connection.request("GET", &target, &[("User-Agent", agent)]).unwrap();
    match response.status {
        302 => Ok(()),
        _ => Err(response.header("cache-status").unwrap_or_default().to_owned()),
    }
}

#[test]
fn a_client_that_follows_no_redirect_takes_none_from_others() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = node(&origin, &mirror, "8 Mbit/s");
    // Packages of 4 to 6 MB; each User-Agent is a client with nothing in the air.
    let mut attack = (0..64).map(|client| {
        let agent = format!("libdnf that follows nothing {client}");
        asks(&node, [127, 100, 1, 1], &agent, 50 + client % 10)
    });
    let is_full =
        |answer: &Result<(), String>| answer.as_ref().is_err_and(|why| why.contains("no-fresh-mirror"));
    assert!(attack.by_ref().take(20).any(|answer| is_full(&answer)), "the attack's own account is full");
    for network in 0..40 {
        attack.next();
        let agent = format!("libdnf {network}");
        assert_eq!(asks(&node, [127, 100, 10 + network, 7], &agent, usize::from(network) % 10), Ok(()));
    }
}

#[test]
fn a_bounce_gives_the_mirror_back_what_its_redirect_took() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = node(&origin, &mirror, "1 Mbit/s");
    let ahead = || node.status()["mirrors"][0]["ahead_bytes"].as_u64().unwrap();
    let largest = repo::PACKAGES - 1;
    assert_eq!(asks(&node, [127, 100, 1, 1], "libdnf", largest), Ok(()));
    assert!(ahead() > 4_000_000, "{}", ahead());
    let bounce: Result<(), String> = asks(&node, [127, 100, 1, 1], "libdnf", largest);
    assert!(bounce.is_err_and(|why| why.contains("bounce")));
    assert_eq!(ahead(), 0);
}
