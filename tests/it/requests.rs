//! Requests as RFC 3986, 9110, 9112 and 9113 have them: what is equivalent is answered alike, what is malformed gets a 400, and other
//! sites' requests change nothing. Over raw sockets, since HTTP libraries repair what they send.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::scratch;
use super::tls;
use serde_json::Value;
use std::fs;
use std::process::Command;

const FILE: &str = "7.9/os/Packages/a.rpm";

fn node() -> (tempfile::TempDir, Node) {
    let dir = scratch();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("7.9/os/Packages")).unwrap();
    fs::create_dir_all(tree.join("7.9/os/repodata")).unwrap();
    fs::write(tree.join(FILE), "package").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let alias = "[[alias]]\nfrom = \"7\"\nto = \"7.9\"\n";
    let node = Node::start(&config::in_place(&tree, alias));
    (dir, node)
}

/// The status of the answer to exactly these bytes, and its body.
fn raw(node: &Node, request: &str) -> (u16, String) {
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(request).unwrap();
    let response = connection.response("GET").unwrap_or_else(|end| panic!("{request:?}: {end:?}"));
    (response.status, response.text())
}

#[test]
fn dot_segments_are_resolved_and_then_checked() {
    let (_dir, node) = node();
    let explain = |path: &str| -> Option<Value> {
        let path: String = path.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = client::get(node.admin(), &format!("/api/v1/explain?client=192.0.2.1&path={path}"));
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).unwrap())
    };
    for (target, status) in [
        ("/7/os/./Packages/a.rpm", 200),
        ("/7/os/repodata/../Packages/a.rpm", 200),
        ("/7/os/repodata/%2e%2E/Packages/a.rpm", 200),
        ("/7/os/repodata/.%2e/Packages/%2e/a.rpm", 200),
        ("/5/../7/os/Packages/a.rpm", 200),
        ("/7/../7.9/os/Packages/a.rpm", 200),
        ("/~1/7/os/repodata/../Packages/a.rpm", 200),
        ("/~1/../7/os/Packages/a.rpm", 200),
        ("/7/os/Packages/../", 200),
        ("/7/os/Packages/..", 200),
        ("/7/os/repodata/../none", 404),
        ("/../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/7/../../secret", 400),
        ("/~1/../../secret", 400),
        ("/7/os/..%2f..%2f..%2fsecret", 400),
        ("/7/os/..\\..\\..\\secret", 400),
    ] {
        let response = client::get(node.http(), target);
        assert_eq!(response.status, status, "{target}: {}", response.text());
        assert!(status == 400 || !response.text().contains("secret"), "{target}: {}", response.text());
        let explained = explain(target);
        assert_eq!(explained.is_some(), status != 400, "{target}");
        if target.ends_with("a.rpm") {
            assert_eq!(response.text(), "package", "{target}");
            assert_eq!(explained.unwrap()["canonical"], FILE, "{target}");
        }
    }
}

#[test]
fn a_request_names_one_host_at_most_and_a_real_one() {
    let (_dir, node) = node();
    let plain = format!("/{FILE}");
    for (target, version, fields, status) in [
        (plain.as_str(), "1.1", "Host: a\r\n", 200),
        (&plain, "1.1", "Host: a.example:8080\r\n", 200),
        (&plain, "1.1", "Host: [::1]:80\r\n", 200),
        (&plain, "1.1", "Host:  192.0.2.1 \r\n", 200),
        (&plain, "1.0", "", 200),
        (&plain, "1.0", "Host: a\r\n", 200),
        (&plain, "1.1", "", 400),
        (&plain, "1.1", "Host:\r\n", 400),
        (&plain, "1.1", "Host: \r\n", 400),
        (&plain, "1.1", "Host: a/b\r\n", 400),
        (&plain, "1.1", "Host: u@a\r\n", 400),
        (&plain, "1.1", "Host: a, b\r\n", 400),
        (&plain, "1.1", "Host: a b\r\n", 400),
        (&plain, "1.1", "Host: :80\r\n", 400),
        (&plain, "1.1", "Host: a:http\r\n", 400),
        (&plain, "1.1", "Host: http://a\r\n", 400),
        (&plain, "1.1", "Host: ::1\r\n", 400),
        (&plain, "1.1", "Host: a\r\nHost: a\r\n", 400),
        (&plain, "1.0", "Host: a\r\nHost: b\r\n", 400),
        (&plain, "1.0", "Host: a/b\r\n", 400),
        (&format!("http://a{plain}"), "1.1", "Host: b\r\n", 200),
        (&format!("HTTP://[::1]:80{plain}"), "1.1", "Host: b\r\n", 200),
        (&format!("http://a{plain}"), "1.1", "Host: a/b\r\n", 400),
        (&format!("http://{plain}"), "1.1", "Host: a\r\n", 400),
        (&format!("http://:80{plain}"), "1.1", "Host: a\r\n", 400),
        (&format!("http://u@a{plain}"), "1.1", "Host: a\r\n", 400),
        (&format!("ftp://a{plain}"), "1.1", "Host: a\r\n", 400),
        ("http:///x", "1.1", "Host: a\r\n", 400),
    ] {
        let request = format!("GET {target} HTTP/{version}\r\n{fields}\r\n");
        assert_eq!(raw(&node, &request).0, status, "{request:?}");
    }
}

