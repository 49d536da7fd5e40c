//! Who may be connected at once: so many in all, so many of one network.
//!
//! No connection is turned away for being one too many: one that finds no seat waits for one, the first of a network before the
//! hundredth of another ([`crate::shares`]). Meanwhile connections that say nothing, and then those that are idle, give theirs up, of
//! the network that has most. That costs their clients nothing: a kept-alive connection that closes between two requests is
//! opened anew (librepo and curl do so without counting a failure).

use super::peer::Peer;
use crate::clock;
use crate::permits::{Permit, Permits, Refused, Waiting};
use crate::shares::{Limits, Owner, Use};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The last of this many parts of all seats isn't for networks that have more than their share: to them everything is shed that
/// can be.
const RESERVE: u64 = 20;

/// All seats.
#[derive(Debug)]
pub struct Seats {
    permits: Arc<Permits<1>>,
    all: u64,
}

/// A seat; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    permit: Permit<1>,
    /// How it is used, as was said last.
    said: Cell<Use>,
}

/// A seat that may have to be waited for.
#[derive(Debug)]
pub struct Place {
    waiting: Waiting<1>,
    permits: Arc<Permits<1>>,
}

/// Idle connections are called upon so often while one waits.
const CALLED_EVERY: Duration = Duration::from_secs(1);

impl Seats {
    /// So many in all, so many of one network. As many as there are seats may wait.
    #[must_use]
    pub fn new(in_all: usize, of_network: usize) -> Self {
        let (all, network) = (in_all as u64, of_network as u64);
        let limits = Limits { places: all, reserved: [0], network, waiters: in_all };
        Self { permits: Permits::new(limits), all }
    }

    /// A seat for a connection of `owner`; or its place among those that wait.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn place(&self, owner: Owner) -> Result<Place, Refused> {
        let permits = self.permits.clone();
        self.permits.request(owner, 0).map(|waiting| Place { waiting, permits })
    }

    /// Nearly all are taken, and the client's network has more than its share.
    #[must_use]
    pub fn is_tight_for(&self, owner: Owner) -> bool {
        self.permits.held() > self.all - self.all / RESERVE && self.permits.is_beyond_its_share(owner)
    }
}

impl Place {
    /// The seat, if it is there already.
    ///
    /// # Errors
    /// It has to be waited for.
    pub fn now(self) -> Result<Seat, Self> {
        let Self { waiting, permits } = self;
        waiting.now().map(Seat::from).map_err(|waiting| Self { waiting, permits })
    }

    /// The seat, as soon as it is there.
    ///
    /// # Errors
    /// So many came meanwhile that this one had to go.
    pub async fn seat(self) -> Result<Seat, Refused> {
        let mut granted = pin!(self.waiting.granted());
        loop {
            match tokio::time::timeout(CALLED_EVERY, &mut granted).await {
                Ok(granted) => return granted.map(Seat::from),
                // Some may be idle by now that weren't when they were called upon.
                Err(_) => self.permits.announce(),
            }
        }
    }
}

impl From<Permit<1>> for Seat {
    fn from(permit: Permit<1>) -> Self {
        Self { permit, said: Cell::new(Use::Busy) }
    }
}

impl Seat {
    /// Another has it from now on: a load balancer has said for whom it connected.
    pub fn transfer(&self, owner: Owner) {
        self.permit.transfer(owner);
    }

    /// Takes note of how it is used, which counts while others wait.
    pub fn note(&self, how: impl FnOnce() -> Use) {
        if self.said.get() != Use::Busy || self.permit.is_contended() {
            self.say(how());
        }
    }

    fn say(&self, how: Use) {
        if self.said.replace(how) != how {
            self.permit.set_use(how);
        }
    }

    /// Returns once another needs the seat, and `peer` doesn't.
    pub async fn given_up(&self, peer: &Peer) {
        loop {
            // From here on none is missed.
            let contention = self.permit.contention();
            let (how, until) = peer.seat_use(clock::monotonic());
            // That it is silent is said beforehand: the first that waits is to have a silent one's seat, not an idle one's.
            if how == Use::Silent || self.permit.is_contended() {
                self.say(how);
            }
            let is_over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = contention => {}
                () = is_over => {}
                () = self.permit.called() => {
                    if peer.seat_use(clock::monotonic()).0 != Use::Busy {
                        return;
                    }
                    self.said.set(Use::Busy);
                    // It was called by what it had said before.
                    self.permit.set_use(Use::Busy);
                }
            }
        }
    }
}
