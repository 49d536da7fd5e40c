//! The push torture: one push after another, most of them broken at first, under dnf, zypper and 50 librepo processes. No broken
//! push is ever offered, each goes through by itself once the origin is right, and no client fails.
//!
//! The short form runs always; `tests/run.sh --full` sets FRESHET_FULL for the long one. FRESHET_SEED repeats what was drawn.

mod breakage;
mod tree;

use super::support::config;
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::REPO;
use super::support::zypper::Zypper;
use super::support::{said, scratch, wait_until};
use breakage::{Breakage, Harm};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tree::{PACKAGES, Push, Tree, UPDATES};

const CLIENTS: usize = 50;

/// Rounds over an HTTP origin, and over a directory.
fn rounds() -> (usize, usize) {
    if std::env::var_os("FRESHET_FULL").is_some() { (350, 150) } else { (14, 6) }
}

fn seed() -> u64 {
    let seed = std::env::var("FRESHET_SEED").ok().map(|seed| seed.parse().expect("FRESHET_SEED is a number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("FRESHET_SEED={seed}");
    seed
}

/// Keys that make a broken origin show soon, and a mirror that has what the origin shows.
fn more(mirror: &Origin) -> String {
    let keys = "http.trusted_proxies = [\"127.0.0.1/32\"]\npush.warm_for = \"3s\"\n";
    let repo = config::updates("500ms\"\nwindow_scope = \"push");
    [keys, config::BRISK, &repo, &config::mirror("copy", mirror)].concat()
}

fn of_http(origin: &Origin, mirror: &Origin) -> String {
    let keys =
        "origin.patience = \"3s\"\norigin.first_byte_timeout = \"1s\"\norigin.stall_timeout = \"2s\"\n";
    config::cached(origin, &[keys, &more(mirror)].concat())
}

#[test]
fn no_broken_push_is_offered_over_http() {
    let dir = scratch();
    let mut tree = Tree::make(dir.path());
    let origin = Origin::serve(tree.root());
    let (mirror, copy) = mirror(dir.path(), &tree);
    let node = Node::start(&of_http(&origin, &mirror));
    torture(rounds().0, &mut tree, Some(&origin), &copy, &node, dir.path());
}

#[test]
fn no_broken_push_is_offered_from_a_directory() {
    let dir = scratch();
    let mut tree = Tree::make(dir.path());
    let (mirror, copy) = mirror(dir.path(), &tree);
    let node = Node::start(&config::in_place(tree.root(), &more(&mirror)));
    torture(rounds().1, &mut tree, None, &copy, &node, dir.path());
}

/// A mirror, and its directory.
fn mirror(dir: &Path, tree: &Tree) -> (Origin, std::path::PathBuf) {
    let copy = dir.join("mirror");
    fs::create_dir_all(copy.join(REPO)).expect("the mirror's copy");
    tree.mirror(&copy);
    (Origin::serve(&copy), copy)
}

/// So many pushes, in each of which something is wrong: each breakage comes once before any comes twice.
fn torture(rounds: usize, tree: &mut Tree, origin: Option<&Origin>, copy: &Path, node: &Node, dir: &Path) {
    let mut rng = fastrand::Rng::with_seed(seed());
    node.wait_ready();
    let (end, url) = (dir.join("end"), format!("{}{REPO}/", node.url()));
    let clients: Vec<Child> = (0..CLIENTS).map(|number| client(&url, &end, number)).collect();
    let hosts = Hosts::install(&url);
    let mut left = Vec::new();
    for round in 1..=rounds {
        if left.is_empty() {
            left = Breakage::all(origin.is_some());
            rng.shuffle(&mut left);
        }
        let breakage = left.pop().expect("it was filled");
        let mut packages: Vec<usize> = (0..PACKAGES).collect();
        rng.shuffle(&mut packages);
        let compression = *rng.choice(&["gz", "xz", "bz2"]).expect("one of them");
        let push = tree.next(&packages[..UPDATES], compression);
        println!("{round}: {breakage:?}, {compression}");
        let harm = breakage.publish(tree, &push, origin);
        if breakage.holds() {
            hold(node, &harm, tree, &push, round as u64);
            // The old generation is whole while the new one is broken.
            hosts.update();
            assert_eq!(sequence(node), round as u64, "{breakage:?}: it was offered");
            harm.mend(tree, &push, origin);
            wait_until("the push is offered", || sequence(node) == round as u64 + 1);
        } else {
            wait_until("the push is offered", || sequence(node) == round as u64 + 1);
            harm.mend(tree, &push, origin);
        }
        if rng.bool() {
            tree.mirror(copy);
        }
        hosts.update();
        hosts.have(&push);
    }
    hosts.verify();
    fs::write(&end, "").expect("the end");
    let mut fetched = 0;
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().expect("python3");
        let said = said(&output);
        assert!(output.status.success(), "client {number}: {said}");
        fetched +=
            said.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok()).expect("a count");
    }
    let log = node.access();
    let redirects = log.iter().filter(|line| line["decision"] == "redirect").count();
    println!("{fetched} packages fetched by librepo, {redirects} requests redirected");
    assert!(fetched > 100 && redirects > 0, "it was no load");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// Waits until the node has looked at the broken push, and twice more.
fn hold(node: &Node, harm: &Harm, tree: &Tree, push: &Push, sequence_before: u64) {
    let last_poll = |status: &Value| status["repos"][0]["push"]["last_poll"].clone();
    let error = |status: &Value| status["repos"][0]["push"]["last_error"].is_string();
    let is_offered = |status: &Value| status["repos"][0]["generation"]["sequence"] != sequence_before;
    node.wait_status("the push is looked at", |status| error(status) || is_offered(status));
    for _ in 0..2 {
        harm.go_on(tree, push);
        let polled = last_poll(&node.status());
        node.wait_status("another poll", |status| last_poll(status) != polled && error(status));
        assert_eq!(sequence(node), sequence_before, "it was offered");
    }
}

fn sequence(node: &Node) -> u64 {
    node.status()["repos"][0]["generation"]["sequence"].as_u64().unwrap_or_default()
}

/// A client that goes on until the file at `end` is there, with 3 to 20 transfers at a time.
fn client(url: &str, end: &Path, number: usize) -> Child {
    Command::new("/usr/bin/python3")
        .args(["-c", include_str!("client.py"), url])
        .arg(end)
        .args([number.to_string(), (3 + number % 18).to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3")
}

/// A host with dnf and one with zypper, which have all packages.
struct Hosts {
    dnf: Dnf,
    zypper: Zypper,
}

impl Hosts {
    fn install(url: &str) -> Self {
        let repo = format!("[t]\nname=t\nbaseurl={url}\nenabled=1\nautorefresh=1\ngpgcheck=0\n");
        let hosts = Self { dnf: Dnf::with_baseurl(url), zypper: Zypper::new(&repo) };
        hosts.dnf.ok(&["install", "torture-*"]);
        hosts.zypper.ok(&["install", "torture-*"]);
        hosts
    }

    fn update(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.dnf.ok(&["upgrade", "--refresh"]));
            scope.spawn(|| {
                self.zypper.ok(&["refresh"]);
                self.zypper.ok(&["update"]);
            });
        });
    }

    fn have(&self, push: &Push) {
        assert_eq!(self.dnf.installed(), push.installed, "what dnf installed");
        assert_eq!(self.zypper.installed(), push.installed, "what zypper installed");
    }

    fn verify(&self) {
        self.dnf.verify();
        self.zypper.verify();
    }
}
