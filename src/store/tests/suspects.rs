//! What was stored before this process began, or before the machine went down: verified before a client gets it. The boot id
//! in the directory's own state stands for the machine's.

use super::*;
use std::os::unix::fs::FileExt;

/// Stores objects, and leaves the directory as a machine that lost its power would.
fn left_behind(bench: &Bench, objects: &[(&Object, Vec<u8>)]) -> Vec<PathBuf> {
    let bodies: Vec<(String, Vec<u8>)> =
        objects.iter().map(|(object, body)| (format!("/{}", object.path), body.clone())).collect();
    let stub = Stub::start(move |_, head, stream| {
        let asked = head.split(' ').nth(1).unwrap();
        let (_, body) = bodies.iter().find(|(path, _)| path == asked).unwrap();
        send(stream, &response("200 OK", &["cache-control: max-age=3600"], body));
    });
    let store = bench.over(&stub.url);
    let entries = objects.iter().map(|(object, _)| {
        bench.run(store.complete(object)).unwrap();
        cache(&store).disk.entry_path(object)
    });
    let entries = entries.collect();
    drop(store);
    lose_power(bench);
    entries
}

/// The directory is as the machine left it when its power failed, and there is another boot now.
fn lose_power(bench: &Bench) {
    let state = bench.dir.path().join("boot");
    let text = fs::read_to_string(&state).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains("\"clean\":false") && text.contains(boot.trim()), "{text}");
    fs::write(state, text.replace(boot.trim(), "another")).unwrap();
}

