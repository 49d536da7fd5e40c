//! Mirrors as they are: one that lacks a few files, one that is busy, a name with several hosts behind it.

use super::support::client::Connection;
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{run, scratch, wait_until};
use serde_json::Value;
use std::cell::Cell;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A node, its origin and mirrors, each with a tree of its own.
struct Scene {
    node: Node,
    origin: Origin,
    mirrors: Vec<Origin>,
    master: Tree,
    trees: Vec<Tree>,
    clients: Cell<usize>,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// With so many mirrors. `prepare` sees the trees before anything reads them.
    fn new(mirrors: usize, more: &str, prepare: impl Fn(&Tree, &[Tree])) -> Self {
        let dir = scratch();
        let tree = |name: &str| Tree::link(Push::First, &dir.path().join(name));
        let master = tree("master");
        let trees: Vec<Tree> = (0..mirrors).map(|number| tree(&format!("m{number}"))).collect();
        prepare(&master, &trees);
        let origin = Origin::serve(master.root());
        let mirrors: Vec<Origin> = trees.iter().map(|tree| Origin::serve(tree.root())).collect();
        let tables: String = mirrors
            .iter()
            .enumerate()
            .map(|(number, mirror)| config::mirror(&format!("m{number}"), mirror))
            .collect();
        let text = [more, config::BRISK, &config::updates("1ms"), &tables].concat();
        let node = Node::start(&config::cached(&origin, &text));
        node.wait_ready();
        Self { node, origin, mirrors, master, trees, clients: Cell::new(0), _dir: dir }
    }

    /// Where a client is sent for a file that was never seen before; None: it is served.
    fn sent(&self, file: &str) -> Option<String> {
        let number = self.clients.replace(self.clients.get() + 1);
        let agent = format!("libdnf client {number}");
        let mut connection = client(&self.node, number);
        let response =
            connection.request("GET", &format!("/{REPO}/{file}"), &[("User-Agent", &agent)]).unwrap();
        response.header("location").map(str::to_owned)
    }

    /// What is told of mirror `number`.
    fn wait_mirror(&self, number: usize, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let held = Cell::new(None);
        self.node.wait_status(what, |status| {
            let repo = status["mirrors"][number]["repos"][0].clone();
            let is_so = holds(&repo);
            held.set(Some(repo));
            is_so
        });
        held.take().unwrap()
    }

    fn wait_sequence(&self, sequence: u64) {
        self.node.wait_status("the push is offered", |status| {
            status["repos"][0]["generation"]["sequence"] == sequence
        });
    }
}

/// The connection of a client in a network of its own: what one network brings back counts eight times a minute only.
fn client(node: &Node, number: usize) -> Connection {
    let [.., high, low] = number.to_be_bytes();
    Connection::open_from(Ipv4Addr::new(127, 1 + high, low, 1), node.http()).unwrap()
}

fn is_fresh(repo: &Value) -> bool {
    repo["fresh"] == true
}

/// A push that lists no more than it did, and names its files anew: databases and all.
fn createrepo(tree: &Tree, options: &[&str]) {
    run(Command::new("createrepo_c")
        .args(["--quiet", "--general-compress-type=gz"])
        .args(options)
        .arg(tree.repo()));
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--no-target-directory"]).arg(from).arg(to));
}

