//! What a catalogue lists by digests of all kinds.

use super::*;
use crate::repo::{Algorithm, Digest};

fn listed_by(algorithm: Algorithm, name: &str, bytes: &[u8]) -> Object {
    Object::listed(path(name), Digest::of(algorithm, bytes), bytes.len() as u64)
}

#[test]
fn each_is_verified_kept_and_found_again() {
    let bench = Bench::new();
    let (small, large) = (body(900), body(200_000));
    let (a, b) = (small.clone(), large.clone());
    let stub = Stub::start(move |_, head, stream| {
        let bytes = if head.contains("/small") { &a } else { &b };
        send(stream, &response("200 OK", &[], bytes));
    });
    let objects = Algorithm::ALL.into_iter().flat_map(|algorithm| {
        let named = |name: &str| format!("{name}.{}", algorithm.name());
        [
            (listed_by(algorithm, &named("small"), &small), &small),
            (listed_by(algorithm, &named("large"), &large), &large),
        ]
    });
    let objects: Vec<_> = objects.collect();
    let store = bench.over(&stub.url);
    for (object, bytes) in &objects {
        assert!(bench.drained(&store, object).unwrap() == **bytes);
        bench.run(store.complete(object)).unwrap();
    }
    bench.run(store.shutdown());
    drop(store);
    let store = bench.over(&stub.url);
    for (object, bytes) in &objects {
        let found = bench.run(store.find(object)).unwrap();
        let digest = object.identity.unwrap().digest;
        assert_eq!(found.meta.etag, Some(etag(&digest)));
        assert_eq!((found.meta.listed, found.meta.sha256), (Some(digest), Some(Sha256::of(bytes))));
        // RFC 9530 has names for two of them that can be relied on; a file's SHA-256 is known once it is stored.
        let told = if digest.algorithm() == Algorithm::Sha512 { digest } else { Sha256::of(bytes).into() };
        assert_eq!(found.meta.repr_digest, repr_digest(&told));
        assert!(bench.run(drain(found)).unwrap() == **bytes);
    }
    assert_eq!(stub.requests().len(), objects.len());
}

#[test]
fn other_bytes_are_never_given_out_as_whole() {
    let bytes = body(200_000);
    let mut wrong = bytes.clone();
    wrong[100_000] ^= 1;
    for disk_bytes in [64 * MIB, MIB / 8] {
        let bench = Bench::new();
        let stub = Stub::fixed(response("200 OK", &[], &wrong));
        // Where there is no room it passes through.
        let settings = Settings { disk_bytes, memory_bytes: 0, ..bench.settings() };
        let store = bench.with(&stub.url, &settings);
        for algorithm in Algorithm::ALL {
            let why = bench.drained(&store, &listed_by(algorithm, "x.rpm", &bytes)).unwrap_err();
            let (right, came) = (Digest::of(algorithm, &bytes).hex(), Digest::of(algorithm, &wrong).hex());
            let title = algorithm.title();
            assert!(why.contains(&format!("{title} is {came}, listed is {right}")), "{why}");
            assert_eq!(bench.files("objects"), 0);
        }
    }
}

#[test]
fn one_path_by_two_algorithms_is_two_objects() {
    let bench = Bench::new();
    let bytes = body(5000);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let store = bench.over(&stub.url);
    for algorithm in Algorithm::ALL {
        bench.run(store.complete(&listed_by(algorithm, "x", &bytes))).unwrap();
    }
    assert_eq!(bench.files("objects"), Algorithm::ALL.len());
}

#[test]
fn a_tree_keeps_what_rsync_has_replaced() {
    for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512] {
        let bench = Bench::new();
        let root = bench.dir.path().join("tree");
        fs::create_dir_all(&root).unwrap();
        let links = bench.dir.path().join("links");
        let origin = DirectoryOrigin::open(&root, Some(&links)).unwrap();
        let origin = Origin::Directory(Arc::new(origin));
        let store = Store::open(origin, &bench.settings(), bench.background.handle()).unwrap();
        let (old, new) = (listed_by(algorithm, "x", b"old"), listed_by(algorithm, "x", b"new"));
        fs::write(root.join("x"), b"old").unwrap();
        let retained = bench.run(store.retain(vec![(old.path.clone(), old.identity.unwrap())])).unwrap();
        assert_eq!(retained.made, 1);
        fs::write(root.join("t"), b"new").unwrap();
        fs::rename(root.join("t"), root.join("x")).unwrap();
        for _ in 0..2 {
            assert_eq!(bench.drained(&store, &old).unwrap(), b"old", "{algorithm:?}");
            assert_eq!(bench.drained(&store, &new).unwrap(), b"new");
            let keep = HashSet::from([old.identity.unwrap().digest]);
            assert_eq!(bench.run(store.sweep(keep)).unwrap(), 0);
            bench.run(store.purge(&old));
        }
        let others = HashSet::from([new.identity.unwrap().digest]);
        assert_eq!(bench.run(store.sweep(others)).unwrap(), 1);
        assert!(bench.drained(&store, &old).is_err());
    }
}
