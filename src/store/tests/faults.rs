//! What breaks: the origin, the disk, an entry.

use super::*;

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
        (
            "404",
            response("404 Not Found", &[], &bytes),
            &known,
            "404 Not Found for a file that its repo lists",
        ),
        ("redirected away", elsewhere, &known, "elsewhere.invalid"),
    ];
    for (name, answer, object, expected) in cases {
        let bench = Bench::new();
        let stub = Stub::fixed(answer);
        let store = bench.over(&stub.url);
        let error = bench.drained(&store, object).expect_err(name);
        assert!(error.contains(expected), "{name}: {error}");
        let asked = stub.requests();
        assert!(bench.run(store.complete(object)).is_err(), "{name}");
        assert!(store.peek(object).is_none_or(|c| matches!(c.source, Source::Growing(_))), "{name}");
        assert_eq!(bench.files("objects"), 0, "{name}");
        // Attempts to resume apart, of which one may be for the whole again.
        let resumes = asked.iter().filter(|head| head.contains("range: bytes=")).count();
        // What is listed is asked for once more where it is denied, over another connection.
        let denied = usize::from(["another length", "404", "redirected away"].contains(&name));
        assert!(asked.len() <= 1 + denied + resumes + usize::from(resumes > 0), "{name}: {asked:?}");
        assert_eq!(stub.requests().len(), asked.len(), "{name}: the failure is remembered");
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
    *wrong.last_mut().unwrap() ^= 1;
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let stub = Stub::start(move |_, _, stream| {
        let almost = wrong.len() - 100;
        send(stream, &wrong[..almost]);
        opened.lock().unwrap().recv().unwrap();
        send(stream, &wrong[almost..]);
    });
    let store = bench.over(&stub.url);
    bench.run(async {
        let content = store.fetch(&listed("x", &bytes), ANY).await.unwrap();
        let Source::Growing(mut tail) = content.source else { panic!("{content:?}") };
        let released = 100_000 - HELD_BACK_BYTES;
        assert_eq!(tail.past(released - 1).await.unwrap(), released);
        gate.send(()).unwrap();
        let error = tail.past(released).await.unwrap_err();
        assert!(matches!(*error, FillError::Mismatch { .. }), "{error}");
    });
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
                let lines: Vec<&str> = etag.into_iter().chain([&*range]).collect();
                send(stream, &response("206 Partial Content", &lines, &answer[from..]));
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
fn a_damaged_entry_is_a_miss_and_is_removed() {
    let bench = Bench::new();
    let bytes = body(5000);
    let stub = Stub::fixed(response("200 OK", &["etag: \"e\""], &bytes));
    let store = bench.over(&stub.url);
    let object = unlisted("x");
    bench.run(store.complete(&object)).unwrap();
    let disk = &cache(&store).disk;
    let entry = disk.entry_path(&object);
    let intact = fs::read(&entry).unwrap();
    assert!(matches!(disk.look(&object, Trust::Epoch).unwrap(), Look::Found(_)));
    for at in 5000..intact.len() {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        fs::write(&entry, damaged).unwrap();
        assert!(matches!(disk.look(&object, Trust::Epoch).unwrap(), Look::Damaged), "byte {at}");
        assert!(!entry.exists(), "byte {at}");
    }
    for length in [0, 43, 44, 4999, intact.len() - 1] {
        fs::write(&entry, &intact[..length]).unwrap();
        assert!(matches!(disk.look(&object, Trust::Epoch).unwrap(), Look::Damaged), "{length} bytes");
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
fn without_room_or_disk_bodies_pass_through() {
    let bytes = body(100_000);
    for broken_disk in [false, true] {
        let bench = Bench::new();
        let stub = Stub::fixed(response("200 OK", &[], &bytes));
        let bound = if broken_disk { 64 * MIB } else { 50_000 };
        let store =
            bench.with(&stub.url, &Settings { disk_bytes: bound, memory_bytes: 0, ..bench.settings() });
        if broken_disk {
            fs::remove_dir(bench.dir.path().join("tmp")).unwrap();
            fs::write(bench.dir.path().join("tmp"), b"").unwrap();
        }
        let object = listed("x", &bytes);
        let content = bench.run(store.fetch(&object, ANY)).unwrap();
        assert_eq!(content.tier, Tier::Pass);
        assert!(bench.run(drain(content)).unwrap() == bytes);
        assert!(matches!(bench.run(store.complete(&object)), Err(FetchError::NotStored)));
        let stats = store.stats();
        assert_eq!((stats.passed, stats.objects, stats.io_errors), (2, 0, u64::from(broken_disk)));
        assert_eq!(stats.disk_trouble, broken_disk);
        let mut wrong = response("200 OK", &[], &bytes);
        *wrong.last_mut().unwrap() ^= 1;
        let stub = Stub::fixed(wrong);
        let bench = Bench::new();
        let store =
            bench.with(&stub.url, &Settings { disk_bytes: 50_000, memory_bytes: 0, ..bench.settings() });
        assert!(bench.drained(&store, &object).unwrap_err().contains("SHA-256"), "passed, but checked");
    }
}

#[test]
fn what_the_disk_refuses_is_filled_in_memory_for_a_crowd() {
    let bytes = body(3_000_000);
    let object = listed("x", &bytes);
    for broken_disk in [false, true] {
        let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
        let (gate, opened) = mpsc::channel::<()>();
        let (opened, answer) = (Mutex::new(opened), response("200 OK", &[], &bytes));
        let stub = Stub::start(move |_, _, stream| {
            send(stream, &answer[..1_000_000]);
            let _ = opened.lock().unwrap().recv();
            send(stream, &answer[1_000_000..]);
        });
        let bound = if broken_disk { 64 * MIB } else { 50_000 };
        let store = bench.with(&stub.url, &Settings { disk_bytes: bound, ..bench.settings() });
        if broken_disk {
            fs::remove_dir(bench.dir.path().join("tmp")).unwrap();
            fs::write(bench.dir.path().join("tmp"), b"").unwrap();
        }
        bench.run(async {
            let mut crowd = JoinSet::new();
            for _ in 0..50 {
                let content = store.fetch(&object, ANY).await.unwrap();
                assert_eq!(content.tier, Tier::Fill);
                crowd.spawn(async move { drain(content).await });
            }
            gate.send(()).unwrap();
            while let Some(got) = crowd.join_next().await {
                assert!(got.unwrap().unwrap() == bytes);
            }
        });
        assert_eq!(stub.requests().len(), 1, "one fetch for all");
        until(&store, |stats| stats.flights == 0);
        let stats = store.stats();
        assert_eq!((stats.fills_unstored, stats.no_room, stats.passed, stats.objects), (1, 1, 0, 0));
        assert_eq!(cache(&store).unstored_mib.available_permits(), 64, "given back");
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
fn a_push_counts_as_read_what_was_right_and_had_no_room_and_not_what_broke_off() {
    let bench = Bench::new();
    // All of it comes into memory; there is no room for it on disk.
    let bytes = body(100_000);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let store = bench.with(&stub.url, &Settings { disk_bytes: 50_000, ..bench.settings() });
    let right = bench.run(store.complete(&listed("x", &bytes)));
    assert!(matches!(right, Err(FetchError::NotStored)), "{right:?}");

    // Without a length it is filled on disk until that is full.
    let bench = Bench::new();
    let bytes = body(12_000_000);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let chunk = format!("{:x}\r\n", bytes.len());
    let stub = Stub::fixed([head.as_bytes(), chunk.as_bytes(), &bytes, b"\r\n0\r\n\r\n"].concat());
    let store = bench.with(&stub.url, &Settings { disk_bytes: 9 * MIB, ..bench.settings() });
    let cut = bench.run(store.complete(&unlisted("x")));
    let is_no_room = |error: &FillError| matches!(error, FillError::NoRoom);
    assert!(matches!(&cut, Err(FetchError::Body(error)) if is_no_room(error)), "{cut:?}");
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
        let content = store.fetch(&object, ANY).await.unwrap();
        store.shutdown().await;
        assert_eq!(drain(content).await.unwrap_err(), "abandoned");
        assert!(matches!(store.fetch(&object, ANY).await, Err(FetchError::ShuttingDown)));
    });
    assert_eq!(store.stats().flights, 0);
    drop(gate);
}
