//! The disk tier under pressure: its bound, who stays, and what eviction lets go of.

use super::*;
use std::fs::FileTimes;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

/// What files take, in blocks of 4 KiB; what was promised to them counts.
fn on_disk(dir: &Path) -> u64 {
    let bytes = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        metadata.len().next_multiple_of(4096).max(metadata.blocks() * 512)
    };
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { on_disk(&path) } else { bytes(&path) }).sum()
}

/// Links of this process to files below `dir` that are removed, but open.
fn removed_but_open(dir: &Path) -> usize {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links.filter(|link| link.starts_with(dir) && link.to_string_lossy().ends_with(" (deleted)")).count()
}

/// A store that has indexed what was on disk: what it finds while it fills has another place in the order.
fn indexed(bench: &Bench, url: &str, settings: &Settings) -> Arc<Store> {
    let store = bench.with(url, settings);
    while cache(&store).evictor.index.is_loading() {
        bench.run(tokio::task::yield_now());
    }
    store
}

/// Half of the body, then a meeting with the test, then another, then the rest.
struct Gate {
    half: Barrier,
    rest: Barrier,
}

#[test]
fn fills_at_once_never_pass_the_bound_and_keep_it_full() {
    const BOUND: u64 = 4 * MIB;
    const AT_ONCE: usize = 4;
    const ROUNDS: usize = 250;
    let bench = Bench::new();
    let gate = Arc::new(Gate { half: Barrier::new(AT_ONCE + 1), rest: Barrier::new(AT_ONCE + 1) });
    let met = Arc::clone(&gate);
    let stub = Stub::start(move |number, head, stream| {
        let answer = response("200 OK", &[], &body(2000 + number * 7919 % 4000));
        let half = answer.len() / 2;
        send(stream, &answer[..half]);
        if head.contains("/gated/") {
            met.half.wait();
            met.rest.wait();
        }
        send(stream, &answer[half..]);
    });
    let store = bench.with(&stub.url, &Settings { disk_bytes: BOUND, ..bench.settings() });
    let root = bench.dir.path();
    let mut full = 0;
    for round in 0..ROUNDS {
        let gated = round % 10 == 0;
        let mut fills = JoinSet::new();
        for fill in 0..AT_ONCE {
            let object = unlisted(&format!("{}/{round}/{fill}", if gated { "gated" } else { "free" }));
            let store = Arc::clone(&store);
            fills.spawn_on(async move { store.complete(&object).await }, bench.background.handle());
        }
        if gated {
            gate.half.wait();
            // All have sent half of their bodies: nothing moves once their drafts are there.
            while bench.files("tmp") < AT_ONCE {
                std::thread::yield_now();
            }
            assert!(on_disk(root) <= BOUND, "round {round}: {}", on_disk(root));
            gate.rest.wait();
        }
        for done in bench.run(fills.join_all()) {
            done.unwrap();
        }
        let stats = store.stats();
        let (objects, files) = (root.join("objects"), bench.files("objects") as u64);
        assert_eq!((stats.objects, stats.disk_bytes), (files, on_disk(&objects)), "round {round}");
        assert!(stats.disk_bytes <= BOUND, "round {round}: {stats:?}");
        if stats.evicted > 0 {
            full += 1;
            assert!(stats.disk_bytes >= BOUND - BOUND / 100, "round {round}: {stats:?}");
        }
    }
    assert!(full > ROUNDS / 10, "full for {full} rounds");
    assert_eq!((store.stats().no_room, store.stats().passed, bench.files("tmp")), (0, 0, 0));
}

#[test]
fn a_pass_over_a_cold_tree_leaves_the_hot_set() {
    const HOT: usize = 60;
    let bench = Bench::new();
    let stub = Stub::fixed(response("200 OK", &["cache-control: max-age=3600"], &body(10_000)));
    let store = indexed(&bench, &stub.url, &Settings { disk_bytes: 120 * 12_288, ..bench.settings() });
    let hot = |number| unlisted(&format!("hot/{number}"));
    for _ in 0..3 {
        (0..HOT).for_each(|number| bench.run(store.complete(&hot(number))).unwrap());
    }
    for number in 0..300 {
        bench.run(store.complete(&unlisted(&format!("cold/{number}")))).unwrap();
    }
    (0..HOT).for_each(|number| bench.run(store.complete(&hot(number))).unwrap());
    let asked = stub.requests().iter().filter(|request| request.contains("/hot/")).count();
    assert_eq!(asked, HOT, "each once, for the first time");
    assert!(store.stats().evicted >= 240);
}

#[test]
fn after_a_restart_those_used_last_stay() {
    let bench = Bench::new();
    let stub = Stub::fixed(response("200 OK", &["cache-control: max-age=3600"], &body(10_000)));
    let object = |number: u64| unlisted(&number.to_string());
    let store = bench.over(&stub.url);
    let now = SystemTime::from(clock::now());
    for number in 0..40 {
        bench.run(store.complete(&object(number))).unwrap();
        // Odd ones were stored long ago and read lately, even ones only stored: both count.
        let used = now - Duration::from_secs(3600 * (40 - number));
        let times = match number % 2 {
            0 => FileTimes::new().set_modified(used).set_accessed(SystemTime::UNIX_EPOCH),
            _ => FileTimes::new().set_modified(SystemTime::UNIX_EPOCH).set_accessed(used),
        };
        File::open(cache(&store).disk.entry_path(&object(number))).unwrap().set_times(times).unwrap();
    }
    drop(store);
    let store = bench.with(&stub.url, &Settings { disk_bytes: 20 * 12_288, ..bench.settings() });
    while store.stats().evicted < 20 {
        bench.run(tokio::task::yield_now());
    }
    let there = |number: &u64| bench.run(store.find(&object(*number))).is_some();
    assert_eq!((0..40).filter(there).count(), 20);
    // Within a bucket of ages, a fifth wide at most, the order is any.
    assert_eq!((28..40).filter(there).count(), 12, "the newest");
    assert_eq!((0..12).filter(there).count(), 0, "the oldest");
}

#[test]
fn an_evicted_object_is_closed_but_read_to_its_end() {
    let bench = Bench::new();
    let bytes = body(10_000);
    let stub = Stub::fixed(response("200 OK", &["cache-control: max-age=3600"], &bytes));
    let store = indexed(&bench, &stub.url, &Settings { disk_bytes: 4 * 12_288, ..bench.settings() });
    let object = unlisted("x");
    bench.run(store.complete(&object)).unwrap();
    let reading = store.peek(&object).unwrap();
    for number in 0..8 {
        bench.run(store.complete(&unlisted(&number.to_string()))).unwrap();
    }
    // Three at a time: what is being filled has a block more.
    assert_eq!(store.stats().evicted, 6);
    assert!(store.peek(&object).is_none());
    assert_eq!(removed_but_open(bench.dir.path()), 1, "the reader's");
    assert!(bench.run(drain(reading)).unwrap() == bytes);
    // The last use of it ends on another thread.
    while removed_but_open(bench.dir.path()) > 0 {
        bench.run(tokio::task::yield_now());
    }
    // A small body in memory goes with its entry, too.
    let settings = Settings { memory_object_bytes: 64 * 1024, ..bench.settings() };
    drop(store);
    let store = indexed(&bench, &stub.url, &Settings { disk_bytes: 4 * 12_288, ..settings });
    bench.run(store.complete(&object)).unwrap();
    assert_eq!(store.peek(&object).unwrap().tier, Tier::Memory);
    for number in 10..18 {
        bench.run(store.complete(&unlisted(&number.to_string()))).unwrap();
    }
    assert!(store.peek(&object).is_none());
}
