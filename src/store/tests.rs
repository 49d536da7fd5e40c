//! The store over real sockets and a real disk. Callers run on a runtime without IO and timers: whatever needs these
//! must happen on the background runtime.

use super::disk::{Disk, Look};
use super::*;
use crate::clock::Timestamp;
use crate::origin::stub::{Stub, response, send};
use crate::origin::{DirectoryOrigin, HttpOrigin, Wait, http};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Barrier, Mutex, mpsc};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const MIB: u64 = 1024 * 1024;

struct Bench {
    callers: Runtime,
    background: Runtime,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            callers: Builder::new_current_thread().build().unwrap(),
            background: Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            dir: TempDir::new().unwrap(),
        }
    }

    fn settings(&self) -> Settings {
        Settings { memory_object_bytes: 1024, ..Settings::new(self.dir.path().to_owned(), 64 * MIB) }
    }

    fn over(&self, url: &str) -> Arc<Store> {
        self.with(url, &self.settings())
    }

    fn with(&self, url: &str, settings: &Settings) -> Arc<Store> {
        let mut timers = http::Settings::new(url, "node");
        timers.stall_timeout = Duration::from_millis(300);
        let origin = Origin::Http(Arc::new(HttpOrigin::new(timers).unwrap()));
        Store::open(origin, settings, self.background.handle()).unwrap()
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        self.callers.block_on(work)
    }

    fn drained(&self, store: &Store, object: &Object) -> Result<Vec<u8>, String> {
        self.run(async { drain(store.fetch(object).await.map_err(|e| e.to_string())?).await })
    }

    fn files(&self, below: &str) -> usize {
        count(&self.dir.path().join(below))
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| if p.is_dir() { count(&p) } else { 1 })
        .sum()
}

/// All bytes as a client gets them.
async fn drain(content: Content) -> Result<Vec<u8>, String> {
    let read = |file: &File, from: u64, to: u64| {
        let mut bytes = vec![0; (to - from) as usize];
        file.read_exact_at(&mut bytes, from).unwrap();
        bytes
    };
    match content.source {
        Source::Memory(bytes) => Ok(bytes.to_vec()),
        Source::File(file) => Ok(read(&file, 0, content.meta.length.unwrap())),
        Source::Growing(mut tail) => {
            let mut all = Vec::new();
            loop {
                let had = all.len() as u64;
                let watermark = tail.past(had).await.map_err(|e| e.to_string())?;
                if watermark == had {
                    return Ok(all);
                }
                all.extend(read(tail.file(), had, watermark));
            }
        }
        Source::Pass(mut body) => {
            let mut all = Vec::new();
            while let Some(piece) = body.next().await {
                all.extend_from_slice(&piece.map_err(|e| e.to_string())?);
            }
            Ok(all)
        }
    }
}

