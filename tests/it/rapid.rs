//! The whole life of an urgent update, with the `.repo` files that come with freshet: it is in the rapid repo alone, then in
//! updates as well, then on a mirror, and at last no longer in the rapid repo.

use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, Tree};
use super::support::zypper::Zypper;
use super::support::{client, config, run, scratch, wait_for};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The package that is updated: its second release is urgent. It requires nothing.
const URGENT: usize = 5;
const RAPID: &str = "7.9.2009/rapid/x86_64";
/// Longer than the rapid repo's `metadata_expire`, and shorter than that of updates.
const A_WHILE: Duration = Duration::from_secs(20 * 60);
/// Longer than both.
const HOURS: Duration = Duration::from_secs(7 * 3600);

const REPOS: &str = r#"
[[alias]]
from = "7"
to = "7.9.2009"

[[repo]]
name = "updates"
path = "{release}/updates/{arch}"
releases = ["7"]
arches = ["x86_64"]
window = "1s"

[[repo]]
name = "rapid"
path = "{release}/rapid/{arch}"
releases = ["7"]
arches = ["x86_64"]
delivery = "own"
twin = "updates"
"#;

/// An origin with both repos, a mirror that has updates alone, and a node.
struct Site {
    _dir: TempDir,
    tree: Tree,
    /// The second push, complete.
    pushed: Tree,
    mirrored: Tree,
    _origin: Origin,
    mirror: Origin,
    node: Node,
}

impl Site {
    /// With nothing in the rapid repo.
    fn new() -> Self {
        Self::with("", "own")
    }

    /// With more in the config, and so delivered a rapid repo.
    fn with(more: &str, delivery: &str) -> Self {
        let dir = scratch();
        let link = |push, name| Tree::link(push, &dir.path().join(name));
        let (tree, mirrored) = (link(Push::First, "tree"), link(Push::First, "mirror"));
        let pushed = link(Push::Second, "pushed");
        fs::create_dir_all(tree.root().join(RAPID).join("Packages")).unwrap();
        createrepo(&tree.root().join(RAPID));
        let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(mirrored.root()));
        let repos = REPOS.replace("\"own\"", &format!("\"{delivery}\""));
        let tables = [config::BRISK, more, &repos, &config::mirror("mirror", &mirror)].concat();
        let node = Node::start(&config::cached(&origin, &tables));
        node.wait_ready();
        node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
        Self { _dir: dir, tree, pushed, mirrored, _origin: origin, mirror, node }
    }

    /// The `.repo` files that come with freshet, for this node, the rapid repo first.
    fn repos(&self) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/client");
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        let both = [read("rapid.repo"), read("freshet.repo")].concat();
        both.replace("http://mirror.example.org/", &self.node.url()).replace("gpgcheck=1", "gpgcheck=0")
    }

    fn dnf(&self) -> Dnf {
        Dnf::new(&self.repos()).option("--releasever=7").option("--setopt=deltarpm=0")
    }

    fn zypper(&self) -> Zypper {
        Zypper::new(&self.repos()).option("--releasever=7")
    }

    fn rapid_file(&self) -> PathBuf {
        self.tree.root().join(RAPID).join(repo::rpm(URGENT, Push::Second))
    }

    /// The urgent update is published in the rapid repo.
    fn publish_urgent(&self) {
        let urgent = repo::rpm(URGENT, Push::Second);
        fs::hard_link(self.pushed.repo().join(urgent), self.rapid_file()).unwrap();
        createrepo(&self.tree.root().join(RAPID));
        self.wait_offered("rapid", 2);
    }

    /// It is published in updates, among others.
    fn publish_updates(&self) {
        self.tree.sync(Push::Second);
        self.wait_offered("updates", 2);
    }

    /// The mirror syncs.
    fn sync_mirror(&self) {
        self.mirror.forget();
        self.mirrored.sync(Push::Second);
        self.node.wait_status("the mirror is fresh", |status| {
            status["mirrors"][0]["repos"][0]["fresh"] == true
                && status["repos"][0]["window"]["phase"] == "closed"
        });
    }

    /// It is taken out of the rapid repo.
    fn drop_urgent(&self) {
        fs::remove_file(self.rapid_file()).unwrap();
        createrepo(&self.tree.root().join(RAPID));
        self.wait_offered("rapid", 3);
    }

    fn wait_offered(&self, repo: &str, sequence: u64) {
        self.node.wait_status("it is offered", |status| {
            let mut repos = status["repos"].as_array().unwrap().iter();
            let found = repos.find(|known| known["id"].as_str().unwrap().starts_with(repo)).unwrap();
            found["generation"]["sequence"] == sequence
        });
    }

    /// What the node was asked for by clients, from `since` on: path below the release, decision, reason.
    fn asked(&self, since: usize) -> Vec<[String; 3]> {
        let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        let below = |line: &Value| {
            let path = text(line, "path");
            path.trim_start_matches("/7.9.2009/").trim_start_matches("/7/").to_owned()
        };
        let log = self.node.access();
        log[since..].iter().map(|line| [below(line), text(line, "decision"), text(line, "reason")]).collect()
    }

    /// The one package that it was asked for, once its line is in the log: path below the release, decision, reason.
    #[track_caller]
    fn package(&self, since: usize) -> [String; 3] {
        let mut all = wait_for("a package in the log", || {
            Some(self.packages(since)).filter(|packages| !packages.is_empty())
        });
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    /// The packages among them.
    fn packages(&self, since: usize) -> Vec<[String; 3]> {
        self.asked(since).into_iter().filter(|[path, ..]| path.ends_with(".rpm")).collect()
    }

    /// Whole packages that the mirror was asked for.
    fn taken(&self) -> Vec<String> {
        let seen = self.mirror.seen();
        let gets = seen.iter().filter(|seen| seen.method == "GET" && seen.path.ends_with(".rpm"));
        // The prober asks for single bytes.
        gets.filter(|seen| seen.header("range").is_none()).map(|seen| seen.path.clone()).collect()
    }
}

