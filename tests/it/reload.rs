//! SIGHUP: capacity, thresholds and windows change while clients are served; mistakes change nothing.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{scratch, wait_until};
use std::thread;

fn configuration(origin: &Origin, mirror: &Origin, capacity: &str, window: &str) -> String {
    let capacity = format!("egress.capacity = \"{capacity}\"\n");
    config::cached(
        origin,
        &[&capacity, config::BRISK, &config::updates(window), &config::mirror("m", mirror)].concat(),
    )
}

#[test]
fn capacity_and_windows_change_and_nobody_is_dropped() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let mut node = Node::start(&configuration(&origin, &mirror, "1 Mbit/s", "24h"));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let package = format!("/{REPO}/{}", repo::rpm(45, Push::First));
    let expected = std::fs::read(tree.root().join(&package[1..])).unwrap();
    // By themselves they would take minutes.
    assert!(expected.len() > 1_000_000, "{}", expected.len());
    let addr = node.http();
    let begun: Vec<_> = (0..20)
        .map(|client| {
            let (package, expected) = (package.clone(), expected.clone());
            thread::spawn(move || {
                let mut connection = Connection::open(addr).unwrap();
                let agent = format!("libdnf client {client}");
                let response = connection.request("GET", &package, &[("User-Agent", &agent)]).unwrap();
                // The later ones are shed, since so small a capacity is used up by the first.
                assert!(matches!(response.status, 200 | 302), "{}", response.status);
                let complete = response.status == 302 || response.body == expected;
                assert!(complete, "{} bytes of {}", response.body.len(), expected.len());
            })
        })
        .collect();
    wait_until("some wait for their turn", || node.metric("freshet_egress_waiting_transfers") > Some(0.0));

    node.configure(&configuration(&origin, &mirror, "10 Gbit/s", "1ms"));
    node.signal("HUP");
    node.wait_status("the new capacity", |status| status["egress"]["capacity"] == 10_000_000_000_u64);
    for client in begun {
        client.join().expect("served whole, over the connection that it had");
    }
    node.wait_status("the window is closed", |status| status["repos"][0]["window"]["phase"] == "closed");
    let response = client::request(node.http(), "GET", &package, &[("User-Agent", "libdnf")]);
    assert_eq!(response.status, 302, "{}", response.text());
    assert_eq!(node.metric("freshet_config_reloads_total{outcome=\"applied\"}"), Some(1.0));

    // And back.
    node.configure(&configuration(&origin, &mirror, "10 Gbit/s", "24h"));
    node.signal("HUP");
    node.wait_status("the window is open", |status| status["repos"][0]["window"]["phase"] == "open");
}

#[test]
fn mistakes_change_nothing_and_the_rest_waits_for_a_restart() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let mut node = Node::start(&configuration(&origin, &mirror, "1 Gbit/s", "24h"));
    node.wait_ready();
    node.configure(&configuration(&origin, &mirror, "fast", "24h"));
    node.signal("HUP");
    wait_until("the mistake to be named", || node.log().contains("egress.capacity = \"fast\""));
    wait_until("it to be counted", || {
        node.metric("freshet_config_reloads_total{outcome=\"refused\"}") == Some(1.0)
    });
    assert_eq!(node.status()["egress"]["capacity"], 1_000_000_000_u64);

    let other = configuration(&origin, &mirror, "2 Gbit/s", "24h");
    node.configure(&[&other, "[listing]\nmax_mirrors = 3\n"].concat());
    node.signal("HUP");
    wait_until("the restart to be asked for", || {
        node.log().contains("[listing] has changed, which needs a restart")
    });
    assert_eq!(node.status()["egress"]["capacity"], 2_000_000_000_u64);
}
