//! Places: a bound on what is asked of the origin at once, with reserves for pushes and for what repos list, shared between
//! networks ([`crate::shares`]).
//!
//! While a request waits, the place of a fill without readers, or whose readers take nothing, is called back.

use super::demand::Demand;
use crate::permits::{Permit, Permits};
use crate::shares::{Limits, Owner, Use};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Classes of [`Demand`].
const CLASSES: usize = 3;

/// Places of one kind.
#[derive(Clone)]
pub(super) struct Places(Arc<Permits<CLASSES>>);

/// A place, free again when dropped.
pub(super) struct Place(Permit<CLASSES>);

impl Places {
    /// `units` in all, of which `pushes` are for pushes alone, and further `listed` for these and what repos list.
    pub(super) fn new(units: usize, pushes: usize, listed: usize) -> Self {
        // Each waiter is a request or a fill, which are bounded by the connections.
        let (network, waiters) = (u64::MAX, usize::MAX);
        let reserved = [pushes as u64, listed as u64, 0];
        Self(Permits::new(Limits { places: units as u64, reserved, network, waiters }))
    }

    /// Places that the owner's network holds.
    pub(super) fn held_by(&self, owner: Owner) -> u64 {
        self.0.held_by(owner)
    }

    /// Requests of the owner's network that wait.
    #[cfg(test)]
    pub(super) fn waiting_of(&self, owner: Owner) -> usize {
        self.0.waiting_of(owner)
    }

    /// A place, if one is free for this class.
    pub(super) fn try_acquire(&self, demand: Demand) -> Option<Place> {
        self.0.request(demand.owner, demand.class as usize).ok()?.now().ok().map(Place)
    }

    /// A place, as soon as it is this request's turn. Dropped, it leaves the line.
    pub(super) async fn acquire(&self, demand: Demand) -> Place {
        match self.0.acquire(demand.owner, demand.class as usize).await {
            Ok(permit) => Place(permit),
            // The waiting room has no bound.
            Err(_) => std::future::pending().await,
        }
    }

    /// The same for a caller on any runtime, for `patience` at most; the time is kept on `runtime`.
    pub(super) async fn acquire_within(
        &self,
        demand: Demand,
        patience: Duration,
        runtime: &Handle,
    ) -> Option<Place> {
        if let Some(place) = self.try_acquire(demand) {
            return Some(place);
        }
        let places = self.clone();
        // In a set, since that ends with a caller that leaves.
        let mut waiting = JoinSet::new();
        let acquiring = async move { tokio::time::timeout(patience, places.acquire(demand)).await.ok() };
        waiting.spawn_on(acquiring, runtime);
        waiting.join_next().await?.ok().flatten()
    }
}

impl Place {
    /// What it is held for is wanted no more: it is called back for any other request.
    pub(super) fn is_abandoned(&self) {
        self.0.set_use(Use::Abandoned);
    }

    /// What it is held for waits for its readers: it is called back for a network that holds less.
    pub(super) fn rests(&self) {
        self.0.set_use(Use::Idle);
    }

    /// It is not called back.
    pub(super) fn is_busy(&self) {
        self.0.set_use(Use::Busy);
    }

    /// Returns once it is called back.
    pub(super) async fn called(&self) {
        self.0.called().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    const LISTED: Demand = of(1, true);
    const UNLISTED: Demand = of(1, false);

    const fn of(network: u64, is_listed: bool) -> Demand {
        Demand::of_client(Owner::new(network, 1), is_listed)
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_class_has_its_reserve() {
        let places = Places::new(10, 2, 3);
        let taken = |demand| std::iter::from_fn(|| places.try_acquire(demand)).collect::<Vec<_>>();
        let unlisted = taken(UNLISTED);
        let listed = taken(LISTED);
        let pushes = taken(Demand::PUSH);
        assert_eq!((unlisted.len(), listed.len(), pushes.len()), (5, 3, 2));
        drop((unlisted, listed, pushes));
        assert_eq!(taken(Demand::PUSH).len(), 10, "a push may take all");
        assert_eq!(taken(LISTED).len(), 8);
        let few = Places::new(1, 0, 0);
        assert!(few.try_acquire(UNLISTED).is_some());
    }

    #[test]
    fn an_abandoned_place_is_called_back_and_one_that_rests_for_a_network_with_less() {
        let places = Places::new(2, 0, 0);
        let held = [places.try_acquire(LISTED).unwrap(), places.try_acquire(LISTED).unwrap()];
        held[0].rests();
        let mut called = pin!(held[0].called());
        let mut own = pin!(places.acquire(LISTED));
        assert!(poll(own.as_mut()).is_pending() && poll(called.as_mut()).is_pending());
        held[1].is_abandoned();
        assert!(poll(pin!(held[1].called())).is_ready());
        let mut other = pin!(places.acquire(of(2, true)));
        assert!(poll(other.as_mut()).is_pending() && poll(called.as_mut()).is_ready());
    }

    #[test]
    fn the_first_of_a_network_goes_before_the_next_of_another() {
        let places = Places::new(1, 0, 0);
        let held = places.try_acquire(of(1, true));
        let (mut hundredth, mut first) =
            (pin!(places.acquire(of(1, true))), pin!(places.acquire(of(2, true))));
        assert!(poll(hundredth.as_mut()).is_pending() && poll(first.as_mut()).is_pending());
        let mut pushed = pin!(places.acquire(Demand::PUSH));
        assert!(poll(pushed.as_mut()).is_pending());
        drop(held);
        assert!(poll(hundredth.as_mut()).is_pending() && poll(first.as_mut()).is_pending());
        assert!(poll(pushed.as_mut()).is_ready(), "a push goes before all");
    }

    #[test]
    fn a_request_that_is_dropped_leaves_the_line() {
        let places = Places::new(1, 0, 0);
        let held = places.try_acquire(LISTED).unwrap();
        held.is_abandoned();
        {
            let mut waits = pin!(places.acquire(UNLISTED));
            assert!(poll(waits.as_mut()).is_pending());
        }
        drop(held);
        assert!(places.try_acquire(UNLISTED).is_some());
    }
}