fn body(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn listed(name: &str, bytes: &[u8]) -> Object {
    Object::listed(path(name), Sha256::of(bytes), bytes.len() as u64)
}

fn unlisted(name: &str) -> Object {
    Object::unlisted(path(name))
}

/// A clock tick later.
fn tick() {
    let now = clock::now();
    while clock::now() == now {
        std::hint::spin_loop();
    }
}

#[test]
fn a_crowd_shares_one_fill_that_outlives_its_first_reader() {
    let bench = Bench::new();
    let bytes = body(3_000_000);
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let answer = response("200 OK", &[], &bytes);
    let stub = Stub::start(move |_, _, stream| {
        send(stream, &answer[..1_000_000]);
        opened.lock().unwrap().recv().unwrap();
        send(stream, &answer[1_000_000..]);
    });
    let store = bench.over(&stub.url);
    let object = listed("a/x.rpm", &bytes);
    bench.run(async {
        let first = store.fetch(&object).await.unwrap();
        assert_eq!(first.tier, Tier::Fill);
        assert_eq!(first.meta.etag, Some(etag(&Sha256::of(&bytes))));
        let Source::Growing(mut tail) = first.source else { panic!("{first:?}") };
        assert!(tail.past(0).await.unwrap() < 1_000_000);
        drop(tail);
        let mut crowd = JoinSet::new();
        for _ in 0..50 {
            let (store, object) = (Arc::clone(&store), object.clone());
            crowd.spawn(async move { drain(store.fetch(&object).await.unwrap()).await });
        }
        tokio::task::yield_now().await;
        gate.send(()).unwrap();
        while let Some(got) = crowd.join_next().await {
            assert!(got.unwrap().unwrap() == bytes);
        }
        store.complete(&object).await.unwrap();
        assert_eq!(store.peek(&object).unwrap().tier, Tier::Disk);
        assert!(store.whole(&object, MIB).await.is_err_and(|e| matches!(e, FetchError::TooLarge { .. })));
        assert!(store.whole(&object, 3 * MIB).await.unwrap() == bytes);
    });
    assert_eq!(stub.requests().len(), 1);
    assert!(stub.requests()[0].contains("accept-encoding: identity\r\n"));
    assert_eq!((bench.files("objects"), bench.files("tmp")), (1, 0));
    let stats = store.stats();
    assert_eq!((stats.fills_started, stats.fills_finished, stats.objects, stats.flights), (1, 1, 1, 0));
}

#[test]
fn what_is_broken_is_never_committed_and_never_ends_cleanly() {
    let bytes = body(100_000);
    let other = body(99_999);
    let good = response("200 OK", &[], &bytes);
    let chunked = |end: &[u8], body: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        [head.as_bytes(), format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n", end].concat()
    };
    let flipped = {
        let mut b = bytes.clone();
        b[99_999] ^= 1;
        b
    };
    let long = [&bytes[..], b"!"].concat();
    let closed = |body: &[u8]| [b"HTTP/1.0 200 OK\r\n\r\n", body].concat();
    let elsewhere = response("302 Found", &["location: http://elsewhere.invalid/x"], b"");
    let known = listed("x", &bytes);
    let unknown = unlisted("x");
    let cases: Vec<(&str, Vec<u8>, &Object, &str)> = vec![
        ("cut", good[..good.len() - 5].to_vec(), &known, "cut after"),
        ("cut, unlisted", good[..good.len() - 5].to_vec(), &unknown, "cut after"),
        ("cut before its head's end", good[..20].to_vec(), &known, "can't be reached"),
        ("chunks cut", chunked(b"", &bytes), &unknown, "cut after"),
        ("last chunk missing, all bytes there", chunked(b"", &bytes), &known, "cut after"),
        ("chunks too long", chunked(b"0\r\n\r\n", &long), &known, "longer than"),
        ("chunks too short", chunked(b"0\r\n\r\n", &other), &known, "ended after 99999 of 100000"),
        ("another length", response("200 OK", &[], &other), &known, "99999 bytes where 100000"),
        ("another content", response("200 OK", &[], &flipped), &known, "SHA-256 is"),
        ("closed early", closed(&other), &known, "ended after"),
        ("closed, unlisted", closed(&bytes), &unknown, "neither a length nor chunks"),
        ("500", response("500 Oops", &[], &bytes), &known, "500"),
        ("206 unasked", response("206 Partial", &[], &bytes), &known, "206"),
        ("304 unasked", response("304 Not Modified", &[], b""), &known, "304"),
        ("encoded", response("200 OK", &["content-encoding: gzip"], &bytes), &unknown, "encoded"),
        ("redirected away", elsewhere, &known, "elsewhere.invalid"),
    ];
    for (name, answer, object, expected) in cases {
        let bench = Bench::new();
        let stub = Stub::fixed(answer);
        let store = bench.over(&stub.url);
        let error = bench.drained(&store, object).expect_err(name);
        assert!(error.contains(expected), "{name}: {error}");
        assert!(bench.run(store.complete(object)).is_err(), "{name}");
        assert!(store.peek(object).is_none_or(|c| matches!(c.source, Source::Growing(_))), "{name}");
        assert_eq!(bench.files("objects"), 0, "{name}");
        // The failure is remembered: nobody asked again, but for attempts to resume.
        let resumes = stub.requests().iter().filter(|head| head.contains("range: bytes=")).count();
        assert_eq!(stub.requests().len(), 1 + resumes, "{name}");
    }
    let bench = Bench::new();
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = bench.over(&format!("http://{refused}/"));
    assert!(bench.drained(&store, &known).unwrap_err().contains("can't be reached"));
}

#[test]
fn an_end_without_length_is_fine_where_the_catalogue_knows_the_bytes() {
    let bench = Bench::new();
    let bytes = body(70_000);
    let stub = Stub::fixed([b"HTTP/1.0 200 OK\r\ncontent-encoding: x-gzip\r\n\r\n", &bytes[..]].concat());
    let store = bench.over(&stub.url);
    let object = listed("x", &bytes);
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    bench.run(store.complete(&object)).unwrap();
    assert_eq!(bench.files("objects"), 1);
}

#[test]
fn the_end_of_a_listed_object_waits_for_its_digest() {
    let bench = Bench::new();
    let bytes = body(100_000);
    let mut wrong = response("200 OK", &[], &bytes);
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    let stub = Stub::fixed(wrong);
    let store = bench.over(&stub.url);
    let seen = bench.run(async {
        let content = store.fetch(&listed("x", &bytes)).await.unwrap();
        let Source::Growing(mut tail) = content.source else { panic!("{content:?}") };
        let mut seen = 0;
        while let Ok(watermark) = tail.past(seen).await {
            assert!(watermark > seen, "a clean end");
            seen = watermark;
        }
        seen
    });
    assert!(seen <= 100_000 - HELD_BACK_BYTES);
}

#[test]
fn a_body_that_breaks_off_is_resumed_where_it_stopped() {
    let bytes = body(500_000);
    for (object, etag) in [(listed("x", &bytes), None), (unlisted("x"), Some("etag: \"v1\""))] {
        let bench = Bench::new();
        let answer = bytes.clone();
        let stub = Stub::start(move |number, head, stream| match number {
            0 => send(stream, &response("200 OK", etag.as_slice(), &answer)[..200_000]),
            _ => {
                let from = head.split("range: bytes=").nth(1).unwrap().split('-').next().unwrap();
                let from: usize = from.parse().unwrap();
                let range = format!("content-range: bytes {from}-499999/500000");
                send(stream, &response("206 Partial Content", &[&range], &answer[from..]));
            }
        });
        let store = bench.over(&stub.url);
        assert!(bench.drained(&store, &object).unwrap() == bytes);
        bench.run(store.complete(&object)).unwrap();
        let requests = stub.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].contains("if-range: \"v1\""), etag.is_some());
    }
}

