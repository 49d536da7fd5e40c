//! What an origin without manners, impatient clients, a shared machine or an operator's slip do.

use super::*;
use std::io::ErrorKind;
use std::sync::atomic::AtomicUsize;

const SENT: &str = "date: Sun, 06 Nov 1994 09:00:00 GMT";
const OLD: &str = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
const NEW: &str = "last-modified: Sun, 06 Nov 1994 08:50:00 GMT";

/// What the fill said, what the part says, and whether it is of the same version for certain.
const VERSIONS: [(&[&str], &[&str], bool); 9] = [
    (&["etag: \"1\""], &["etag: \"1\""], true),
    (&["etag: \"1\""], &["etag: \"2\""], false),
    (&["etag: \"1\"", OLD, SENT], &[OLD, SENT], false),
    (&["etag: W/\"1\"", OLD, SENT], &["etag: W/\"1\"", OLD, SENT], false),
    (&[OLD, SENT], &[OLD, SENT], true),
    (&[OLD, SENT], &[NEW, SENT], false),
    (&[OLD, SENT], &["etag: \"2\"", OLD, SENT], false),
    (&[OLD], &[OLD], false),
    (&[], &[], false),
];

/// Answers the first request with `cut` bytes of a 200, then waits for the gate; others with the part asked for.
fn ignores_if_range(
    bytes: &[u8],
    (filled, part): (&'static [&'static str], &'static [&'static str]),
    cut: usize,
    gate: mpsc::Receiver<()>,
) -> Stub {
    let (bytes, gate) = (bytes.to_vec(), Mutex::new(gate));
    Stub::start(move |number, head, stream| {
        if number == 0 {
            let whole = response("200 OK", filled, &bytes);
            send(stream, &whole[..cut]);
            let _ = gate.lock().unwrap().recv();
            return;
        }
        send(stream, &answer_range(head, part, &bytes));
    })
}

#[test]
fn a_part_of_another_version_never_joins_a_fill() {
    let bytes = body(300_000);
    for (filled, part, same) in VERSIONS {
        for object in [unlisted("x"), listed("x", &bytes)] {
            let bench = Bench::new();
            let (gate, closed) = mpsc::channel();
            drop(gate);
            let stub = ignores_if_range(&bytes, (filled, part), 100_000, closed);
            let store = bench.over(&stub.url);
            let got = bench.drained(&store, &object);
            // Of a listed object the SHA-256 decides.
            let whole = same || object.identity.is_some();
            assert_eq!(got.is_ok_and(|got| got == bytes), whole, "{object:?} {filled:?} {part:?}");
            assert_eq!(bench.run(store.complete(&object)).is_ok(), whole);
        }
    }
}

#[test]
fn a_far_range_of_another_version_is_never_served() {
    let bytes = body(12_000_000);
    for (filled, part, same) in VERSIONS {
        for object in [unlisted("x"), listed("x", &bytes)] {
            let bench = Bench::new();
            let (gate, opened) = mpsc::channel::<()>();
            let stub = {
                let (bytes, opened) = (bytes.clone(), Mutex::new(opened));
                Stub::start(move |number, head, stream| {
                    if number == 0 {
                        send(stream, &response("200 OK", filled, &bytes)[..1000]);
                        let _ = opened.lock().unwrap().recv();
                        return;
                    }
                    let mut other = bytes.clone();
                    if !same {
                        other.iter_mut().for_each(|byte| *byte ^= 1);
                    }
                    send(stream, &answer_range(head, part, &other));
                })
            };
            let store = bench.over(&stub.url);
            let range = ByteRange { start: 11_000_000, end: 11_000_010 };
            let got = bench.run(async {
                let _fill = store.fetch(&object, ANY).await.unwrap();
                let reading = read_range(store.fetch_parts(&object, ANY).await.unwrap(), range);
                if same {
                    return reading.await;
                }
                drop(gate);
                reading.await
            });
            match got {
                Ok(got) => assert!(got == bytes[11_000_000..11_000_010], "{object:?} {filled:?} {part:?}"),
                Err(error) => assert!(!same, "{object:?} {filled:?} {part:?}: {error}"),
            }
        }
    }
}

