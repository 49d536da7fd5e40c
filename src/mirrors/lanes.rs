//! How many requests are under way: to one mirror, and to all of them.
//!
//! Mirrors take turns. While one has its turn, its requests follow each other. If each of them queued behind those of a
//! thousand other mirrors, a connection would be closed before its next request, and each request would open another.

use crate::clock;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Requests to one mirror at a time.
pub(super) const LANES: usize = 4;
/// A mirror that has more to be asked keeps its permits among all probes for this long.
const TURN: Duration = Duration::from_secs(1);

/// A request that takes longer gives its permit among all probes back.
const SLOW: Duration = Duration::from_secs(1);

/// The requests to one mirror, over both families.
#[derive(Debug)]
pub(super) struct Lanes {
    own: Semaphore,
    /// Over all mirrors.
    all: Arc<Semaphore>,
    turn: Mutex<Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    /// Requests that wait for one of the mirror's own permits: each will look for what is kept.
    waiting: usize,
    /// Permits among all probes, and when the mirror got them. None unless a request waits.
    kept: Vec<(OwnedSemaphorePermit, Instant)>,
}

/// A request that is under way.
#[derive(Debug)]
struct Lane<'a> {
    lanes: &'a Lanes,
    all: Option<(OwnedSemaphorePermit, Instant)>,
    // Given back after `all`: the next request looks for that first.
    _own: SemaphorePermit<'a>,
}

/// A request that waits for a permit of the mirror.
struct Waits<'a>(&'a Lanes);

impl Lanes {
    pub(super) fn new(all: Arc<Semaphore>) -> Self {
        Self { own: Semaphore::new(LANES), all, turn: Mutex::default() }
    }

    /// Makes a request once the mirror may be asked and one more probe may be under way. One that takes long costs the node a
    /// socket and nothing else: another mirror may be asked meanwhile, so that slow ones keep only themselves waiting.
    pub(super) async fn run<T>(&self, request: impl Future<Output = T>) -> T {
        let mut lane = self.acquire().await;
        let mut request = Box::pin(request);
        if let Ok(answer) = tokio::time::timeout(SLOW, &mut request).await {
            return answer;
        }
        if let Some(lane) = &mut lane {
            lane.all = None;
        }
        request.await
    }

    /// Waits until the mirror may be asked, then until one more probe may be under way. Held for one request only.
    async fn acquire(&self) -> Option<Lane<'_>> {
        let waits = Waits::begin(self);
        let own = self.own.acquire().await.ok()?;
        let kept = self.lock().kept.pop();
        drop(waits);
        let all = match kept {
            Some(kept) => kept,
            None => (self.all.clone().acquire_owned().await.ok()?, now()),
        };
        Some(Lane { lanes: self, all: Some(all), _own: own })
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Waits<'a> {
    fn begin(lanes: &'a Lanes) -> Self {
        lanes.lock().waiting += 1;
        Self(lanes)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut turn = self.0.lock();
        turn.waiting -= 1;
        if turn.waiting == 0 {
            turn.kept.clear();
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let mut turn = self.lanes.lock();
        let kept = self.all.take().filter(|(_, begun)| turn.waiting > 0 && begun.elapsed() < TURN);
        turn.kept.extend(kept);
    }
}

fn now() -> Instant {
    clock::monotonic().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn got<'a>(polled: Poll<Option<Lane<'a>>>) -> Lane<'a> {
        match polled {
            Poll::Ready(Some(lane)) => lane,
            other => panic!("{other:?}"),
        }
    }

    /// One probe may be under way, and it is one of `mirror`.
    fn scene() -> (Arc<Semaphore>, Lanes, Lanes) {
        let all = Arc::new(Semaphore::new(1));
        (all.clone(), Lanes::new(all.clone()), Lanes::new(all))
    }

    #[tokio::test]
    async fn a_mirror_keeps_its_turn_while_it_has_requests_and_not_for_longer() {
        let (all, mirror, other) = scene();
        // Three are under way or wait for the only place among all.
        let first = mirror.acquire().await.unwrap();
        let mut others = pin!(other.acquire());
        assert!(poll(others.as_mut()).is_pending());
        let blocked: Vec<_> = (1..LANES).map(|_| Box::pin(mirror.acquire())).collect();
        let mut blocked = blocked;
        assert!(blocked.iter_mut().all(|blocked| poll(blocked.as_mut()).is_pending()));
        let (mut second, mut third) = (pin!(mirror.acquire()), pin!(mirror.acquire()));
        assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
        drop(first);
        let mut second = got(poll(second.as_mut()));
        assert!(poll(others.as_mut()).is_pending(), "the mirror has its turn");
        // That is over.
        second.all.as_mut().unwrap().1 -= TURN;
        drop(second);
        assert!(poll(third.as_mut()).is_pending());
        drop(got(poll(others.as_mut())));
        drop(blocked);
        drop(got(poll(third.as_mut())));
        assert_eq!((all.available_permits(), mirror.own.available_permits()), (1, LANES));
    }

    #[tokio::test]
    async fn what_is_kept_for_a_request_that_ends_is_given_back() {
        let (all, mirror, other) = scene();
        let mut lanes = vec![mirror.acquire().await.unwrap()];
        all.add_permits(LANES - 1);
        for _ in 1..LANES {
            lanes.push(mirror.acquire().await.unwrap());
        }
        let mut waits = Box::pin(mirror.acquire());
        assert!(poll(waits.as_mut()).is_pending());
        lanes.clear();
        assert_eq!(all.available_permits(), 0, "kept for the one that waits");
        drop(waits);
        assert_eq!((all.available_permits(), mirror.own.available_permits()), (LANES, LANES));
        assert!(other.acquire().await.is_some());
    }
}
