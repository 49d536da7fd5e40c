//! Who takes which client: where clients are, for whom proxies speak, and which mirror is near.

use super::support::client::Connection;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{config, geoip, scratch};
use serde_json::Value;

const LOOPBACK: &str = "127.0.0.1/32";

/// A node that lets mirrors in Germany, the US, Brazil and one provider's network take packages, behind a trusted proxy.
fn node(origin: &Origin, trusted: &str, more: &str) -> (Vec<Origin>, Node, tempfile::TempDir) {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let mirrors: Vec<Origin> = (0..4).map(|_| Origin::serve(tree.root())).collect();
    let mut text = format!(
        "http.trusted_proxies = [\"{trusted}\"]\nmirrors.geoip = \"{}\"\n{more}{}{}",
        geoip::countries().display(),
        config::BRISK,
        config::updates("1ms"),
    );
    text += "[[network]]\naddresses = [\"198.51.100.0/24\"]\ncountry = \"AR\"\nasn = 64500\n";
    for (name, place, mirror) in [
        ("de", "country = \"DE\"", &mirrors[0]),
        ("us", "country = \"US\"", &mirrors[1]),
        ("br", "country = \"BR\"", &mirrors[2]),
        (
            "isp",
            "country = \"AR\"\nasns = [64500]\nnetworks = [\"203.0.113.0/24\"]\nprivate = true",
            &mirrors[3],
        ),
    ] {
        text += &format!("{}{place}\n", config::mirror(name, mirror));
    }
    let node = Node::start(&config::cached(origin, &text));
    node.wait_ready();
    node.wait_status("all mirrors are fresh", |status| {
        let fresh = |mirror: &Value| mirror["repos"][0]["fresh"] == true;
        status["mirrors"].as_array().is_some_and(|mirrors| mirrors.iter().all(fresh))
    });
    (mirrors, node, dir)
}

/// Which of the mirrors a client is sent to for whom a proxy asks; `Err`: it is served, for this reason.
fn sent_to(node: &Node, mirrors: &[Origin], fields: &[(&str, &str)]) -> Result<usize, String> {
    let target = format!("/{REPO}/{}", repo::rpm(0, Push::First));
    let mut connection = Connection::open(node.http()).unwrap();
    let response = connection.request("GET", &target, fields).unwrap();
    let Some(location) = response.header("location") else {
        return Err(response.header("cache-status").unwrap_or_default().to_owned());
    };
    Ok(mirrors.iter().position(|mirror| location.starts_with(&mirror.url())).expect("one of the mirrors"))
}

#[test]
fn clients_are_sent_to_the_nearest_mirror() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let (mirrors, node, _dir) = node(&origin, LOOPBACK, "");
    for (client, expected) in [
        // By the database: Germany, the US, Brazil.
        ("193.99.144.80", 0),
        ("8.8.8.8", 1),
        ("200.160.2.3", 2),
        // The continent, where no mirror is in the country: France, Canada, Chile.
        ("194.2.0.1", 0),
        ("142.250.0.1, 132.205.1.1", 1),
        ("200.1.123.1", 2),
        // The provider's own, by address and by number.
        ("203.0.113.5", 3),
        ("198.51.100.5", 3),
        // Whatever the client itself writes comes before what the proxy adds.
        ("203.0.113.5, 8.8.8.8", 1),
    ] {
        let agent = format!("libdnf {client}");
        let fields = [("X-Forwarded-For", client), ("User-Agent", &*agent)];
        assert_eq!(sent_to(&node, &mirrors, &fields), Ok(expected), "{client}");
    }
    // The lists follow the same order, and name no private mirror to strangers.
    let list = |client: &str| {
        let mut connection = Connection::open(node.http()).unwrap();
        let target = "/mirrorlist?release=7.9.2009&arch=x86_64&repo=updates";
        let text = connection.request("GET", target, &[("X-Forwarded-For", client)]).unwrap().text();
        let numbered = |line: &str| mirrors.iter().position(|mirror| line.starts_with(&mirror.url()));
        text.lines().filter_map(numbered).collect::<Vec<_>>()
    };
    assert_eq!((list("8.8.8.8")[0], list("8.8.8.8").len()), (1, 3));
    assert_eq!(list("193.99.144.80")[0], 0);
    assert_eq!((list("203.0.113.5")[0], list("203.0.113.5").len()), (3, 4));

    for client in ["203.0.113.5", "132.205.1.1"] {
        node.wait_access(client, |line| line["client"] == client);
    }
}

