//! What origins and clients write, where people read it: no line is forged, no terminal commanded.

use super::support::client::{self, Connection};
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{Push, REPO, Tree};
use super::support::{config, scratch, wait_until};

/// A line of the log as an attacker would have it.
const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR freshet: the disk is full";

fn is_clean(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'))
}

#[test]
fn what_an_origin_and_a_client_write_forges_no_line_of_a_log() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config::cached(&origin, &[config::BRISK, &config::updates("1ms")].concat()));
    node.wait_ready();

    // Where its parser quotes what it doesn't expect.
    let repomd = format!("<?xml version=\"1.0\"?>\n<repomd></\u{1}\u{9b}2J\u{202e}\n{FORGED}\n>");
    origin.put(&format!("{REPO}/repodata/repomd.xml"), repomd);
    wait_until("the push is refused", || node.log().contains("the disk is full"));
    let log = node.log();
    assert!(is_clean(&log), "{log:?}");
    assert!(log.contains(r"\u0001\u009b2J\u202e\u000a"), "it is shown as it came: {log}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T")), "{log}");

    let text = client::get(node.admin(), "/api/v1/status").text();
    assert!(text.contains("the disk is full") && is_clean(&text), "{text}");
    let text = client::get(node.admin(), "/readyz").text();
    assert!(is_clean(&text) && !text.lines().any(|line| line.starts_with("2026-01-01T")), "{text}");

    let mut connection = Connection::open(node.http()).unwrap();
    let agent = "libdnf \u{9b}2J\u{202e}";
    let response = connection.request("GET", "/none", &[("User-Agent", agent)]).unwrap();
    assert_eq!(response.status, 404);
    let line = node.wait_access("the request", |line| line["path"] == "none" || line["path"] == "/none");
    assert_eq!(line["user_agent"], agent, "for programs it is what it was");
}
