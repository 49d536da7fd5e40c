//! The torture: a mixed load over an origin without manners, with kills at random moments, after which every object is right
//! or absent and nothing leaks.
//!
//! The short form runs always; `tests/run.sh --full` sets FRESHET_FULL for the long one. FRESHET_SEED repeats what was
//! drawn, but not the machine's timing.

mod harm;
mod load;
mod tree;

use super::support::node::Node;
use super::support::origin::Origin;
use super::support::{PATIENCE, now, scratch, wait_for, wait_until};
use harm::{files, lose_power};
use load::Ground;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tree::Tree;

const CLIENTS: u64 = 8;
const DISK_BYTES: u64 = 120 << 20;
/// The most that a node may take with all clients gone: what it needs without a cache is about half of that.
const MOST_MEMORY_BYTES: u64 = 256 << 20;
/// Listeners, connections kept to the origin, event queues.
const MOST_OTHER_FILES: usize = 100;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Killed,
    Terminated,
    PowerLost,
}

struct Form {
    kills: usize,
    /// Between two of them, and after the last.
    apart: Duration,
}

impl Form {
    fn of_environment() -> Self {
        if std::env::var_os("FRESHET_FULL").is_some() {
            return Self { kills: 200, apart: Duration::from_secs(6) };
        }
        Self { kills: 8, apart: Duration::from_millis(1800) }
    }
}

fn config(origin: &Origin, patience: &str) -> String {
    format!(
        r#"
        node.name = "node"
        node.urls = ["http://{{http}}/"]
        http.listen = ["{{http}}"]
        http.drain_timeout = "1s"
        admin.listen = "{{admin}}"
        log.access = "off"
        origin.url = "{}"
        origin.patience = "{patience}"
        origin.connect_timeout = "1s"
        origin.first_byte_timeout = "2s"
        origin.stall_timeout = "2s"
        cache.disk = "{{dir}}/cache"
        cache.disk_size = "{DISK_BYTES} B"
        cache.memory = "16 MiB"
        cache.revalidate = "1s"
        cache.linger = "200ms"
        cache.finish_within = "1 MiB"
        push.poll = "1s"
        push.warm = "0 B"
        {}
        "#,
        origin.url(),
        Tree::repo()
    )
}

