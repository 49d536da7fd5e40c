//! The order of eviction against a simple reference, and the books of the index under threads.

use super::policy::{Counted, MOST_USES, Policy};
use super::queues::{Queue, Queues};
use super::*;
use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::store::Object;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Barrier, OnceLock};
use tempfile::TempDir;

#[derive(Debug, Default)]
struct Count(Cell<u8>);

impl Counted for Count {
    fn uses(&self) -> u8 {
        self.0.get()
    }

    fn set_uses(&self, uses: u8) {
        self.0.set(uses);
    }
}

type Plain = Policy<u32, Count>;

fn touch(policy: &Plain, key: u32) {
    if let Some((count, _)) = policy.get(&key) {
        count.0.set((count.0.get() + 1).min(MOST_USES));
    }
}

/// A fetch through a cache of `bound` bytes; whether it was a hit.
fn fetch(policy: &mut Plain, bound: u64, key: u32, bytes: u64) -> bool {
    if policy.get(&key).is_some() {
        touch(policy, key);
        return true;
    }
    while policy.bytes() + bytes > bound {
        policy.evict().unwrap();
    }
    policy.store(key, bytes);
    false
}

fn victims(policy: &mut Plain) -> Vec<u32> {
    std::iter::from_fn(|| policy.evict()).map(|victim| victim.key).collect()
}

#[test]
fn the_unused_go_first_in_first_out_and_the_used_after_them() {
    let mut policy = Plain::new(10);
    for key in 0..10 {
        policy.store(key, 5);
    }
    for key in [3, 3, 7, 7, 7, 8] {
        touch(&policy, key);
    }
    assert_eq!(victims(&mut policy), [0, 1, 2, 4, 5, 6, 8, 9, 3, 7], "one use on probation isn't enough");
    assert_eq!((policy.len(), policy.bytes()), (0, 0));
}

