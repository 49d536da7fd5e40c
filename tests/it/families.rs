//! IPv4 and IPv6 of one mirror that aren't the same: as good as the worse of the two while both are in use.

use super::support::client::Connection;
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::scratch;
use serde_json::Value;
use std::fs;

/// A name with both addresses of loopback, in a mount namespace of the node's own.
const WITH_NAME: [&str; 6] =
    ["unshare", "-rm", "sh", "-c", "mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"];

/// The status of a package for a client with this address that was never seen before.
fn status(node: &Node, client: &str, package: &str, number: usize) -> u16 {
    let agent = format!("libdnf client {number}");
    let fields = [("User-Agent", agent.as_str()), ("X-Forwarded-For", client)];
    let mut connection = Connection::open(node.http()).unwrap();
    connection.request("GET", &format!("/{REPO}/{package}"), &fields).unwrap().status
}

fn mirror(status: &Value) -> &Value {
    &status["mirrors"][0]
}

#[test]
fn a_mirror_is_as_good_as_the_worse_of_its_families() {
    let dir = scratch();
    let tree = |name: &str| Tree::link(Push::First, &dir.path().join(name));
    let (master, over_v4, over_v6) = (tree("master"), tree("v4"), tree("v6"));
    let origin = Origin::serve(master.root());
    let [v4, mut v6] = Origin::serve_both([over_v4.root(), over_v6.root()]);
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost both.test\n::1 both.test\n").unwrap();
    let command = WITH_NAME.map(|word| word.replace("{hosts}", hosts.to_str().unwrap()));
    let url = format!("http://both.test:{}/", v4.addr().port());
    let table = format!("[[mirror]]\nname = \"both\"\nurl = \"{url}\"\nbandwidth = \"100 Gbit/s\"\n");
    let trusting = "http.trusted_proxies = [\"127.0.0.1/32\"]\n";
    let text = [trusting, config::BRISK, &config::updates("1ms"), &table].concat();
    let node = Node::start_by(&command.each_ref().map(String::as_str), &config::cached(&origin, &text));
    node.wait_ready();

    let (kept, new) = (repo::rpm(0, Push::First), repo::rpm(1, Push::Second));
    node.wait_status("both families are in use", |status| {
        let mirror = mirror(status);
        mirror["ipv4"] == true && mirror["ipv6"] == true && mirror["repos"][0]["fresh"] == true
    });
    node.wait_status("it is known how fast it is", |status| {
        mirror(status)["throughput"].as_u64().is_some_and(|bits| bits > 1_000_000)
    });
    assert_eq!(status(&node, "192.0.2.1", &kept, 1), 302);
    assert_eq!(status(&node, "2001:db8::1", &kept, 2), 302);

    // Over IPv6 the mirror lags behind: what both have is redirected, what one lacks isn't, whoever asks.
    over_v4.sync(Push::Second);
    master.sync(Push::Second);
    node.wait_status("it lags over IPv6", |status| {
        let repo = &mirror(status)["repos"][0];
        status["repos"][0]["generation"]["sequence"] == 2
            && repo["fresh"] == false
            && repo["note"].as_str().is_some_and(|note| note.contains("over IPv6"))
    });
    assert_eq!(status(&node, "192.0.2.1", &kept, 3), 302);
    assert_eq!(status(&node, "192.0.2.1", &new, 4), 200);
    assert_eq!(status(&node, "2001:db8::1", &new, 5), 200);

    // Nobody gets to what doesn't answer.
    v6.kill();
    node.wait_status("IPv4 alone is in use", |status| {
        let mirror = mirror(status);
        mirror["ipv4"] == true && mirror["ipv6"] == false && mirror["repos"][0]["fresh"] == true
    });
    assert_eq!(status(&node, "192.0.2.1", &new, 6), 302);
    assert_eq!(status(&node, "2001:db8::1", &new, 7), 200);

    // Back, and still behind: until it has caught up, it counts for both.
    v6.revive();
    node.wait_status("it is back", |status| {
        mirror(status)["ipv6"] == true && mirror(status)["repos"][0]["fresh"] == false
    });
    assert_eq!(status(&node, "192.0.2.1", &new, 8), 200);
    over_v6.sync(Push::Second);
    node.wait_status("both have it", |status| {
        mirror(status)["ipv6"] == true && mirror(status)["repos"][0]["fresh"] == true
    });
    assert_eq!(status(&node, "192.0.2.1", &new, 9), 302);
    assert_eq!(status(&node, "2001:db8::1", &new, 10), 302);
}
