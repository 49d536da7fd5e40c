//! Files that no list names: mirrors take them by size and modification time, where the operator lets them.

use super::support::client::{Connection, Response};
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::{now, run, scratch, wait_until};
use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const IMAGE: &str = "isos/a.iso";
const ALLOWED: &str = "[[unlisted]]\npath = \"isos\"\nage = \"3s\"\n";
/// Seconds since 1970.
const BUILT: u64 = 1_700_000_000;

/// Writes the image as rsync would: under another name, with its time, then renamed.
fn write(tree: &Path, bytes: usize, built: u64) {
    let path = tree.join(IMAGE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let temporary = path.with_extension("new");
    fs::write(&temporary, vec![b'x'; bytes]).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(built);
    File::options().write(true).open(&temporary).unwrap().set_modified(time).unwrap();
    fs::rename(temporary, path).unwrap();
}

/// A node that serves the tree in place, and mirrors of which one has the same.
struct Scene {
    node: Node,
    mirrors: Vec<Origin>,
    trees: Vec<PathBuf>,
    clients: Cell<usize>,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(allowed: &str) -> Self {
        let dir = scratch();
        let master = dir.path().join("master");
        write(&master, 2 << 20, BUILT);
        fs::create_dir_all(dir.path().join("absent")).unwrap();
        write(&dir.path().join("same"), 2 << 20, BUILT);
        write(&dir.path().join("older"), 2 << 20, BUILT - 1);
        write(&dir.path().join("shorter"), (2 << 20) - 1, BUILT);
        let trees: Vec<_> = ["same", "older", "shorter", "absent"].map(|name| dir.path().join(name)).into();
        let mirrors: Vec<Origin> = trees.iter().map(|tree| Origin::serve(tree)).collect();
        let tables: String = mirrors
            .iter()
            .enumerate()
            .map(|(number, mirror)| config::mirror(&format!("m{number}"), mirror))
            .collect();
        let node = Node::start(&config::in_place(&master, &[config::BRISK, allowed, &tables].concat()));
        node.wait_status("all mirrors are up", |status| {
            status["mirrors"].as_array().unwrap().iter().all(|mirror| mirror["state"] == "up")
        });
        Self { node, mirrors, trees: [vec![master], trees].concat(), clients: Cell::new(0), _dir: dir }
    }

    /// What a client gets that was never seen before.
    fn ask(&self) -> Response {
        let number = self.clients.replace(self.clients.get() + 1);
        let agent = format!("libdnf {number}");
        let mut connection = Connection::open(self.node.http()).unwrap();
        connection.request("GET", &format!("/{IMAGE}"), &[("User-Agent", &agent)]).unwrap()
    }

    fn wait_redirect(&self) -> Response {
        let redirect = Cell::new(None);
        wait_until("a redirect", || {
            let response = self.ask();
            let is_one = response.status == 302;
            assert!(is_one || response.body.len() == 2 << 20, "{} bytes", response.body.len());
            redirect.set(Some(response));
            is_one
        });
        redirect.take().unwrap()
    }
}

#[test]
fn a_mirror_with_the_same_size_and_time_takes_it_and_no_other() {
    let scene = Scene::new(ALLOWED);
    assert_eq!(scene.ask().status, 200, "nothing was seen yet");
    let expected = format!("{}{IMAGE}", scene.mirrors[0].url());
    let redirect = scene.wait_redirect();
    assert_eq!(redirect.header("location"), Some(expected.as_str()));
    assert_eq!(redirect.header("repr-digest"), None, "nobody knows its SHA-256");
    for _ in 0..20 {
        let response = scene.ask();
        let location = response.header("location");
        assert!(location.is_none_or(|location| location == expected), "{location:?}");
    }
    scene.wait_redirect();
    let explained = run(Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["explain", "--client", "192.0.2.7", "--config"])
        .arg(scene.node.dir().join("freshet.toml"))
        .arg(format!("/{IMAGE}")));
    assert!(explained.contains("sighted") && explained.contains(&expected), "{explained}");
    assert_eq!(
        explained.matches("it wasn't seen lately to have a file of that size and time").count(),
        3,
        "{explained}"
    );

    // Another build: the mirror's is not the node's any more, until it has synced and was looked at again.
    write(&scene.trees[0], 2 << 20, BUILT + 60);
    wait_until("the node to serve the new one", || {
        scene.ask().header("last-modified").is_some_and(|time| time.contains("22:14:20"))
    });
    for _ in 0..20 {
        assert_eq!(scene.ask().status, 200);
    }
    write(&scene.trees[1], 2 << 20, BUILT + 60);
    assert_eq!(scene.wait_redirect().header("location"), Some(expected.as_str()));
}

#[test]
fn whoever_comes_back_gets_the_bytes() {
    let scene = Scene::new(ALLOWED);
    scene.wait_redirect();
    let mut connection = Connection::open(scene.node.http()).unwrap();
    let mut again =
        || connection.request("GET", &format!("/{IMAGE}"), &[("User-Agent", "libdnf back")]).unwrap();
    wait_until("a redirect of this client", || again().status == 302);
    assert_eq!(again().status, 200, "the mirror failed it");
    scene.node.wait_access("the bounce", |line| line["reason"] == "bounce");
}

#[test]
fn who_asks_twice_costs_others_nothing() {
    // Mirrors are looked at for it each 20 s, by its clients.
    let scene = Scene::new("[[unlisted]]\npath = \"isos\"\nage = \"60s\"\n");
    scene.wait_redirect();
    let looks = || scene.mirrors.iter().map(|mirror| mirror.seen_for(IMAGE).len()).sum::<usize>();
    let (before, begun) = (looks(), now());
    for number in 0..100 {
        let agent = format!("libdnf back {number}");
        let mut connection = Connection::open(scene.node.http()).unwrap();
        let mut ask = || connection.request("GET", &format!("/{IMAGE}"), &[("User-Agent", &agent)]).unwrap();
        assert_eq!(ask().status, 302, "number {number}, after those who came back");
        assert_eq!(ask().status, 200, "the mirror failed it");
        assert_eq!(scene.ask().status, 302, "another client, after number {number}");
    }
    // One look for each ten seconds, and the usual ones, at the two mirrors that have the path.
    let most =
        1 + begun.elapsed().as_secs() as usize / 10 + 4 * (begun.elapsed().as_secs() as usize / 20 + 1);
    assert!(looks() - before <= most, "{} looks, more than {most}", looks() - before);
}

#[test]
fn without_the_operators_word_nothing_is_taken_and_nobody_asked() {
    let scene = Scene::new("");
    for _ in 0..5 {
        assert_eq!(scene.ask().status, 200);
    }
    // Whatever was to be asked has been, once each was asked twice more whether it lives.
    let asked = |mirror: &Origin| mirror.seen().len() + mirror.absent().len();
    let before: Vec<usize> = scene.mirrors.iter().map(asked).collect();
    wait_until("the mirrors to be probed again", || {
        scene.mirrors.iter().zip(&before).all(|(mirror, before)| asked(mirror) >= before + 2)
    });
    assert!(scene.mirrors.iter().all(|mirror| mirror.seen_for(IMAGE).is_empty()));
}
