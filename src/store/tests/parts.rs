//! Parts of cold objects: fetched in blocks, shared, bounded, kept, and completed by what is missing.

use super::*;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

/// For origins that wait for the test, on machines that are busy.
fn patient() -> Bench {
    Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() }
}

const ETAG: &str = "etag: \"v1\"";

/// An origin with one large object that gives ranges of it, and counts the bytes that it sends.
struct Ranged {
    stub: Stub,
    sent: Arc<AtomicU64>,
}

impl Ranged {
    fn new(bytes: &[u8]) -> Self {
        let (bytes, sent) = (bytes.to_vec(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&sent);
        let stub = Stub::start(move |_, head, stream| {
            if head.starts_with("head ") {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{ETAG}\r\n\r\n",
                    bytes.len()
                );
                return send(stream, head.as_bytes());
            }
            let answer = if head.contains("range: bytes=") {
                answer_range(head, &[ETAG], &bytes)
            } else {
                response("200 OK", &[ETAG], &bytes)
            };
            counted.fetch_add(answer.len() as u64, Ordering::Relaxed);
            send(stream, &answer);
        });
        Self { stub, sent }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The ranges asked for, in order.
    fn ranges(&self) -> Vec<String> {
        let asked = |head: &String| Some(head.split("range: bytes=").nth(1)?.lines().next()?.to_owned());
        self.stub.requests().iter().filter_map(asked).collect()
    }
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange { start, end }
}

fn slice(bytes: &[u8], range: ByteRange) -> &[u8] {
    &bytes[range.start as usize..range.end as usize]
}

#[test]
fn one_byte_of_a_large_cold_object_costs_one_block() {
    let bytes = body(20_000_000);
    let origin = Ranged::new(&bytes);
    for object in [unlisted("x.iso"), listed("x.iso", &bytes)] {
        let bench = patient();
        let store = bench.over(&origin.stub.url);
        let before = (origin.sent(), origin.ranges().len());
        let one = range(12_345_678, 12_345_679);
        let got = bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), one).await });
        assert_eq!(got.unwrap(), slice(&bytes, one));
        assert!(origin.sent() - before.0 < 2 * MIB, "{object:?}: {}", origin.sent());
        assert_eq!(origin.ranges()[before.1..], ["11534336-12582911"], "{object:?}");
    }
}

#[test]
fn a_network_that_asks_for_a_byte_of_each_block_waits_and_no_other() {
    let bytes = body(20_000_000);
    let origin = Ranged::new(&bytes);
    let bench = patient();
    let store = bench.over(&origin.stub.url);
    let Backing::Cache(cache) = &store.backing else { panic!("it has one") };
    let (greedy, other) = (Owner::new(1, 1), Owner::new(2, 1));
    // As much as it may have, and 2 s of more.
    for mebibytes in [64, 8] {
        cache.surplus.lock().unwrap().charge(greedy, mebibytes * MIB, crate::clock::monotonic()).unwrap();
    }
    let object = unlisted("x.iso");
    let tail = async |owner, one| {
        let content = store.fetch_parts(&object, ANY).await.unwrap();
        let Source::Growing(mut tail) = content.source else { panic!("{content:?}") };
        tail.want(&[one], owner);
        tail
    };
    bench.run(async {
        let (far, near) = (range(15_000_000, 15_000_001), range(2_000_000, 2_000_001));
        let mut slow = tail(greedy, far).await;
        let mut waits = pin!(std::future::poll_fn(|cx| slow.poll_past(cx, far)));
        assert!(std::future::poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending())).await);
        let mut quick = tail(other, near).await;
        std::future::poll_fn(|cx| quick.poll_past(cx, near)).await.unwrap();
        assert_eq!(origin.ranges(), ["1048576-2097151"]);
        waits.await.unwrap();
        assert_eq!(origin.ranges()[1..], ["14680064-15728639"]);
    });
}