fn createrepo(dir: &Path) {
    run(Command::new("createrepo_c")
        .args(["--quiet", "--no-database", "--general-compress-type=gz"])
        .arg(dir));
}

fn installed(release: u32) -> [String; 1] {
    [format!("{}-1.0-{release}", repo::name(URGENT))]
}

/// The urgent package in a repo, below the release.
fn urgent(repo: &str) -> String {
    format!("{repo}/x86_64/{}", repo::rpm(URGENT, Push::Second))
}

#[test]
fn dnf_takes_it_from_nodes_at_once_and_from_mirrors_later() {
    let site = Site::new();
    let name = repo::name(URGENT);
    let hosts: [Dnf; 4] = std::array::from_fn(|_| site.dnf());
    for host in &hosts {
        host.ok(&["install", &name]);
        assert_eq!(host.installed(), installed(1));
    }
    let [early, late, last, slow] = hosts;

    // Only in the rapid repo. A host learns of it once its metadata of that repo have expired; those of updates are still good.
    site.publish_urgent();
    let begun = site.node.access().len();
    early.ok(&["upgrade"]);
    assert_eq!((early.installed(), site.asked(begun)), (installed(1).into(), vec![]));
    early.age(A_WHILE);
    early.ok(&["upgrade"]);
    assert_eq!(early.installed(), installed(2));
    early.verify();
    let asked = site.asked(begun);
    assert!(!asked.iter().any(|[path, ..]| path.starts_with("updates")), "{asked:#?}");
    assert_eq!(site.package(begun), [&urgent("rapid"), "serve", "own"]);
    slow.age(A_WHILE);
    slow.ok(&["makecache", "--timer"]);

    // In both, on no mirror yet. Who has it downloads nothing; who hasn't takes it by updates, from the node.
    site.publish_updates();
    let begun = site.node.access().len();
    early.age(HOURS);
    early.ok(&["upgrade"]);
    assert_eq!(site.packages(begun), [[""; 3]; 0]);
    late.age(HOURS);
    late.ok(&["upgrade"]);
    assert_eq!(late.installed(), installed(2));
    late.verify();
    let [path, decision, _] = site.package(begun);
    assert_eq!((path, &*decision), (urgent("updates"), "serve"));

    // On a mirror.
    site.sync_mirror();
    let begun = site.node.access().len();
    last.age(HOURS);
    last.ok(&["upgrade"]);
    assert_eq!(last.installed(), installed(2));
    last.verify();
    assert_eq!(site.packages(begun), [[""; 3]; 0]);
    assert_eq!(site.taken(), [format!("7.9.2009/{}", urgent("updates"))]);

    // No longer in the rapid repo, which a host remembers it from.
    site.drop_urgent();
    let begun = site.node.access().len();
    slow.ok(&["upgrade"]);
    assert_eq!(slow.installed(), installed(2));
    slow.verify();
    assert_eq!(site.package(begun), [&urgent("rapid"), "serve", "superseded"]);
}

