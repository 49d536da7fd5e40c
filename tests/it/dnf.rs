//! A real dnf installs and updates through a node: inside the window, over a push, after the window, and when a mirror dies.

use super::support::client::Connection;
use super::support::config;
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{now, scratch, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// Open for a repo that is dated now.
const OPEN: &str = "24h";
/// Over for one with the date of 2023 that the repos are made with.
const OVER: &str = "1s";

fn config(origin: &Origin, window: &str, mirrors: &[(&str, &Origin)]) -> String {
    let alias = "[[alias]]\nfrom = \"7\"\nto = \"7.9.2009\"\n";
    let repo = config::updates(window).replace("[\"7.9.2009\"]", "[\"7\"]");
    let mirrors: String = mirrors.iter().map(|(name, mirror)| config::mirror(name, mirror)).collect();
    config::cached(origin, &[config::BRISK, alias, &repo, &mirrors].concat())
}

fn dnf(node: &Node) -> Dnf {
    Dnf::with_baseurl(&format!("{}7/updates/x86_64/", node.url())).option("--setopt=timeout=5")
}

fn packages(log: &[Value]) -> Vec<&Value> {
    log.iter().filter(|line| line["path"].as_str().is_some_and(|path| path.ends_with(".rpm"))).collect()
}

fn file_name(line: &Value) -> String {
    line["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// The rpm files that a mirror was asked for with GET.
fn taken(mirror: &Origin) -> Vec<String> {
    let seen = mirror.seen();
    let gets = seen.iter().filter(|seen| seen.method == "GET" && seen.path.ends_with(".rpm"));
    // The prober asks for single bytes to see ranges at work; clients ask for whole files.
    gets.filter(|seen| seen.header("range").is_none()).map(|seen| seen.path.clone()).collect()
}

#[test]
fn inside_the_window_everything_comes_from_the_node() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = Node::start(&config(&origin, OPEN, &[("fresh", &mirror)]));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);

    let client = dnf(&node);
    client.ok(&["makecache"]);
    let wanted: Vec<String> = (20..46).map(repo::name).collect();
    let mut install = vec!["install"];
    install.extend(wanted.iter().map(String::as_str));
    client.ok(&install);
    assert_eq!(client.installed().len(), 26);
    client.verify();
    let synced = client.reposync("t");
    let rpms = std::fs::read_dir(synced.join("Packages")).unwrap().count();
    assert_eq!(rpms, repo::PACKAGES);

    let log = node.access();
    let served = packages(&log);
    assert!(served.len() >= 26 + repo::PACKAGES - 26, "{} package requests", served.len());
    assert!(log.iter().all(|line| line["decision"] != "redirect"), "{log:#?}");
    assert!(served.iter().all(|line| line["reason"] == "window" && line["complete"] == true), "{served:#?}");
    assert_eq!(taken(&mirror), Vec::<String>::new());
}

#[test]
fn a_push_is_offered_at_once_and_old_clients_keep_what_they_need() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config(&origin, OPEN, &[]));
    node.wait_ready();
    let (current, behind) = (dnf(&node), dnf(&node).option("--setopt=t.metadata_expire=86400"));
    // Both are updated by the second push, and require nothing.
    let (first, second) = (5, 9);
    current.ok(&["install", &repo::name(first)]);
    behind.ok(&["makecache"]);
    // Somebody has had the package before the push, so it is in the cache.
    node.get(&format!("/{REPO}/{}", repo::rpm(second, Push::First)));

    tree.sync(Push::Second);
    let pushed = now();
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    // poll + 2 s, and what the waiting itself may be late by on a busy machine.
    let offered = pushed.elapsed();
    assert!(
        offered < Duration::from_millis(200) + Duration::from_secs(2) + Duration::from_secs(20),
        "{offered:?}"
    );
    println!("offered after {offered:?}");

    current.ok(&["upgrade", "--refresh", "--setopt=deltarpm=0"]);
    assert_eq!(current.installed(), [format!("{}-1.0-2", repo::name(first))]);
    current.verify();

    // The push has removed the old package from the origin; a client that has it in its metadata still gets it.
    let old = repo::rpm(second, Push::First);
    assert!(!tree.repo().join(&old).exists());
    behind.ok(&["install", &repo::name(second)]);
    assert_eq!(behind.installed(), [format!("{}-1.0-1", repo::name(second))]);
    behind.verify();
}

#[test]
fn a_removed_package_comes_from_a_mirror_that_still_holds_it() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let behind = Tree::link(Push::First, &dir.path().join("behind"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(behind.root()));
    let node = Node::start(&config(&origin, OPEN, &[("behind", &mirror)]));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let client = dnf(&node).option("--setopt=t.metadata_expire=86400");
    client.ok(&["makecache"]);
    tree.sync(Push::Second);
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);

    let updated = 5;
    client.ok(&["install", &repo::name(updated)]);
    assert_eq!(client.installed(), [format!("{}-1.0-1", repo::name(updated))]);
    let line = node.wait_access("the old package", |line| {
        line["path"].as_str().unwrap().ends_with(&repo::rpm(updated, Push::First))
    });
    assert_eq!(
        (line["decision"].as_str(), line["reason"].as_str()),
        (Some("redirect"), Some("removed")),
        "{line}"
    );
    assert_eq!(taken(&mirror).len(), 1);
}

