//! Mirrorlists and metalinks: by all names that clients have for a repo, with URLs that they can use, at all times.

use super::https_mirrors::{certified, secured};
use super::support::client::{self, Connection, Response};
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{Push, REPO, Tree};
use super::support::{config, scratch, wait_until};
use serde_json::Value;
use std::fs;
use std::thread;
use tokio::runtime::Runtime;

const REPOMD: &str = "7.9.2009/updates/x86_64/repodata/repomd.xml";
const ALIAS: &str = "[[alias]]\nfrom = \"7\"\nto = \"7.9.2009\"\n";

/// An origin with the repo, which says nothing of repomd.xml until it is released.
fn silent_origin(dir: &std::path::Path) -> (Tree, Origin) {
    let tree = Tree::link(Push::First, &dir.join("tree"));
    let origin = Origin::serve(tree.root());
    origin.act(REPOMD, [Act::Hang]);
    (tree, origin)
}

fn urls(list: &Response) -> Vec<String> {
    list.text().lines().filter(|line| line.starts_with("http")).map(str::to_owned).collect()
}

#[test]
fn repos_are_found_by_all_names_that_clients_have_for_them() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let stream = "[[repo]]\nname = \"baseos\"\npath = \"{release}/BaseOS/{arch}/os\"\nreleases = [\"9-stream\"]\narches = [\"x86_64\"]\n";
    let text = format!("node.urls = [\"http://{{http}}/\"]\n{}{ALIAS}{stream}", config::updates("1h"));
    let node = Node::start(&config::in_place(tree.root(), &text));
    for (target, status, path) in [
        ("/mirrorlist?release=7.9.2009&arch=x86_64&repo=updates", 200, REPO),
        ("/mirrorlist?release=7&arch=x86_64&repo=updates", 200, REPO),
        ("/?release=7&arch=x86_64&repo=updates&infra=stock", 200, REPO),
        ("/mirrorlist?release=7&arch=x86_64&repo=UPDATES", 200, REPO),
        ("/mirrorlist?repo=Updates-7&arch=x86_64", 200, REPO),
        ("/mirrorlist?repo=updates/7/x86_64", 200, REPO),
        ("/metalink?repo=updates-7&arch=x86_64", 200, REPO),
        ("/mirrorlist?repo=centos-baseos-9-stream&arch=x86_64", 200, "9-stream/BaseOS/x86_64/os"),
        ("/mirrorlist?repo=baseos-9-stream&arch=x86_64", 200, "9-stream/BaseOS/x86_64/os"),
        ("/mirrorlist?release=7.6.1810&arch=x86_64&repo=updates", 404, ""),
        ("/mirrorlist?release=8&arch=x86_64&repo=updates", 404, ""),
        ("/mirrorlist?repo=updates&arch=x86_64", 400, ""),
        ("/mirrorlist?arch=x86_64", 400, ""),
    ] {
        let list = client::get(node.http(), target);
        assert_eq!(list.status, status, "{target}: {}", list.text());
        assert!(list.text().contains(&format!("/{path}/")) || status != 200, "{target}: {}", list.text());
        let encoded = target.replace('?', "%3F").replace('&', "%26");
        let explain = client::get(node.admin(), &format!("/api/v1/explain?client=192.0.2.1&path={encoded}"));
        let explained: Value = serde_json::from_slice(&explain.body).unwrap();
        let reason = ["mirrorlist", "bad-request", "not-found"]
            [[200, 400, 404].iter().position(|s| *s == status).unwrap()];
        assert_eq!(
            (&explained["decision"], &explained["reason"]),
            (&"answer".into(), &reason.into()),
            "{target}"
        );
    }
}