/// Flips a bit, as a disk does: not a time changes.
fn rot(entry: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(entry).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn after_an_unclean_boot_everything_is_verified_behind() {
    let bench = Bench::new();
    let (good, bad) = (body(3_000_000), body(3_000_001));
    let (a, b) = (listed("good", &good), unlisted("bad"));
    let entries = left_behind(&bench, &[(&a, good.clone()), (&b, bad.clone())]);
    rot(&entries[1], 2_999_999);
    let store = bench.over("http://127.0.0.1:1/");
    // Of another origin's objects nothing is found; they are verified behind all the same.
    while !cache(&store).disk.is_settled() {
        std::thread::yield_now();
    }
    let stats = store.stats();
    assert_eq!((stats.verified, stats.damaged), (1, 1));
    assert!(entries[0].exists() && !entries[1].exists());
}

#[test]
fn a_large_suspect_is_served_as_it_is_verified() {
    const LENGTH: usize = 70 * 1024 * 1024;
    for damage in [None, Some(0), Some(LENGTH as u64 - 1)] {
        let bench = Bench::new();
        let bytes = body(LENGTH);
        let object = listed("x.iso", &bytes);
        let stub = Stub::fixed(response("200 OK", &[], &bytes));
        let store = bench.with(&stub.url, &Settings { disk_bytes: 256 * MIB, ..bench.settings() });
        bench.run(store.complete(&object)).unwrap();
        let entry = cache(&store).disk.entry_path(&object);
        drop(store);
        lose_power(&bench);
        if let Some(at) = damage {
            rot(&entry, at);
        }
        let store = bench.with(&stub.url, &Settings { disk_bytes: 256 * MIB, ..bench.settings() });
        let got = bench.drained(&store, &object);
        match damage {
            // Of what is damaged at its start nobody had anything yet.
            None | Some(0) => assert!(got.unwrap() == bytes),
            Some(_) => {
                // Verified behind before it was asked for, or told on the way; never wrong.
                assert!(got.is_err_and(|why| why.contains("isn't what was stored")), "{damage:?}");
                assert!(bench.drained(&store, &object).unwrap() == bytes);
            }
        }
        bench.run(store.complete(&object)).unwrap();
        let fetched = 1 + usize::from(damage.is_some());
        assert_eq!(stub.requests().len(), fetched, "{damage:?}");
        let stats = store.stats();
        assert_eq!((stats.verified, stats.damaged), if damage.is_some() { (0, 1) } else { (1, 0) });
        assert!(matches!(bench.run(store.find(&object)).unwrap().source, Source::File(_)));
    }
}

#[test]
fn after_an_unclean_boot_an_entry_is_verified_before_its_first_use() {
    for damage in [None, Some(1_999_999)] {
        let bench = Bench::new();
        let bytes = body(2_000_000);
        let object = unlisted("x");
        let stub = Stub::fixed(response("200 OK", &["cache-control: max-age=3600"], &bytes));
        let store = bench.over(&stub.url);
        bench.run(store.complete(&object)).unwrap();
        let entry = cache(&store).disk.entry_path(&object);
        drop(store);
        lose_power(&bench);
        if let Some(at) = damage {
            rot(&entry, at);
        }
        let store = bench.over(&stub.url);
        assert!(bench.drained(&store, &object).unwrap() == bytes);
        assert_eq!(stub.requests().len(), 1 + usize::from(damage.is_some()));
    }
}

/// Bytes of the objects that are too large to be verified by a look.
const LARGE: usize = 66 * 1024 * 1024;

/// A store that finds an object on disk that another one fetched, with a byte flipped since at `damage`.
fn in_another_process(bench: &Bench, stub: &Stub, object: &Object, damage: Option<u64>) -> Arc<Store> {
    let store = bench.over(&stub.url);
    bench.run(store.complete(object)).unwrap();
    let entry = cache(&store).disk.entry_path(object);
    bench.run(store.shutdown());
    drop(store);
    if let Some(at) = damage {
        rot(&entry, at);
    }
    bench.over(&stub.url)
}

#[test]
fn in_another_process_an_entry_is_verified_before_its_first_use() {
    for object in [listed("x", &body(2_000_000)), unlisted("x")] {
        for damage in [None, Some(0), Some(1_999_999)] {
            let bench = Bench::new();
            let bytes = body(2_000_000);
            let stub = Stub::fixed(response("200 OK", &["cache-control: max-age=3600"], &bytes));
            let store = in_another_process(&bench, &stub, &object, damage);
            assert!(bench.drained(&store, &object).unwrap() == bytes);
            bench.run(store.complete(&object)).unwrap();
            let fetched = usize::from(damage.is_some());
            assert_eq!((stub.requests().len(), store.stats().damaged), (1 + fetched, fetched as u64));
        }
    }
}

#[test]
fn a_file_is_verified_in_steps_and_damage_reaches_no_client() {
    let bytes = body(20_000_000);
    for damage in [None, Some(0), Some(12_000_000), Some(19_999_999)] {
        let bench = Bench::new();
        let object = listed("x.rpm", &bytes);
        let stub = Stub::fixed(response("200 OK", &[], &bytes));
        let store = in_another_process(&bench, &stub, &object, damage);
        if damage.is_none() {
            let looked = cache(&store).disk.look(&object, Trust::Sealed(None, 0)).unwrap();
            assert!(matches!(looked, Look::Suspect(_)), "one look doesn't read all of it");
        }
        assert!(bench.drained(&store, &object).unwrap() == bytes, "{damage:?}");
        bench.run(store.complete(&object)).unwrap();
        let fetched = usize::from(damage.is_some());
        assert_eq!((stub.requests().len(), store.stats().damaged), (1 + fetched, fetched as u64));
        assert_eq!(store.stats().verified, 0, "{damage:?}");
    }
}

#[test]
fn an_open_entry_that_was_written_to_is_verified_anew() {
    let bench = Bench::new();
    let bytes = body(40_000);
    let object = listed("x.rpm", &bytes);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let store = bench.over(&stub.url);
    for round in 1..3 {
        bench.run(store.complete(&object)).unwrap();
        let content = store.peek(&object).unwrap();
        assert!(store.stands(&object, &content));
        tick();
        rot(&cache(&store).disk.entry_path(&object), 20_000);
        // The kernel's time of a change moves in steps of some milliseconds.
        while store.stands(&object, &content) {
            rot(&cache(&store).disk.entry_path(&object), 20_000);
            rot(&cache(&store).disk.entry_path(&object), 20_000);
        }
        assert!(store.peek(&object).is_none(), "it isn't at hand any more");
        assert!(bench.drained(&store, &object).unwrap() == bytes);
        assert_eq!((stub.requests().len(), store.stats().damaged), (1 + round, round as u64));
    }
}

#[test]
fn a_large_entry_is_verified_where_it_is_read_and_once_in_a_process() {
    let bench = Bench::new();
    let settings = Settings { disk_bytes: 256 * MIB, ..bench.settings() };
    let bytes = body(LARGE);
    let object = listed("x.iso", &bytes);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let store = bench.with(&stub.url, &settings);
    bench.run(store.complete(&object)).unwrap();
    bench.run(store.shutdown());
    drop(store);

    let store = bench.with(&stub.url, &settings);
    assert_eq!(bench.run(store.head(&object, ANY)).unwrap().meta.length, Some(LARGE as u64));
    let range = |start: usize, end: usize| ByteRange { start: start as u64, end: end as u64 };
    for (start, end) in [(LARGE - 100, LARGE), (40 * 1024 * 1024, 40 * 1024 * 1024 + 10)] {
        let content = bench.run(store.fetch_parts(&object, ANY)).unwrap();
        assert_eq!(content.tier, Tier::Disk);
        assert!(bench.run(read_range(content, range(start, end))).unwrap() == bytes[start..end]);
    }
    let sealed = || cache(&store).evictor.index.sealed(&cache(&store).disk.key(&object));
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    bench.run(store.complete(&object)).unwrap();
    assert!(sealed().is_some());
    let looked = |trust| cache(&store).disk.look(&object, trust).unwrap();
    assert!(matches!(looked(Trust::Sealed(sealed(), 0)), Look::Found(_)), "it isn't read a second time");
    assert!(matches!(looked(Trust::Sealed(None, 0)), Look::Suspect(_)));
    assert_eq!(stub.requests().len(), 1);
    bench.run(store.shutdown());
    let entry = cache(&store).disk.entry_path(&object);
    drop(store);

    // Readers of other parts than the rotten one get them; who reads that one gets nothing of it, and then the right bytes.
    rot(&entry, 50 * 1024 * 1024);
    let store = bench.with(&stub.url, &settings);
    let content = bench.run(store.fetch_parts(&object, ANY)).unwrap();
    assert!(bench.run(read_range(content, range(LARGE - 100, LARGE))).unwrap() == bytes[LARGE - 100..]);
    assert_eq!(store.stats().damaged, 0);
    let (start, end) = (50 * 1024 * 1024 - 10, 50 * 1024 * 1024 + 10);
    let content = bench.run(store.fetch_parts(&object, ANY)).unwrap();
    assert!(
        bench
            .run(read_range(content, range(start, end)))
            .is_err_and(|why| why.contains("isn't what was stored"))
    );
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    assert_eq!((stub.requests().len(), store.stats().damaged), (2, 1));
}

#[test]
fn a_large_entry_that_may_be_stale_is_revalidated_and_not_fetched_anew() {
    let bench = Bench::new();
    let settings = Settings { disk_bytes: 256 * MIB, ..bench.settings() };
    let bytes = body(LARGE);
    let whole = response("200 OK", &["etag: \"1\"", "cache-control: max-age=0"], &bytes);
    let stub = Stub::start(move |number, _, stream| {
        let unchanged = response("304 Not Modified", &["etag: \"1\"", "cache-control: max-age=0"], b"");
        send(stream, if number == 0 { &whole } else { &unchanged });
    });
    let object = unlisted("x.iso");
    let store = bench.with(&stub.url, &settings);
    bench.run(store.complete(&object)).unwrap();
    bench.run(store.shutdown());
    drop(store);
    let store = bench.with(&stub.url, &settings);
    assert!(bench.drained(&store, &object).unwrap() == bytes);
    assert_eq!(stub.requests().len(), 2);
    assert!(stub.requests()[1].contains("if-none-match: \"1\""));
}