#[test]
fn after_the_window_mirrors_take_what_they_are_proven_to_hold() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let stale_tree = Tree::link(Push::First, &dir.path().join("stale"));
    let (origin, stale) = (Origin::serve(tree.root()), Origin::serve(stale_tree.root()));
    let (fresh, hollow) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let mirrors = [("fresh", &fresh), ("stale", &stale), ("hollow", &hollow)];
    let node = Node::start(&config(&origin, OVER, &mirrors));
    node.wait_ready();
    let all_fresh = |status: &Value| (0..3).all(|m| status["mirrors"][m]["repos"][0]["fresh"] == true);
    node.wait_status("all mirrors hold the first push", all_fresh);

    // The hollow mirror gets the push but for one of the new packages, which is its exception.
    let missing = format!("{REPO}/{}", repo::rpm(60, Push::Second));
    hollow.act(&missing, [Act::Status(404)]);
    tree.sync(Push::Second);
    let status = node.wait_status("one mirror is fresh, one is not, one lacks a file", |status| {
        let mirror = |m: usize| &status["mirrors"][m]["repos"][0];
        status["repos"][0]["generation"]["sequence"] == 2
            && mirror(0)["fresh"] == true
            && mirror(0)["exceptions"]["count"].as_u64().is_none_or(|count| count == 0)
            && mirror(1)["fresh"] == false
            && mirror(2)["exceptions"]["count"] == 1
            && status["repos"][0]["window"]["phase"] == "closed"
    });
    println!("{:#}", status["mirrors"]);
    for mirror in [&fresh, &stale, &hollow] {
        mirror.forget();
    }

    let client = dnf(&node);
    let synced = client.reposync("t");
    assert_eq!(std::fs::read_dir(synced.join("Packages")).unwrap().count(), repo::PACKAGES + 2);

    let log = node.access();
    let asked = packages(&log);
    let redirected = asked.iter().filter(|line| line["decision"] == "redirect").count();
    let names: BTreeSet<String> = asked.iter().map(|line| file_name(line)).collect();
    assert_eq!(names.len(), repo::PACKAGES + 2);
    assert_eq!(asked.len(), names.len(), "one request each: {asked:#?}");
    assert!(redirected >= names.len() - 12, "{redirected} of {} were redirected", names.len());
    let metadata = log.iter().filter(|line| line["path"].as_str().unwrap().ends_with("repomd.xml"));
    assert!(
        metadata.clone().count() > 0 && metadata.clone().all(|line| line["decision"] == "serve"),
        "{log:#?}"
    );
    let list = node.get("/mirrorlist?release=7&arch=x86_64&repo=updates").text();
    let entries: Vec<&str> = list.lines().collect();
    assert_eq!(entries[0], format!("{}{REPO}/", fresh.url()), "the fresh mirror comes first: {list}");
    assert!(entries[1..].iter().all(|entry| entry.starts_with(&node.url())) && entries.len() >= 5, "{list}");

    let held: BTreeSet<String> =
        repo::files(&stale_tree.repo()).into_iter().map(|file| format!("{REPO}/{file}")).collect();
    let from_stale = taken(&stale);
    assert!(
        from_stale.iter().all(|path| held.contains(path)),
        "the stale mirror lacks one of {from_stale:?}"
    );
    assert!(!taken(&hollow).contains(&missing));
    assert_eq!(
        taken(&fresh).len() + from_stale.len() + taken(&hollow).len(),
        redirected,
        "one 302 each, followed once"
    );
}

#[test]
fn a_mirror_that_dies_in_the_middle_fails_nobody() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mut mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = Node::start(&config(&origin, OVER, &[("dying", &mirror)]));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    mirror.forget();
    // Slow enough for the death to fall into the transfers.
    mirror.act("*", [Act::Throttle(400_000)]);

    let client = dnf(&node);
    let synced = std::thread::scope(|scope| {
        let syncing = scope.spawn(|| client.reposync("t"));
        wait_until("the mirror takes packages", || taken(&mirror).len() >= 3);
        mirror.kill();
        syncing.join().expect("dnf succeeds")
    });
    assert_eq!(std::fs::read_dir(synced.join("Packages")).unwrap().count(), repo::PACKAGES);

    let status = node.wait_status("the mirror is out", |status| status["mirrors"][0]["state"] == "down");
    assert!(status["mirrors"][0]["why"].as_str().is_some_and(|why| !why.is_empty()), "{status:#}");
    println!("out, because: {}", status["mirrors"][0]["why"]);
    let log = node.access();
    let bounced = log.iter().filter(|line| line["reason"] == "bounce").count();
    assert!((1..=3).contains(&bounced), "{bounced} bounces: dnf's budget is three");
    assert!(log.iter().all(|line| line["status"].as_u64().is_some_and(|status| status < 400)), "{log:#?}");
}

