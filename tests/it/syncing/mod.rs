//! Twenty mirrors that sync in stages, each in its own way, and some that are bad; five pushes; real dnf and fifty librepo
//! processes, none of which may fail.

mod states;

use super::support::config;
use super::support::dnf::Dnf;
use super::support::node::Node;
use super::support::origin::{Act, Origin, Seen};
use super::support::repo::REPO;
use super::support::{scratch, wait_until};
use serde_json::Value;
use states::{States, Step, steps, take};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MIRRORS: usize = 20;
const PUSHES: usize = 5;
const CLIENTS: usize = 50;
/// A mirror begins to sync within this time after a push, and takes as long.
const SYNC: Duration = Duration::from_millis(1500);

/// What kind of mirror each is, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PackagesFirst,
    MetadataFirst,
    DeletesFirst,
    AnyOrder,
    /// Half of each push comes with the next one.
    Half,
    /// The same, with the metadata first: it shows what it lacks.
    Hollow,
    /// All packages have a flipped byte.
    Flipped,
    /// Bodies end in the middle.
    Truncated,
    /// 200 and a page for everything.
    Liar,
    Slow,
    /// Redirects to another host.
    Elsewhere,
    NoRanges,
    /// TLS is spoken by nobody there.
    BadTls,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::PackagesFirst,
        Self::MetadataFirst,
        Self::DeletesFirst,
        Self::AnyOrder,
        Self::Half,
        Self::Hollow,
        Self::Flipped,
        Self::Truncated,
        Self::Liar,
        Self::Slow,
        Self::Elsewhere,
        Self::NoRanges,
        Self::BadTls,
    ];

    /// What is different about its answers.
    fn acts(self) -> Vec<Act> {
        let page = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/html\r\n\r\n<html></html>";
        match self {
            Self::Flipped => vec![Act::Corrupt(3000)],
            Self::Truncated => vec![Act::Truncate(2500)],
            Self::Liar => vec![Act::Raw(page.to_vec())],
            Self::Slow => vec![Act::Throttle(200_000)],
            Self::Elsewhere => vec![Act::Status(302), Act::Header("Location", "http://127.0.0.1:9/".into())],
            Self::NoRanges => vec![Act::NoRanges],
            _ => Vec::new(),
        }
    }
}

struct Mirror {
    kind: Kind,
    root: PathBuf,
    server: Origin,
}

impl Mirror {
    fn start(number: usize, below: &Path, states: &States) -> Self {
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let root = below.join(format!("mirror-{number}"));
        let repo = root.join(REPO);
        fs::create_dir_all(&repo).expect("the repository");
        let (puts, _) = steps(&states.repo(0), &repo);
        puts.iter().for_each(|step| take(step, &states.repo(0), &repo));
        let server = Origin::serve(&root);
        let mirror = Self { kind, root, server };
        mirror.misbehave();
        mirror
    }

    /// The bad ones are so from the first state on; metadata of those that flip or cut are right, else nobody would believe them.
    fn misbehave(&self) {
        match self.kind {
            Kind::Flipped | Kind::Truncated => {
                for file in super::support::repo::files(&self.root.join(REPO)) {
                    if file.ends_with(".rpm") {
                        self.server.act(&format!("{REPO}/{file}"), self.kind.acts());
                    }
                }
            }
            kind => self.server.act("*", kind.acts()),
        }
    }

    fn table(&self, number: usize) -> String {
        let scheme = if self.kind == Kind::BadTls { "https" } else { "http" };
        format!("[[mirror]]\nname = \"m{number}\"\nurl = \"{scheme}://{}/\"\n", self.server.addr())
    }

    /// Takes over a state, in its own way.
    fn sync(&self, from: &Path, rng: &mut fastrand::Rng) {
        let to = self.root.join(REPO);
        std::thread::sleep(SYNC.mul_f64(rng.f64()));
        let (mut puts, gone) = steps(from, &to);
        let metadata =
            puts.iter().position(|step| matches!(step, Step::Put(file) if file.starts_with("repodata/")));
        let mut steps: Vec<Step> = match self.kind {
            Kind::MetadataFirst | Kind::Hollow => {
                let metadata = puts.split_off(metadata.unwrap_or(puts.len()));
                metadata.into_iter().chain(gone).chain(puts).collect()
            }
            Kind::DeletesFirst => gone.into_iter().chain(puts).collect(),
            _ => puts.into_iter().chain(gone).collect(),
        };
        match self.kind {
            Kind::AnyOrder => rng.shuffle(&mut steps),
            Kind::Half | Kind::Hollow => steps.truncate(steps.len() / 2),
            _ => {}
        }
        for step in &steps {
            take(step, from, &to);
            std::thread::sleep(SYNC / u32::try_from(steps.len()).expect("not many"));
        }
        self.misbehave();
    }
}

