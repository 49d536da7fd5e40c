use super::*;
use crate::metrics::Metrics;
use crate::mirrors::check::{Doubt, Place, Settled};
use crate::mirrors::client::MirrorClient;
use crate::mirrors::families::Family;
use crate::mirrors::findings::Base;
use crate::mirrors::lanes::Lanes;
use crate::mirrors::tests::{Node, files, first, mirror};
use crate::mirrors::worker::BOUNCE_PAUSE;
use crate::mirrors::worker::ask::checked;
use crate::mirrors::{Known, Probes, Shared};
use crate::policy::{Exceptions, Fault, MirrorState, Proof};
use crate::store::Comparison;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

const TIMEOUT: Duration = Duration::from_secs(1);

/// The worker of a mirror that nobody asks anything, in a node of one repo.
fn worker() -> Worker {
    let settings =
        Probes { liveness_every: TIMEOUT, probe_every: Duration::from_secs(3600), ..Probes::default() };
    let shared = Shared {
        settings,
        published: Node::published(first(&files(&["a"]))),
        metrics: Arc::new(Metrics::new()),
        clients: MirrorClient::both(TIMEOUT, "", false).unwrap(),
        permits: Arc::new(Semaphore::new(1)),
        known: Known {
            ours: Arc::new(|_, _, _, _, _| Box::pin(async { Comparison::Unknown })),
            lacking: Arc::new(|_, _, _| Box::pin(async { false })),
            sightings: Arc::default(),
        },
        updates: mpsc::channel(1).0,
    };
    let state = MirrorState::untried(Arc::new(mirror(0, "http://127.0.0.1:1/")), 1);
    let place = Place {
        mirror: 0,
        family: Family::V4,
        lanes: Arc::new(Lanes::new(shared.permits.clone())),
        pace: Arc::default(),
        hosts: Arc::default(),
        allowance: Arc::default(),
    };
    Worker::new(Arc::new(shared), place, state, mpsc::channel(1).1, watch::channel(0).1)
}

/// The path of a file of the node's only repo.
fn worker_path(file: &str) -> TreePath {
    TreePath::new("7/updates/x86_64").and_then(|root| root.join(file)).unwrap()
}

#[tokio::test]
async fn a_check_that_waits_takes_little_memory() {
    let worker = worker();
    let asker = worker.asker(0);
    let findings =
        Findings::begin(worker.history(0), Base::default(), 1, 1, &mut fastrand::Rng::with_seed(1));
    let check = Mutex::new(findings);
    let bytes = size_of_val(&checked(&asker, &check, None, Vec::new()));
    assert!(bytes <= 4096, "{bytes}");
}

#[tokio::test]
async fn bounces_wait_for_their_turn_and_none_is_dropped() {
    let mut worker = worker();
    worker.finish(Ok(Done::Alive(Ok(()))));
    worker.bounces.after = now() + Duration::from_secs(3600);
    for file in ["a", "b", "a"] {
        worker.bounces.wait(worker_path(&format!("Packages/{file}.rpm")).as_str().to_owned(), 0);
    }
    worker.start_due();
    assert_eq!(worker.bounces.waiting.len(), 2, "each file once, and none before its turn");
    worker.bounces.after = now();
    assert!(worker.next_due() <= now(), "the loop wakes up for it");
    worker.start_due();
    assert_eq!(worker.bounces.waiting.len(), 1);
    assert!(worker.bounces.after > now() + BOUNCE_PAUSE / 2);
}