/// Sends heads at once and bodies never, but for paths with "quick" in them.
fn slow(length: usize) -> (Stub, mpsc::Sender<()>) {
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let stub = Stub::start(move |_, head, stream| {
        let conditional = head.contains("if-none-match");
        if conditional {
            return send(stream, &response("304 Not Modified", &["etag: \"1\""], b""));
        }
        if head.contains("/quick") {
            return send(stream, &response("200 OK", &["etag: \"1\"", "cache-control: no-cache"], b"quick"));
        }
        send(stream, format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n1234").as_bytes());
        let _ = opened.lock().unwrap().recv();
    });
    (stub, gate)
}

#[test]
fn slow_fills_hold_others_up_for_a_while_only_and_revalidations_not_at_all() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
    let (stub, gate) = slow(1000);
    let patience = Duration::from_millis(50);
    let settings = Settings { max_fills: 2, fill_patience: patience, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let known = unlisted("quick");
    bench.run(store.complete(&known)).unwrap();
    bench.run(async {
        let _fills = [
            store.fetch(&unlisted("a"), ANY).await.unwrap(),
            store.fetch(&unlisted("b"), ANY).await.unwrap(),
        ];
        assert!(matches!(store.fetch(&unlisted("quick/cold"), ANY).await, Err(FetchError::Busy)));
        let renewed = store.fetch(&known, ANY).await.unwrap();
        assert!(!renewed.stale);
    });
    assert_eq!(store.stats().revalidated, 1);
    drop(gate);
}

#[test]
fn a_fill_without_readers_gives_its_place_to_the_next() {
    const LENGTH: usize = 1_000_000;
    for (abandon_bytes, linger) in [(100_000, 20), (999_999, 20), (999_999, 3_600_000)] {
        let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
        let (stub, gate) = slow(LENGTH);
        let linger = Duration::from_millis(linger);
        let settings = Settings { max_fills: 1, abandon_bytes, linger, ..bench.settings() };
        let settings = Settings { fill_patience: Duration::from_secs(3), ..settings };
        let store = bench.with(&stub.url, &settings);
        let object = unlisted("x");
        bench.run(async {
            let followed = store.fetch(&object, ANY).await.unwrap();
            // As long as somebody follows, it holds its place.
            assert!(matches!(store.fetch(&unlisted("quick"), ANY).await, Err(FetchError::Busy)));
            assert_eq!(store.stats().fills_abandoned, 0);
            drop(followed);
            let next = store.fetch(&unlisted("quick"), ANY).await;
            assert!(next.is_ok(), "{next:?}");
            assert!(store.peek(&object).is_none());
            // The next request begins anew, and is not cut off by the one before.
            let again = store.fetch(&object, ANY).await.unwrap();
            let Source::Growing(mut tail) = again.source else { panic!("{again:?}") };
            assert_eq!(tail.past(0).await.unwrap(), 4);
        });
        assert_eq!(store.stats().fills_abandoned, 1);
        drop(gate);
    }
}

#[test]
fn parts_without_readers_give_their_places_to_the_next() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let bytes = body(20_000_000);
    let stub = Stub::start(move |_, head, stream| {
        if head.contains("/quick") {
            return send(stream, &response("200 OK", &["etag: \"1\"", "cache-control: no-cache"], b"quick"));
        }
        if head.starts_with("head ") {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"1\"\r\n\r\n", bytes.len());
            return send(stream, head.as_bytes());
        }
        let answer = answer_range(head, &["etag: \"1\""], &bytes);
        send(stream, &answer[..1000]);
        let _ = opened.lock().unwrap().recv();
    });
    let (patience, linger) = (Duration::from_secs(10), Duration::from_secs(3600));
    let settings = Settings { max_fills: 1, fill_patience: patience, linger, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    bench.run(async {
        let content = store.fetch_parts(&unlisted("x"), ANY).await.unwrap();
        let Source::Growing(mut tail) = content.source else { panic!("{content:?}") };
        tail.want(&[ByteRange { start: 5_000_000, end: 5_000_001 }], Owner::NODE);
        while !stub.requests().iter().any(|head| head.contains("range: bytes=")) {
            tokio::task::yield_now().await;
        }
        drop(tail);
        let next = store.fetch(&unlisted("quick"), ANY).await;
        assert!(next.is_ok(), "{next:?}");
    });
    drop(gate);
}

