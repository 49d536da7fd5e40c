//! What a push removes from a local tree stays reachable, whatever the file system allows; nothing old is taken for new.

use super::support::client;
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{config, run, said, scratch, wait_until};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// Runs what follows it as another user, who owns the node's directory and none of the tree.
const AS_ANOTHER: [&str; 3] = [
    "sh",
    "-c",
    "chown -R 65534:65534 {dir}; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"",
];

fn settings(tree: &Path, more: &str) -> String {
    config::in_place(tree, &[config::BRISK, more, &config::updates("24h")].concat())
}

/// A tree that another user may read.
fn readable(dir: &Path) -> Tree {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    Tree::link(Push::First, &dir.join("tree"))
}

fn keeps_what_a_push_removes(tree: &Tree, node: &Node, retained: &Path) {
    node.wait_ready();
    wait_until("all packages, and primary, filelists and other, to be copied", || {
        fs::read_dir(retained.join("copies")).is_ok_and(|copies| {
            copies.filter(|copy| copy.as_ref().unwrap().file_name() != "incoming").count()
                == repo::PACKAGES + 3
        })
    });
    let updated = 5;
    let old = repo::rpm(updated, Push::First);
    let path = tree.repo().join(&old);
    let (before, modified) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mtime());
    let behind =
        Dnf::with_baseurl(&format!("{}{REPO}/", node.url())).option("--setopt=t.metadata_expire=86400");
    behind.ok(&["makecache"]);

    tree.sync(Push::Second);
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    assert!(!path.exists(), "it is gone from the tree");
    let served = node.get(&format!("/{REPO}/{old}"));
    assert!(served.body == before, "{}", served.status);
    assert!(modified > 0 && served.header("last-modified").is_some());
    behind.ok(&["install", &repo::name(updated)]);
    behind.verify();
    assert_eq!(node.status()["repos"][0]["push"]["unretained_files"], 0);
}

#[test]
fn a_tree_of_another_owner_is_copied() {
    let dir = scratch();
    let tree = readable(dir.path());
    let node = Node::start_by(&AS_ANOTHER, &settings(tree.root(), ""));
    keeps_what_a_push_removes(&tree, &node, &node.dir().join("state/retained"));
}

#[test]
fn a_tree_on_another_file_system_is_copied() {
    let (dir, memory) = (scratch(), tempfile::tempdir_in("/dev/shm").unwrap());
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let retain = format!("origin.retain = \"{}/retained\"\n", memory.path().display());
    let node = Node::start(&settings(tree.root(), &retain));
    keeps_what_a_push_removes(&tree, &node, &memory.path().join("retained"));
}

#[test]
fn what_cant_be_kept_is_reported() {
    let dir = scratch();
    let tree = readable(dir.path());
    let node = Node::start_by(&AS_ANOTHER, &settings(tree.root(), "origin.retain_size = \"1 MiB\"\n"));
    node.wait_ready();
    let status = node.wait_status("it is reported", |status| {
        status["repos"][0]["push"]["unretained_files"].as_u64() > Some(0)
    });
    let push = &status["repos"][0]["push"];
    let why = push["unretained_why"].as_str().unwrap();
    assert!(why.contains("more than origin.retain_size has room for"), "{why}");
    let files = push["unretained_files"].as_f64();
    assert_eq!(node.metric("freshet_unretained_files{repo=\"updates/7.9.2009/x86_64\"}"), files);
    let page = client::get(node.admin(), "/").text();
    assert!(page.contains("files are not kept</span> once a push removes them"), "{page}");
    assert!(node.log().contains("a push would take files from clients at once"));

    // `check`, run by root, tries it as the user whose state directory it is.
    let config = node.dir().join("freshet.toml");
    let checked =
        Command::new(env!("CARGO_BIN_EXE_freshet")).arg("check").arg("--config").arg(config).output();
    let text = said(&checked.unwrap());
    assert!(text.contains("warning: origin.retain: ") && text.contains("Operation not permitted"), "{text}");
}

#[test]
fn a_package_signed_anew_is_never_served_old_by_a_cache_downstream() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let more = [config::BRISK, &config::updates("24h")].concat();
    let node = Node::start(&config::cached(&origin, &more));
    node.wait_ready();
    let package = format!("/{REPO}/{}", repo::rpm(3, Push::First));
    let first = node.get(&package);
    assert_eq!(first.header("cache-control"), Some("public, max-age=0, must-revalidate"));
    let etag = first.header("etag").unwrap().to_owned();
    let again = client::request(node.http(), "GET", &package, &[("If-None-Match", &etag)]);
    assert_eq!(again.status, 304);

    // The same name, other bytes of the same length.
    let file = tree.repo().join(repo::rpm(3, Push::First));
    let mut signed = fs::read(&file).unwrap();
    let last = signed.len() - 1;
    signed[last] ^= 1;
    fs::write(file.with_extension("new"), &signed).unwrap();
    fs::rename(file.with_extension("new"), &file).unwrap();
    let mut createrepo = Command::new("createrepo_c");
    createrepo.args(["--quiet", "--no-database", "--general-compress-type=gz", "--revision", "1700000001"]);
    run(createrepo.arg(tree.repo()));
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    let second = client::request(node.http(), "GET", &package, &[("If-None-Match", &etag)]);
    assert!(second.status == 200 && second.body == signed, "{}", second.status);
    let metadata = repo::files(&tree.repo()).into_iter().find(|file| file.contains("-primary.xml")).unwrap();
    let metadata = node.get(&format!("/{REPO}/{metadata}"));
    assert!(metadata.header("cache-control").unwrap().contains("immutable"), "its name carries its digest");
}
