//! Whether the store contradicts what others say.

use super::*;

const PART: ByteRange = ByteRange { start: 10, end: 20 };

#[test]
fn only_what_is_right_itself_contradicts() {
    let bench = Bench::new();
    let bytes = body(5000);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let store = bench.over(&stub.url);
    let object = listed("large", &bytes);
    let (right, wrong) = (Bytes::copy_from_slice(&bytes[10..20]), Bytes::from_static(b"other byte"));
    let compare = |store: &Store, theirs: &Bytes| bench.run(store.compare(&object, PART, theirs.clone()));
    assert_eq!(compare(&store, &wrong), Comparison::Unknown, "nothing is at hand");
    assert_eq!(stub.requests().len(), 0, "and nothing is fetched");

    bench.run(store.complete(&object)).unwrap();
    let both = |store: &Store| {
        assert_eq!(compare(store, &right), Comparison::Same);
        assert_eq!(compare(store, &wrong), Comparison::Differs(right.clone()));
    };
    both(&store);
    drop(store);
    // From the disk alone.
    let store = bench.over(&stub.url);
    both(&store);
    assert!(store.peek(&object).is_none(), "it was not taken into memory");

    // Rotten behind an open file, which nothing but the SHA-256 can tell.
    bench.run(store.complete(&object)).unwrap();
    assert!(store.peek(&object).is_some());
    let entry = cache(&store).disk.entry_path(&object);
    let mut rotten = fs::read(&entry).unwrap();
    rotten[17] ^= 1;
    fs::write(&entry, rotten).unwrap();
    assert_eq!(compare(&store, &right), Comparison::Unknown, "it is the node that is wrong");
    assert_eq!((entry.exists(), store.stats().damaged), (false, 1));
}

#[test]
fn a_small_body_contradicts_from_memory() {
    let bench = Bench::new();
    let bytes = body(500);
    let stub = Stub::fixed(response("200 OK", &[], &bytes));
    let store = bench.over(&stub.url);
    let object = listed("small", &bytes);
    bench.run(store.complete(&object)).unwrap();
    let theirs = Bytes::from_static(b"other byte");
    let ours = Bytes::copy_from_slice(&bytes[10..20]);
    assert_eq!(bench.run(store.compare(&object, PART, theirs)), Comparison::Differs(ours));
    let beyond = ByteRange { start: 495, end: 505 };
    assert_eq!(bench.run(store.compare(&object, beyond, Bytes::new())), Comparison::Unknown);
}

#[test]
fn a_tree_that_is_wrong_itself_contradicts_nobody() {
    let bench = Bench::new();
    let bytes = body(5000);
    let (store, root) = super::tree::tree(&bench);
    fs::write(root.join("f"), &bytes).unwrap();
    let object = listed("f", &bytes);
    let (right, wrong) = (Bytes::copy_from_slice(&bytes[10..20]), Bytes::from_static(b"other byte"));
    let compare = |theirs: &Bytes| bench.run(store.compare(&object, PART, theirs.clone()));
    assert_eq!((compare(&right), compare(&wrong)), (Comparison::Same, Comparison::Differs(right.clone())));
    let mut rotten = bytes.clone();
    rotten[17] ^= 1;
    fs::write(root.join("f"), rotten).unwrap();
    assert_eq!(compare(&right), Comparison::Unknown);
}