#[test]
fn a_fill_without_readers_ends_by_itself_where_its_rest_is_large_or_slow() {
    const LENGTH: usize = 20_000_000;
    // Of a file that the origin sends in one go; and of one that stalls, though it is as near to its end as any.
    for (abandon_bytes, stalls, ends) in
        [(1 << 30, false, false), (1_000_000, false, true), (1 << 30, true, true)]
    {
        let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
        let bytes = body(LENGTH);
        let (gate, opened) = mpsc::channel::<()>();
        let (answer, opened) = (response("200 OK", &["etag: \"1\""], &bytes), Mutex::new(opened));
        let stub = Stub::start(move |_, _, stream| {
            send(stream, &answer[..1000]);
            if stalls {
                let _ = opened.lock().unwrap().recv();
            }
            send(stream, &answer[1000..]);
        });
        let linger = Duration::from_millis(200);
        let settings = Settings { abandon_bytes, linger, ..bench.settings() };
        let store = bench.with(&stub.url, &settings);
        let object = unlisted("x");
        bench.run(async {
            let Source::Growing(mut tail) = store.fetch(&object, ANY).await.unwrap().source else { panic!() };
            assert!(tail.past(0).await.unwrap() > 0);
        });
        until(&store, |stats| stats.flights == 0);
        let stats = store.stats();
        let expected = (u64::from(ends), u64::from(!ends));
        assert_eq!((stats.fills_abandoned, stats.fills_finished), expected, "{abandon_bytes} {stalls}");
        drop(gate);
    }
}

#[test]
fn a_flight_without_requests_leaves_the_line() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
    let (stub, gate) = slow(1000);
    let settings = Settings { max_fills: 1, fill_patience: Duration::from_secs(3600), ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    bench.run(async {
        let held = store.fetch(&unlisted("held"), ANY).await.unwrap();
        let mut left = JoinSet::new();
        for number in 0..100 {
            let store = Arc::clone(&store);
            left.spawn(async move { store.fetch(&unlisted(&format!("quick{number}")), ANY).await.map(drop) });
        }
        while store.stats().flights < 101 {
            tokio::task::yield_now().await;
        }
        left.shutdown().await;
        while store.stats().flights > 1 {
            tokio::task::yield_now().await;
        }
        drop(held);
    });
    assert_eq!(stub.requests().len(), 1, "the origin is asked for none of them");
    drop(gate);
}

#[test]
fn a_flight_waits_as_the_network_that_holds_least_of_those_that_joined_it() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
    let (stub, gate) = slow(1000);
    let hour = Duration::from_secs(3600);
    let settings = Settings { max_fills: 2, fill_patience: hour, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    bench.run(async {
        let (one, other) = (of_network(1, true), of_network(2, true));
        let held = store.fetch(&unlisted("held0"), one).await.unwrap();
        let _held = store.fetch(&unlisted("held1"), one).await.unwrap();
        let mut waits = JoinSet::new();
        // The first network has two more in the line; another one joins the second of these.
        for (name, demand, in_line) in [("quick0", one, 1), ("quick1", one, 2), ("quick1", other, 1)] {
            let (client, object) = (Arc::clone(&store), unlisted(name));
            waits.spawn(async move { client.fetch(&object, demand).await.map(drop) });
            while cache(&store).fills.waiting_of(demand.owner) != in_line {
                tokio::task::yield_now().await;
            }
        }
        drop(held);
        while waits.join_next().await.is_some() {}
    });
    assert!(stub.requests()[2].contains("/quick1"), "{:#?}", stub.requests());
    drop(gate);
}

#[test]
fn a_push_goes_before_clients_and_takes_the_flight_with_it_that_it_joins() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
    let (stub, gate) = slow(1000);
    let settings = Settings { max_fills: 16, fill_patience: Duration::from_secs(3600), ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    bench.run(async {
        let mut held = Vec::new();
        for number in 0..11 {
            held.push(store.fetch(&unlisted(&format!("held{number}")), ANY).await.unwrap());
        }
        // Of sixteen places one is for pushes, and four more for what is listed.
        let waiting = unlisted("quick");
        let mut waits = JoinSet::new();
        for number in 0..4 {
            let object = unlisted(&format!("listed{number}"));
            held.push(store.fetch(&object, of_network(1, true)).await.unwrap());
        }
        let (client, object) = (Arc::clone(&store), waiting.clone());
        waits.spawn(async move { client.fetch(&object, ANY).await.map(drop) });
        while store.stats().flights < 16 {
            tokio::task::yield_now().await;
        }
        store.complete(&waiting).await.unwrap();
        waits.join_next().await.unwrap().unwrap().unwrap();
    });
    drop(gate);
}

