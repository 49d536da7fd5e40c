//! The pace of the pass in order: how far it goes ahead of those who read, and how long its rest would take.
//!
//! It stays within the readers' windows, and stops where the last one has left. One that waits for its readers gives its place and its
//! connection up as soon as another wants them, and goes on with a range of the rest.

use super::{Fill, Tasks};
use crate::clock;
use crate::store::places::Place;
use crate::store::tail::NEAR_BYTES;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

/// It goes on only where it may fetch so much at once.
const STEP_BYTES: u64 = 512 << 10;
/// A pass that may not go on for so long lets go of its connection to the origin, which may need it.
const REST: Duration = Duration::from_secs(10);
/// A fill without readers goes on to its end only where that takes no longer.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What came in which time, while bytes were waited for.
#[derive(Debug, Default)]
pub(in crate::store) struct Pace(Mutex<Timing>);

#[derive(Debug, Default)]
struct Timing {
    bytes: u64,
    busy: Duration,
    /// While bytes are waited for.
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn begins(&self) {
        self.lock().since = Some(clock::monotonic());
    }

    pub(super) fn ends(&self) {
        let mut timing = self.lock();
        if let Some(since) = timing.since.take() {
            timing.busy += clock::monotonic() - since;
        }
    }

    pub(super) fn arrived(&self, bytes: u64) {
        self.lock().bytes += bytes;
    }

    /// How long `bytes` more would take; `None` before the first came.
    fn time_for(&self, bytes: u64) -> Option<Duration> {
        let timing = self.lock();
        let busy = timing.busy + timing.since.map_or(Duration::ZERO, |since| clock::monotonic() - since);
        let seconds = bytes as f64 / timing.bytes as f64 * busy.as_secs_f64();
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn lock(&self) -> MutexGuard<'_, Timing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fill {
    /// Up to where the pass goes, which is at `at`: `at` itself where it has to wait for its readers.
    pub(super) fn goes_to(&self, at: u64) -> u64 {
        let reach = if self.is_unpaced(at) { u64::MAX } else { self.reach().max(STEP_BYTES) };
        if reach < at.saturating_add(STEP_BYTES) { at } else { reach }
    }

    fn reach(&self) -> u64 {
        let reach = self.wants.reach();
        // Of a small file parts come with the whole.
        if self.length.is_some_and(|length| length < self.cache.settings.part_from) {
            return reach.max(self.wants.now().parts.end());
        }
        reach
    }

    /// Whether the pass, which is at `at`, doesn't wait for readers: it is nearly done, they wait for its end, or it couldn't go on later.
    fn is_unpaced(&self, at: u64) -> bool {
        let is_nearly_done = self.length.is_none_or(|length| at.saturating_add(NEAR_BYTES) >= length);
        let may_go_on_later = self.version.is_some() || self.object.identity.is_some();
        is_nearly_done
            || !may_go_on_later
            || self.unpaced.load(Ordering::Relaxed)
            || self.finishes.load(Ordering::Relaxed)
            || self.progress.borrow().unsure_from.is_some()
    }

    /// From now on the pass doesn't wait for readers: the origin gives no ranges to go on with.
    pub(super) fn unpace(&self) {
        self.unpaced.store(true, Ordering::Relaxed);
        self.wants.moves();
    }

    /// Whether the pass goes on to the end, although the fill has no readers.
    pub(super) fn finish(&self, goes_on: bool) {
        if self.finishes.swap(goes_on, Ordering::Relaxed) != goes_on {
            self.wants.moves();
        }
    }

    /// A place among the fills, for the most important of those who want it.
    pub(super) async fn wait_for_place(&self) -> Place {
        let mut demand = self.demand.clone();
        loop {
            let now = *demand.borrow_and_update();
            tokio::select! {
                place = self.cache.fills.acquire(now) => return place,
                Ok(()) = demand.changed() => {}
            }
        }
    }

    /// The pass has this place from now on, or none.
    pub(super) fn set_place(&self, place: Option<Place>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place.map(Arc::new);
    }

    pub(super) fn place(&self) -> Option<Arc<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether a reader wants what pass and runs have their places for. The places that no reader wants.
    pub(super) fn tell_use(&self, is_left: bool, tasks: &mut Tasks) -> Vec<Arc<Place>> {
        let was_left = std::mem::replace(&mut tasks.is_abandoned, is_left);
        if !is_left && !was_left {
            return Vec::new();
        }
        let places: Vec<_> =
            self.place().into_iter().chain(tasks.held.iter().filter_map(Weak::upgrade)).collect();
        for place in &places {
            if is_left { place.is_abandoned() } else { place.is_busy() }
        }
        if is_left { places } else { Vec::new() }
    }

    /// Waits until the pass may go on at `at`. It gives its place up after a while, or once another network needs it.
    pub(super) async fn rests(&self, at: u64) {
        let moved = async {
            while self.goes_to(at) == at {
                self.wants.moved().await;
            }
        };
        let Some(place) = self.place() else { return moved.await };
        place.rests();
        tokio::select! {
            biased;
            () = moved => return place.is_busy(),
            () = place.called() => {}
            () = tokio::time::sleep(REST) => {}
        }
        self.set_place(None);
        // The fill's task may hold it, too.
        self.wants.tell();
    }

    /// Whether little is missing, and comes soon; what has no known end is never taken to be near it, once it is long.
    pub(super) fn ends_soon(&self) -> bool {
        let (there, abandon) = (self.progress.borrow().spans.bytes(), self.cache.settings.abandon_bytes);
        let Some(length) = self.length else { return there <= abandon };
        let missing = length.saturating_sub(there);
        missing <= abandon.max(length / 2)
            && self.pace.time_for(missing).is_some_and(|time| time <= ENDS_WITHIN)
    }
}

/// Returns once one of the places is called back.
pub(super) async fn called(places: &[Arc<Place>]) {
    let mut calls: Vec<_> = places.iter().map(|place| Box::pin(place.called())).collect();
    poll_fn(|context| {
        let is_called = calls.iter_mut().any(|call| call.as_mut().poll(context).is_ready());
        if is_called { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