#[test]
fn flipped_bytes_on_a_mirror_fail_nobody() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = Node::start(&config(&origin, OVER, &[("rotten", &mirror)]));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    for file in repo::files(&tree.repo()).iter().filter(|file| file.ends_with(".rpm")) {
        mirror.act(&format!("{REPO}/{file}"), [Act::Corrupt(3000)]);
    }
    let client = dnf(&node);
    let wanted: Vec<String> = (20..46).map(repo::name).collect();
    let mut install = vec!["install"];
    install.extend(wanted.iter().map(String::as_str));
    client.ok(&install);
    assert_eq!(client.installed().len(), 26);
    client.verify();
    let log = node.access();
    let by = |reason: &str| log.iter().filter(|line| line["reason"] == reason).count();
    assert!((1..=3).contains(&by("bounce")) && by("cool-off") > 0, "{log:#?}");
}

#[test]
fn a_mirror_with_other_bytes_is_found_out_and_stays_out_until_they_are_right() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = Node::start(&config(&origin, OPEN, &[("rotten", &mirror)]));
    node.wait_ready();
    let fresh = |status: &Value| status["mirrors"][0]["repos"][0]["fresh"] == true;
    node.wait_status("the mirror is fresh", fresh);
    // Compared is what the node has at hand itself.
    let packages: Vec<String> = (0..16).map(|i| format!("{REPO}/{}", repo::rpm(i, Push::First))).collect();
    for package in &packages {
        assert_eq!(node.get(&format!("/{package}")).status, 200);
        mirror.act(package, [Act::Corrupt(2000)]);
    }
    let note =
        |status: &Value| status["mirrors"][0]["repos"][0]["note"].as_str().unwrap_or_default().to_owned();
    let found = node.wait_status("it is found out", |status| note(status).contains("other bytes"));
    println!("{}", note(&found));
    let looks = mirror.seen_for(&format!("{REPO}/repodata/repomd.xml")).len();
    wait_until("it is looked at again", || {
        assert!(!fresh(&node.status()), "not before it is right");
        mirror.seen_for(&format!("{REPO}/repodata/repomd.xml")).len() > looks + 5
    });
    packages.iter().for_each(|package| mirror.act(package, []));
    node.wait_status("it is believed again", fresh);
}

#[test]
fn flipped_bytes_from_the_origin_are_never_served_as_whole() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let node = Node::start(&config(&origin, OPEN, &[]));
    node.wait_ready();
    let path = format!("{REPO}/{}", repo::rpm(7, Push::First));
    origin.act(&path, [Act::Corrupt(5000)]);
    let mut connection = Connection::open(node.http()).unwrap();
    let ended = connection.request("GET", &format!("/{path}"), &[]);
    assert!(!matches!(&ended, Ok(response) if response.status == 200), "a wrong body ended cleanly");
    origin.act(&path, []);
    let right = std::fs::read(tree.root().join(&path)).unwrap();
    wait_until("the right bytes are fetched", || {
        let mut connection = Connection::open(node.http()).unwrap();
        connection.request("GET", &format!("/{path}"), &[]).is_ok_and(|response| response.body == right)
    });
}

#[test]
fn mirrorlist_and_metalink_follow_the_window() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = Node::start(&config(&origin, "15s", &[("fresh", &mirror)]));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let queries = ["release=7&arch=x86_64&repo=updates&cc=de", "repo=updates-7&arch=x86_64&protocol=http"];
    let lists = || queries.map(|query| node.get(&format!("/mirrorlist?{query}")).text());
    let install = |i: usize| {
        for kind in ["mirrorlist", "metalink"] {
            let source = format!("{kind}={}{kind}?{}", node.url(), queries[0]);
            let client = Dnf::new(&format!("[t]\nname=t\n{source}\ngpgcheck=0\nmetadata_expire=0\n"));
            client.ok(&["install", &repo::name(i)]);
            client.verify();
        }
    };

    let open = lists();
    assert_eq!(
        node.status()["repos"][0]["window"]["phase"],
        "open",
        "the window is long enough for this test"
    );
    assert!(!open[0].starts_with('#') && open[1].starts_with("# "), "{open:?}");
    for list in &open {
        let entries: BTreeSet<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(entries.len() >= 4 && entries.iter().all(|entry| entry.starts_with(&node.url())), "{list}");
    }
    install(20);
    assert_eq!(taken(&mirror), Vec::<String>::new());

    node.wait_status("the window is over", |status| status["repos"][0]["window"]["phase"] == "closed");
    for list in &lists() {
        let first = list.lines().find(|line| !line.starts_with('#'));
        assert_eq!(first, Some(&*format!("{}{REPO}/", mirror.url())), "{list}");
    }
    install(22);
    assert_eq!(taken(&mirror).len(), 2, "both clients went to the mirror");
}