#[test]
fn heads_wait_for_a_while_and_pushes_and_what_is_listed_hardly() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let answer = response("200 OK", &["etag: \"1\""], b"");
    let stub = Stub::start(move |_, head, stream| {
        if head.contains("/hangs") {
            let _ = opened.lock().unwrap().recv();
        }
        send(stream, &answer);
    });
    let settings = Settings { fill_patience: Duration::from_millis(100), ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    bench.run(async {
        let mut hanging = JoinSet::new();
        for number in 0..40 {
            let store = Arc::clone(&store);
            hanging
                .spawn(async move { store.head(&unlisted(&format!("hangs{number}")), ANY).await.map(drop) });
        }
        // Of sixteen eight are for others.
        for _ in 0..32 {
            assert!(matches!(hanging.join_next().await.unwrap().unwrap(), Err(FetchError::Busy)));
        }
        assert_eq!(stub.requests().len(), 8);
        store.head(&unlisted("listed"), of_network(1, true)).await.unwrap();
        store.head(&unlisted("pushed"), Demand::PUSH).await.unwrap();
        hanging.shutdown().await;
    });
    drop(gate);
}

#[test]
fn a_reader_that_stalls_gives_its_place_up_and_reads_on_later() {
    for object in [unlisted("x.iso"), listed("x.iso", &body(40_000_000))] {
        let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
        let bytes = body(40_000_000);
        let answer = bytes.clone();
        let stub = Stub::start(move |_, head, stream| {
            let lines = ["etag: \"1\"", "cache-control: max-age=60"];
            match head {
                _ if head.contains("/quick") => send(stream, &response("200 OK", &lines, b"quick")),
                _ if head.contains("range: bytes=") => send(stream, &answer_range(head, &lines, &answer)),
                _ => send(stream, &response("200 OK", &lines, &answer)),
            }
        });
        let settings = Settings { max_fills: 1, fill_patience: Duration::from_secs(60), ..bench.settings() };
        let store = bench.with(&stub.url, &settings);
        bench.run(async {
            let stalled = store.fetch(&object, ANY).await.unwrap();
            for number in 0..3 {
                let other = of_network(2 + number, false);
                let quick = store.fetch(&unlisted(&format!("quick{number}")), other).await.unwrap();
                assert_eq!(drain(quick).await.unwrap(), b"quick");
            }
            assert!(drain(stalled).await.unwrap() == bytes);
        });
        let rest = stub.requests().into_iter().find(|head| head.contains("range: bytes=")).unwrap();
        let from: u64 =
            rest.split("range: bytes=").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
        assert!((1 << 20..=8 << 20).contains(&from), "{rest}");
        assert_eq!(store.stats().fills_failed, 0);
    }
}

#[test]
fn a_directory_that_vanished_is_made_anew() {
    for vanishing in ["", "tmp", "objects"] {
        let bench = Bench::new();
        let bytes = body(20_000);
        let stub = Stub::fixed(response("200 OK", &["etag: \"1\""], &bytes));
        let settings = Settings { disk: bench.dir.path().join("cache"), ..bench.settings() };
        let store = bench.with(&stub.url, &settings);
        bench.run(store.complete(&unlisted("before"))).unwrap();
        fs::remove_dir_all(settings.disk.join(vanishing)).unwrap();
        bench.run(store.complete(&unlisted("after"))).unwrap();
        let content = bench.run(store.find(&unlisted("after"))).unwrap();
        assert_eq!(content.tier, Tier::Disk);
        let stats = store.stats();
        assert_eq!(stats.objects, bench.files("cache/objects") as u64, "{vanishing:?}");
        assert!(stats.disk_trouble && stats.io_errors == 1, "{vanishing:?}: {stats:?}");
        let second = Store::open(store.origin.clone(), &settings, bench.background.handle());
        assert!(second.is_err(), "{vanishing:?}: the lock is held as before");
    }
}