#[test]
fn nobody_else_is_believed() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let (mirrors, proxied, _dir) = node(&origin, LOOPBACK, "");
    // Who says https is sent to no plain mirror.
    let https = [("X-Forwarded-For", "8.8.8.8"), ("X-Forwarded-Proto", "https"), ("User-Agent", "libdnf")];
    assert!(sent_to(&proxied, &mirrors, &https).is_err_and(|why| why.contains("no-fresh-mirror")));
    let (mirrors, node, _dir) = node(&origin, "192.0.2.0/24", "");
    assert!(sent_to(&node, &mirrors, &https).is_ok());
    node.wait_access("its own address", |line| line["client"] == "127.0.0.1" && line["https"] == false);
}

#[test]
fn load_balancers_say_for_whom_they_connect() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let (mirrors, node, _dir) = node(&origin, LOOPBACK, "http.proxy_protocol = true\n");
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    binary.extend([8, 8, 8, 8, 192, 0, 2, 1, 1, 0, 0, 80]);
    for (header, expected) in [
        (b"PROXY TCP4 193.99.144.80 192.0.2.1 4711 80\r\n".to_vec(), Some(0)),
        // No mirror answers on IPv6.
        (b"PROXY TCP6 2001:638::1 2001:db8::1 4711 80\r\n".to_vec(), None),
        (binary, Some(1)),
    ] {
        let mut connection = Connection::open(node.http()).unwrap();
        connection.send(&header).unwrap();
        let target = format!("/{REPO}/{}", repo::rpm(0, Push::First));
        let response = connection.request("GET", &target, &[("User-Agent", "libdnf")]).unwrap();
        let location = response.header("location").unwrap_or_default();
        let sent_to = mirrors.iter().position(|mirror| location.starts_with(&mirror.url()));
        assert_eq!(sent_to, expected, "{location}");
        // The header is said once for all requests of the connection.
        assert_eq!(connection.request("GET", "/mirrorlist?repo=x", &[]).unwrap().status, 400);
    }
    for client in ["193.99.144.80", "2001:638::1", "8.8.8.8"] {
        node.wait_access(client, |line| line["client"] == client && line["status"] == 400);
    }
    // Without it there is no answer, and for itself the load balancer is a client as any other.
    let mut connection = Connection::open(node.http()).unwrap();
    assert!(connection.request("GET", "/", &[]).is_err());
    let mut connection = Connection::open(node.http()).unwrap();
    connection.send(b"PROXY UNKNOWN\r\n").unwrap();
    // What it can't name may be anybody, who may say anything.
    assert!(connection.request("GET", "/nameless", &[("X-Forwarded-For", "8.8.8.8")]).is_ok());
    let line = node.wait_access("the nameless", |line| line["path"] == "/nameless");
    assert_eq!(line["client"], "127.0.0.1");
}

#[test]
fn a_bounce_is_one_however_many_connections_a_proxy_opens() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let (mirrors, node, _dir) = node(&origin, LOOPBACK, "");
    let client = [("X-Forwarded-For", "8.8.8.8"), ("User-Agent", "libdnf")];
    assert_eq!(sent_to(&node, &mirrors, &client), Ok(1));
    for _ in 0..12 {
        let mut connection = Connection::open(node.http()).unwrap();
        connection.request("GET", &format!("/{REPO}/{}", repo::rpm(1, Push::First)), &client).unwrap();
    }
    let again = sent_to(&node, &mirrors, &client);
    assert!(again.as_ref().is_err_and(|why| why.contains("bounce")), "{again:?}");
}
