//! SIGTERM while clients download: they get all of it, however they speak.

use super::support::node::Node;
use super::support::{scratch, wait_until};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Two seconds at [`RATE`]: the node has sent the end when its client is half-way, and curl sends a window update later than that.
const LENGTH: usize = 20_000_000;
const RATE: &str = "10M";
const CLIENTS: usize = 4;

fn node(dir: &Path) -> Node {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    fs::create_dir(dir.join("tree")).unwrap();
    let body: Vec<u8> = (0..LENGTH).map(|i| (i * 7 + i / 251) as u8).collect();
    fs::write(dir.join("tree/f"), body).unwrap();
    Node::start(&format!(
        "[node]\nname = \"node\"\nstate = \"{{dir}}/state\"\n[http]\nlisten = [\"{{http}}\"]\ndrain_timeout = \"30s\"\n[https]\n\
         listen = [\"{{https}}\"]\ncertificate = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"\n[admin]\nlisten = \"{{admin}}\"\n\
         [origin]\npath = \"{0}/tree\"\n",
        dir.display()
    ))
}

fn curl(dir: &Path, url: &str, protocol: &str, number: usize) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "60", "--limit-rate", RATE, protocol, "--cacert"])
        .arg(dir.join("cert.pem"));
    curl.arg("-o").arg(dir.join(format!("got{number}"))).arg(url);
    curl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// SIGTERM comes once all have some of it.
fn all_get_all(protocol: &str, url: impl Fn(&Node) -> String) {
    let dir = scratch();
    let mut node = node(dir.path());
    let url = url(&node);
    let clients: Vec<Child> = (0..CLIENTS).map(|number| curl(dir.path(), &url, protocol, number)).collect();
    let got = |number: usize| dir.path().join(format!("got{number}"));
    let has_some = |number| fs::metadata(got(number)).is_ok_and(|facts| facts.len() > 100_000);
    wait_until("all clients have begun", || (0..CLIENTS).all(has_some));
    node.signal("TERM");
    let body = fs::read(dir.path().join("tree/f")).unwrap();
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{protocol}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read(got(number)).unwrap() == body, "{protocol}");
    }
    assert!(node.wait_exit().success());
    assert!(!node.log().contains("drain_timeout is over"), "{protocol}: it waits for nothing else");
}

#[test]
fn downloads_over_http2_end_whole() {
    all_get_all("--http2", |node| format!("https://{}/f", node.https()));
}

#[test]
fn downloads_over_http1_and_tls_end_whole() {
    all_get_all("--http1.1", |node| format!("https://{}/f", node.https()));
}

#[test]
fn downloads_over_plain_http1_end_whole() {
    all_get_all("--http1.1", |node| format!("http://{}/f", node.http()));
}
