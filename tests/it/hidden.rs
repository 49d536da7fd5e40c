//! What of a tree is not for clients: names that begin with a dot, unless the config or a repo names them.

use super::support::client::{self, Response};
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::scratch;
use aws_lc_rs::digest::{SHA256, digest};
use std::fs;
use std::path::Path;

/// Of a file that the repo lists, although its name begins with a dot.
const LISTED: &str = "9/isos/.boot.iso";
const SETTINGS: &str = "tree.shown = [\".snapshot\"]\n";
const REPO: &str = "[[repo]]\nname = \"isos\"\npath = \"9/isos\"\nchecksums = \"CHECKSUM\"\n";
/// What a directory that rsync writes to may hold besides its files, and what others leave there.
const HIDDEN: [&str; 7] = [
    ".git/config",
    "9/.htpasswd",
    "9/isos/.~tmp~/embargoed.rpm",
    "9/isos/.embargoed.rpm.Xa3f91",
    "9/isos/.embargoed.rpm.Xa3f9",
    "9/isos/.CHECKSUM.Xa3f91",
    "9/isos/..treeinfo.Xa3f91",
];
const SHOWN: [&str; 7] = [
    "9/isos/boot.iso",
    LISTED,
    "9/isos/.treeinfo",
    "9/isos/.discinfo",
    "9/.composeinfo",
    ".well-known/security.txt",
    "9/.snapshot/old.iso",
];

/// Writes the tree and the list of its images.
fn publish(tree: &Path) {
    for path in HIDDEN.iter().chain(&SHOWN) {
        let file = tree.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("the bytes of {path}")).unwrap();
    }
    let sum = digest(&SHA256, format!("the bytes of {LISTED}").as_bytes());
    let list = format!("{}  .boot.iso\n", data_encoding::HEXLOWER.encode(sum.as_ref()));
    fs::write(tree.join("9/isos/CHECKSUM"), list).unwrap();
}

/// What is hidden is a 404 whatever the tree has, what is shown comes whole, and `explain` agrees.
fn check(node: &Node) {
    node.wait_ready();
    for path in HIDDEN.into_iter().chain([".git/", "9/isos/.~tmp~/", ".git", "9/isos/.absent"]) {
        for method in ["GET", "HEAD"] {
            let response = client::request(node.http(), method, &format!("/{path}"), &[]);
            assert_eq!(response.status, 404, "{method} {path}: {}", response.text());
            assert!(response.header("cache-status").unwrap().contains("hidden"), "{:?}", response.headers);
        }
        let explained = node.explain(path, "curl");
        assert_eq!(
            (&explained["decision"], &explained["reason"]),
            (&"answer".into(), &"hidden".into()),
            "{path}"
        );
    }
    for path in SHOWN {
        let response = node.get(&format!("/{path}"));
        assert_eq!((response.status, response.text()), (200, format!("the bytes of {path}")), "{path}");
        assert_ne!(node.explain(path, "curl")["reason"], "hidden", "{path}");
    }
    node.wait_access("the reason", |line| line["reason"] == "hidden" && line["status"] == 404);
}

#[test]
fn embargoed_and_temporary_files_are_not_served_from_a_directory() {
    let dir = scratch();
    publish(dir.path());
    let node = Node::start(&config::in_place(dir.path(), &[config::BRISK, SETTINGS, REPO].concat()));
    check(&node);
    let listed = |path: &str| node.get(path).text();
    let (root, nine, isos) = (listed("/"), listed("/9/"), listed("/9/isos/"));
    assert!(root.contains(".well-known") && !root.contains(".git"), "{root}");
    assert!(nine.contains(".composeinfo") && nine.contains(".snapshot"), "{nine}");
    assert!(!nine.contains(".htpasswd"), "{nine}");
    for name in ["\"boot.iso", ".boot.iso", ".treeinfo", ".discinfo"] {
        assert!(isos.contains(name), "{name} in {isos}");
    }
    assert!(!isos.contains("embargoed") && !isos.contains("tmp~") && !isos.contains("Xa3f9"), "{isos}");
}

#[test]
fn embargoed_and_temporary_files_are_not_asked_of_an_origin() {
    let dir = scratch();
    publish(dir.path());
    let origin = Origin::serve(dir.path());
    let node = Node::start(&config::cached(&origin, &[config::BRISK, SETTINGS, REPO].concat()));
    check(&node);
    let asked = [origin.seen(), origin.absent()].concat();
    for path in HIDDEN {
        assert!(asked.iter().all(|request| request.path != path), "the origin was asked for {path}");
    }
}

#[test]
fn browsers_take_files_for_what_their_type_says() {
    let dir = scratch();
    publish(dir.path());
    let node = Node::start(&config::in_place(dir.path(), &[config::BRISK, REPO].concat()));
    node.wait_ready();
    let has = |response: &Response| {
        response
            .headers
            .iter()
            .filter(|(name, value)| name == "x-content-type-options" && value == "nosniff")
            .count()
    };
    let target = "/9/isos/boot.iso";
    let whole = node.get(target);
    let etag = whole.header("etag").unwrap().to_owned();
    let with = |method, target, fields: &[(&str, &str)]| client::request(node.http(), method, target, fields);
    for (response, status) in [
        (&whole, 200),
        (&with("HEAD", target, &[]), 200),
        (&with("GET", target, &[("Range", "bytes=0-3")]), 206),
        (&with("GET", target, &[("Range", "bytes=0-0,2-3")]), 206),
        (&with("GET", target, &[("Range", "bytes=900-")]), 416),
        (&node.get("/9/isos/CHECKSUM"), 200),
        (&node.get("/9/isos/"), 200),
        (&node.get("/9/isos"), 301),
        (&node.get("/9/isos/none"), 404),
        (&with("POST", target, &[]), 405),
    ] {
        assert_eq!((response.status, has(response)), (status, 1), "{:?}", response.headers);
    }
    let same = with("GET", target, &[("If-None-Match", &etag)]);
    assert_eq!((same.status, has(&same)), (304, 0), "RFC 9110, 15.4.5: nothing that guides no update");
}