#[tokio::test]
async fn a_mirror_that_is_alive_but_fails_each_look_is_asked_ever_more_slowly() {
    let mut worker = worker();
    let alive = |worker: &mut Worker| {
        worker.finish(Ok(Done::Alive(Ok(()))));
    };
    let looked = |worker: &mut Worker, result| {
        worker.finish(Ok(Done::Looked { repo: 0, result, took: Duration::ZERO }))
    };
    let pause = |worker: &Worker| worker.liveness.due.saturating_duration_since(now());
    for round in 0..8 {
        alive(&mut worker);
        looked(&mut worker, Err(Failure::Timeout(TIMEOUT)));
        assert!(!worker.state.reach.is_up());
        assert!(pause(&worker) > TIMEOUT.mul_f64(0.8) * (1 << round), "{round}: {:?}", pause(&worker));
    }
    // Up, and all was looked at: the next failure is the first again, though not before it is seen to live once more.
    let shows = || Ok(Looked::New(Seen::Gone("no repomd.xml (404)".to_owned()), None));
    alive(&mut worker);
    looked(&mut worker, shows());
    assert!(worker.state.reach.is_up() && worker.liveness.failures == 8);
    alive(&mut worker);
    assert_eq!(worker.liveness.failures, 0);
}

#[tokio::test]
async fn an_error_of_one_path_is_not_the_mirrors() {
    let mut worker = worker();
    worker.finish(Ok(Done::Alive(Ok(()))));
    worker.finish(Ok(Done::Looked { repo: 0, result: Err(Failure::Status(503)), took: Duration::ZERO }));
    assert!(worker.state.reach.is_up(), "{:?}", worker.state.reach);
    assert_eq!(worker.state.pairs[0].note, "repomd.xml answers 503");

    let id = worker.history(0).current().unwrap().id;
    worker.state.pairs[0].seen = Some(id);
    let urls = worker.liveness_urls();
    assert_eq!(urls, [worker.root_url(0), "http://127.0.0.1:1/".to_owned()]);

    // A file that a client came back for.
    worker.state.pairs[0].proof = Some(Proof { sequence: 1, shown: 1, verified: clock::now() });
    let path = || worker_path("Packages/a.rpm");
    let missed =
        || Missed { path: "Packages/a.rpm".to_owned(), why: "answers 500".to_owned(), transient: false };
    let failed = |failure, more| Err((failure, Lapse { missed: missed(), fault: Fault::Mirror, more }));
    let busy = || Failure::Busy { status: 429, after: None };
    for tries in 0..2 {
        let done = Done::Bounced { path: path(), tries, result: failed(busy(), false) };
        assert!(!worker.finish(Ok(done)), "that says nothing of the file");
        assert_eq!(worker.bounces.waiting.pop_front(), Some((path().as_str().to_owned(), tries + 1)));
    }
    let result = failed(Failure::Status(500), false);
    assert!(worker.finish(Ok(Done::Bounced { path: path(), tries: 0, result })));
    assert!(worker.state.reach.is_up(), "{:?}", worker.state.reach);
    assert!(
        worker.state.pairs[0].proof.is_some() && worker.state.pairs[0].exceptions.contains("Packages/a.rpm")
    );
    let note = "a client came back: Packages/a.rpm answers 500; still proven for generation 1, except Packages/a.rpm";
    assert_eq!(worker.state.pairs[0].note, note);
    assert!(worker.liveness.due <= now(), "whether it is alone is asked at once");

    worker.state.pairs[0].exceptions = Exceptions::default();
    let result = failed(Failure::Status(404), true);
    assert!(worker.finish(Ok(Done::Bounced { path: path(), tries: 0, result })));
    assert_eq!(worker.state.pairs[0].proof, None, "others are gone, too");

    worker.finish(Ok(Done::Alive(Err(Failure::Status(503)))));
    assert!(!worker.state.reach.is_up());
}