#[test]
fn a_ghost_that_returns_is_proven() {
    let mut policy = Plain::new(1000);
    for key in 0..20 {
        policy.store(key, 50);
    }
    assert_eq!(policy.evict().map(|victim| victim.key), Some(0));
    assert_eq!(policy.evict().map(|victim| victim.key), Some(1));
    policy.store(0, 50);
    policy.remove(&2);
    policy.store(2, 50);
    let order = victims(&mut policy);
    // Until the probations are down to their share of 100; then the main queue, which is the ghost alone.
    assert_eq!(order[..16], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
    assert_eq!(order[16..], [0, 19, 2], "what was removed left no ghost");
}

#[test]
fn a_scan_leaves_what_is_in_use() {
    const BOUND: u64 = 1_000_000;
    let mut policy = Plain::new(BOUND);
    let hot = 0..800;
    for _ in 0..4 {
        hot.clone().for_each(|key| _ = fetch(&mut policy, BOUND, key, 1000));
    }
    // Ten times the cache, in one pass.
    (1000..11_000).for_each(|key| _ = fetch(&mut policy, BOUND, key, 1000));
    let left = hot.filter(|key| policy.get(key).is_some()).count();
    assert_eq!(left, 800);
    assert!(policy.bytes() > BOUND - 1000);
}

#[test]
fn a_large_object_pushes_no_small_ones_from_their_probation() {
    const BOUND: u64 = 1_000_000;
    let mut policy = Plain::new(BOUND);
    for _ in 0..3 {
        (0..900).for_each(|key| _ = fetch(&mut policy, BOUND, key, 1000));
    }
    // What is on probation: small ones, half of the share of 100,000.
    (1000..1050).for_each(|key| _ = fetch(&mut policy, BOUND, key, 1000));
    for large in 2000..2020 {
        fetch(&mut policy, BOUND, large, 90_000);
    }
    let left =
        |policy: &Plain, keys: std::ops::Range<u32>| keys.filter(|key| policy.get(key).is_some()).count();
    assert_eq!(left(&policy, 1000..1050), 50);
    assert!(left(&policy, 2000..2020) <= 1 && left(&policy, 0..900) >= 850);
}

#[test]
fn what_a_restart_found_goes_by_age_and_after_new_uses_not() {
    let mut policy = Plain::new(1000);
    let ages = [5, 4_000_000_000, 60, 0, 90_000, 1, u64::MAX, 3600];
    for (key, age) in (0..).zip(ages) {
        policy.walk(key, 10, age);
    }
    policy.walk(2, 99, 0);
    touch(&policy, 1);
    policy.store(100, 10);
    assert_eq!(policy.bytes(), 90);
    assert_eq!(victims(&mut policy), [6, 4, 7, 2, 0, 5, 3, 1, 100]);
    assert_eq!((policy.len(), policy.bytes()), (0, 0));
}

#[test]
fn an_endless_run_of_uses_ends() {
    let mut policy = Plain::new(1000);
    for key in 0..20_000 {
        policy.find(key, 1);
        (0..9).for_each(|_| touch(&policy, key));
    }
    // Bounded: the first call gives ten thousand another round, and then takes the next.
    assert_eq!(policy.evict().map(|victim| victim.key), Some(10_000));
}

#[derive(Clone, Debug)]
enum Step {
    Store(u32, u64),
    Find(u32, u64),
    Walk(u32, u64, u64),
    Touch(u32),
    Remove(u32),
    Evict,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..24_u32;
    let bytes = prop_oneof![0..20_u64, 20..400_u64];
    let step = prop_oneof![
        4 => (key.clone(), bytes.clone()).prop_map(|(k, b)| Step::Store(k, b)),
        1 => (key.clone(), bytes.clone()).prop_map(|(k, b)| Step::Find(k, b)),
        2 => (key.clone(), bytes, 0..1u64 << 40).prop_map(|(k, b, a)| Step::Walk(k, b, a)),
        6 => key.clone().prop_map(Step::Touch),
        1 => key.prop_map(Step::Remove),
        4 => Just(Step::Evict),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn no_key_is_lost_or_there_twice_and_sizes_add_up(steps in steps()) {
        let mut policy = Plain::new(1000);
        // Key to bytes.
        let mut reference = BTreeMap::<u32, u64>::new();
        for step in steps {
            match step {
                Step::Store(key, bytes) => {
                    policy.store(key, bytes);
                    reference.insert(key, bytes);
                }
                Step::Find(key, bytes) => {
                    policy.find(key, bytes);
                    reference.insert(key, bytes);
                }
                Step::Walk(key, bytes, age) => {
                    policy.walk(key, bytes, age);
                    reference.entry(key).or_insert(bytes);
                }
                Step::Touch(key) => touch(&policy, key),
                Step::Remove(key) => {
                    prop_assert_eq!(policy.remove(&key).is_some(), reference.remove(&key).is_some());
                }
                Step::Evict => {
                    if let Some(victim) = policy.evict() {
                        prop_assert_eq!(reference.remove(&victim.key), Some(victim.bytes));
                    } else {
                        prop_assert!(reference.is_empty());
                    }
                }
            }
            prop_assert_eq!(policy.bytes(), reference.values().sum::<u64>());
            prop_assert_eq!(policy.len(), reference.len());
            for (key, bytes) in &reference {
                prop_assert_eq!(policy.get(key).map(|(_, bytes)| bytes), Some(*bytes));
            }
        }
        let mut all = victims(&mut policy);
        all.sort_unstable();
        prop_assert_eq!(all, reference.into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn queues_keep_the_order_of_arrival(moves in prop::collection::vec((0..12_u32, 0..4_u8), 0..100)) {
        let mut queues = Queues::<u32, Count>::new(3);
        let mut reference: [Vec<u32>; 3] = Default::default();
        for (key, to) in moves {
            reference.iter_mut().for_each(|queue| queue.retain(|other| *other != key));
            match (queues.find(&key), reference.get_mut(usize::from(to))) {
                (Some(at), None) => drop(queues.remove(at)),
                (Some(at), Some(queue)) => {
                    queues.move_to(at, Queue(to));
                    queue.push(key);
                }
                (None, Some(queue)) => {
                    queues.insert(key, u64::from(key), Queue(to));
                    queue.push(key);
                }
                (None, None) => {}
            }
            for (number, queue) in (0..).map(Queue).zip(&reference) {
                prop_assert_eq!(&queues.keys(number), queue);
                prop_assert_eq!(queues.bytes_of(number), queue.iter().copied().map(u64::from).sum::<u64>());
                prop_assert_eq!(queues.oldest(number).map(|at| queues.get(at).key), queue.first().copied());
            }
        }
    }
}

const BLOCK: u64 = 4096;

/// Only a disk makes keys.
fn key(number: u32) -> Key {
    static DISK: OnceLock<(TempDir, Disk)> = OnceLock::new();
    let (_, disk) = DISK.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let disk = Disk::open(dir.path(), String::new()).unwrap();
        (dir, disk)
    });
    disk.key(&Object::unlisted(TreePath::new(&number.to_string()).unwrap()))
}

#[test]
fn room_is_whole_blocks_and_is_given_back() {
    let index = Arc::new(Index::new(10 * BLOCK));
    index.loaded();
    let room = |bytes| index.promise(bytes).filter(Promise::is_covered).map(Promise::keep);
    let nine = room(8 * BLOCK + 1).unwrap();
    assert_eq!(nine.bytes, 9 * BLOCK);
    assert!(room(BLOCK + 1).is_none() && room(u64::MAX).is_none());
    let last = room(BLOCK).unwrap();
    assert!(index.promise(1).is_none(), "all is reserved by fills, and nothing could go");
    drop(nine);
    assert!(room(9 * BLOCK).is_some());
    drop(last);
    assert!(room(10 * BLOCK).is_some());
}

#[test]
fn what_is_stored_leaves_its_reservation_at_once() {
    let index = Arc::new(Index::new(10 * BLOCK));
    index.loaded();
    let mut room = index.promise(4 * BLOCK).unwrap().keep();
    room.spend(key(1), BLOCK);
    room.spend(key(1), 3 * BLOCK);
    assert_eq!((room.bytes, index.figures()), (BLOCK, (1, 3 * BLOCK)));
    // Its new version takes the place of the old one: what the old one took is not spent twice.
    let mut newer = index.promise(4 * BLOCK).unwrap().keep();
    newer.spend(key(1), 4 * BLOCK);
    assert_eq!((newer.bytes, index.figures()), (3 * BLOCK, (1, 4 * BLOCK)));
    drop((room, newer));
    assert!(index.promise(6 * BLOCK).is_some_and(|promise| promise.is_covered()));
}

#[test]
fn the_surplus_of_a_victim_is_nobodys_until_its_file_is_gone() {
    let index = Arc::new(Index::new(10 * BLOCK));
    index.loaded();
    index.promise(10 * BLOCK).unwrap().keep().spend(key(1), 10 * BLOCK);
    let mut promise = index.promise(BLOCK).unwrap();
    let index::Step::Evicted(victims) = promise.cover() else { panic!("covered by nothing") };
    assert_eq!(victims.iter().map(|victim| victim.bytes).collect::<Vec<_>>(), [10 * BLOCK]);
    // There will be room for another, which isn't refused; but not yet.
    let mut other = index.promise(9 * BLOCK).unwrap();
    assert!(!other.is_covered() && index.promise(1).is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| matches!(other.cover(), index::Step::Covered));
        promise.settle();
        assert!(waiting.join().unwrap());
    });
    assert_eq!((promise.keep().bytes, other.keep().bytes), (BLOCK, 9 * BLOCK));
    assert!(index.promise(10 * BLOCK).is_some_and(|promise| promise.is_covered()));
}

