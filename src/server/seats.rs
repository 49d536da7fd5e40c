//! Who may be connected at once: so many in all, so many of one network.
//!
//! Nobody is turned away for being one too many: who finds no seat waits for one, in order of coming, and connections that are
//! idle give theirs up. That costs their clients nothing: a kept-alive connection that closes between two requests is opened
//! anew (librepo and curl do so without counting a failure). One that has never had an answer keeps its seat.

use super::peer::Peer;
use crate::clock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Idle connections are called upon no more often than this, and than [`FOR_EACH`] seat: each call wakes all of a hall.
const CALLED_EVERY: Duration = Duration::from_millis(200);
/// 20,000 seats: once a second.
const FOR_EACH: Duration = Duration::from_micros(50);
/// The last of this many parts of all seats is for those whom nobody else can serve: there everything is shed that can be.
const RESERVE: usize = 20;

/// All seats.
#[derive(Debug)]
pub struct Seats {
    all: Arc<Hall>,
    of_network: usize,
    networks: Mutex<HashMap<u64, Arc<Hall>>>,
    /// For those who wait for a seat of their network: they hold a socket each.
    standing: Arc<Semaphore>,
}

/// The seats of one network, or of all.
#[derive(Debug)]
struct Hall {
    capacity: usize,
    free: Arc<Semaphore>,
    wanted: Notify,
    began: Instant,
    /// When idle connections were last called upon, in milliseconds since it began.
    called: AtomicU64,
}

impl Hall {
    fn new(capacity: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(capacity));
        let (wanted, began) = (Notify::new(), clock::monotonic());
        Arc::new(Self { capacity, free, wanted, began, called: AtomicU64::new(0) })
    }

    /// A seat, as soon as there is one.
    async fn seat(&self) -> OwnedSemaphorePermit {
        let mut seat = pin!(self.free.clone().acquire_owned());
        loop {
            tokio::select! {
                biased;
                seat = &mut seat => return seat.expect("it is never closed"),
                () = tokio::time::sleep(CALLED_EVERY) => self.call(),
            }
        }
    }

    /// Asks those who are idle for their seats.
    fn call(&self) {
        let now = u64::try_from((clock::monotonic() - self.began).as_millis()).unwrap_or(u64::MAX);
        let last = self.called.load(Ordering::Relaxed);
        let seats = u32::try_from(self.capacity).unwrap_or(u32::MAX);
        let is_due = Duration::from_millis(now.saturating_sub(last)) >= CALLED_EVERY.max(FOR_EACH * seats);
        if is_due && self.called.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.wanted.notify_waiters();
        }
    }
}

/// Whether there is a seat for a connection from some network.
pub enum Place {
    /// There is.
    Seat(Seat),
    /// It has to wait.
    Standing(Standing),
    /// Too many wait already.
    None,
}

/// A seat; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    network: Option<(u64, Arc<Hall>)>,
    of_network: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

/// A place to wait at for a seat.
pub struct Standing {
    seats: Arc<Seats>,
    network: u64,
    hall: Arc<Hall>,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    /// So many in all, so many of one network.
    #[must_use]
    pub fn new(in_all: usize, of_network: usize) -> Arc<Self> {
        let standing = Arc::new(Semaphore::new(in_all));
        Arc::new(Self { all: Hall::new(in_all), of_network, networks: Mutex::default(), standing })
    }

    /// Nearly all are taken.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.all.free.available_permits() < self.all.capacity / RESERVE
    }

    /// A place for a connection from `network`; without one (a trusted proxy) only those in all count.
    #[must_use]
    pub fn place(self: &Arc<Self>, network: Option<u64>) -> Place {
        let Some(network) = network else {
            let seats = self.clone();
            return Place::Seat(Seat { seats, network: None, of_network: None, of_all: None });
        };
        let hall = self.networks().entry(network).or_insert_with(|| Hall::new(self.of_network)).clone();
        if let Ok(permit) = hall.free.clone().try_acquire_owned() {
            return Place::Seat(self.seated(network, hall, permit));
        }
        hall.call();
        let (seats, place) = (self.clone(), self.standing.clone().try_acquire_owned());
        place.map_or(Place::None, |place| Place::Standing(Standing { seats, network, hall, _place: place }))
    }

    fn seated(self: &Arc<Self>, network: u64, hall: Arc<Hall>, permit: OwnedSemaphorePermit) -> Seat {
        let network = Some((network, hall));
        Seat { seats: self.clone(), network, of_network: Some(permit), of_all: None }
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<u64, Arc<Hall>>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a network of which nobody is there.
    fn tidy(&self, network: u64) {
        let mut networks = self.networks();
        if let Entry::Occupied(hall) = networks.entry(network)
            && Arc::strong_count(hall.get()) == 1
        {
            hall.remove();
        }
    }
}

impl Standing {
    /// Waits until the network has a seat.
    pub async fn seat(self) -> Seat {
        let permit = self.hall.seat().await;
        self.seats.seated(self.network, self.hall.clone(), permit)
    }
}

impl Seat {
    /// Waits until there is one in all, too.
    pub async fn and_of_all(&mut self) {
        let all = &self.seats.all;
        self.of_all = match all.free.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                all.call();
                Some(all.seat().await)
            }
        };
    }

    /// Returns once somebody wants the seat, and `peer` doesn't need it.
    pub async fn given_up(&self, peer: &Peer) {
        loop {
            let network = async {
                match &self.network {
                    Some((_, hall)) => hall.wanted.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.seats.all.wanted.notified() => {}
                () = network => {}
            }
            if peer.is_between_requests() {
                return;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop((self.of_network.take(), self.of_all.take()));
        if let Some((network, hall)) = self.network.take() {
            drop(hall);
            self.seats.tidy(network);
        }
    }
}