#[test]
fn a_crowd_shares_the_blocks_and_the_whole_is_completed_by_what_is_missing() {
    let bench = patient();
    let bytes = body(20_000_000);
    let origin = Ranged::new(&bytes);
    let store = bench.over(&origin.stub.url);
    let object = listed("x.iso", &bytes);
    bench.run(async {
        let mut crowd = JoinSet::new();
        for number in 0..200_u64 {
            let (store, object, bytes) = (Arc::clone(&store), object.clone(), bytes.clone());
            crowd.spawn(async move {
                // Some overlap, some repeat, all of them small.
                let wanted = range(10_000_000 + number % 50 * 7_000, 10_000_100 + number % 50 * 7_100);
                let got = read_range(store.fetch_parts(&object, ANY).await.unwrap(), wanted).await.unwrap();
                assert!(got == slice(&bytes, wanted));
            });
        }
        while let Some(ended) = crowd.join_next().await {
            ended.unwrap();
        }
    });
    let asked = origin.ranges();
    assert!(asked.len() <= 2, "{asked:?}");
    assert_eq!(origin.stub.requests().len() - asked.len(), 1, "one HEAD");
    assert!(origin.sent() < 3 * MIB);
    bench.run(store.complete(&object)).unwrap();
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    let overhead = 4096 * origin.stub.requests().len() as u64;
    assert!(origin.sent() <= bytes.len() as u64 + overhead, "no byte twice: {}", origin.sent());
    assert_eq!((store.stats().objects, bench.files("objects"), bench.files("tmp")), (1, 1, 0));
}

#[test]
fn a_flood_of_tiny_ranges_is_bounded_by_the_blocks() {
    let bench = patient();
    let bytes = body(20_000_000);
    let origin = Ranged::new(&bytes);
    let store = bench.over(&origin.stub.url);
    let object = unlisted("x.iso");
    let wanted: Vec<ByteRange> = (0..1000).rev().map(|n| range(n * 20_000, n * 20_000 + 1)).collect();
    bench.run(async {
        let Source::Growing(mut tail) = store.fetch_parts(&object, ANY).await.unwrap().source else {
            panic!()
        };
        tail.want(&wanted, Owner::NODE);
        for one in &wanted {
            let there = std::future::poll_fn(|cx| tail.poll_past(cx, *one)).await.unwrap();
            assert!(there >= one.end);
            let mut byte = [0];
            tail.file().read_exact_at(&mut byte, one.start).unwrap();
            assert_eq!(byte[0], bytes[one.start as usize]);
        }
    });
    assert!(origin.ranges().len() <= 20, "{:?}", origin.ranges());
    assert!(origin.sent() <= bytes.len() as u64 + 20 * 4096);
}

#[test]
fn a_far_range_goes_beside_the_fill_and_is_not_fetched_again() {
    let bench = patient();
    let bytes = body(30_000_000);
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let answer = bytes.clone();
    let stub = Stub::start(move |number, head, stream| match number {
        0 => {
            let whole = response("200 OK", &[ETAG], &answer);
            send(stream, &whole[..1000]);
            let _ = opened.lock().unwrap().recv();
            send(stream, &whole[1000..]);
        }
        _ => send(stream, &answer_range(head, &[ETAG], &answer)),
    });
    let store = bench.over(&stub.url);
    let object = listed("x.iso", &bytes);
    bench.run(async {
        let whole = store.fetch(&object, ANY).await.unwrap();
        let far = range(25_000_000, 25_000_010);
        let got = read_range(store.fetch_parts(&object, ANY).await.unwrap(), far).await;
        assert_eq!(got.unwrap(), slice(&bytes, far));
        assert!(stub.requests()[1].contains("if-range: \"v1\"\r\n"));
        gate.send(()).unwrap();
        assert!(drain(whole).await.unwrap() == bytes);
        store.complete(&object).await.unwrap();
    });
    let asked: Vec<_> =
        stub.requests().iter().filter_map(|head| head.split("bytes=").nth(1).map(str::to_owned)).collect();
    let asked: Vec<_> = asked.iter().map(|rest| rest.lines().next().unwrap()).collect();
    assert_eq!(asked, ["24117248-25165823", "25165824-29999999"], "the pass goes on behind the part");
}

