//! Trouble with the disk: clients get their bytes, past the cache where need be, and the node recovers by itself.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{run, said, scratch, wait_until};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Below or over a directory; `None` where mounting is refused, which it is to anyone but root.
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        if mount.status.success() {
            return Some(Self(at.to_owned()));
        }
        eprintln!("SKIPPED: a tmpfs can't be mounted here: {}", said(&mount));
        None
    }

    fn remount(&self, option: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the node may hold files in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes that differ from file to file.
fn body(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(number as u64).fill(&mut bytes);
    bytes
}

/// An origin with files `f0`, `f1`, ... of this length.
fn origin(files: usize, length: usize) -> Origin {
    let origin = Origin::serve(Path::new("/nonexistent"));
    (0..files).for_each(|number| origin.put(&format!("f{number}"), body(number, length)));
    origin
}

fn configured(origin: &Origin, cache: &Path) -> String {
    config::cached(origin, "cache.memory_object = \"64 KiB\"").replace("{dir}/cache", cache.to_str().unwrap())
}

fn event(node: &Node, event: &str) -> u64 {
    node.status()["cache"]["events"][event].as_u64().unwrap()
}

fn objects(node: &Node) -> u64 {
    node.status()["cache"]["objects"].as_u64().unwrap()
}

/// Waits until nothing is being filled: what can be stored is.
fn settle(node: &Node) {
    node.wait_status("all fills ended", |status| status["cache"]["flights"] == 0);
}

/// The reason that the status gives; empty for none.
fn trouble(node: &Node) -> String {
    let trouble = &node.status()["cache"]["trouble"];
    assert!(trouble.is_null() || trouble["since"].is_string(), "{trouble}");
    trouble["why"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_disk_that_fills_below_its_bound_evicts_and_never_fails_a_client() {
    const LENGTH: usize = 4_000_000;
    let dir = scratch();
    let Some(disk) = Tmpfs::mount(&dir.path().join("disk"), 24) else { return };
    let origin = origin(12, LENGTH);
    origin.put("large", body(99, 30_000_000));
    let node = Node::start(&configured(&origin, &disk.0));
    for round in 0..2 {
        for number in 0..12 {
            assert!(
                node.get(&format!("/f{number}")).body == body(number, LENGTH),
                "f{number} in round {round}"
            );
            settle(&node);
        }
    }
    assert!(event(&node, "evicted") > 0 && event(&node, "io_errors") > 0);
    assert!(trouble(&node).contains("No space"), "{}", trouble(&node));
    assert!((3..=6).contains(&objects(&node)), "trimmed, not emptied: {}", objects(&node));
    for _ in 0..2 {
        assert!(node.get("/large").body == body(99, 30_000_000));
    }
    assert_eq!(origin.seen_for("large").len(), 2);
    assert!(event(&node, "passed") + event(&node, "fills_unstored") >= 2);
    wait_until("it stores again", || {
        assert!(node.get("/f3").body == body(3, LENGTH));
        settle(&node);
        objects(&node) > 0
    });
}

#[test]
fn a_disk_that_turns_read_only_serves_what_it_has_and_passes_the_rest() {
    const LENGTH: usize = 20_000;
    let dir = scratch();
    let Some(disk) = Tmpfs::mount(&dir.path().join("disk"), 8) else { return };
    let origin = origin(3, LENGTH);
    let mut node = Node::start(&configured(&origin, &disk.0));
    node.get("/f0");
    settle(&node);
    disk.remount("ro");
    for _ in 0..3 {
        assert!(node.get("/f1").body == body(1, LENGTH));
        assert!(node.get("/f0").body == body(0, LENGTH));
    }
    assert_eq!((origin.seen_for("f0").len(), origin.seen_for("f1").len()), (1, 3));
    assert!(trouble(&node).contains("Read-only"), "{}", trouble(&node));
    disk.remount("rw");
    wait_until("it stores again", || {
        assert!(node.get("/f1").body == body(1, LENGTH));
        settle(&node);
        objects(&node) == 2
    });
    // A node can't be started without a disk that takes entries, and says so.
    assert!(node.sigterm().success());
    disk.remount("ro");
    let output = Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["serve", "--config"])
        .arg(node.dir().join("freshet.toml"))
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(disk.0.to_str().unwrap()) && text.contains("Read-only"), "{text}");
}

#[test]
fn a_directory_that_is_removed_or_made_unwritable_comes_back() {
    const LENGTH: usize = 100_000;
    let dir = scratch();
    let Some(disk) = Tmpfs::mount(&dir.path().join("disk"), 8) else { return };
    let cache = disk.0.join("cache");
    let origin = origin(4, LENGTH);
    let node = Node::start(&configured(&origin, &cache));
    node.get("/f0");
    settle(&node);
    fs::remove_dir_all(&cache).unwrap();
    assert!(node.get("/f1").body == body(1, LENGTH));
    settle(&node);
    assert!(trouble(&node).contains("made anew"), "{}", trouble(&node));
    assert!(cache.join("objects").is_dir() && cache.join("lock").exists());
    node.wait_status("the new entry alone is known", |status| status["cache"]["objects"] == 1);

    let tmp = cache.join("tmp");
    let immutable = |flag: &str| Command::new("chattr").arg(flag).arg(&tmp).output().unwrap();
    let set = immutable("+i");
    if !set.status.success() {
        eprintln!("SKIPPED: no immutable directories here: {}", said(&set));
        return;
    }
    assert!(node.get("/f2").body == body(2, LENGTH));
    assert!(trouble(&node).contains("not permitted"), "{}", trouble(&node));
    assert!(immutable("-i").status.success());
    wait_until("it stores again", || {
        assert!(node.get("/f3").body == body(3, LENGTH));
        settle(&node);
        objects(&node) == 2
    });
}

#[test]
fn another_disk_in_the_place_of_the_first_is_taken_as_it_is() {
    const LENGTH: usize = 100_000;
    let dir = scratch();
    let Some(first) = Tmpfs::mount(&dir.path().join("disk"), 8) else { return };
    let origin = origin(4, LENGTH);
    let node = Node::start(&configured(&origin, &first.0));
    node.get("/f0");
    settle(&node);
    let second = Tmpfs::mount(&first.0, 8).unwrap();
    for number in [1, 0, 1] {
        assert!(node.get(&format!("/f{number}")).body == body(number, LENGTH));
        settle(&node);
    }
    assert!(second.0.join("boot").exists(), "it is in use");
    assert!(trouble(&node).contains("vanished or were replaced"), "{}", trouble(&node));
    drop(second);
    for number in [2, 3, 0, 1, 2] {
        assert!(node.get(&format!("/f{number}")).body == body(number, LENGTH));
        settle(&node);
    }
    let stored = run(Command::new("find").arg(first.0.join("objects")).args(["-type", "f"]));
    assert_eq!(objects(&node), stored.lines().count() as u64, "the index is of the disk that is there");
    assert_eq!(event(&node, "damaged"), 0);
}

/// A node whose calls of libc fail on demand.
fn faulty(origin: &Origin) -> Node {
    let prefix = ["fiu-run", "-x", "-f", "{dir}/fiu"];
    Node::start_by(&prefix, &config::cached(origin, "cache.memory_object = \"64 KiB\""))
}

fn fiu(node: &mut Node, command: &str) {
    let prefix = node.dir().join("fiu");
    let pid = node.pid().to_string();
    let said = run(Command::new("fiu-ctrl").arg("-f").arg(prefix).args(["-c", command, &pid]));
    assert!(!said.contains("rror"), "{command}: {said}");
}

#[test]
fn writes_that_fail_cost_clients_a_retry_at_most_and_never_a_wrong_byte() {
    const LENGTH: usize = 600_000;
    let origin = origin(20, LENGTH);
    for (call, errno) in [
        ("posix/io/rw/pwrite", 28),
        ("posix/io/sync/fsync", 5),
        ("posix/io/dir/rename", 5),
        ("posix/io/oc/open", 5),
        ("posix/io/rw/pwrite", 5),
    ] {
        let mut node = faulty(&origin);
        fiu(&mut node, &format!("enable_random name={call},probability=0.4,failinfo={errno}"));
        for number in 0..20 {
            // A body may break off; it may not end cleanly where it is wrong.
            wait_until("it is served", || {
                let mut connection = Connection::open(node.http()).unwrap();
                let Ok(answer) = connection.request("GET", &format!("/f{number}"), &[]) else { return false };
                assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
                assert!(answer.status == 503 || answer.body == body(number, LENGTH), "f{number}: {call}");
                answer.status == 200
            });
        }
        settle(&node);
        println!("{call} {errno}: {} failures, {:?}", event(&node, "io_errors"), trouble(&node));
        assert!(event(&node, "io_errors") > 0 && !trouble(&node).is_empty());
        fiu(&mut node, &format!("disable name={call}"));
        if errno == 5 && call.ends_with("pwrite") {
            wait_until("it stores again", || {
                (0..20).for_each(|number| {
                    assert!(node.get(&format!("/f{number}")).body == body(number, LENGTH));
                });
                settle(&node);
                objects(&node) == 20
            });
        }
        // What was stored meanwhile is right, too.
        assert!(node.sigterm().success());
        node.launch();
        for number in 0..20 {
            assert!(node.get(&format!("/f{number}")).body == body(number, LENGTH), "f{number} after {call}");
        }
        settle(&node);
        let left = fs::read_dir(node.dir().join("cache/tmp")).unwrap().count();
        assert_eq!((event(&node, "damaged"), left), (0, 0));
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_fetched_anew() {
    const LENGTH: usize = 400_000;
    let origin = origin(1, LENGTH);
    let mut node = faulty(&origin);
    assert!(node.get("/f0").body == body(0, LENGTH));
    settle(&node);
    assert!(node.sigterm().success());
    node.launch();
    fiu(&mut node, "enable name=posix/io/rw/pread,failinfo=5,onetime");
    assert!(node.get("/f0").body == body(0, LENGTH), "the client doesn't notice");
    settle(&node);
    assert_eq!(origin.seen_for("f0").len(), 2);
    assert_eq!(event(&node, "io_errors"), 1);
    assert!(trouble(&node).contains("Input/output"), "{}", trouble(&node));
    assert!(client::get(node.http(), "/f0").body == body(0, LENGTH));
    assert_eq!(origin.seen_for("f0").len(), 2);
}

/// The file below `cache` that begins with these bytes.
fn entry_of(cache: &Path, bytes: &[u8]) -> PathBuf {
    let shards = fs::read_dir(cache.join("objects")).unwrap().map(|shard| shard.unwrap().path());
    let mut entries =
        shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()));
    entries.find(|entry| fs::read(entry).unwrap().starts_with(bytes)).unwrap()
}

/// Flips a bit, as a disk does: the time of the last modification stays.
fn rot(entry: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(entry).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_flipped_bit_on_disk_is_found_before_a_client_gets_it() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let config = config::cached(&origin, &[config::BRISK, &config::updates("24h")].concat());
    let mut node = Node::start(&config);
    node.wait_ready();
    // Larger than what is kept in memory.
    let package = repo::rpm(30, Push::First);
    let (path, bytes) = (format!("/{REPO}/{package}"), fs::read(tree.repo().join(&package)).unwrap());
    assert!(bytes.len() > 40_000);
    let hit = |node: &Node| {
        let answer = node.get(&path);
        assert_eq!(answer.status, 200);
        assert!(answer.body == bytes, "other bytes, with 200");
    };
    hit(&node);
    settle(&node);
    hit(&node);
    let asked = origin.seen_for(&path[1..]).len();
    let cache = node.dir().join("cache");
    for (damaged, restarts) in [(1, false), (1, true)] {
        if restarts {
            assert!(node.sigterm().success());
        }
        rot(&entry_of(&cache, &bytes), 20_000);
        if restarts {
            node.launch();
            node.wait_ready();
        }
        hit(&node);
        assert_eq!(event(&node, "damaged"), damaged);
        settle(&node);
        hit(&node);
        assert_eq!(event(&node, "damaged"), damaged);
    }
    assert_eq!(origin.seen_for(&path[1..]).len(), asked + 2);
    assert!(node.log().contains("isn't what was stored"), "{}", node.log());
}
