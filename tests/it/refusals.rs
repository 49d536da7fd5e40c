//! Bad requests get a clear error of the right status, and never a file that isn't theirs.

use super::support::client::{self, Connection, End};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::{scratch, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;

fn tree_and_node() -> (tempfile::TempDir, Node) {
    tree_and_node_with("")
}

fn tree_and_node_with(keys: &str) -> (tempfile::TempDir, Node) {
    let dir = scratch();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(tree.join("f"), "file").unwrap();
    fs::write(tree.join("sub/g"), "inner").unwrap();
    fs::write(tree.join("sub/naïve +&.txt"), "named").unwrap();
    symlink("../secret", tree.join("out")).unwrap();
    symlink(dir.path().join("secret"), tree.join("abs")).unwrap();
    symlink("sub", tree.join("in")).unwrap();
    symlink("../..", tree.join("sub/up")).unwrap();
    let node = Node::start(&config::in_place(&tree, keys));
    (dir, node)
}

#[test]
fn paths() {
    let (_dir, node) = tree_and_node();
    for (target, status) in [
        ("/f", 200),
        ("/in/g", 200),
        ("//sub///g", 200),
        ("/~1/f", 200),
        ("/sub/na%C3%AFve%20%2B%26.txt", 200),
        ("/none", 404),
        ("/f/", 404),
        ("/out", 404),
        ("/abs", 404),
        ("/sub/up/secret", 404),
        ("/sub/up/tree/f", 404),
        ("/../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/sub/../../secret", 400),
        ("/sub/%2e%2e/%2e%2e/secret", 400),
        ("/~1/../../secret", 400),
        ("/sub/up/../secret", 404),
        ("/in/../secret", 404),
        ("/sub%2fg", 400),
        ("/sub%5cg", 400),
        ("/sub\\g", 400),
        ("/f%00", 400),
        ("/f%0a", 400),
        ("/%ff", 400),
        ("/%zz", 400),
        ("/%", 400),
    ] {
        let response = client::get(node.http(), target);
        assert_eq!(response.status, status, "{target}: {}", response.text());
        assert!(!response.text().contains("secret") || status == 400, "{target}");
        assert!(
            status == 200 || response.text().starts_with(&status.to_string()),
            "{target}: {}",
            response.text()
        );
    }
    let slash = client::get(node.http(), "/~2/sub");
    assert_eq!((slash.status, slash.header("location")), (301, Some("/~2/sub/")));
    let listing = client::get(node.http(), "/sub/").text();
    assert!(listing.contains("na%C3%AFve%20%2B%26.txt") && listing.contains(">g<"), "{listing}");
}

#[test]
fn methods_and_malformed_requests() {
    let (_dir, node) = tree_and_node();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let response = client::request(node.http(), method, "/f", &[]);
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let raw = |request: &str| {
        let mut connection = Connection::open(node.http()).unwrap();
        connection.send(request).unwrap();
        connection.response("GET").map(|response| response.status)
    };
    for request in [
        "GET /f HTTP/1.1\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        "GET  /f HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "\u{16}\u{3}\u{1}",
        "GET f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET f?q=http://h/f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    ] {
        assert_eq!(raw(request), Ok(400), "{request:?}");
    }
    assert_eq!(raw("GET http://a/f HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(200));
    assert_eq!(raw("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(200), "the root");
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(5000));
    assert_eq!(raw(&long), Ok(400));
    let flood: String = (0..100).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(raw(&format!("GET /f HTTP/1.1\r\nHost: a\r\n{flood}\r\n")), Ok(431));
    let mut old = std::net::TcpStream::connect(node.http()).unwrap();
    old.write_all(b"GET /f HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).unwrap();
    // RFC 9110, section 2.5: the version is the server's own. What follows is framed as 1.0 has it.
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nfile"), "{answer}");
    assert_eq!(client::get(node.http(), "/f").text(), "file", "and it still serves");
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let (_dir, node) = tree_and_node_with("http.head_timeout = \"1s\"");
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send("GET /f HTTP/1.1\r\nHost:").unwrap();
    assert!(matches!(connection.end(), End::Closed | End::Reset));
}

#[test]
fn mirrorlists_without_sense() {
    let (_dir, node) = tree_and_node();
    for (target, status) in
        [("/mirrorlist", 400), ("/mirrorlist?repo=x", 400), ("/metalink?repo=x-7&arch=y", 404)]
    {
        assert_eq!(client::get(node.http(), target).status, status, "{target}");
    }
}

#[test]
fn clients_that_wait_too_long_are_cut_off() {
    let tree = scratch();
    fs::write(tree.path().join("big"), vec![1; 50_000_000]).unwrap();
    let keys = "http.idle_timeout = \"500ms\"\nhttp.write_timeout = \"500ms\"";
    let node = Node::start(&config::in_place(tree.path(), keys));
    let mut idle = Connection::open(node.http()).unwrap();
    assert_eq!(idle.end(), End::Closed);
    // It asks, and then takes nothing.
    let mut stalled = Connection::open(node.http()).unwrap();
    stalled.send(client::head("GET", "/big", &[])).unwrap();
    let line = node.wait_access("the stalled reader is cut", |line| line["path"] == "/big");
    assert_eq!(line["complete"], false, "{line}");
}

#[test]
fn a_client_that_leaves_before_its_answer_is_accounted_for() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    origin.put("f", "body");
    origin.act("f", [Act::Hang]);
    let node = Node::start(&config::cached(&origin, ""));
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(client::head("GET", "/f", &[])).unwrap();
    wait_until("the node asks the origin", || !origin.seen_for("f").is_empty());
    drop(connection);
    let line = node.wait_access("it is logged", |line| line["path"] == "/f");
    assert_eq!(
        (line["reason"].as_str(), line["status"].as_u64()),
        (Some("client-left"), Some(499)),
        "{line}"
    );
}
