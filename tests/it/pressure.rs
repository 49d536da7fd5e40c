//! Egress over the budget, inside the window: the excess goes to mirrors, and nobody is refused.

use super::support::client::Connection;
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{now, scratch, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn node(origin: &Origin, mirror: Option<&Origin>) -> Node {
    let mirror = mirror.map_or_else(String::new, |mirror| config::mirror("fresh", mirror));
    let capacity = "egress.capacity = \"40 Mbit/s\"\n";
    let node = Node::start(&config::cached(
        origin,
        &[capacity, config::BRISK, &config::updates("24h"), &mirror].concat(),
    ));
    node.wait_ready();
    node
}

/// Ten clients that want 40 Mbit/s each, ten times the node's capacity in all, for some seconds. A redirect is their
/// end of a file: they go on with the next one.
fn crowd(node: &Node) -> Vec<Value> {
    let until = now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        for client in 0..10 {
            scope.spawn(move || {
                let agent = format!("libdnf client {client}");
                let mut connection = Connection::open(node.http()).unwrap();
                let mut step = 0;
                while now() < until {
                    let begun = now();
                    let package = repo::rpm((client + step) % repo::PACKAGES, Push::First);
                    let response = connection
                        .request("GET", &format!("/{REPO}/{package}"), &[("User-Agent", &agent)])
                        .unwrap();
                    assert!(matches!(response.status, 200 | 302), "{}", response.status);
                    step += 1;
                    // 5 MB/s each: the pause that a line of that speed would make.
                    let pace = Duration::from_secs_f64(response.body.len() as f64 / 5e6);
                    std::thread::sleep(pace.saturating_sub(begun.elapsed()).max(Duration::from_millis(10)));
                }
            });
        }
    });
    node.access()
        .into_iter()
        .filter(|line| line["path"].as_str().is_some_and(|path| path.ends_with(".rpm")))
        .collect()
}

#[test]
fn the_excess_is_redirected() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = node(&origin, Some(&mirror));
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let log = crowd(&node);
    let by = |reason: &str| log.iter().filter(|line| line["reason"] == reason).count();
    println!(
        "{} requests: {} by window, {} by pressure, {} by slow start",
        log.len(),
        by("window"),
        by("pressure"),
        by("slow-start")
    );
    assert!(by("pressure") > 0 && by("window") > 0, "{log:#?}");
    assert!(
        by("pressure") > by("window"),
        "most of ten times the capacity is shed: {}, {}",
        by("pressure"),
        by("window")
    );
    assert!(log.iter().all(|line| line["decision"] != "redirect" || line["reason"] == "pressure"));
    assert!(log.iter().all(|line| line["status"].as_u64().unwrap() < 400 && line["complete"] == true));
}

#[test]
fn with_no_fresh_mirror_everything_is_served() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let mut dead = Origin::serve(tree.root());
    dead.kill();
    let node = node(&origin, Some(&dead));
    let log = crowd(&node);
    assert!(log.iter().all(|line| line["status"] == 200 && line["complete"] == true), "{log:#?}");
    assert!(log.iter().any(|line| line["reason"] == "no-fresh-mirror"), "pressure was there: {log:#?}");
    assert!(node.metric("freshet_egress_pressure_ratio").is_some());
}

/// Asks for a package, and tells once its first byte has come.
fn ask(node: &Node, client: usize) -> (TcpStream, Arc<AtomicBool>) {
    let mut socket = TcpStream::connect(node.http()).unwrap();
    let package = repo::rpm(repo::PACKAGES - 1, Push::First);
    let head = format!("GET /{REPO}/{package} HTTP/1.1\r\nHost: node\r\nUser-Agent: libdnf {client}\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let (begun, mut reading) = (Arc::new(AtomicBool::new(false)), socket.try_clone().unwrap());
    let told = begun.clone();
    std::thread::spawn(move || {
        if reading.read(&mut [0]).is_ok_and(|read| read > 0) {
            told.store(true, Ordering::Release);
        }
        // Until the test lets go of it.
        let _ = std::io::copy(&mut reading, &mut std::io::sink());
    });
    (socket, begun)
}

#[test]
fn metadata_go_before_packages_that_wait() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let capacity = "egress.capacity = \"1 Mbit/s\"\n";
    let text = [capacity, config::BRISK, &config::updates("24h")].concat();
    let node = Node::start(&config::cached(&origin, &text));
    node.wait_ready();
    let waiting = |least: f64| {
        wait_until("packages to wait", || node.metric("freshet_egress_waiting_transfers") >= Some(least));
    };
    // More than have their floor in a megabit.
    let crowd: Vec<_> = (0..30).map(|client| ask(&node, client)).collect();
    waiting(20.0);
    let (socket, begun) = ask(&node, 30);
    waiting(21.0);
    for path in ["repodata/repomd.xml".to_owned(), repo_metadata(tree.root())] {
        assert_eq!(node.get(&format!("/{REPO}/{path}")).status, 200);
        assert!(!begun.load(Ordering::Acquire), "{path} came later, and goes first");
    }
    let all = crowd.iter().map(|(socket, _)| socket).chain([&socket]);
    all.for_each(|socket| socket.shutdown(Shutdown::Both).unwrap());
}

/// A file that repomd.xml lists.
fn repo_metadata(tree: &Path) -> String {
    let mut names = std::fs::read_dir(tree.join(REPO).join("repodata")).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        format!("repodata/{name}")
    });
    names.find(|name| name.contains("primary.xml")).unwrap()
}