#[test]
fn zypper_takes_it_from_nodes_at_once_and_by_updates_later() {
    let site = Site::new();
    let name = repo::name(URGENT);
    let [early, late] = [site.zypper(), site.zypper()];
    for host in [&early, &late] {
        host.ok(&["install", &name]);
        assert_eq!(host.installed(), installed(1));
    }
    site.publish_urgent();
    let begun = site.node.access().len();
    early.ok(&["update"]);
    assert_eq!(early.installed(), installed(2));
    early.verify();
    assert_eq!(site.package(begun), [&urgent("rapid"), "serve", "own"]);

    site.publish_updates();
    let begun = site.node.access().len();
    early.ok(&["update"]);
    assert_eq!(site.packages(begun), [[""; 3]; 0]);
    late.ok(&["update"]);
    assert_eq!(late.installed(), installed(2));
    late.verify();
    let [path, decision, _] = site.package(begun);
    assert_eq!((path, &*decision), (urgent("updates"), "serve"));

    site.sync_mirror();
    let begun = site.node.access().len();
    let last = site.zypper();
    last.ok(&["install", &name]);
    assert_eq!(last.installed(), installed(2));
    last.verify();
    assert_eq!(site.packages(begun), [[""; 3]; 0]);
    assert_eq!(site.taken(), [format!("7.9.2009/{}", urgent("updates"))]);
}

#[test]
fn what_the_rapid_repo_dropped_comes_by_updates_where_the_node_has_lost_it() {
    // For as long as clients may have older metadata, and after that.
    for keep in ["48h", "0s"] {
        let site = Site::with(&format!("push.keep = \"{keep}\"\n"), "own");
        site.publish_urgent();
        site.publish_updates();
        let path = format!("/7/{}", urgent("rapid"));
        let bytes = site.node.get(&path).body;
        site.drop_urgent();
        for repo in ["rapid", "updates"] {
            let purge = format!("/api/v1/purge?path=/7.9.2009/{}", urgent(repo));
            assert_eq!(client::request(site.node.admin(), "POST", &purge, &[]).status, 200);
        }
        let got = site.node.get(&path);
        assert!(got.status == 200 && got.body == bytes, "kept for {keep}: {}", got.status);
        let part = client::request(site.node.http(), "GET", &path, &[("Range", "bytes=100-199")]);
        assert!(part.status == 206 && part.body == bytes[100..200], "kept for {keep}: {}", part.status);
    }
}

#[test]
fn a_rapid_repo_that_may_be_offloaded_goes_to_mirrors_by_updates() {
    let site = Site::with("", "offload");
    site.publish_urgent();
    let ask = || {
        let path = format!("/7/{}", urgent("rapid"));
        client::request(site.node.http(), "GET", &path, &[("User-Agent", "libdnf")])
    };
    assert_eq!(ask().status, 200);
    site.publish_updates();
    assert_eq!(ask().status, 200);
    site.sync_mirror();
    let response = ask();
    let expected = format!("{}7.9.2009/{}", site.mirror.url(), urgent("updates"));
    assert_eq!((response.status, response.header("location")), (302, Some(&*expected)));
    let list = site.node.get("/mirrorlist?release=7&arch=x86_64&repo=rapid").text();
    assert!(list.lines().count() > 3 && list.lines().all(|url| url.starts_with(&site.node.url())), "{list}");
}

/// What `rapid.repo` says of priorities.
#[test]
fn a_worse_priority_hides_an_urgent_update() {
    let site = Site::new();
    site.publish_urgent();
    let name = repo::name(URGENT);
    let repos = site.repos().replace("cost=2000", "priority=100");
    let (dnf, zypper) = (site.dnf(), site.zypper());
    dnf.set_repos(&repos);
    zypper.set_repos(&repos);
    dnf.ok(&["install", &name]);
    zypper.ok(&["install", &name]);
    assert_eq!((dnf.installed(), zypper.installed()), (installed(1).into(), installed(1).into()));
}