#[test]
fn under_torture_every_object_is_right_or_absent_and_nothing_leaks() {
    let form = Form::of_environment();
    let seed = std::env::var("FRESHET_SEED").ok().map(|seed| seed.parse().expect("FRESHET_SEED is a number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("FRESHET_SEED={seed}");
    let directory = scratch();
    let tree = Tree::make(directory.path());
    let mut origin = Origin::serve(directory.path());
    let mut node = Node::start(&config(&origin, "3s"));
    node.wait_ready();
    let ground = Ground::new(&tree, node.http(), node.admin());
    let mut rng = fastrand::Rng::with_seed(seed);
    thread::scope(|scope| {
        for client in 1..=CLIENTS {
            let ground = &ground;
            scope.spawn(move || ground.client(seed.wrapping_add(client)));
        }
        scope.spawn(|| ground.operator(seed.wrapping_add(100)));
        scope.spawn(|| ground.trouble(&mut origin, seed.wrapping_add(101)));
        // Its end is everybody's.
        let _end = End(&ground);
        for kill in 0..form.kills {
            pause(&ground, form.apart.mul_f64(rng.f64() * 2.0));
            if ground.is_over() {
                return;
            }
            die(&mut node, &mut rng, kill);
            node.launch();
        }
        pause(&ground, form.apart * 2);
    });
    println!("{:?}", ground.tally);
    assert!(ground.failures().is_empty(), "FRESHET_SEED={seed}: {:#?}", ground.failures());
    assert!(ground.tally.right.load(Ordering::Relaxed) > 20 * form.kills as u64, "it was no load");
    println!("after the load: {}", settled(&mut node));
    assert!(node.sigterm().success());
    assert!(!node.log().contains("panicked"), "{}", node.log());
    node.configure(&config(&origin, "0s"));
    node.launch();
    node.wait_ready();
    println!("after the last restart: {}", settled(&mut node));
    origin.kill();
    let mut right = 0;
    for file in &tree.files {
        let whole = ground.is_whole(file);
        right +=
            usize::from(whole.unwrap_or_else(|what| panic!("FRESHET_SEED={seed}: {}: {what}", file.path)));
    }
    println!("{right} of {} files are right, the others absent", tree.files.len());
    assert!(right > 0);
    println!("at the end: {}", settled(&mut node));
}

struct End<'a>(&'a Ground<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

fn pause(ground: &Ground<'_>, time: Duration) {
    let until = now() + time;
    while now() < until && !ground.is_over() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// In eight deaths there is each of them.
fn die(node: &mut Node, rng: &mut fastrand::Rng, kill: usize) {
    let death = match kill % 8 {
        2 => Death::Terminated,
        3 | 6 => Death::PowerLost,
        _ => Death::Killed,
    };
    let log = node.log();
    let mut damaged = 0;
    match death {
        Death::Killed => node.kill9(),
        Death::Terminated => assert!(node.sigterm().success()),
        Death::PowerLost => {
            node.kill9();
            damaged = lose_power(&node.dir().join("cache"), rng);
        }
    }
    println!("{kill}: {death:?}, {damaged} files damaged");
    assert!(!log.contains("panicked") && !node.log().contains("panicked"), "{}", node.log());
}

/// Waits until nothing is under way any more, and looks what is left; in words.
fn settled(node: &mut Node) -> String {
    let cache = node.dir().join("cache");
    let is_idle = |status: &Value| status["cache"]["flights"] == 0 && status["cache"]["bans"] == 0;
    node.wait_status("nothing is under way", is_idle);
    let boot = || fs::read_to_string(cache.join("boot")).expect("the directory is in use");
    wait_until("every suspect is verified", || boot().contains("\"settled\":true"));
    let left = || fs::read_dir(cache.join("tmp")).expect("tmp").flatten().map(|entry| entry.path());
    wait_until("no draft is left", || left().next().is_none());
    node.wait_status("no room is reserved", |status| status["cache"]["reserved_bytes"] == 0);
    let figures = |node: &Node| {
        let status = node.status();
        (status["cache"]["disk_bytes"].as_u64().expect("a number"), on_disk(&cache))
    };
    let deadline = now() + PATIENCE / 2;
    let (counted, there) = wait_for("a moment", || {
        let (counted, there) = figures(node);
        (counted == there || now() > deadline).then_some((counted, there))
    });
    assert_eq!(counted, there, "what is counted is what is there");
    assert!(counted <= DISK_BYTES, "{counted}");
    let deadline = now() + PATIENCE / 2;
    let (of_cache, others) = wait_for("a moment", || {
        let at_hand = node.status()["cache"]["open_files"].as_u64().expect("a number") as usize;
        let (of_cache, of_tmp, others) = open(node);
        // The lock is one.
        let explained = of_cache <= at_hand + 1 && of_tmp == 0 && others <= MOST_OTHER_FILES;
        assert!(
            explained || now() < deadline,
            "open: {of_cache} files of the cache and {of_tmp} drafts, with {at_hand} at hand, and {others} others"
        );
        explained.then_some((of_cache, others))
    });
    let memory = node.memory_bytes();
    assert!(memory <= MOST_MEMORY_BYTES, "{memory} bytes of memory");
    assert!(!node.log().contains("panicked"), "{}", node.log());
    format!(
        "{} objects, {counted} bytes on disk, {of_cache} open files of the cache, {others} others, {} MiB of memory",
        node.status()["cache"]["objects"],
        memory >> 20
    )
}

/// What lies in the cache, as the node counts it: entries by length, parts (which have holes) by blocks.
fn on_disk(cache: &std::path::Path) -> u64 {
    let bytes = |path: std::path::PathBuf| {
        let facts = fs::metadata(&path).ok()?;
        let is_part = path.starts_with(cache.join("parts"));
        Some(if is_part { facts.blocks() * 512 } else { facts.len().next_multiple_of(4096) })
    };
    files(cache).into_iter().filter_map(bytes).sum()
}

/// Open files of the process: entries and parts, drafts, and all others.
fn open(node: &mut Node) -> (usize, usize, usize) {
    let cache = node.dir().join("cache").display().to_string();
    let links = fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("the process");
    let links = links.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let (mut of_cache, mut of_tmp, mut others) = (0, 0, 0);
    for link in links {
        let link = link.display().to_string();
        // Entries were drafts once, but have been renamed.
        let is_draft = link.strip_prefix(&cache).is_some_and(|name| name.starts_with("/tmp/"));
        *(if is_draft {
            &mut of_tmp
        } else if link.starts_with(&cache) {
            &mut of_cache
        } else {
            &mut others
        }) += 1;
    }
    (of_cache, of_tmp, others)
}
