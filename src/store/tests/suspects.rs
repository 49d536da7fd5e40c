//! What was stored before the machine went down: verified before anybody gets it. The boot id in the directory's own state
//! stands for the machine's.

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