#[test]
fn a_mirror_without_drpms_and_databases_gets_all_else() {
    let scene = Scene::new(2, "", |master, mirrors| {
        master.sync(Push::Second);
        createrepo(master, &["--database", "--deltas"]);
        for mirror in mirrors {
            fs::remove_dir_all(mirror.repo()).unwrap();
            copy(&master.repo(), &mirror.repo());
        }
        fs::remove_dir_all(mirrors[0].repo().join("drpms")).unwrap();
        let repodata = mirrors[1].repo().join("repodata");
        for file in repo::files(&repodata).iter().filter(|file| file.contains(".sqlite")) {
            fs::remove_file(repodata.join(file)).unwrap();
        }
    });
    let without = [("drpms/*", "drpms/"), ("", ".sqlite")];
    let files = repo::files(&scene.master.repo());
    for (number, (named, part)) in without.into_iter().enumerate() {
        let repo = scene.wait_mirror(number, "the mirror is proven", is_fresh);
        let lacking: Vec<_> = files.iter().filter(|file| file.contains(part)).collect();
        assert!(!lacking.is_empty());
        let exceptions = &repo["exceptions"];
        assert!(exceptions["count"].as_u64().unwrap() >= 1, "{repo}");
        assert!(exceptions["files"][0].as_str().unwrap().contains(part), "{repo}");
        assert!(named.is_empty() || exceptions["files"][0] == named, "{repo}");
    }
    // What one lacks the other gets, and all else goes to both.
    let to = |file: &str| scene.sent(file).unwrap_or_else(|| panic!("{file} is served"));
    for file in files.iter().filter(|file| file.starts_with("drpms/")).take(4) {
        assert!(to(file).starts_with(&scene.mirrors[1].url()), "{file}");
    }
    for file in files.iter().filter(|file| file.contains(".sqlite")) {
        assert!(to(file).starts_with(&scene.mirrors[0].url()), "{file}");
    }
    for number in 0..8 {
        to(&repo::rpm(number, Push::Second));
    }
    // Who asks one of them for everything would miss something.
    let list = scene.node.get("/mirrorlist?release=7.9.2009&arch=x86_64&repo=updates");
    let list = String::from_utf8_lossy(&list.body).into_owned();
    assert!(scene.mirrors.iter().all(|mirror| !list.contains(&mirror.url())), "{list}");

    // It has them now.
    copy(&scene.master.repo().join("drpms"), &scene.trees[0].repo().join("drpms"));
    scene.wait_mirror(0, "it lacks nothing any more", |repo| is_fresh(repo) && repo["exceptions"].is_null());
    let list = scene.node.get("/mirrorlist?release=7.9.2009&arch=x86_64&repo=updates");
    assert!(String::from_utf8_lossy(&list.body).contains(&scene.mirrors[0].url()));
}

#[test]
fn a_file_that_rots_at_the_origin_costs_that_file_alone() {
    // Clients that come back for it get their error at once.
    let scene = Scene::new(2, "origin.patience = \"0s\"\n", |_, _| {});
    let (rotten, sound) = (repo::rpm(4, Push::First), repo::rpm(5, Push::First));
    for number in 0..2 {
        scene.wait_mirror(number, "the mirror is proven", is_fresh);
    }
    assert!(scene.sent(&rotten).is_some());
    // Four bytes longer, at the origin and with the next sync at all mirrors.
    for tree in [&scene.master].into_iter().chain(&scene.trees) {
        let path = tree.repo().join(&rotten);
        let longer = [fs::read(&path).unwrap(), b"more".to_vec()].concat();
        fs::write(path.with_extension("new"), longer).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }
    let lacks_it = |repo: &Value| repo["exceptions"]["files"][0] == *rotten;
    // Clients come back for it, until both mirrors are known to lack it; each is another client.
    wait_until("no client is sent there any more", || {
        let number = scene.clients.replace(scene.clients.get() + 1);
        let agent = format!("libdnf {number}");
        let mut connection = client(&scene.node, number);
        let mut ask = || {
            let fields = [("User-Agent", agent.as_str())];
            connection.request("GET", &format!("/{REPO}/{rotten}"), &fields).unwrap().status
        };
        ask() != 302 || {
            ask();
            false
        }
    });
    for number in 0..2 {
        let repo = scene.wait_mirror(number, "the file is named", |repo| is_fresh(repo) && lacks_it(repo));
        assert_eq!(repo["proven_sequence"], 1, "{repo}");
    }
    assert!(scene.sent(&sound).is_some() && scene.sent(&rotten).is_none());

    // The next push lists it still; the window closes as it would. Nowhere is it right in between.
    let dir = scratch();
    let next = Tree::link(Push::Second, &dir.path().join("next"));
    let path = next.repo().join(&rotten);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"short").unwrap();
    for tree in [&scene.master].into_iter().chain(&scene.trees) {
        tree.take(&next);
    }
    scene.wait_sequence(2);
    for number in 0..2 {
        let repo = scene.wait_mirror(number, "it is proven for the push", |repo| {
            is_fresh(repo) && repo["proven_sequence"] == 2 && lacks_it(repo)
        });
        assert!(repo["note"].as_str().unwrap().contains(&rotten), "{repo}");
    }
    scene
        .node
        .wait_status("the window is closed", |status| status["repos"][0]["window"]["phase"] == "closed");
    assert!(scene.sent(&repo::rpm(60, Push::Second)).is_some() && scene.sent(&rotten).is_none());
}

