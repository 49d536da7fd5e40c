use super::*;
use crate::metrics::Metrics;
use crate::mirrors::check::{Doubt, Place};
use crate::mirrors::client::MirrorClient;
use crate::mirrors::families::Family;
use crate::mirrors::tests::{Node, files, first, mirror};
use crate::mirrors::{Known, Probes, Shared};
use crate::policy::MirrorState;
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
        permits: Semaphore::new(1),
        known: Known { ours: Arc::new(|_, _, _, _, _| Box::pin(async { None })), sightings: Arc::default() },
        updates: mpsc::channel(1).0,
    };
    let state = MirrorState::untried(Arc::new(mirror(0, "http://127.0.0.1:1/")), 1);
    let place = Place { mirror: 0, family: Family::V4, lanes: Arc::new(Semaphore::new(1)) };
    Worker::new(Arc::new(shared), place, state, mpsc::channel(1).1, watch::channel(0).1)
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
    assert_eq!(urls, [worker.url(0, crate::repo::REPOMD), "http://127.0.0.1:1/".to_owned()]);

    // A file that a client came back for.
    worker.state.pairs[0].proof = Some(Proof { sequence: 1, shown: 1, verified: clock::now() });
    let path = worker.repos.views()[0].repo.path.join("Packages/a.rpm").unwrap();
    assert!(worker.finish(Ok(Done::Bounced { path, result: Err(Failure::Status(500)) })));
    assert!(worker.state.reach.is_up(), "{:?}", worker.state.reach);
    assert_eq!(worker.state.pairs[0].proof, None);
    assert_eq!(worker.state.pairs[0].note, "a client came back: Packages/a.rpm answers 500");
    assert!(worker.liveness.due <= now(), "whether it is alone is asked at once");

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

    // A generation that doesn't list the file was verified, then the part was asked for again.
    for settled in [false, true] {
        let base = worker.state.pairs[0].proof;
        let verified = Done::Verified { repo: 0, target: 1, base, result: Ok(1), ranges: None, settled };
        worker.finish(Ok(verified));
        assert_eq!(worker.slots[0].doubted.is_none(), settled);
    }
}