#[test]
fn a_full_file_system_below_the_bound_evicts_within_reason() {
    let bench = Bench::new();
    let bytes = body(20_000);
    let stub = Stub::fixed(response("200 OK", &["etag: \"1\""], &bytes));
    let store = bench.over(&stub.url);
    for number in 0..20 {
        bench.run(store.complete(&unlisted(&number.to_string()))).unwrap();
        tick();
    }
    let full = |times| *cache(&store).disk.faults.lock().unwrap() = vec![ErrorKind::StorageFull; times];
    full(1);
    bench.run(store.complete(&unlisted("a"))).unwrap();
    let stats = store.stats();
    assert!(stats.evicted >= 1 && stats.disk_trouble && stats.passed == 0, "{stats:?}");
    assert!(
        bench.run(store.find(&unlisted("0"))).is_none() && bench.run(store.find(&unlisted("7"))).is_some()
    );
    full(1000);
    assert!(matches!(bench.run(store.complete(&unlisted("b"))), Err(FetchError::NotStored)));
    let left = cache(&store).disk.faults.lock().unwrap().len();
    assert!(left >= 996, "bounded: {left}");
    assert!(bench.run(store.find(&unlisted("a"))).is_some(), "what was used last is still there");
}

#[test]
fn an_absurd_length_is_the_origins_fault() {
    for length in [u64::MAX - 2, u64::MAX - 5000, 1 << 63, 1 << 51] {
        let bench = Bench::new();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        let stub = Stub::fixed([head.as_bytes(), &body(1000)].concat());
        let store = bench.over(&stub.url);
        for refused in [
            bench.run(store.fetch(&unlisted("x"), ANY)).map(drop),
            bench.run(store.head(&unlisted("y"), ANY)).map(drop),
        ] {
            assert!(
                matches!(&refused, Err(FetchError::Origin(e)) if matches!(**e, OriginError::Absurd { .. })),
                "{length}: {refused:?}"
            );
        }
        let stats = store.stats();
        assert_eq!((stats.io_errors, stats.disk_trouble), (0, false));
        assert!(bench.drained(&store, &listed("z", b"1")).is_err());
    }
    // Large, but not absurd: it passes through, and says nothing about the disk.
    let bench = Bench::new();
    let stub = Stub::fixed(b"HTTP/1.1 200 OK\r\ncontent-length: 1125899906842624\r\n\r\nx".to_vec());
    let store = bench.with(&stub.url, &Settings { disk_bytes: u64::MAX / 2, ..bench.settings() });
    assert_eq!(bench.run(store.fetch(&unlisted("x"), ANY)).unwrap().tier, Tier::Pass);
    assert_eq!((store.stats().io_errors, store.stats().disk_trouble), (0, false));
}

#[test]
fn refusals_take_a_bounded_memory() {
    let bench = Bench::new();
    let store = bench.over("http://127.0.0.1:1/");
    let refusals = &cache(&store).refusals;
    for number in 0..30_000 {
        refusals.note(&unlisted(&format!("{number}/{}", "x".repeat(200))), FetchError::Absent);
    }
    assert!(refusals.count() <= 10_000, "{}", refusals.count());
    let (plain, with) = (unlisted("x"), listed("x", b"1"));
    refusals.note(&with, FetchError::Absent);
    assert!(refusals.find(&plain).is_none());
}

#[test]
fn a_cache_has_one_process() {
    let bench = Bench::new();
    let store = bench.over("http://127.0.0.1:1/");
    let refused = Store::open(store.origin.clone(), &bench.settings(), bench.background.handle());
    let why = refused.err().unwrap().to_string();
    assert_eq!(why, format!("another process uses {}", bench.dir.path().display()));
    drop(store);
    bench.over("http://127.0.0.1:1/");
}

#[test]
fn an_open_handle_of_a_damaged_entry_is_let_go_of() {
    let bench = Bench::new();
    let bytes = body(20_000);
    let answers = Arc::new(AtomicUsize::new(0));
    let answered = Arc::clone(&answers);
    let answer = response("200 OK", &["etag: \"1\""], &bytes);
    let stub = Stub::start(move |_, _, stream| {
        answered.fetch_add(1, Ordering::Relaxed);
        send(stream, &answer);
    });
    let store = bench.over(&stub.url);
    let object = listed("x", &bytes);
    bench.run(store.complete(&object)).unwrap();
    let entry = cache(&store).disk.entry_path(&object);
    File::options().write(true).open(&entry).unwrap().set_len(5000).unwrap();
    assert!(store.peek(&object).is_some(), "the handle is open");
    bench.run(async {
        store.damaged(&object).await;
        // Another reader of the same handle says so, too.
        store.damaged(&object).await;
    });
    assert!(store.peek(&object).is_none() && !entry.exists());
    assert_eq!(store.stats().damaged, 1);
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    assert_eq!(answers.load(Ordering::Relaxed), 2);
}