#[test]
fn a_busy_mirror_keeps_its_proof() {
    let scene = Scene::new(1, "", |_, _| {});
    scene.wait_mirror(0, "the mirror is proven", is_fresh);
    let package = repo::rpm(7, Push::First);
    for status in [429, 408, 503] {
        for number in 0..repo::PACKAGES {
            scene.mirrors[0]
                .act(&format!("{REPO}/{}", repo::rpm(number, Push::First)), [Act::Status(status)]);
        }
        scene.mirrors[0].forget();
        let asked = || {
            let seen = scene.mirrors[0].seen();
            seen.iter().filter(|seen| seen.path.contains("/Packages/")).count()
        };
        wait_until("a file is asked for", || {
            assert!(scene.sent(&package).is_some(), "{status}");
            asked() >= 1
        });
        let repo = scene.wait_mirror(0, "it is proven", is_fresh);
        assert!(repo["exceptions"].is_null(), "{status}: {repo}");
        let refused = asked();
        for number in 0..repo::PACKAGES {
            scene.mirrors[0].act(&format!("{REPO}/{}", repo::rpm(number, Push::First)), []);
        }
        wait_until("a file is asked for again", || {
            assert!(scene.sent(&package).is_some(), "{status}");
            asked() > refused
        });
    }
}

#[test]
fn a_mirror_that_allows_few_requests_is_proven_in_its_time() {
    // Some sixty files, twenty in half a second.
    let scene = Scene::new(1, "", |_, _| {});
    scene.mirrors[0].limit(20, Duration::from_millis(500));
    scene.wait_mirror(0, "the mirror is proven", is_fresh);
    let seen = scene.mirrors[0].seen();
    let heads = seen.iter().filter(|seen| seen.method == "HEAD" && seen.path.contains("/Packages/"));
    // Each once, but for the few that were refused; from the start again with each check it would never end.
    let count = heads.count();
    assert!(count < 2 * repo::PACKAGES, "{count} requests");
    assert!(!scene.origin.seen().is_empty());
}

/// A name with the addresses of three hosts, in a mount namespace of the node's own.
const WITH_NAME: [&str; 6] =
    ["unshare", "-rm", "sh", "-c", "mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"];

/// A mirror of three hosts behind one name.
struct Name {
    node: Node,
    origin: Origin,
    hosts: Vec<Origin>,
    master: Tree,
    trees: Vec<Tree>,
    clients: Cell<usize>,
    _dir: tempfile::TempDir,
}

impl Name {
    fn new() -> Self {
        let dir = scratch();
        let tree = |name: &str| Tree::link(Push::First, &dir.path().join(name));
        let (master, trees) = (tree("master"), ["1", "2", "3"].map(tree));
        let origin = Origin::serve(master.root());
        let mut hosts = vec![Origin::serve(trees[0].root())];
        for (number, tree) in (2..).zip(&trees[1..]) {
            hosts.push(Origin::behind(&hosts[0], [127, 0, 0, number].into(), tree.root()));
        }
        let names = "127.0.0.1 localhost three.test\n127.0.0.2 three.test\n127.0.0.3 three.test\n";
        let path = dir.path().join("hosts");
        fs::write(&path, names).unwrap();
        let command = WITH_NAME.map(|word| word.replace("{hosts}", path.to_str().unwrap()));
        let url = format!("http://three.test:{}/", hosts[0].addr().port());
        let table = format!("[[mirror]]\nname = \"three\"\nurl = \"{url}\"\nbandwidth = \"100 Gbit/s\"\n");
        let text = [config::BRISK, &config::updates("1ms"), &table].concat();
        let node = Node::start_by(&command.each_ref().map(String::as_str), &config::cached(&origin, &text));
        node.wait_ready();
        node.wait_status("the mirror is proven", |status| is_fresh(&status["mirrors"][0]["repos"][0]));
        Self { node, origin, hosts, master, trees: trees.into(), clients: Cell::new(0), _dir: dir }
    }

