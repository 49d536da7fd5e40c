//! Repodata as they occur: what dnf reads, the node reads, and where it can't, it says so.

use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{client, config, run, scratch, wait_for};
use freshet::repo::Sha256;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

fn node(origin: &Origin) -> Node {
    let more = [config::BRISK, "push.warm_for = \"100ms\"\n", &config::updates("24h")].concat();
    let node = Node::start(&config::cached(origin, &more));
    node.wait_ready();
    node
}

fn dnf(node: &Node) -> Dnf {
    Dnf::with_baseurl(&format!("{}{REPO}/", node.url())).option("--setopt=timeout=5")
}

/// Makes the metadata anew, by createrepo_c.
fn createrepo(repo: &Path, revision: u64, options: &[&str]) {
    let revision = revision.to_string();
    let mut command = Command::new("createrepo_c");
    command.args(["--quiet", "--no-database", "--revision", &revision, "--set-timestamp-to-revision"]);
    run(command.args(options).arg(repo));
}

/// Publishes primary.xml as `change` makes it of the one in place, plain.
fn publish(repo: &Path, revision: u64, change: impl FnOnce(&str) -> Vec<u8>) {
    let repodata = repo.join("repodata");
    let mut files = fs::read_dir(&repodata).unwrap().map(|entry| entry.unwrap().path());
    let packed = files.find(|path| path.to_str().unwrap().ends_with("-primary.xml.gz")).unwrap();
    let mut plain = String::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(packed).unwrap()).read_to_string(&mut plain).unwrap();
    let primary = change(&plain);
    let (sha256, size) = (Sha256::of(&primary), primary.len());
    fs::write(repodata.join(format!("{sha256}-primary.xml")), primary).unwrap();
    let repomd = format!(
        "<?xml version=\"1.0\" encoding=\"us-ascii\"?>\n\
         <repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><revision>{revision}</revision>\n\
         <data type=\"primary\"><checksum type=\"sha256\">{sha256}</checksum>\
         <location href=\"repodata/{sha256}-primary.xml\"/><timestamp>{revision}</timestamp>\
         <size>{size}</size></data></repomd>\n"
    );
    fs::write(repodata.join("new"), repomd).unwrap();
    fs::rename(repodata.join("new"), repodata.join("repomd.xml")).unwrap();
}

fn offers(node: &Node, sequence: u64) {
    node.wait_status("the push is offered", |status| {
        status["repos"][0]["generation"]["sequence"] == sequence
            && status["repos"][0]["generation"]["files"].as_u64() > Some(repo::PACKAGES as u64)
    });
}

fn lists_all(client: &Dnf) {
    let listed = client.ok(&["repoquery", "--refresh", "--quiet", "--queryformat=%{name}"]);
    assert_eq!(
        listed.lines().filter(|line| line.starts_with("freshet-")).count(),
        repo::PACKAGES,
        "{listed}"
    );
}

#[test]
fn every_compression_that_createrepo_writes() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    createrepo(&tree.repo(), 1_700_000_001, &["--general-compress-type=bz2"]);
    let origin = Origin::serve(tree.root());
    let node = node(&origin);
    offers(&node, 1);
    let client = dnf(&node);
    lists_all(&client);
    for (sequence, compression) in [(2, "gz"), (3, "xz"), (4, "bz2")] {
        let option = format!("--general-compress-type={compression}");
        createrepo(&tree.repo(), 1_700_000_000 + sequence, &[&option]);
        offers(&node, sequence);
    }
    lists_all(&client);
}

#[test]
fn encodings_and_long_descriptions() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let node = node(&origin);
    let client = dnf(&node);
    let declared = |plain: &str, encoding: &str| plain.replacen("UTF-8", encoding, 1);
    publish(&tree.repo(), 1_700_000_002, |plain| declared(plain, "us-ascii").into_bytes());
    offers(&node, 2);
    lists_all(&client);
    publish(&tree.repo(), 1_700_000_003, |plain| {
        let text = declared(plain, "ISO-8859-1").replace("<summary>", "<summary>\u{fc}");
        text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
    });
    offers(&node, 3);
    lists_all(&client);
    publish(&tree.repo(), 1_700_000_004, |plain| {
        let long = format!("<description>{}&amp;", "all of it \u{fc} ".repeat(500_000));
        plain.replacen("<description>", &long, 1).into_bytes()
    });
    offers(&node, 4);
    lists_all(&client);
}

#[test]
fn what_cant_be_read_is_not_current() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let node = node(&origin);
    let current = "freshet_repo_current{repo=\"updates/7.9.2009/x86_64\"}";
    // A busy host may have missed some polls.
    node.wait_status("it is current", |status| status["repos"][0]["currency"] == "confirmed");
    assert_eq!(node.metric(current), Some(1.0));
    let ready = || client::get(node.admin(), "/readyz");
    assert_eq!(ready().text(), "ready\n");

    let before = node.get(&format!("/{REPO}/repodata/repomd.xml"));
    publish(&tree.repo(), 1_700_000_002, |plain| plain.replacen("UTF-8", "EUC-JP", 1).into_bytes());
    let status =
        node.wait_status("it is not current", |status| status["repos"][0]["currency"] == "not-current");
    let why = status["repos"][0]["not_current"].as_str().unwrap();
    assert!(why.contains("a newer state since") && why.contains("an encoding other than"), "{why}");
    assert_eq!((status["ready"].as_bool(), node.metric(current)), (Some(true), Some(0.0)));
    let told = ready();
    assert_eq!(told.status, 200, "what is on offer is whole");
    assert!(
        told.text().contains("updates/7.9.2009/x86_64: not current: the origin shows"),
        "{}",
        told.text()
    );
    assert!(client::get(node.admin(), "/").text().contains("not current</span>: the origin shows"));
    let after = node.get(&format!("/{REPO}/repodata/repomd.xml"));
    assert!(after.status == 200 && after.body == before.body, "the old generation stays on offer");
    lists_all(&dnf(&node));

    publish(&tree.repo(), 1_700_000_003, |plain| plain.as_bytes().to_vec());
    offers(&node, 2);
    node.wait_status("it is current", |status| status["repos"][0]["currency"] == "confirmed");
    assert_eq!((node.metric(current), ready().text()), (Some(1.0), "ready\n".to_owned()));
}

