//! HTTP/1.1 and HTTP/2 over TLS, towards clients and towards the origin, with curl as the client.

use super::support::node::Node;
use super::support::{run, scratch};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::fs;
use std::path::Path;
use std::process::Command;

const LENGTH: usize = 3_000_001;

pub fn certificate(dir: &Path) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
}

pub fn secure_node(dir: &Path, origin: &str) -> Node {
    Node::start(&format!(
        "[node]\nname = \"node\"\nstate = \"{{dir}}/state\"\n[https]\nlisten = [\"{{https}}\"]\ncertificate = \"{0}/cert.pem\"\n\
         key = \"{0}/key.pem\"\n[admin]\nlisten = \"{{admin}}\"\n{origin}",
        dir.display()
    ))
}

fn curl(dir: &Path, url: &str, options: &[&str]) -> Vec<u8> {
    let to = dir.join("got");
    run(Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "60", "--cacert"])
        .arg(dir.join("cert.pem"))
        .args(options)
        .arg("-o")
        .arg(&to)
        .arg(url));
    fs::read(to).unwrap()
}

#[test]
fn both_protocols_serve_whole_files_and_ranges() {
    let dir = scratch();
    certificate(dir.path());
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let body: Vec<u8> = (0..LENGTH).map(|i| (i * 7 + i / 251) as u8).collect();
    fs::write(tree.join("f"), &body).unwrap();
    let node = secure_node(dir.path(), &format!("[origin]\npath = \"{}\"\n", tree.display()));
    let url = format!("https://{}/f", node.https());
    for (protocol, logged) in [("--http1.1", "1.1"), ("--http2", "2")] {
        assert!(curl(dir.path(), &url, &[protocol]) == body, "{protocol}");
        assert!(curl(dir.path(), &url, &[protocol, "-r", "1000000-1000999"]) == body[1_000_000..1_001_000]);
        let head = String::from_utf8(curl(dir.path(), &url, &[protocol, "-I"])).unwrap().to_lowercase();
        assert!(head.contains(" 200") && head.contains(&format!("content-length: {LENGTH}")), "{head}");
        let missing = format!("https://{}/none", node.https());
        let absent =
            Command::new("curl").args(["-skI", "-w", "%{http_code}", protocol, &missing]).output().unwrap();
        assert!(absent.status.success() && absent.stdout.ends_with(b"404"), "{absent:?}");
        let line = node.wait_access(protocol, |line| line["protocol"] == logged && line["status"] == 206);
        assert_eq!(line["https"], true);
    }
    let missing = Command::new("curl")
        .args([
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
            &format!("https://{}/none", node.https()),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(missing.stdout).unwrap(), "404 2");
}

#[test]
fn an_https_origin_is_trusted_by_its_ca_only() {
    let dir = scratch();
    certificate(dir.path());
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), vec![9; LENGTH]).unwrap();
    let origin = secure_node(dir.path(), &format!("[origin]\npath = \"{}\"\n", tree.display()));
    let node = |ca: &str| {
        Node::start(&format!(
            "[node]\nname = \"edge\"\n[http]\nlisten = [\"{{http}}\"]\n[admin]\nlisten = \"{{admin}}\"\n[origin]\nurl = \"https://{}/\"\npatience = \"0s\"\n{ca}\n\
             [cache]\ndisk = \"{{dir}}/cache\"\ndisk_size = \"1 GiB\"\n",
            origin.https()
        ))
    };
    let trusting = node(&format!("ca = \"{}/cert.pem\"", dir.path().display()));
    assert!(trusting.get("/f").body == vec![9; LENGTH]);
    let distrusting = node("");
    let refused = distrusting.get("/f");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().to_lowercase().contains("certificate"), "{}", refused.text());
}
