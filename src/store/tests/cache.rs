//! Hits, fills, freshness, eviction, restart, over an HTTP origin.

use super::*;

#[test]
fn a_crowd_shares_one_fill_that_outlives_its_first_reader() {
    let bench = Bench { stall_timeout: Duration::from_secs(60), ..Bench::new() };
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
        let first = store.fetch(&object, ANY).await.unwrap();
        assert_eq!(first.tier, Tier::Fill);
        assert_eq!(first.meta.etag, Some(etag(&Sha256::of(&bytes).into())));
        let Source::Growing(mut tail) = first.source else { panic!("{first:?}") };
        assert!(tail.past(0).await.unwrap() < 1_000_000);
        drop(tail);
        let mut crowd = JoinSet::new();
        for _ in 0..50 {
            let (store, object) = (Arc::clone(&store), object.clone());
            crowd.spawn(async move { drain(store.fetch(&object, ANY).await.unwrap()).await });
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
    drop(store);
    let store = bench.over("http://127.0.0.1:1/");
    assert_eq!(bench.files("tmp"), 0);
    assert!(bench.run(store.find(&objects[0].0)).is_none(), "another origin's object");
    drop(store);
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
        // An object takes three blocks, and so does its successor; while it is filled, one more.
        assert!(stats.evicted == 0 || stats.disk_bytes > 200_000 - 4 * 4096, "{stats:?}");
        assert_eq!(stats.objects, bench.files("objects") as u64);
    }
    assert_eq!(stub.requests().len(), 41, "the hot one was never evicted");
    assert!(store.stats().evicted > 20);
    // The bound holds after a restart with a smaller one, too.
    drop(store);
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
fn what_no_catalogue_lists_is_revalidated() {
    let bench = Bench::new();
    let script: Arc<Mutex<(&str, &str, Vec<u8>)>> =
        Arc::new(Mutex::new(("200 OK", "etag: \"1\"", body(2000))));
    let scripted = Arc::clone(&script);
    let stub = Stub::start(move |_, _, stream| {
        let (status, line, bytes) = scripted.lock().unwrap().clone();
        send(stream, &response(status, &[line, "cache-control: max-age=0"], &bytes));
    });
    let settings = Settings { failed_for: Duration::ZERO, absent_for: Duration::ZERO, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let object = unlisted("x.txt");
    let ask = || {
        let content = bench.run(store.fetch(&object, ANY)).unwrap();
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
    *script.lock().unwrap() = ("503 Busy", "retry-after: 0", vec![]);
    assert_eq!(ask(), (body(2000), true, "\"1\"".to_owned()));
    *script.lock().unwrap() = ("200 OK", "etag: \"2\"", body(3000));
    assert_eq!(ask(), (body(3000), false, "\"2\"".to_owned()));
    while store.stats().flights > 0 {
        std::thread::yield_now();
    }
    *script.lock().unwrap() = ("404 Not Found", "x: y", vec![]);
    assert!(bench.run(store.fetch(&object, ANY)).is_err_and(|error| error.is_absent()));
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
            crowd.spawn(async move { drain(store.fetch(&object, ANY).await.unwrap()).await.unwrap() });
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
        for absent in
            [bench.run(store.fetch(&unlisted("none"), ANY)), bench.run(store.head(&unlisted("none"), ANY))]
        {
            assert!(
                matches!(absent, Err(FetchError::Answered(page)) if *page.body.as_ref().unwrap() == "nothing")
            );
        }
        assert!(matches!(bench.run(store.fetch(&unlisted("dir"), ANY)), Err(FetchError::IsDirectory)));
    }
    assert_eq!(stub.requests().len(), 2);
    let content = bench.run(store.fetch(&unlisted("dir/"), ANY)).unwrap();
    assert_eq!(content.meta.content_type, "text/html;charset=utf-8");
    assert_eq!(bench.drained(&store, &unlisted("old")).unwrap(), b"<html>", "a redirect within the origin");
    assert!(bench.drained(&store, &unlisted("loop")).unwrap_err().contains("redirects"));
    assert_eq!(stub.requests().len(), 9, "four for the loop");
    assert_eq!(bench.run(store.listing(&path("dir/"))).unwrap(), None);
    assert!(bench.run(store.purge(&unlisted("dir/"))) || store.stats().flights > 0);
}

#[test]
fn a_listed_object_that_is_denied_is_a_failure_that_is_not_remembered() {
    let bench = Bench::new();
    let stub = Stub::start(|number, _, stream| match number {
        // Over a kept connection, and over a new one.
        0..=1 => send(stream, &response("404 Not Found", &["cache-control: max-age=3600"], b"nothing")),
        2 => send(stream, &response("403 Forbidden", &[], b"nothing")),
        3 => send(stream, &response("200 OK", &[], &body(5000))),
        4 => send(stream, &response("302 Found", &["location: http://elsewhere.invalid/"], b"")),
        5 => send(stream, &response("200 OK", &[], &body(4999))),
        _ => send(stream, &response("200 OK", &[], &body(6000))),
    });
    let hour = Duration::from_secs(3600);
    let settings = Settings { failed_for: Duration::ZERO, absent_for: hour, ..bench.settings() };
    let store = bench.with(&stub.url, &settings);
    let object = listed("x", &body(5000));
    let denied = bench.run(store.fetch(&object, ANY)).unwrap_err();
    assert!(denied.is_denial() && !denied.is_answer(), "{denied}");
    assert!(matches!(&denied, FetchError::Origin(error) if error.may_pass()), "{denied}");
    assert!(bench.drained(&store, &object).unwrap() == body(5000), "another host has it");
    assert_eq!(stub.requests().len(), 4);
    let other = listed("y", &body(6000));
    assert!(bench.run(store.fetch(&other, ANY)).is_err(), "one host redirects, one has another length");
    assert!(bench.drained(&store, &other).unwrap() == body(6000));
    assert_eq!(stub.requests().len(), 7);
}

#[test]
fn odd_heads_are_answered_by_a_get_and_never_remembered() {
    for odd in ["405 Not Allowed", "403 Forbidden", "501 Not Implemented", "500 Oops", "404 Not Found"] {
        let bench = Bench::new();
        let stub = Stub::start(move |_, head, stream| match head.starts_with("head ") {
            true => send(stream, &response(odd, &[], b"")),
            false => send(stream, &response("200 OK", &["etag: \"e\"", "x-a: 1"], &body(5000))),
        });
        let store = bench.over(&stub.url);
        for object in [unlisted("x"), listed("y", &body(5000))] {
            let meta = bench.run(store.head(&object, ANY)).unwrap().meta;
            assert_eq!((meta.length, meta.etag.is_some()), (Some(5000), true), "{odd}");
            assert!(bench.drained(&store, &object).unwrap() == body(5000), "{odd}");
        }
        assert_eq!(stub.requests().len(), 6, "{odd}: {:?}", stub.requests());
    }
    // What is said of no file is the same for HEAD and GET, and asked for once.
    let bench = Bench::new();
    let stub = Stub::start(|_, _, stream| send(stream, &response("404 Not Found", &[], b"nothing")));
    let store = bench.over(&stub.url);
    assert!(bench.run(store.head(&unlisted("x"), ANY)).is_err_and(|error| error.is_absent()));
    let Err(FetchError::Answered(page)) = bench.run(store.fetch(&unlisted("x"), ANY)) else { panic!() };
    assert_eq!((page.body.as_deref(), stub.requests().len()), (Some(&b"nothing"[..]), 2));
}

#[test]
fn heads_begin_no_fill() {
    let bench = Bench::new();
    let answer =
        b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\netag: \"e\"\r\nconnection: close\r\n\r\n".to_vec();
    let stub = Stub::fixed(answer);
    let store = bench.over(&stub.url);
    for _ in 0..3 {
        let meta = bench.run(store.head(&unlisted("x.rpm"), ANY)).unwrap().meta;
        assert_eq!((meta.length, meta.etag.as_ref().unwrap().to_str().unwrap()), (Some(5000), "\"e\""));
    }
    assert!(stub.requests()[0].starts_with("head /x.rpm "));
    let right = listed("y.rpm", &body(5000));
    assert_eq!(
        bench.run(store.head(&right, ANY)).unwrap().meta.etag,
        Some(etag(&Sha256::of(&body(5000)).into()))
    );
    assert!(bench.run(store.head(&listed("y.rpm", b"short"), ANY)).is_err());
    // Before a listed one counts as another, a GET is to say so, and another connection.
    assert_eq!((stub.requests().len(), store.stats().fills_started), (5, 0));
}