#[test]
fn a_stalled_origin_is_given_up() {
    let bench = Bench::new();
    let bytes = body(100_000);
    let answer = response("200 OK", &[], &bytes);
    let silent = Arc::new(Barrier::new(2));
    let waits = Arc::clone(&silent);
    let stub = Stub::start(move |_, _, stream| {
        send(stream, &answer[..50_000]);
        waits.wait();
    });
    let store = bench.over(&stub.url);
    let error = bench.run(store.whole(&unlisted("x"), MIB)).unwrap_err();
    let FetchError::Body(error) = error else { panic!("{error}") };
    assert!(
        matches!(&*error, FillError::Origin(OriginError::Silent { wait: Wait::NextBytes, .. })),
        "{error}"
    );
    silent.wait();
}

#[test]
fn a_restart_finds_what_was_committed_and_removes_the_half_written() {
    let bench = Bench::new();
    let (small, large) = (body(900), body(200_000));
    let (a, b) = (small.clone(), large.clone());
    let stub = Stub::start(move |_, head, stream| {
        let bytes = if head.contains("/small") { &a } else { &b };
        let lines =
            ["etag: \"e\"", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT", "cache-control: max-age=60"];
        send(stream, &response("200 OK", &lines, bytes));
    });
    let objects =
        [(unlisted("small.txt"), &small), (listed("small.rpm", &small), &small), (unlisted("large"), &large)];
    let store = bench.over(&stub.url);
    for (object, _) in &objects {
        bench.run(store.complete(object)).unwrap();
    }
    let before: Vec<_> = objects.iter().map(|(o, _)| bench.run(store.find(o)).unwrap().meta).collect();
    bench.run(store.shutdown());
    fs::write(bench.dir.path().join("tmp/7"), b"half").unwrap();
    let store = bench.over("http://127.0.0.1:1/");
    assert_eq!(bench.files("tmp"), 0);
    assert!(bench.run(store.find(&objects[0].0)).is_none(), "another origin's object");
    let store = bench.over(&stub.url);
    for ((object, bytes), before) in objects.iter().zip(before) {
        let found = bench.run(store.find(object)).unwrap();
        assert_eq!(found.meta, before);
        assert!(bench.run(drain(found)).unwrap() == **bytes);
    }
    assert_eq!(stub.requests().len(), 3);
    assert_eq!(store.stats().objects, 3);
}

#[test]
fn a_damaged_entry_is_a_miss_and_is_removed() {
    let bench = Bench::new();
    let bytes = body(5000);
    let stub = Stub::fixed(response("200 OK", &["etag: \"e\""], &bytes));
    let store = bench.over(&stub.url);
    let object = unlisted("x");
    bench.run(store.complete(&object)).unwrap();
    let disk = Disk::open(bench.dir.path(), stub.url.clone()).unwrap();
    let entry = disk.entry_path(&object);
    let intact = fs::read(&entry).unwrap();
    assert!(matches!(disk.look(&object).unwrap(), Look::Found(_)));
    for at in 5000..intact.len() {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        fs::write(&entry, damaged).unwrap();
        assert!(matches!(disk.look(&object).unwrap(), Look::Damaged), "byte {at}");
        assert!(!entry.exists(), "byte {at}");
    }
    for length in [0, 43, 44, 4999, intact.len() - 1] {
        fs::write(&entry, &intact[..length]).unwrap();
        assert!(matches!(disk.look(&object).unwrap(), Look::Damaged), "{length} bytes");
    }
    // A body that rotted is found where it is checked: in small objects, and by whoever takes a listed one whole.
    let object = listed("y", &bytes);
    bench.run(store.complete(&object)).unwrap();
    let entry = disk.entry_path(&object);
    let mut rotten = fs::read(&entry).unwrap();
    rotten[17] ^= 1;
    fs::write(&entry, rotten).unwrap();
    assert!(bench.run(store.whole(&object, MIB)).unwrap() == bytes);
    assert_eq!((stub.requests().len(), store.stats().damaged), (3, 1));
}

#[test]
fn eviction_keeps_the_bound_and_what_is_in_use() {
    let bench = Bench::new();
    let bytes = body(10_000);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let settings = Settings { disk_bytes: 200_000, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let hot = unlisted("hot");
    for number in 0..40 {
        bench.run(store.complete(&hot)).unwrap();
        tick();
        bench.run(store.complete(&unlisted(&format!("cold/{number}")))).unwrap();
        tick();
        let stats = store.stats();
        assert!(stats.disk_bytes <= 200_000, "{stats:?}");
        assert_eq!(stats.objects, bench.files("objects") as u64);
    }
    assert_eq!(stub.requests().len(), 41, "the hot one was never evicted");
    assert!(store.stats().evicted > 20);
    // The bound holds after a restart with a smaller one, too.
    let smaller = Settings { disk_bytes: 50_000, ..settings };
    let store = bench.with(&stub.url, &smaller);
    let loaded = || store.stats().evicted > 0;
    while !loaded() {
        bench.run(tokio::task::yield_now());
    }
    while store.stats().objects != bench.files("objects") as u64 {
        bench.run(tokio::task::yield_now());
    }
    assert!(store.stats().disk_bytes <= 50_000);
}

#[test]
fn without_room_or_disk_bodies_pass_through() {
    let bytes = body(100_000);
    for broken_disk in [false, true] {
        let bench = Bench::new();
        let stub = Stub::fixed(response("200 OK", &[], &bytes));
        let bound = if broken_disk { 64 * MIB } else { 50_000 };
        let store = bench.with(&stub.url, &Settings { disk_bytes: bound, ..bench.settings() });
        if broken_disk {
            fs::remove_dir(bench.dir.path().join("tmp")).unwrap();
        }
        let object = listed("x", &bytes);
        let content = bench.run(store.fetch(&object)).unwrap();
        assert_eq!(content.tier, Tier::Pass);
        assert!(bench.run(drain(content)).unwrap() == bytes);
        assert!(matches!(bench.run(store.complete(&object)), Err(FetchError::NotStored)));
        let stats = store.stats();
        assert_eq!((stats.passed, stats.objects, stats.io_errors), (2, 0, u64::from(broken_disk)));
        let mut wrong = response("200 OK", &[], &bytes);
        *wrong.last_mut().unwrap() ^= 1;
        let stub = Stub::fixed(wrong);
        let store = bench.with(&stub.url, &Settings { disk_bytes: 50_000, ..bench.settings() });
        assert!(bench.drained(&store, &object).unwrap_err().contains("SHA-256"), "passed, but checked");
    }
}

#[test]
fn a_fill_in_progress_ends_unclean_when_the_disk_fills() {
    let bench = Bench::new();
    let bytes = body(12_000_000);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let stub = Stub::fixed(
        [head.as_bytes(), format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n0\r\n\r\n"].concat(),
    );
    let store = bench.with(&stub.url, &Settings { disk_bytes: 9 * MIB, ..bench.settings() });
    let object = unlisted("x");
    assert!(bench.drained(&store, &object).unwrap_err().contains("no room"));
    // The retry doesn't try that again.
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    assert_eq!((store.stats().passed, store.stats().objects), (1, 0));
}

#[test]
fn what_no_catalogue_lists_is_revalidated() {
    let bench = Bench::new();
    let script: Arc<Mutex<(&str, &str, Vec<u8>)>> =
        Arc::new(Mutex::new(("200 OK", "etag: \"1\"", body(2000))));
    let scripted = Arc::clone(&script);
    let stub = Stub::start(move |_, _, stream| {
        let (status, line, bytes) = scripted.lock().unwrap().clone();
        send(stream, &response(status, &[line, "cache-control: no-cache"], &bytes));
    });
    let settings = Settings { failed_for: Duration::ZERO, absent_for: Duration::ZERO, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let object = unlisted("x.txt");
    let ask = || {
        let content = bench.run(store.fetch(&object)).unwrap();
        let (stale, etag) = (content.stale, content.meta.etag.clone().unwrap());
        (bench.run(drain(content)).unwrap(), stale, etag.to_str().unwrap().to_owned())
    };
    assert_eq!(ask(), (body(2000), false, "\"1\"".to_owned()));
    while store.stats().flights > 0 {
        std::thread::yield_now();
    }
    *script.lock().unwrap() = ("304 Not Modified", "etag: \"1\"", vec![]);
    assert_eq!(ask(), (body(2000), false, "\"1\"".to_owned()));
    assert!(stub.requests()[1].contains("if-none-match: \"1\""));
    *script.lock().unwrap() = ("503 Busy", "retry-after: 1", vec![]);
    assert_eq!(ask(), (body(2000), true, "\"1\"".to_owned()));
    *script.lock().unwrap() = ("200 OK", "etag: \"2\"", body(3000));
    assert_eq!(ask(), (body(3000), false, "\"2\"".to_owned()));
    while store.stats().flights > 0 {
        std::thread::yield_now();
    }
    *script.lock().unwrap() = ("404 Not Found", "x: y", vec![]);
    assert!(matches!(bench.run(store.fetch(&object)), Err(FetchError::Absent)));
    assert!(bench.run(store.find(&object)).is_none());
    assert_eq!((stub.requests().len(), store.stats().served_stale, store.stats().revalidated), (5, 1, 1));
}

#[test]
fn lifetimes_and_renewals_spare_the_origin() {
    let bench = Bench::new();
    let stub = Stub::start(|number, _, stream| match number {
        0 => send(stream, &response("200 OK", &["etag: \"1\"", "cache-control: no-cache"], &body(2000))),
        _ => send(stream, &response("304 Not Modified", &["cache-control: max-age=600"], b"")),
    });
    let settings = Settings { open_files: 0, memory_bytes: 0, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let object = unlisted("x.txt");
    for _ in 0..4 {
        bench.run(store.complete(&object)).unwrap();
        assert!(bench.drained(&store, &object).unwrap() == body(2000));
    }
    assert!(bench.run(store.find(&object)).unwrap().is_fresh(clock::now()));
    assert_eq!(stub.requests().len(), 2, "renewed by the first revalidation, also past the memory tier");
}

#[test]
fn private_answers_are_not_shared() {
    let bench = Bench::new();
    let stub = Stub::start(|number, _, stream| {
        send(stream, &response("200 OK", &["set-cookie: a=b"], number.to_string().as_bytes()));
    });
    let store = bench.over(&stub.url);
    let object = unlisted("x");
    let mut got: Vec<_> = bench.run(async {
        let mut crowd = JoinSet::new();
        for _ in 0..5 {
            let (store, object) = (Arc::clone(&store), object.clone());
            crowd.spawn(async move { drain(store.fetch(&object).await.unwrap()).await.unwrap() });
        }
        crowd.join_all().await
    });
    got.sort();
    assert_eq!(got, [b"0", b"1", b"2", b"3", b"4"]);
    assert_eq!(bench.files("objects"), 0);
    // What a catalogue lists is public, whatever the origin says.
    let public = listed("x", b"5");
    bench.run(store.complete(&public)).unwrap();
    assert_eq!(bench.files("objects"), 1);
}

#[test]
fn absence_is_remembered_briefly_and_directories_are_told_apart() {
    let bench = Bench::new();
    let stub = Stub::start(|_, head, stream| match head.split(' ').nth(1).unwrap() {
        "/dir" => send(stream, &response("301 Moved", &["location: http://other-name/dir/"], b"")),
        "/dir/" => send(stream, &response("200 OK", &["content-type: text/html;charset=utf-8"], b"<html>")),
        "/old" => send(stream, &response("302 Found", &["location: dir/"], b"")),
        "/loop" => send(stream, &response("302 Found", &["location: /loop"], b"")),
        _ => send(stream, &response("404 Not Found", &[], b"nothing")),
    });
    let store = bench.over(&stub.url);
    for _ in 0..3 {
        assert!(matches!(bench.run(store.fetch(&unlisted("none"))), Err(FetchError::Absent)));
        assert!(matches!(bench.run(store.head(&unlisted("none"))), Err(FetchError::Absent)));
        assert!(matches!(bench.run(store.fetch(&unlisted("dir"))), Err(FetchError::IsDirectory)));
    }
    assert_eq!(stub.requests().len(), 2);
    let content = bench.run(store.fetch(&unlisted("dir/"))).unwrap();
    assert_eq!(content.meta.content_type, "text/html;charset=utf-8");
    assert_eq!(bench.drained(&store, &unlisted("old")).unwrap(), b"<html>", "a redirect within the origin");
    assert!(bench.drained(&store, &unlisted("loop")).unwrap_err().contains("redirects"));
    assert_eq!(stub.requests().len(), 9, "four for the loop");
    assert_eq!(bench.run(store.listing(&path("dir/"))).unwrap(), None);
    assert!(bench.run(store.purge(&unlisted("dir/"))) || store.stats().flights > 0);
}

#[test]
fn ranges_go_beside_the_fill_and_never_mix_versions() {
    let bench = Bench::new();
    let bytes = body(1_000_000);
    let whole = response("200 OK", &["etag: \"v1\""], &bytes);
    let part = response(
        "206 Partial Content",
        &["content-range: bytes 900000-900009/1000000"],
        &bytes[900_000..900_010],
    );
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let stub = Stub::start(move |number, _, stream| match number {
        0 => {
            send(stream, &whole[..1000]);
            opened.lock().unwrap().recv().unwrap();
            send(stream, &whole[1000..]);
        }
        1 => send(stream, &part),
        _ => send(stream, &whole),
    });
    let store = bench.over(&stub.url);
    let object = unlisted("x.iso");
    let range = ByteRange { start: 900_000, end: 900_010 };
    bench.run(async {
        let fill = store.fetch(&object).await.unwrap();
        let content = store.fetch_range(&object, range).await.unwrap();
        assert_eq!((content.tier, content.meta.length), (Tier::Pass, Some(1_000_000)));
        assert!(drain(content).await.unwrap() == bytes[900_000..900_010]);
        let changed = store.fetch_range(&object, range).await.unwrap_err();
        assert!(
            matches!(&changed, FetchError::Origin(e) if matches!(**e, OriginError::RangeIgnored)),
            "{changed}"
        );
        gate.send(()).unwrap();
        assert!(drain(fill).await.unwrap() == bytes);
        store.complete(&object).await.unwrap();
    });
    for request in &stub.requests()[1..] {
        assert!(
            request.contains("range: bytes=900000-900009\r\n") && request.contains("if-range: \"v1\"\r\n")
        );
    }
}

#[test]
fn a_shutdown_ends_readers_unclean() {
    let bench = Bench::new();
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let stub = Stub::start(move |_, _, stream| {
        send(stream, &response("200 OK", &[], &body(100_000))[..50_000]);
        let _ = opened.lock().unwrap().recv();
    });
    let store = bench.over(&stub.url);
    let object = unlisted("x");
    bench.run(async {
        let content = store.fetch(&object).await.unwrap();
        store.shutdown().await;
        assert_eq!(drain(content).await.unwrap_err(), "abandoned");
        assert!(matches!(store.fetch(&object).await, Err(FetchError::ShuttingDown)));
    });
    assert_eq!(store.stats().flights, 0);
    drop(gate);
}

#[test]
fn heads_begin_no_fill() {
    let bench = Bench::new();
    let answer =
        b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\netag: \"e\"\r\nconnection: close\r\n\r\n".to_vec();
    let stub = Stub::fixed(answer);
    let store = bench.over(&stub.url);
    for _ in 0..3 {
        let meta = bench.run(store.head(&unlisted("x.rpm"))).unwrap();
        assert_eq!((meta.length, meta.etag.as_ref().unwrap().to_str().unwrap()), (Some(5000), "\"e\""));
    }
    assert!(stub.requests()[0].starts_with("head /x.rpm "));
    let right = listed("y.rpm", &body(5000));
    assert_eq!(bench.run(store.head(&right)).unwrap().etag, Some(etag(&Sha256::of(&body(5000)))));
    assert!(bench.run(store.head(&listed("y.rpm", b"short"))).is_err());
    assert_eq!((stub.requests().len(), store.stats().fills_started), (3, 0));
}

fn tree(bench: &Bench) -> (Arc<Store>, std::path::PathBuf) {
    let root = bench.dir.path().join("tree");
    fs::create_dir_all(root.join("7/os")).unwrap();
    let origin = DirectoryOrigin::open(&root, &bench.dir.path().join("retained")).unwrap();
    let origin = Origin::Directory(Arc::new(origin));
    (Store::open(origin, &bench.settings(), bench.background.handle()).unwrap(), root)
}

#[test]
fn a_directory_is_served_in_place_and_nothing_outside_of_it() {
    let bench = Bench::new();
    let (store, root) = tree(&bench);
    fs::write(root.join("7/os/x.rpm"), body(5000)).unwrap();
    fs::write(bench.dir.path().join("secret"), b"s").unwrap();
    symlink("../../../secret", root.join("7/os/out")).unwrap();
    symlink(bench.dir.path().join("secret"), root.join("7/os/absolute")).unwrap();
    symlink("/proc/self/fd/0", root.join("7/os/magic")).unwrap();
    symlink("nowhere", root.join("7/os/dangling")).unwrap();
    symlink("x.rpm", root.join("7/os/inside")).unwrap();
    symlink("../7", root.join("7/current")).unwrap();
    for name in [".x.rpm.Ab3dEf", ".treeinfo"] {
        fs::write(root.join("7/os").join(name), b"").unwrap();
    }
    fs::create_dir(root.join("7/os/.~tmp~")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("7/os/fifo"), rustix::fs::Mode::RWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("7/os/socket")).unwrap();
    for name in ["7/os/x.rpm", "7/os/inside", "7/current/os/x.rpm"] {
        let content = bench.run(store.fetch(&unlisted(name))).expect(name);
        assert_eq!(content.tier, Tier::Tree);
        assert_eq!(content.meta.length, Some(5000));
        assert!(bench.run(drain(content)).unwrap() == body(5000));
        assert!(store.peek(&unlisted(name)).is_some());
    }
    for name in ["out", "absolute", "magic", "dangling", "fifo", "socket", "none", "x.rpm/y", "x.rpm/"] {
        let object = unlisted(&format!("7/os/{name}"));
        assert!(matches!(bench.run(store.fetch(&object)), Err(FetchError::Absent)), "{name}");
    }
    assert!(matches!(bench.run(store.fetch(&unlisted("7/os"))), Err(FetchError::IsDirectory)));
    assert!(matches!(bench.run(store.fetch(&unlisted("7/os/"))), Err(FetchError::Absent)));
    let mut names: Vec<_> = bench.run(store.listing(&path("7/os/"))).unwrap().unwrap();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = names.iter().map(|e| (e.name.as_str(), e.size, e.is_directory)).collect();
    assert_eq!(names, [(".treeinfo", 0, false), ("inside", 5000, false), ("x.rpm", 5000, false)]);
    assert!(matches!(bench.run(store.listing(&path("8/"))), Err(FetchError::Absent)));
    assert!(matches!(bench.run(store.listing(&path("7/os/x.rpm/"))), Err(FetchError::Absent)));
    assert_eq!(bench.run(store.listing(&path(""))).unwrap().unwrap().len(), 1);
    drop(socket);
}

#[test]
fn retained_files_outlive_rsync() {
    let bench = Bench::new();
    let (store, root) = tree(&bench);
    let (old, new) = (body(5000), {
        let mut b = body(5000);
        b[0] ^= 1;
        b
    });
    let [replaced, deleted, small] =
        ["replaced", "deleted", "small"].map(|name| root.join("7/os").join(name));
    fs::write(&replaced, &old).unwrap();
    fs::write(&deleted, body(6000)).unwrap();
    fs::write(&small, b"old").unwrap();
    let objects =
        [listed("7/os/replaced", &old), listed("7/os/deleted", &body(6000)), listed("7/os/small", b"old")];
    let files: Vec<_> = objects.iter().map(|o| (o.path.clone(), o.identity.unwrap())).collect();
    bench.run(store.can_link()).unwrap();
    let missing = (path("7/os/missing"), files[0].1);
    let linked = bench.run(store.retain([files.clone(), vec![missing]].concat())).unwrap();
    // The missing one's bytes are retained already, by another name.
    assert_eq!((linked.made, linked.kept, linked.failed), (3, 1, 0), "{linked:?}");
    let wrong_size = Identity { size: 1, ..objects[1].identity.unwrap() };
    let other = Identity { sha256: Sha256::of(b"other"), size: 1 };
    let linked =
        bench.run(store.retain(vec![(path("7/os/small"), other), (path("7/os/none"), other)])).unwrap();
    assert_eq!((linked.failed, linked.first_failure.is_some()), (2, true));

    // What rsync does: a new inode by rename; an unlink.
    for (target, bytes) in [(&replaced, &new), (&small, &b"new".to_vec())] {
        let temporary = root.join("7/os/.t.abcdef");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, target).unwrap();
    }
    fs::remove_file(&deleted).unwrap();
    for (object, bytes) in objects.iter().zip([&old, &body(6000), &b"old".to_vec()]) {
        assert!(bench.drained(&store, object).unwrap() == *bytes, "{object:?}");
        bench.run(store.complete(object)).unwrap();
        assert!(bench.run(store.whole(object, MIB)).unwrap() == *bytes);
    }
    let current = listed("7/os/replaced", &new);
    assert!(bench.drained(&store, &current).unwrap() == new);
    let twisted = Object { identity: Some(wrong_size), ..objects[1].clone() };
    assert!(bench.run(store.fetch(&twisted)).is_err());
    // Same size, other bytes, nothing retained: found out by whoever reads it all.
    let lie = Object::listed(path("7/os/replaced"), Sha256::of(b"lie"), 5000);
    assert!(matches!(bench.run(store.complete(&lie)), Err(FetchError::Body(_))));

    let keep = HashSet::from([objects[0].identity.unwrap().sha256]);
    assert_eq!(bench.run(store.sweep(keep)).unwrap(), 2);
    for object in &objects {
        bench.run(store.purge(object));
    }
    assert!(bench.drained(&store, &objects[0]).unwrap() == old);
    assert!(matches!(bench.run(store.fetch(&objects[1])), Err(FetchError::Absent)));
}

#[test]
fn polls_see_each_version_once() {
    let bench = Bench::new();
    let (store, root) = tree(&bench);
    let name = path("7/os/repomd.xml");
    let poll = |known: &PollValidators| bench.run(store.poll(&name, known)).unwrap();
    let mut known = PollValidators::default();
    assert!(matches!(poll(&known), Polled::Absent));
    for version in ["one", "two"] {
        fs::write(root.join("7/os/new"), version).unwrap();
        fs::rename(root.join("7/os/new"), root.join("7/os/repomd.xml")).unwrap();
        let Polled::Changed { body, validators, last_modified } = poll(&known) else { panic!("{version}") };
        assert_eq!(body, version);
        assert!(last_modified > Some(Timestamp::EPOCH));
        known = validators;
        assert!(matches!(poll(&known), Polled::Unchanged));
    }

    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT";
    let settled = "last-modified: Sun, 06 Nov 1994 08:49:30 GMT";
    let recent = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let table: [(&[&str], Option<&str>); 4] = [
        (&["etag: \"e\"", date, settled], Some("if-none-match: \"e\"")),
        (&[date, settled], Some("if-modified-since: sun, 06 nov 1994 08:49:30 gmt")),
        (&[date, recent], None),
        (&[settled], None),
    ];
    for (lines, condition) in table {
        let owned: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let stub = Stub::start(move |_, head, stream| {
            let lines: Vec<&str> = owned.iter().map(String::as_str).collect();
            let conditional = head.contains("if-none-match") || head.contains("if-modified-since");
            let status = if conditional { "304 Not Modified" } else { "200 OK" };
            send(stream, &response(status, &lines, if conditional { b"" } else { b"<repomd/>" }));
        });
        let store = bench.over(&stub.url);
        let poll = |known: &PollValidators| bench.run(store.poll(&name, known)).unwrap();
        let Polled::Changed { validators, .. } = poll(&PollValidators::default()) else {
            panic!("{lines:?}")
        };
        assert_eq!(matches!(poll(&validators), Polled::Unchanged), condition.is_some(), "{lines:?}");
        let last = stub.requests().pop().unwrap();
        assert!(last.contains("cache-control: no-cache"));
        assert!(condition.is_none_or(|condition| last.contains(condition)), "{last}");
    }
    let store = bench.over(&Stub::fixed(response("200 OK", &[], &body(MIB as usize + 1))).url);
    assert!(bench.run(store.poll(&name, &PollValidators::default())).is_err(), "bounded");
}