/// GET as dnf does it: redirects are for clients that are known to try again.
fn get_as_dnf(node: &Node, path: &str) -> client::Response {
    client::request(
        node.http(),
        "GET",
        path,
        &[("User-Agent", "libdnf (Fedora Linux 40; server; Linux.x86_64)")],
    )
}

#[test]
fn files_outside_of_the_repos_directory() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let more =
        [config::BRISK, &config::updates("1s"), "window_min_mirrors = 0\n", &config::mirror("m", &mirror)];
    let node = Node::start(&config::cached(&origin, &more.concat()));
    node.wait_ready();

    // One below the tree's root, one by dot segments within the repo, one by the node's own URL.
    let moved = [
        (5, "../noarch", "7.9.2009/updates/noarch"),
        (9, "x/../pool", "7.9.2009/updates/x86_64/pool"),
        (13, "base", "shared"),
    ];
    let name = |i| repo::rpm(i, Push::First).rsplit('/').next().unwrap().to_owned();
    for (i, _, to) in moved {
        fs::create_dir_all(tree.root().join(to)).unwrap();
        fs::rename(tree.repo().join(repo::rpm(i, Push::First)), tree.root().join(to).join(name(i))).unwrap();
    }
    publish(&tree.repo(), 1_700_000_002, |plain| {
        let mut primary = plain.to_owned();
        for (i, how, _) in moved {
            let new = match how {
                "base" => format!("xml:base=\"{}shared\" href=\"{}\"", node.url(), name(i)),
                how => format!("href=\"{how}/{}\"", name(i)),
            };
            primary = primary.replace(&format!("href=\"{}\"", repo::rpm(i, Push::First)), &new);
        }
        primary.into_bytes()
    });
    offers(&node, 2);
    assert_eq!(node.status()["repos"][0]["generation"]["left_out"], 0);
    let paths = moved.map(|(i, _, to)| format!("/{to}/{}", name(i)));
    for path in &paths {
        let redirected = || Some(get_as_dnf(&node, path)).filter(|answer| answer.status == 302);
        let to = format!("{}{}", mirror.url(), &path[1..]);
        assert_eq!(wait_for("a redirect", redirected).header("location"), Some(to.as_str()));
    }
    let client = dnf(&node);
    client.ok(&["install", &repo::name(5), &repo::name(9), &repo::name(13)]);
    client.verify();
    // A push that removes them: who has the old metadata gets them all the same.
    let whole = |i: usize, to: &str| fs::read(tree.root().join(to).join(name(i))).unwrap();
    let bodies = moved.map(|(i, _, to)| whole(i, to));
    for (i, _, to) in moved {
        fs::rename(tree.root().join(to).join(name(i)), tree.repo().join(repo::rpm(i, Push::First))).unwrap();
    }
    publish(&tree.repo(), 1_700_000_003, |plain| plain.as_bytes().to_vec());
    offers(&node, 3);
    for (path, body) in paths.iter().zip(&bodies) {
        let served = node.get(path);
        assert!(served.status == 200 && served.body == *body, "{path}: {}", served.status);
        assert!(served.header("repr-digest").is_some(), "it is known by its digest");
    }
}

#[test]
fn a_repo_at_the_trees_root() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(&tree.repo()), Origin::serve(&tree.repo()));
    let at_root = config::updates("1s").replace("{release}/updates/{arch}", "");
    let more = [config::BRISK, &at_root, "window_min_mirrors = 0\n", &config::mirror("m", &mirror)];
    let node = Node::start(&config::cached(&origin, &more.concat()));
    node.wait_ready();
    let query = "release=7.9.2009&arch=x86_64&repo=updates";
    let listed = node.get(&format!("/mirrorlist?{query}")).text();
    assert!(listed.lines().any(|line| line == node.url()), "{listed}");
    let client = Dnf::new(&format!(
        "[t]\nname=t\nmetalink={}metalink?{query}\ngpgcheck=0\nmetadata_expire=0\n",
        node.url()
    ));
    client.ok(&["install", &repo::name(5)]);
    let files = repo::files(&tree.repo());
    let old = format!("/{}", files.iter().find(|file| file.contains("-primary.xml")).unwrap());
    let body = node.get("/repodata/repomd.xml").body;

    tree.sync(Push::Second);
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);
    assert_ne!(node.get("/repodata/repomd.xml").body, body);
    client.ok(&["upgrade", "--refresh", "--setopt=deltarpm=0"]);
    assert_eq!(client.installed(), [format!("{}-1.0-2", repo::name(5))]);
    client.verify();
    assert_eq!(node.get(&old).status, 200, "what the push removed is kept");
    let fresh = |status: &serde_json::Value| status["mirrors"][0]["repos"][0]["fresh"] == true;
    node.wait_status("the mirror is fresh", fresh);
    let new = format!("/{}", repo::rpm(7, Push::Second));
    node.wait_status("redirects to the mirror", |_| get_as_dnf(&node, &new).status == 302);
    let explained =
        client::get(node.admin(), &format!("/api/v1/explain?client=192.0.2.1&user_agent=libdnf&path={new}"))
            .text();
    assert!(explained.contains("offload"), "{explained}");
}
