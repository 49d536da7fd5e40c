//! Repos by digests of every kind that createrepo_c writes, and a real dnf: verified, redirected on proof, marked where weak.

use super::support::client::{Connection, Response};
use super::support::config;
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, Tree};
use super::support::{run, scratch};
use aws_lc_rs::digest::{self, digest};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// As `createrepo_c -s` takes them, as the status tells them, and whether they are weak.
const KINDS: [(&str, &str, bool); 6] = [
    ("md5", "md5", true),
    ("sha", "sha1", true),
    ("sha224", "sha224", false),
    ("sha256", "sha256", false),
    ("sha384", "sha384", false),
    ("sha512", "sha512", false),
];
/// Packages in each repo: the smallest ones.
const PACKAGES: usize = 4;
/// The one of which a byte is flipped at the origin.
const FLIPPED: usize = 3;

fn rpm(i: usize) -> String {
    repo::rpm(i, Push::First)
}

/// A tree of repos of these kinds.
fn tree(dir: &Path, kinds: &[(&str, &str, bool)]) {
    let all = Tree::link(Push::First, &dir.join("all"));
    for (kind, _, _) in kinds {
        let repo = dir.join("tree").join(kind);
        fs::create_dir_all(repo.join("Packages")).unwrap();
        for i in 0..PACKAGES {
            fs::copy(all.repo().join(rpm(i)), repo.join(rpm(i))).unwrap();
        }
        let mut createrepo = Command::new("createrepo_c");
        run(createrepo.args(["--quiet", "--checksum", kind, "--general-compress-type", "gz"]).arg(&repo));
    }
}

fn repos(kinds: &[(&str, &str, bool)], delivery: &str) -> String {
    let mut text = String::new();
    for (kind, _, _) in kinds {
        let _ = writeln!(text, "[[repo]]\nname = \"{kind}\"\npath = \"{kind}\"\ndelivery = \"{delivery}\"");
    }
    text
}

/// Of a redirect or a whole body; `None` where the body broke off. Each name is a client of its own.
fn get(node: &Node, path: &str, name: &str) -> Option<Response> {
    let mut connection = Connection::open(node.http()).unwrap();
    connection.request("GET", path, &[("User-Agent", name)]).ok()
}

fn digest_of(kind: &str, bytes: &[u8]) -> String {
    let algorithm = match kind {
        "sha" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "sha224" => &digest::SHA224,
        "sha384" => &digest::SHA384,
        "sha512" => &digest::SHA512,
        _ => &digest::SHA256,
    };
    data_encoding::HEXLOWER.encode(digest(algorithm, bytes).as_ref())
}

#[test]
fn each_kind_is_verified_and_dnf_installs_by_it() {
    let dir = scratch();
    tree(dir.path(), &KINDS);
    let root = dir.path().join("tree");
    let origin = Origin::serve(&root);
    let node = Node::start(&config::cached(
        &origin,
        &["origin.patience = \"0s\"", config::BRISK, &repos(&KINDS, "own")].join("\n"),
    ));
    node.wait_ready();
    let status = node.status();
    for ((kind, name, weak), repo) in KINDS.iter().zip(status["repos"].as_array().unwrap()) {
        let generation = &repo["generation"];
        assert_eq!(generation["digests"], serde_json::json!([name]), "{kind}: {generation}");
        assert_eq!(generation["weak"], *weak, "{kind}");
        assert_eq!(generation["verified"], true, "{kind}");

        let path = format!("/{kind}/{}", rpm(0));
        let bytes = fs::read(root.join(kind).join(rpm(0))).unwrap();
        let answer = get(&node, &path, kind).unwrap();
        assert_eq!((answer.status, &answer.body), (200, &bytes), "{kind}");
        if *kind != "md5" {
            let etag = format!("\"{}\"", &digest_of(kind, &bytes)[..32]);
            assert_eq!(answer.header("etag"), Some(&*etag), "{kind}");
        }

        // One byte is flipped at the origin, and the file is as long as before.
        let broken = root.join(kind).join(rpm(FLIPPED));
        let right = fs::read(&broken).unwrap();
        let mut flipped = right.clone();
        flipped[right.len() / 2] ^= 1;
        fs::write(&broken, &flipped).unwrap();
        let got = get(&node, &format!("/{kind}/{}", rpm(FLIPPED)), kind);
        assert!(
            got.is_none_or(|answer| answer.status != 200 || answer.body == right),
            "{kind}: wrong bytes as a whole body"
        );
    }
    let page = super::support::client::get(node.admin(), "/").text();
    assert_eq!(page.matches("weak digests").count(), 2, "{page}");

    for kind in ["sha", "sha384", "sha512"] {
        let client = Dnf::with_baseurl(&format!("{}{kind}/", node.url())).option("--setopt=timeout=5");
        let names: Vec<String> = (0..FLIPPED).map(repo::name).collect();
        let mut install = vec!["install"];
        install.extend(names.iter().map(String::as_str));
        client.ok(&install);
        assert_eq!(client.installed().len(), FLIPPED, "{kind}");
        client.verify();
    }
}

#[test]
fn each_kind_is_redirected_on_proof() {
    let dir = scratch();
    tree(dir.path(), &KINDS);
    let root = dir.path().join("tree");
    let (origin, mirror) = (Origin::serve(&root), Origin::serve(&root));
    let node = Node::start(&config::cached(
        &origin,
        &[config::BRISK, &repos(&KINDS, "offload"), &config::mirror("m", &mirror)].join("\n"),
    ));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| {
        let held = status["mirrors"][0]["repos"].as_array().unwrap();
        held.len() == KINDS.len() && held.iter().all(|repo| repo["fresh"] == true)
    });
    for (kind, _, _) in KINDS {
        let path = format!("{kind}/{}", rpm(2));
        // Each its own client, that is known to try again.
        let answer = get(&node, &format!("/{path}"), &format!("libdnf {kind}")).unwrap();
        assert_eq!(answer.status, 302, "{kind}");
        assert_eq!(answer.header("location"), Some(&*format!("{}{path}", mirror.url())));
        let told = match kind {
            "sha256" => Some("sha-256=:"),
            "sha512" => Some("sha-512=:"),
            // RFC 9530 has no name for the others that anybody should rely on.
            _ => None,
        };
        let repr = answer.header("repr-digest");
        assert_eq!(repr.is_some(), told.is_some(), "{kind}: {repr:?}");
        assert!(repr.zip(told).is_none_or(|(repr, told)| repr.starts_with(told)), "{kind}: {repr:?}");
    }
}