/// Publishes a state at the origin: packages, metadata, repomd.xml, and then what is gone.
fn publish(from: &Path, to: &Path) {
    let (puts, gone) = steps(from, to);
    puts.iter().chain(&gone).for_each(|step| take(step, from, to));
}

/// A client that goes on until the file at `end` is there.
fn client(url: &str, end: &Path, number: usize) -> Child {
    Command::new("/usr/bin/python3")
        .args(["-c", include_str!("client.py"), url])
        .arg(end)
        .arg(number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3")
}

fn generation(node: &Node) -> u64 {
    node.status()["repos"][0]["generation"]["sequence"].as_u64().unwrap_or_default()
}

#[test]
fn nobody_fails_while_mirrors_sync_as_they_do() {
    let dir = scratch();
    let states = States::make(dir.path(), PUSHES);
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join(REPO)).unwrap();
    publish(&states.repo(0), &tree.join(REPO));
    let origin = Origin::serve(&tree);
    let mirrors: Vec<Mirror> =
        (0..MIRRORS).map(|number| Mirror::start(number, dir.path(), &states)).collect();
    let tables: String = mirrors.iter().enumerate().map(|(number, mirror)| mirror.table(number)).collect();
    let repo = config::updates("500ms\"\nwindow_scope = \"push");
    let trusting = "http.trusted_proxies = [\"127.0.0.1/32\"]\n";
    let node = Node::start(&config::cached(&origin, &[trusting, config::BRISK, &repo, &tables].concat()));
    node.wait_ready();
    let is_fresh = |status: &Value, number: usize| status["mirrors"][number]["repos"][0]["fresh"] == true;
    node.wait_status("the first mirrors are fresh", |status| (0..5).all(|number| is_fresh(status, number)));

    let (end, url) = (dir.path().join("end"), format!("{}{REPO}/", node.url()));
    let clients: Vec<Child> = (0..CLIENTS).map(|number| client(&url, &end, number)).collect();
    let host = Dnf::with_baseurl(&url);
    host.ok(&["install", "freshet-001", "freshet-004", "freshet-009", "freshet-013"]);
    for push in 1..=PUSHES {
        publish(&states.repo(push), &tree.join(REPO));
        wait_until("the push is offered", || generation(&node) == push as u64 + 1);
        std::thread::scope(|scope| {
            for (number, mirror) in mirrors.iter().enumerate() {
                let states = &states;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed((push * MIRRORS + number) as u64);
                    mirror.sync(&states.repo(push), &mut rng);
                });
            }
            // In the midst of it.
            host.ok(&["upgrade"]);
        });
    }
    node.wait_status("those that sync right are fresh", |status| {
        (0..MIRRORS).all(|number| {
            let right = matches!(
                mirrors[number].kind,
                Kind::PackagesFirst
                    | Kind::MetadataFirst
                    | Kind::DeletesFirst
                    | Kind::AnyOrder
                    | Kind::NoRanges
            );
            !right || is_fresh(status, number)
        })
    });
    host.ok(&["upgrade"]);
    host.verify();
    fs::write(&end, "").unwrap();
    let mut fetched = 0;
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().unwrap();
        let said = super::support::said(&output);
        assert!(output.status.success(), "client {number}: {said}");
        fetched += said.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok()).unwrap();
    }

    let log = node.access();
    let redirects: Vec<&Value> = log.iter().filter(|line| line["decision"] == "redirect").collect();
    let to = |kind: Kind| {
        let names: Vec<String> = (0..MIRRORS)
            .filter(|number| mirrors[*number].kind == kind)
            .map(|number| format!("m{number}"))
            .collect();
        redirects.iter().filter(|line| names.iter().any(|name| line["mirror"] == *name)).count()
    };
    let counts: Vec<_> = Kind::ALL.iter().map(|kind| (kind, to(*kind))).collect();
    println!("{fetched} packages fetched by librepo, {} redirects: {counts:?}", redirects.len());
    let kinds = Kind::ALL.iter().filter(|kind| to(**kind) > 0).count();
    assert!(redirects.len() > 100 && kinds >= 6, "clients of many networks are spread");
    for kind in [Kind::Liar, Kind::Elsewhere, Kind::BadTls] {
        assert_eq!(to(kind), 0, "{kind:?}");
    }
    assert!(log.iter().all(|line| line["status"].as_u64().unwrap() < 400));
    // No client was sent for what wasn't there.
    for mirror in &mirrors {
        let is_client =
            |seen: &&Seen| seen.header("user-agent").is_some_and(|agent| agent.starts_with("libdnf"));
        let absent = mirror.server.absent();
        let of_clients: Vec<_> = absent.iter().filter(is_client).collect();
        assert!(of_clients.is_empty(), "{:?}: {of_clients:#?}", mirror.kind);
    }
}
