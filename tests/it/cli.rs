//! The command line: check, explain, push, serve --tree.

use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{client, config, said, scratch};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn freshet(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freshet")).args(args).output().unwrap()
}

fn check(dir: &Path, text: &str) -> (Option<i32>, String) {
    let file = dir.join("freshet.toml");
    fs::write(&file, text).unwrap();
    let output = freshet(&["check", "--config", file.to_str().unwrap()]);
    (output.status.code(), said(&output))
}

#[test]
fn check_names_every_mistake() {
    let dir = scratch();
    let (code, text) = check(
        dir.path(),
        "[node]\nnmae = \"x\"\n[origin]\nurl = \"ftp://x/\"\n[cache]\ndisk = \"/tmp/x\"\ndisk_size = \"many\"\n\
         [egress]\nshed_from = 2.0\n[http]\nlisten = [\"localhost\"]\n",
    );
    assert_eq!(code, Some(64), "{text}");
    for part in [
        "node.nmae",
        "origin.url",
        "\"many\"",
        "cache.disk_size",
        "egress.shed_from",
        "http.listen",
        "freshet.toml:2",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text) = check(dir.path(), "[node\n");
    assert_eq!(code, Some(64), "{text}");
    let (code, text) = check(
        dir.path(),
        "[origin]\nurl = \"http://127.0.0.1:1/\"\n[cache]\ndisk = \"/tmp/x\"\ndisk_size = \"1 GiB\"\n",
    );
    assert_eq!(code, Some(0), "{text}");
    // A tree in memory and a state directory on disk: hard links can't be made, and nothing is made by checking.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (tree, state) = (memory.path().display(), dir.path().join("state"));
    let text = format!("[node]\nstate = \"{}\"\n[origin]\npath = \"{tree}\"\n", state.display());
    let (code, text) = check(dir.path(), &text);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warning: origin.retain") && text.contains("lost"), "{text}");
    assert!(!state.exists());
    assert_eq!(freshet(&["check"]).status.code(), Some(64));
    assert_eq!(freshet(&["check", "--config", "/nonexistent"]).status.code(), Some(64));
}

#[test]
fn explain_and_push_ask_the_running_node() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let keys = "push.poll = \"1h\"\nmirrors.probe_every = \"300ms\"\n";
    let tables = config::updates("1s") + &config::mirror("near", &mirror);
    let node = Node::start(&config::cached(&origin, &format!("{keys}{tables}")));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    let file = node.dir().join("freshet.toml");
    let file = file.to_str().unwrap();
    let explain = |path: &str| {
        let output = freshet(&["explain", "--config", file, "--client", "192.0.2.7", path]);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let text = explain(&format!("/{REPO}/{}", repo::rpm(1, Push::First)));
    for part in ["redirect", "offload", "near"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = explain(&format!("/{REPO}/repodata/repomd.xml"));
    assert!(text.contains("serve") && text.contains("metadata"), "{text}");
    assert!(node.access().is_empty(), "explain asks for nothing itself");

    tree.sync(Push::Second);
    let output = freshet(&["push", "--config", file, "updates/7.9.2009/x86_64"]);
    assert!(output.status.success(), "{}", said(&output));
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    assert!(!freshet(&["push", "--config", file, "none/7/x"]).status.success());
}

#[test]
fn a_tree_needs_no_config() {
    let tree = scratch();
    fs::write(tree.path().join("f"), "file").unwrap();
    let mut serving = Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["serve", "--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--admin", "127.0.0.1:0", "--tree"])
        .arg(tree.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(serving.stderr.take().unwrap()).lines().map_while(Result::ok);
    let addrs: Vec<SocketAddr> = lines
        .filter_map(|line| line.split_once("listening")?.1.split_once("addr=")?.1.trim().parse().ok())
        .take(3)
        .collect();
    let got: Vec<String> = addrs[..2].iter().map(|addr| client::get(*addr, "/f").text()).collect();
    let ready = client::get(addrs[2], "/readyz").status;
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert_eq!((got, ready), (vec!["file".to_owned(); 2], 200));
    assert!(addrs[0].is_ipv4() && addrs[1].is_ipv6());

    assert_eq!(freshet(&["serve"]).status.code(), Some(64));
    assert_eq!(freshet(&["serve", "--tree", "/", "--admin", "0.0.0.0:0"]).status.code(), Some(64));
    let output = freshet(&["serve", "--tree", "/nonexistent/tree"]);
    assert!(!output.status.success() && said(&output).contains("/nonexistent/tree"), "{}", said(&output));
}