    /// A client asks, is sent to the mirror, meets any of its hosts, and comes back if that one lacks the file: whether it was
    /// sent there, and was failed.
    fn download(&self, file: &str) -> (bool, bool) {
        let number = self.clients.replace(self.clients.get() + 1);
        let agent = format!("libdnf client {number}");
        let mut connection = client(&self.node, number);
        let target = format!("/{REPO}/{file}");
        let fields = [("User-Agent", agent.as_str())];
        if connection.request("GET", &target, &fields).unwrap().status != 302 {
            return (false, false);
        }
        let failed = !self.trees[number % 3].repo().join(file).exists();
        if failed {
            assert_eq!(connection.request("GET", &target, &fields).unwrap().status, 200);
        }
        (true, failed)
    }
}

#[test]
fn a_name_is_proven_where_all_its_hosts_are() {
    let name = Name::new();
    // Ten of the new files are missing on one of the hosts.
    let new: Vec<String> = (0..repo::PACKAGES)
        .filter(|number| repo::updated(*number))
        .take(10)
        .map(|number| repo::rpm(number, Push::Second))
        .collect();
    for tree in &name.trees {
        tree.sync(Push::Second);
    }
    for file in &new {
        fs::remove_file(name.trees[2].repo().join(file)).unwrap();
    }
    name.master.sync(Push::Second);
    name.node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    name.node.wait_status("a host lacks some", |status| {
        status["mirrors"][0]["repos"][0]["note"].as_str().is_some_and(|note| note.contains("is missing"))
    });
    for _ in 0..20 {
        for file in &new {
            assert_eq!(name.download(file), (false, false), "{file}");
        }
        assert_eq!(name.download(&repo::rpm(0, Push::First)), (true, false), "what all of them have");
    }
    name.trees[2].sync(Push::Second);
    name.node.wait_status("all have them", |status| is_fresh(&status["mirrors"][0]["repos"][0]));
    assert_eq!(name.download(&new[0]), (true, false));
    drop(name.origin);
}

#[test]
fn a_name_one_of_whose_hosts_loses_files_is_out_after_the_first_bounces() {
    let name = Name::new();
    let lost: Vec<String> = (0..10).map(|number| repo::rpm(number, Push::First)).collect();
    for file in &lost {
        fs::remove_file(name.trees[2].repo().join(file)).unwrap();
    }
    // Clients come, until what some of them were failed by has taken the mirror out.
    let (mut number, mut failures) = (0, 0);
    let mut download = || {
        number += 1;
        let (sent, failed) = name.download(&lost[number % lost.len()]);
        failures += usize::from(failed);
        sent
    };
    wait_until("it is out", || {
        download();
        !is_fresh(&name.node.status()["mirrors"][0]["repos"][0])
    });
    for _ in 0..200 {
        assert!(!download(), "it takes nobody any more");
    }
    assert!(failures >= 1 && name.hosts.len() == 3);
    println!("{failures} of {number} clients were failed");
    assert_eq!(name.hosts.len(), 3);
}