#[test]
fn later_versions_of_http_1_are_answered_as_1_1() {
    let (_dir, node) = node();
    for (request, status) in [
        (format!("GET http://node/{FILE} HTTP/1.2\r\nHost: node\r\n\r\n"), 200),
        (format!("GET /{FILE} HTTP/1.9\r\nHost: node\r\n\r\n"), 200),
        (format!("GET /{FILE} HTTP/1.2\r\n\r\n"), 400),
        (format!("GET /{FILE} HTTP/1.12\r\nHost: node\r\n\r\n"), 400),
        (format!("GET /{FILE} HTTP/2.0\r\nHost: node\r\n\r\n"), 400),
        (format!("GET /{FILE} HTTP/0.9\r\nHost: node\r\n\r\n"), 400),
    ] {
        let (found, body) = raw(&node, &request);
        assert_eq!(found, status, "{request:?}");
        assert!(status == 400 || body == "package", "{request:?}: {body}");
    }
    // The connection goes on, as in 1.1.
    let mut connection = Connection::open(node.http()).unwrap();
    for _ in 0..2 {
        connection.send(format!("GET /{FILE} HTTP/1.2\r\nHost: node\r\n\r\n")).unwrap();
        assert_eq!(connection.response("GET").unwrap().text(), "package");
    }
}

#[test]
fn every_version_of_http_that_curl_speaks_is_answered_over_tls() {
    let dir = scratch();
    tls::certificate(dir.path());
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/f"), "file").unwrap();
    let node = tls::secure_node(dir.path(), &format!("[origin]\npath = \"{}/tree\"\n", dir.path().display()));
    for (option, logged) in [("--http1.0", "1.0"), ("--http1.1", "1.1"), ("--http2", "2")] {
        let url = format!("https://{}/f", node.https());
        let output = Command::new("curl").args(["-ksS", option, &url]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "file", "{option}: {output:?}");
        node.wait_access(option, |line| line["protocol"] == logged && line["status"] == 200);
    }
}

#[test]
fn other_sites_change_nothing() {
    let (_dir, node) = node();
    let post = |target: &str, fields: &[(&str, &str)]| {
        client::request(node.admin(), "POST", &format!("/api/v1/{target}"), fields).status
    };
    for target in ["purge?prefix=/", "push"] {
        for fields in [
            &[("Origin", "https://other.example")][..],
            &[("Origin", "null")],
            &[("Host", "other.example")],
            &[("Host", "other.example:9180"), ("Origin", "http://other.example:9180")],
            &[("Sec-Fetch-Site", "cross-site")],
            &[("Sec-Fetch-Site", "same-site")],
        ] {
            assert_eq!(post(target, fields), 403, "{target} {fields:?}");
        }
        let here = node.admin().to_string();
        let page = format!("http://{here}");
        for fields in [
            &[][..],
            &[("Host", "localhost:4711")],
            &[("Host", here.as_str()), ("Origin", page.as_str()), ("Sec-Fetch-Site", "same-origin")],
        ] {
            assert!([200, 202].contains(&post(target, fields)), "{target} {fields:?}");
        }
    }
}

#[test]
fn other_sites_read_nothing() {
    let (_dir, node) = node();
    let get =
        |target: &str, host: &str| client::request(node.admin(), "GET", target, &[("Host", host)]).status;
    for target in ["/", "/metrics", "/readyz", "/api/v1/status", "/api/v1/explain?client=::1&path=/x"] {
        assert_eq!(get(target, "rebound.example"), 403, "{target}");
        assert_eq!(get(target, "localhost"), 200, "{target}");
    }
    assert_eq!(get("/healthz", "rebound.example"), 200);
}

#[test]
fn half_open_connections_shut_nobody_out_of_the_admin_listener() {
    let (_dir, node) = node();
    let half_open = |number: usize| {
        let mut connection = Connection::open(node.admin()).unwrap();
        if number.is_multiple_of(2) {
            connection.send("GET /metrics HTTP/1.1\r\nHost: a\r\n").unwrap();
        }
        connection
    };
    let held: Vec<Connection> = (0..160).map(half_open).collect();
    // Where a place is free only once a head has timed out, twice that is longer than a client here waits.
    for target in ["/healthz", "/metrics", "/readyz"] {
        assert_eq!(client::get(node.admin(), target).status, 200, "{target}");
    }
    drop(held);
}