#[test]
fn the_end_of_a_large_object_does_not_wait_for_the_whole() {
    let bench = patient();
    let bytes = body(20_000_000);
    let origin = Ranged::new(&bytes);
    let store = bench.over(&origin.stub.url);
    let last = range(19_999_000, 20_000_000);
    let object = listed("x.iso", &bytes);
    let got = bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), last).await });
    assert_eq!(got.unwrap(), slice(&bytes, last));
    assert!(origin.sent() < 2 * MIB);
}

#[test]
fn without_room_or_version_a_part_passes_or_the_whole_is_filled() {
    let bytes = body(20_000_000);
    let one = range(12_000_000, 12_000_005);
    let object = unlisted("x.iso");
    // No room for a block: the part alone passes through.
    let origin = Ranged::new(&bytes);
    let bench = patient();
    let store =
        bench.with(&origin.stub.url, &Settings { disk_bytes: 2000, memory_bytes: 0, ..bench.settings() });
    let content = bench.run(store.fetch_parts(&object, ANY)).unwrap();
    assert!(matches!(content.source, Source::Apart(_)));
    let part = bench.run(store.pass_range(&object, content, one, ANY)).unwrap();
    assert_eq!(bench.run(drain(part)).unwrap(), slice(&bytes, one));
    assert_eq!(origin.ranges(), ["12000000-12000004"]);
    // Without a strong validator parts can't be told apart.
    let answer = bytes.clone();
    let stub = Stub::start(move |_, head, stream| {
        assert!(!head.contains("range:"), "{head}");
        let all = response("200 OK", &[], &answer);
        let end = if head.starts_with("head ") { all.len() - answer.len() } else { all.len() };
        send(stream, &all[..end]);
    });
    let bench = patient();
    let store = bench.over(&stub.url);
    let got = bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), one).await });
    assert_eq!(got.unwrap(), slice(&bytes, one));
}

#[test]
fn what_a_deserted_fill_fetched_is_kept_over_a_restart_and_gone_on_with() {
    let bytes = body(20_000_000);
    let origin = Ranged::new(&bytes);
    for object in [unlisted("x.iso"), listed("x.iso", &bytes)] {
        let bench = patient();
        let settings = Settings { linger: Duration::from_millis(20), ..bench.settings() };
        let store = bench.with(&origin.stub.url, &settings);
        let before = origin.sent();
        for (number, from) in [12_000_000, 3_000_000].into_iter().enumerate() {
            let wanted = range(from, from + 2_000_000);
            let got =
                bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), wanted).await });
            assert!(got.unwrap() == slice(&bytes, wanted), "{object:?}");
            until(&store, |stats| stats.parts_kept == number as u64 + 1 && stats.flights == 0);
        }
        let stats = store.stats();
        assert_eq!((stats.objects, bench.files("parts"), bench.files("tmp")), (1, 1, 0), "{object:?}");
        assert!((5 * MIB..8 * MIB).contains(&stats.disk_bytes), "holes take nothing: {}", stats.disk_bytes);
        bench.run(store.shutdown());
        drop(store);
        let store = bench.with(&origin.stub.url, &settings);
        assert!(bench.drained(&store, &object).unwrap() == bytes, "{object:?}");
        bench.run(store.complete(&object)).unwrap();
        let sent = origin.sent() - before;
        assert!(sent <= bytes.len() as u64 + 20 * 4096, "no byte twice: {sent}");
        assert_eq!((bench.files("parts"), bench.files("objects"), bench.files("tmp")), (0, 1, 0));
    }
}