#[test]
fn a_mirror_with_wrong_bytes_stays_out_whatever_is_pushed() {
    let scene = Scene::new(1, "", |_, _| {});
    scene.wait_mirror(0, "the mirror is proven", is_fresh);
    // All new packages of the push are as long as they should be there, and wrong.
    scene.trees[0].sync(Push::Second);
    let new: Vec<String> = (0..repo::PACKAGES)
        .filter(|number| repo::updated(*number))
        .map(|number| repo::rpm(number, Push::Second))
        .collect();
    for file in &new {
        let right = fs::read(scene.trees[0].repo().join(file)).unwrap();
        scene.mirrors[0].put(&format!("{REPO}/{file}"), right.iter().map(|byte| !byte).collect::<Vec<u8>>());
    }
    scene.master.sync(Push::Second);
    scene.wait_sequence(2);
    let is_wrong = |repo: &Value| repo["note"].as_str().is_some_and(|note| note.contains("has other bytes"));
    let repo = scene.wait_mirror(0, "it is caught before it is proven", is_wrong);
    assert!(!is_fresh(&repo), "{repo}");

    // Two more pushes leave out the file that it was caught with, and the next one; what is left is as wrong.
    let mut left = new.clone();
    for sequence in [3, 4] {
        let repo = scene.wait_mirror(0, "a wrong file is named", is_wrong);
        let note = repo["note"].as_str().unwrap();
        let caught = left.iter().position(|file| note.contains(file.as_str())).unwrap_or_default();
        let caught = left.remove(caught);
        for tree in [&scene.trees[0], &scene.master] {
            fs::remove_file(tree.repo().join(&caught)).unwrap();
        }
        scene.mirrors[0].act(&format!("{REPO}/{caught}"), [Act::Status(404)]);
        createrepo(&scene.master, &["--no-database", "--revision", &sequence.to_string()]);
        for file in repo::files(&scene.master.repo()).iter().filter(|file| file.starts_with("repodata/")) {
            let (from, to) = (scene.master.repo().join(file), scene.trees[0].repo().join(file));
            let _ = fs::remove_file(&to);
            fs::copy(from, to).unwrap();
        }
        scene.wait_sequence(sequence);
        scene.node.wait_status("it was looked at", |status| {
            let repo = &status["mirrors"][0]["repos"][0];
            assert!(!is_fresh(repo), "{repo}");
            repo["shows"] == sequence && is_wrong(repo) && !repo["note"].as_str().unwrap().contains(&caught)
        });
    }
    // Its disk is replaced.
    for file in &left {
        let right = fs::read(scene.master.repo().join(file)).unwrap();
        scene.mirrors[0].put(&format!("{REPO}/{file}"), right);
    }
    scene.wait_mirror(0, "it is proven again", is_fresh);
    assert!(scene.sent(&left[0]).is_some());
}

#[test]
fn mirrors_that_do_not_answer_keep_no_other_waiting() {
    let scene = Scene::new(4, "mirrors.parallel = 2\nmirrors.timeout = \"5m\"\n", |_, _| {});
    for number in 0..4 {
        scene.wait_mirror(number, "the mirror is proven", is_fresh);
    }
    for mirror in &scene.mirrors[1..] {
        for number in 0..repo::PACKAGES + 2 {
            mirror.act(&format!("{REPO}/{}", repo::rpm(number, Push::Second)), [Act::Hang]);
        }
    }
    for tree in scene.trees.iter().chain([&scene.master]) {
        tree.sync(Push::Second);
    }
    scene.wait_sequence(2);
    // All three wait for answers, with both of the permits that there are.
    wait_until("they are asked", || {
        let is_package = |path: &str| path.ends_with(".rpm");
        scene.mirrors[1..].iter().all(|mirror| mirror.seen().iter().any(|seen| is_package(&seen.path)))
    });
    scene.wait_mirror(0, "the other one is proven for the push", |repo| repo["proven_sequence"] == 2);
    for mirror in &scene.mirrors {
        for number in 0..repo::PACKAGES + 2 {
            mirror.release(&format!("{REPO}/{}", repo::rpm(number, Push::Second)));
        }
    }
}

#[test]
fn a_slow_mirror_takes_nothing() {
    let scene = Scene::new(1, "mirrors.timeout = \"1s\"\nmirrors.ahead = \"20s\"\n", |_, _| {});
    for number in 0..repo::PACKAGES {
        scene.mirrors[0].act(&format!("{REPO}/{}", repo::rpm(number, Push::First)), [Act::Throttle(20_000)]);
    }
    let status = scene.node.wait_status("it was measured", |status| {
        status["mirrors"][0]["throughput"].as_u64().is_some_and(|bits| bits < 8 * 32_000)
    });
    assert_eq!(status["mirrors"][0]["ahead_limit_bytes"], 20 * 100_000_000_000_u64 / 8);
    for number in 0..8 {
        assert_eq!(scene.sent(&repo::rpm(number, Push::First)), None);
    }
    let repo = scene.wait_mirror(0, "it is proven all the same", is_fresh);
    assert!(repo["exceptions"].is_null(), "{repo}");
}