#[tokio::test]
async fn a_doubt_stays_until_the_very_part_is_right() {
    let mut worker = worker();
    worker.finish(Ok(Done::Alive(Ok(()))));
    worker.state.pairs[0].proof = Some(Proof { sequence: 1, shown: 1, verified: clock::now() });
    let file = judge::File { path: "Packages/a.rpm".to_owned(), size: 10, digest: None };
    let part = crate::http::ByteRange { start: 2, end: 4 };
    let doubt = Doubt { file, part, ours: bytes::Bytes::from_static(b"xy") };
    worker.finish(Ok(Done::Spotted { repo: 0, result: Ok(Compared::Differs(doubt)), throughput: None }));
    assert_eq!(worker.state.pairs[0].proof, None);
    let note = "Packages/a.rpm has other bytes than listed, from byte 2 on, though it was proven";
    assert_eq!(worker.state.pairs[0].note, note);

    // Checks that found nothing of it leave it as it is, and one that found another part wrong takes its place.
    let doubt = worker.slots[0].doubted.clone().unwrap();
    let other = Doubt { part: crate::http::ByteRange { start: 5, end: 6 }, ..doubt };
    for (found, left) in [(Settled::No, Some(2)), (Settled::Wrong(other), Some(5)), (Settled::Yes, None)] {
        let base = Base::of(&worker.state.pairs[0]);
        let check = Findings::begin(worker.history(0), base, 1, 9, &mut fastrand::Rng::new());
        let (check, result) = (Arc::new(Mutex::new(check)), Ok(Held { files: 1, ..Held::default() }));
        let verified = Done::Verified { repo: 0, check, result, ranges: None, settled: found };
        worker.finish(Ok(verified));
        assert_eq!(worker.slots[0].doubted.as_ref().map(|doubt| doubt.part.start), left);
    }
}

#[tokio::test]
async fn wrong_bytes_of_a_new_file_take_away_what_was_proven_before() {
    let mut worker = worker();
    worker.finish(Ok(Done::Alive(Ok(()))));
    worker.state.pairs[0].proof = Some(Proof { sequence: 1, shown: 1, verified: clock::now() });
    let base = Base::of(&worker.state.pairs[0]);
    let check = Findings::begin(worker.history(0), base, 1, 9, &mut fastrand::Rng::new());
    let file = judge::File { path: "Packages/b.rpm".to_owned(), size: 10, digest: None };
    let part = crate::http::ByteRange { start: 2, end: 4 };
    let doubt = Doubt { file, part, ours: bytes::Bytes::from_static(b"xy") };
    let (check, result) = (Arc::new(Mutex::new(check)), Err(doubt.missed()));
    let settled = Settled::Wrong(doubt);
    worker.slots[0].running = true;
    worker.finish(Ok(Done::Verified { repo: 0, check, result, ranges: None, settled }));
    assert_eq!(worker.state.pairs[0].proof, None);
    assert_eq!(worker.state.pairs[0].note, "Packages/b.rpm has other bytes than listed, from byte 2 on");
    assert!(worker.slots[0].doubted.is_some() && worker.slots[0].due <= now(), "it is checked anew at once");
}

#[tokio::test]
async fn one_broken_repo_keeps_no_mirror_out_that_is_back_and_a_busy_mirror_is_waited_for() {
    let busy = Failure::Busy { status: 429, after: Some(Duration::from_secs(60)) };
    for (failure, is_back) in [(Failure::Status(500), true), (busy, false)] {
        let mut worker = worker();
        worker.finish(Ok(Done::Alive(Ok(()))));
        let proof = Some(Proof { sequence: 1, shown: 1, verified: clock::now() });
        worker.state.pairs[0].proof = proof;
        worker.finish(Ok(Done::Alive(Err(Failure::Timeout(TIMEOUT)))));
        worker.finish(Ok(Done::Alive(Ok(()))));
        assert!(worker.slots[0].awaited && !worker.state.reach.is_up(), "it is to show what it has");
        worker.finish(Ok(Done::Looked { repo: 0, result: Err(failure), took: Duration::ZERO }));
        let pair = &worker.state.pairs[0];
        assert_eq!((worker.state.reach.is_up(), pair.proof.is_none()), (is_back, is_back), "{pair:?}");
    }
}

#[tokio::test]
async fn a_mirror_is_slow_once_it_was_so_twice() {
    let mut worker = worker();
    for (measured, told) in
        [(1_000_000, Some(1_000_000)), (9_000, Some(1_000_000)), (8_000, Some(8_000)), (40_000, Some(40_000))]
    {
        worker.measured(Some(measured));
        worker.measured(None);
        assert_eq!(worker.state.throughput, told, "{measured}");
    }
    assert!(!worker.state.is_slow());
}