#[test]
fn found_before_the_walk_is_done_is_proven() {
    let index = Arc::new(Index::new(100 * BLOCK));
    let at = Timestamp::from_secs;
    index.note(key(1), BLOCK);
    index.note_walked(key(1), 7 * BLOCK, at(1), at(100));
    index.note_walked(key(2), BLOCK, at(99), at(100));
    index.note_walked(key(3), BLOCK, at(50), at(100));
    index.loaded();
    index.note(key(4), BLOCK);
    let (victims, freed) = index.some(u64::MAX);
    let order: Vec<_> = victims.iter().map(|victim| victim.key).collect();
    assert_eq!((order, freed), (vec![key(3), key(2), key(1), key(4)], 4 * BLOCK));
}

/// Threads that reserve, store and drop on a full index: nobody is refused, and the books hold at every moment.
#[test]
fn racing_reservations_are_never_refused_and_never_pass_the_bound() {
    const THREADS: u32 = 8;
    const BOUND: u64 = 1000 * BLOCK;
    let index = Arc::new(Index::new(BOUND));
    index.loaded();
    let barrier = Barrier::new(THREADS as usize);
    // What a disk would hold.
    let disk = std::sync::Mutex::new(BTreeMap::<Vec<u8>, u64>::new());
    let written = |key: &Key, bytes: Option<u64>| {
        let mut disk = disk.lock().unwrap();
        let name = format!("{key:?}").into_bytes();
        match bytes {
            Some(bytes) => drop(disk.insert(name, bytes)),
            None => assert!(disk.remove(&name).is_some(), "evicted once"),
        }
        let total: u64 = disk.values().sum();
        assert!(total <= BOUND, "{total}");
        total
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (index, barrier, written) = (&index, &barrier, &written);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(u64::from(thread));
                barrier.wait();
                for round in 0..400 {
                    let own = key(thread * 10_000 + round);
                    let bytes = BLOCK * random.u64(1..if round % 50 == 0 { 120 } else { 10 });
                    let mut promise = index.promise(bytes).expect("it fits beside the others");
                    loop {
                        match promise.cover() {
                            index::Step::Covered => break,
                            index::Step::Evicted(victims) => {
                                victims.iter().for_each(|victim| _ = written(&victim.key, None));
                                promise.settle();
                            }
                            index::Step::Short => panic!("refused"),
                        }
                    }
                    let mut room = promise.keep();
                    written(&own, Some(bytes));
                    room.spend(own, bytes);
                    drop(room);
                }
            });
        }
    });
    let (files, total) = {
        let disk = disk.lock().unwrap();
        (disk.len() as u64, disk.values().sum::<u64>())
    };
    assert_eq!(index.figures(), (files, total));
    assert!(total > BOUND - 120 * BLOCK);
    assert!(index.promise(BOUND).is_some(), "nothing stays promised or reserved");
}
