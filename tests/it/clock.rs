//! A wall clock that is set by hours while the node runs, by Debian's faketime: what lasts goes on, dates follow, and it is told.

use super::support::client::{self, Response};
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{Push, REPO, Tree};
use super::support::{config, run, scratch, wait_for, wait_until};
use freshet::clock;
use freshet::http::date;
use http::HeaderValue;
use std::fs;
use std::process::Command;

const REPOMD: &str = "7.9.2009/updates/x86_64/repodata/repomd.xml";
const STEP: f64 = 5.0 * 3600.0;
/// For whatever passes meanwhile.
const SLACK: f64 = 120.0;

/// A node whose wall clock is set by [`set`].
fn node(origin: &Origin) -> Node {
    let library = "find /usr/lib -name libfaketime.so.1 | head -1";
    let library = run(Command::new("sh").args(["-c", library]));
    let prefix = [
        "env",
        &format!("LD_PRELOAD={}", library.trim()),
        "FAKETIME_TIMESTAMP_FILE={dir}/clock",
        "FAKETIME_NO_CACHE=1",
        "DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    ];
    let text = "push.poll = \"200ms\"\npush.stale = \"10m\"\norigin.first_byte_timeout = \"500ms\"\norigin.patience = \"0s\"\n";
    Node::start_by(&prefix, &config::cached(origin, &format!("{text}{}", config::updates("90m"))))
}

/// Sets the node's clock, by faketime's notation; returns once it shows.
fn set(node: &Node, clock: &str, seconds: f64) {
    let file = node.dir().join("clock");
    fs::write(file.with_extension("new"), clock).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
    wait_until("the clock to be set", || (ahead(&client::get(node.http(), "/none")) - seconds).abs() < SLACK);
}

/// How far the Date of a response is ahead of the true one, in seconds.
fn ahead(response: &Response) -> f64 {
    let sent = response.header("date").and_then(|date| HeaderValue::from_str(date).ok()).expect("a Date");
    let (sent, now) = (date::parse(&sent).expect("a date"), clock::date());
    sent.since(now).as_secs_f64() - now.since(sent).as_secs_f64()
}

/// repomd.xml is served, and the window is open and as long as ever.
fn goes_on(node: &Node, what: &str) {
    let repomd = client::get(node.http(), &format!("/{REPOMD}"));
    assert_eq!(repomd.status, 200, "{what}: {}", repomd.text());
    let status = node.status();
    let window = &status["repos"][0]["window"];
    assert_eq!(window["phase"], "open", "{what}: {window}");
    let left = window["seconds_left"].as_f64().unwrap();
    assert!((left - 90.0 * 60.0).abs() < SLACK, "{what}: {window}");
}

#[test]
fn a_clock_that_is_set_by_hours_ends_nothing_and_is_told() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let now = || Act::Header("Date", date::format(clock::date()).to_str().unwrap().to_owned());
    origin.act(REPOMD, [now()]);
    let mut node = node(&origin);
    node.wait_ready();
    goes_on(&node, "before");
    for (clock, seconds) in [("-5h", -STEP), ("+5h", STEP)] {
        // Nothing confirms the repo meanwhile.
        origin.act(REPOMD, [Act::Hang]);
        origin.forget();
        wait_until("the origin says nothing", || origin.seen_for(REPOMD).len() >= 2);
        set(&node, clock, seconds);
        goes_on(&node, clock);
        origin.act(REPOMD, [now()]);
        let skew =
            |status: &serde_json::Value| status["origin"]["clock_skew_seconds"].as_f64().unwrap_or_default();
        node.wait_status("it is measured", |status| (skew(status) - seconds).abs() < SLACK);
        let exported = node.metric("freshet_origin_clock_skew_seconds").unwrap();
        assert!((exported - seconds).abs() < SLACK, "{exported}");
        goes_on(&node, clock);
        // What is cached of the origin without a word about its lifetime is fresh for as long as before.
        let list = client::get(node.http(), "/metalink?repo=updates-7.9.2009&arch=x86_64").text();
        assert!(list.contains("<hash type=\"sha256\">"), "{list}");
    }
    let log = node.log();
    // By five hours back, then by ten forward. (faketime shows the true time for a moment where it can't read its file.)
    let told = log.lines().filter(|line| line.contains("the clock was set"));
    let steps: Vec<f64> =
        told.filter_map(|line| line.split("seconds=").nth(1)?.trim().parse().ok()).collect();
    let is_told = |step: f64| steps.iter().any(|told| (told - step).abs() < SLACK);
    assert!(is_told(-STEP) && is_told(2.0 * STEP), "{log}");
    assert!(log.contains("clock and the origin's differ"), "{log}");
    // The times that are kept are dates, so that a restart finds them right.
    let window = node.dir().join("cache/state/repos");
    wait_for("the window to be kept anew", || {
        let kept =
            run(Command::new("find").arg(&window).args(["-name", "window.json", "-exec", "cat", "{}", ";"]));
        kept.contains("\"ahead\":1").then_some(())
    });
    node.sigterm();
    node.launch();
    node.wait_ready();
    goes_on(&node, "after a restart");
    assert_eq!(client::get(node.http(), &format!("/{REPO}/repodata/repomd.xml")).status, 200);
}