#[test]
fn a_client_gets_urls_of_its_protocol_alone() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let runtime = Runtime::new().unwrap();
    let (pem, server) = certified("authority", "localhost", false);
    fs::write(dir.path().join("roots.pem"), pem).unwrap();
    let trusting = format!("SSL_CERT_FILE={}", dir.path().join("roots.pem").display());
    let secure = format!("https://localhost:{}/", secured(&runtime, origin.addr(), server));
    let mirrors =
        config::mirror("plain", &origin) + &format!("[[mirror]]\nname = \"secure\"\nurl = \"{secure}\"\n");
    let node = |urls: &str, window: &str| {
        let text = config::cached(&origin, &[config::BRISK, &config::updates(window), &mirrors].concat());
        let text = text.replace("node.urls = [\"http://{http}/\"]", &format!("node.urls = [{urls}]"));
        let node = Node::start_by(&["env", &trusting], &text);
        node.wait_status("both mirrors are fresh", |status| status["repos"][0]["fresh_mirrors"] == 2);
        node
    };
    let list = |node: &Node, kind: &str, more: &str| {
        client::get(node.http(), &format!("/{kind}?release=7.9.2009&arch=x86_64&repo=updates{more}"))
    };
    let own = "http://own.example/";
    let both = node(&format!("\"{own}\", \"https://own.example/\""), "1ms");
    for (protocol, own, mirror) in [("https", "https://own.example/", &secure), ("http", own, &origin.url())]
    {
        let more = format!("&protocol={protocol}");
        let named = urls(&list(&both, "mirrorlist", &more));
        assert!(named.iter().all(|url| url.starts_with(&format!("{protocol}://"))), "{named:?}");
        assert!(named[0].starts_with(mirror.as_str()), "{named:?}");
        assert_eq!(named[1..].iter().filter(|url| url.starts_with(own)).count(), 4, "{named:?}");
        let document = list(&both, "metalink", &more).text();
        let other = if protocol == "http" { ">https://" } else { ">http://" };
        assert!(document.contains(mirror.as_str()) && !document.contains(other), "{document}");
    }
    assert_eq!(urls(&list(&both, "mirrorlist", "&protocol=http,https")).len(), 6);
    // Within a window the nodes alone are named; to a client that they can't talk to, a mirror that has it all.
    let plain = node(&format!("\"{own}\""), "90days");
    assert!(urls(&list(&plain, "mirrorlist", "")).iter().all(|url| url.starts_with(own)));
    let named = urls(&list(&plain, "mirrorlist", "&protocol=https"));
    assert_eq!(named, [format!("{secure}{REPO}/")]);
}

#[test]
fn before_the_first_generation_a_mirrorlist_names_the_nodes_and_a_metalink_waits() {
    let dir = scratch();
    let (_tree, origin) = silent_origin(dir.path());
    let text = format!("origin.first_byte_timeout = \"1m\"\n{}{}", config::updates("1h"), ALIAS);
    let node = Node::start(&config::cached(&origin, &text));
    wait_until("the origin is asked", || !origin.seen_for(REPOMD).is_empty());
    let list = client::get(node.http(), "/mirrorlist?release=7&arch=x86_64&repo=updates");
    let named = urls(&list);
    assert_eq!((list.status, named.len()), (200, 4), "{}", list.text());
    assert!(named.iter().all(|url| url.starts_with(&node.url()) && url.ends_with(&format!("{REPO}/"))));

    let mut waiting = Connection::open(node.http()).unwrap();
    waiting.send(client::head("GET", "/metalink?repo=updates-7&arch=x86_64", &[])).unwrap();
    let metalink = format!("{}metalink?repo=updates-7&arch=x86_64", node.url());
    let dnf = Dnf::new(&format!("[t]\nname=t\nmetalink={metalink}\ngpgcheck=0\n"));
    thread::scope(|scope| {
        let dnf = scope.spawn(|| dnf.output(&["makecache"]));
        wait_until("dnf is connected", || node.metric("freshet_connections{listener=\"http\"}") >= Some(2.0));
        origin.release(REPOMD);
        let output = dnf.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
    let document = waiting.response("GET").unwrap();
    assert_eq!(document.status, 200, "{}", document.text());
    assert!(document.text().contains("<hash type=\"sha256\">"), "{}", document.text());
    let is_list = |line: &Value| line["path"].as_str().is_some_and(|path| path.contains("/metalink"));
    let asked = || node.access().iter().filter(|line| is_list(line)).count();
    wait_until("both are logged", || asked() >= 2);
    assert_eq!(asked(), 2, "dnf asked once");
}

#[test]
fn without_patience_nothing_waits() {
    let dir = scratch();
    let (_tree, origin) = silent_origin(dir.path());
    let text = format!("origin.patience = \"0s\"\n{}", config::updates("1h"));
    let node = Node::start(&config::cached(&origin, &text));
    let document = client::get(node.http(), "/metalink?repo=updates-7.9.2009&arch=x86_64");
    assert_eq!(document.status, 503, "{}", document.text());
}