#[test]
fn kept_parts_promise_nothing_while_the_origin_is_down() {
    let bytes = body(20_000_000);
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (answer, down) = (bytes.clone(), Arc::clone(&is_down));
    let stub = Stub::start(move |_, head, stream| {
        if down.load(Ordering::Relaxed) {
            return;
        }
        if head.starts_with("head ") {
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{ETAG}\r\n\r\n",
                answer.len()
            );
            return send(stream, head.as_bytes());
        }
        send(stream, &answer_range(head, &[ETAG], &answer));
    });
    let bench = patient();
    let settings = Settings {
        linger: Duration::from_millis(20),
        failed_for: Duration::ZERO,
        absent_for: Duration::ZERO,
        ..bench.settings()
    };
    let store = bench.with(&stub.url, &settings);
    let object = listed("x.iso", &bytes);
    let one = range(5_000_000, 5_000_100);
    let read = || bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), one).await });
    assert!(read().unwrap() == slice(&bytes, one));
    until(&store, |stats| stats.parts_kept == 1 && stats.flights == 0);
    is_down.store(true, Ordering::Relaxed);
    let mut others = 0;
    while cache(&store).origin.is_up() {
        others += 1;
        assert!(bench.drained(&store, &unlisted(&format!("other{others}"))).is_err());
    }
    let refused = bench.run(store.fetch(&object, ANY));
    assert!(matches!(refused, Err(FetchError::Origin(_))), "a refusal instead of a head");
    assert!(read().unwrap() == slice(&bytes, one), "what is here is served");
    is_down.store(false, Ordering::Relaxed);
    while bench.run(store.fetch(&object, ANY)).is_err() {
        std::thread::yield_now();
    }
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    assert!(
        stub.requests().iter().all(|asked| !asked.contains("range: bytes=0-19999999")),
        "the parts were kept"
    );
}

#[test]
fn a_node_that_goes_down_keeps_what_it_has_of_a_running_fill() {
    let bench = patient();
    let bytes = body(10_000_000);
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let answer = bytes.clone();
    let stub = Stub::start(move |number, head, stream| match number {
        0 => {
            send(stream, &response("200 OK", &[ETAG], &answer)[..6_000_000]);
            let _ = opened.lock().unwrap().recv();
        }
        _ => send(stream, &answer_range(head, &[ETAG], &answer)),
    });
    let store = bench.over(&stub.url);
    let object = listed("x", &bytes);
    bench.run(async {
        let Source::Growing(mut tail) = store.fetch(&object, ANY).await.unwrap().source else { panic!() };
        assert!(tail.past(5_000_000).await.unwrap() > 5_000_000);
    });
    bench.run(store.shutdown());
    drop((store, gate));
    let store = bench.over(&stub.url);
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    let rest = &stub.requests()[1];
    let from: u64 = rest.split("range: bytes=").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
    assert!(from > 5_000_000 && stub.requests().len() == 2, "{rest}");
}

/// An origin with one object, as it is at the moment.
fn of_versions(current: &Arc<Mutex<(&'static str, Vec<u8>)>>) -> Stub {
    let served = Arc::clone(current);
    Stub::start(move |_, head, stream| {
        let (etag, bytes) = served.lock().unwrap().clone();
        let lines = [etag, "cache-control: no-cache"];
        if head.contains("range: bytes=") {
            return send(stream, &answer_range(head, &lines, &bytes));
        }
        let whole = response("200 OK", &lines, &bytes);
        let end = if head.starts_with("head ") { whole.len() - bytes.len() } else { whole.len() };
        send(stream, &whole[..end]);
    })
}

#[test]
fn parts_of_what_has_changed_meanwhile_are_thrown_away() {
    let bench = patient();
    let (old, new) = (body(20_000_000), body(20_000_001));
    let current = Arc::new(Mutex::new(("etag: \"old\"", old.clone())));
    let stub = of_versions(&current);
    let settings =
        Settings { linger: Duration::from_millis(20), absent_for: Duration::ZERO, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let object = unlisted("x.iso");
    let read = |wanted| {
        bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), wanted).await })
    };
    let one = range(5_000_000, 5_000_100);
    assert!(read(one).unwrap() == slice(&old, one));
    until(&store, |stats| stats.parts_kept == 1 && stats.flights == 0);
    *current.lock().unwrap() = ("etag: \"new\"", new.clone());
    assert!(read(one).unwrap() == slice(&new, one), "not a byte of the old version");
    until(&store, |stats| stats.parts_kept == 2 && stats.flights == 0);
    assert!(bench.drained(&store, &object).unwrap() == new);
}

