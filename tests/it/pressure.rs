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

/// Ten clients that want 40 Mbit/s each, ten times the node's capacity in all, until requests for packages have come out as
/// `wanted`. A redirect is their end of a file: they go on with the next one.
fn crowd(node: &Node, what: &str, wanted: impl Fn(&dyn Fn(&str) -> f64) -> bool) -> Vec<Value> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_over, ends) = (&is_over, Ends(&is_over));
        for client in 0..10 {
            scope.spawn(move || {
                let agent = format!("libdnf client {client}");
                let mut connection = Connection::open(node.http()).unwrap();
                let mut step = 0;
                while !is_over.load(Ordering::Relaxed) {
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
        wait_until(what, || wanted(&|reason| answered(node, reason)));
        drop(ends);
    });
    let is_package = |line: &Value| line["path"].as_str().is_some_and(|path| path.ends_with(".rpm"));
    node.access().into_iter().filter(is_package).collect()
}

/// Ends the crowd, also where the test has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Requests that were decided for this reason.
fn answered(node: &Node, reason: &str) -> f64 {
    let sample = |decision| format!("freshet_requests_total{{decision=\"{decision}\",reason=\"{reason}\"}}");
    ["redirect", "serve"].into_iter().filter_map(|decision| node.metric(&sample(decision))).sum()
}

#[test]
fn the_excess_is_redirected() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = node(&origin, Some(&mirror));
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    // Of ten times the capacity most is shed, in the end.
    let log = crowd(&node, "most to be shed", |by| by("window") > 0.0 && by("pressure") > by("window"));
    println!("{} requests", log.len());
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
    let log = crowd(&node, "pressure", |by| by("no-fresh-mirror") > 0.0);
    assert!(log.iter().all(|line| line["status"] == 200 && line["complete"] == true), "{log:#?}");
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