#[test]
fn a_run_that_fails_leaves_nobody_waiting() {
    let bytes = body(30_000_000);
    for status in ["404 Not Found", "500 Oops"] {
        let bench = patient();
        let (gate, opened) = mpsc::channel::<()>();
        let (answer, opened) = (bytes.clone(), Mutex::new(opened));
        let failed = std::sync::atomic::AtomicBool::new(false);
        let stub = Stub::start(move |_, head, stream| {
            if head.starts_with("head ") {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{ETAG}\r\n\r\n",
                    answer.len()
                );
                return send(stream, head.as_bytes());
            }
            if head.contains("range: bytes=24117248-") && !failed.swap(true, Ordering::Relaxed) {
                let _ = opened.lock().unwrap().recv();
                return send(stream, &response(status, &[], b""));
            }
            send(stream, &answer_range(head, &[ETAG], &answer));
        });
        let settings = Settings { resume_for: Duration::ZERO, ..bench.settings() };
        let store = bench.with(&stub.url, &settings);
        let object = unlisted("x.iso");
        bench.run(async {
            let far = range(25_000_000, 25_000_010);
            let part = store.fetch_parts(&object, ANY).await.unwrap();
            let Source::Growing(mut tail) = part.source else { panic!() };
            tail.want(&[far], Owner::NODE);
            while stub.requests().len() < 2 {
                tokio::task::yield_now().await;
            }
            // The pass begins while the run has its claim, and meets its end when that is gone.
            let whole = store.fetch(&object, ANY).await.unwrap();
            while stub.requests().len() < 3 {
                tokio::task::yield_now().await;
            }
            gate.send(()).unwrap();
            assert!(drain(whole).await.unwrap() == bytes, "{status}");
            let there = std::future::poll_fn(|cx| tail.poll_past(cx, far)).await.unwrap();
            assert!(there >= far.end, "{status}");
        });
    }
    // With no pass to get there the reader is told.
    let bench = patient();
    let length = bytes.len();
    let stub = Stub::start(move |_, head, stream| {
        if head.starts_with("head ") {
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{ETAG}\r\n\r\n");
            return send(stream, head.as_bytes());
        }
        send(stream, &response("404 Not Found", &[], b""));
    });
    let store = bench.over(&stub.url);
    let object = unlisted("x.iso");
    let got =
        bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), range(5, 6)).await });
    assert!(got.unwrap_err().contains("answered 404"));
    let again = bench.run(store.fetch_parts(&object, ANY));
    assert!(again.is_err(), "and the failure is remembered");
    assert_eq!(stub.requests().len(), 2);
}

#[test]
fn what_an_origin_without_ranges_sends_again_is_skipped() {
    let bytes = body(3_000_000);
    for object in [listed("x", &bytes), unlisted("y")] {
        let bench = patient();
        let answer = bytes.clone();
        let stub = Stub::start(move |number, _, stream| {
            let all = response("200 OK", &[ETAG], &answer);
            let end = if number == 0 { 1_000_000 } else { all.len() };
            send(stream, &all[..end]);
        });
        let store = bench.over(&stub.url);
        assert!(bench.drained(&store, &object).unwrap() == bytes, "{object:?}");
        let asked: Vec<bool> = stub.requests().iter().map(|head| head.contains("range: bytes=")).collect();
        assert_eq!(asked, [false, true], "{object:?}");
    }
}

#[test]
fn parts_take_the_place_of_a_stale_entry() {
    let bench = patient();
    let (old, new) = (body(20_000_000), body(20_000_001));
    let current = Arc::new(Mutex::new(("etag: \"old\"", old.clone())));
    let stub = of_versions(&current);
    let settings = Settings { linger: Duration::from_millis(20), ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let object = unlisted("x.iso");
    bench.run(store.complete(&object)).unwrap();
    *current.lock().unwrap() = ("etag: \"new\"", new.clone());
    let one = range(5_000_000, 5_000_100);
    let got = bench.run(async { read_range(store.fetch_parts(&object, ANY).await.unwrap(), one).await });
    assert!(got.unwrap() == slice(&new, one));
    until(&store, |stats| stats.fills_abandoned == 1 && stats.flights == 0);
    let stats = store.stats();
    assert_eq!(stats.objects, 1, "one key, one file, one count");
    assert!((MIB..2 * MIB).contains(&stats.disk_bytes), "{}", stats.disk_bytes);
    assert_eq!((bench.files("parts"), bench.files("objects")), (1, 0));
}
