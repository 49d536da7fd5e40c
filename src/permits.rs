//! Places of a [`Pool`] that are waited for.

use crate::clock;
use crate::shares::pool::State;
use crate::shares::{Answer, Limits, Owner, Pool, Use};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A bounded number of places in `C` classes, shared between networks and their clients.
#[derive(Debug)]
pub struct Permits<const C: usize> {
    pool: Mutex<Pool<Arc<Notify>, C>>,
    /// An owner waits: then the use of places counts.
    contended: AtomicBool,
    contention: Notify,
    held: AtomicU64,
    began: Instant,
    /// When contention was last announced, in milliseconds since it began.
    announced: AtomicU64,
}

const NEVER: u64 = u64::MAX;
/// See [`Permits::announce`].
const ANNOUNCED_EVERY_MILLIS: u64 = 1000;

/// There is no place, and too many wait for one.
#[derive(Debug, thiserror::Error)]
#[error("too many wait already")]
pub struct Refused;

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Permit<const C: usize> {
    permits: Arc<Permits<C>>,
    id: u64,
    signal: Arc<Notify>,
}

/// A place that is waited for; dropped, it is wanted no more.
#[derive(Debug)]
pub struct Waiting<const C: usize>(Option<Permit<C>>);

impl<const C: usize> Permits<C> {
    /// All places are free.
    #[must_use]
    pub fn new(limits: Limits<C>) -> Arc<Self> {
        let (pool, contended) = (Mutex::new(Pool::new(limits)), AtomicBool::new(false));
        Arc::new(Self {
            pool,
            contended,
            contention: Notify::new(),
            held: AtomicU64::new(0),
            began: clock::monotonic(),
            announced: AtomicU64::new(NEVER),
        })
    }

    /// Asks for a place of `class`; it may have to be waited for.
    ///
    /// # Errors
    /// Too many wait already, and no network has more waiting than this one.
    pub fn request(self: &Arc<Self>, owner: Owner, class: usize) -> Result<Waiting<C>, Refused> {
        let signal = Arc::new(Notify::new());
        let mut pool = self.lock();
        let (id, gone) = match pool.request(owner, class, signal.clone()) {
            Answer::Granted(id) => {
                signal.notify_one();
                (id, None)
            }
            Answer::Waits(id, gone) => (id, gone),
            Answer::Refused => return Err(Refused),
        };
        self.settle(pool);
        if let Some(gone) = gone {
            gone.notify_one();
        }
        Ok(Waiting(Some(Permit { permits: self.clone(), id, signal })))
    }

    /// A place of `class` as soon as there is one.
    ///
    /// # Errors
    /// As [`request`](Self::request); or so many others came meanwhile that this one had to go.
    pub async fn acquire(self: &Arc<Self>, owner: Owner, class: usize) -> Result<Permit<C>, Refused> {
        self.request(owner, class)?.granted().await
    }

    /// Whether an owner waits.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed)
    }

    /// Ready when it is announced that an owner waits; counted from this call on.
    pub fn contention(&self) -> Notified<'_> {
        self.contention.notified()
    }

    /// Places taken.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Places that the owner's network holds.
    #[must_use]
    pub fn held_by(&self, owner: Owner) -> u64 {
        self.lock().held_by(owner)
    }

    /// Places taken, and owners that wait for one.
    #[cfg(test)]
    fn figures(&self) -> (u64, usize) {
        let pool = self.lock();
        (pool.held(), pool.waiting())
    }

    /// Requests of the owner's network that wait.
    #[cfg(test)]
    pub fn waiting_of(&self, owner: Owner) -> usize {
        self.lock().waiting_of(owner)
    }

    /// Whether the owner's network holds more than its even share.
    #[must_use]
    pub fn is_beyond_its_share(&self, owner: Owner) -> bool {
        self.lock().is_beyond_its_share(owner)
    }

    /// Passes on what a change of the pool has made free.
    fn settle(&self, mut pool: MutexGuard<'_, Pool<Arc<Notify>, C>>) {
        while let Some(id) = pool.next_granted().or_else(|| pool.next_called()) {
            if let Some(signal) = pool.item(id) {
                signal.notify_one();
            }
        }
        let waits = pool.waiting() > 0;
        self.held.store(pool.held(), Ordering::Relaxed);
        // Under the lock: what another thread has changed since isn't overwritten.
        let is_new = !self.contended.swap(waits, Ordering::Relaxed) && waits;
        drop(pool);
        if is_new {
            self.announce();
        }
    }

    /// Wakes all that listen for [`contention`](Self::contention), if an owner waits; once in a second at most, since with
    /// 20,000 places it takes some 30 ms.
    pub fn announce(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.announced.load(Ordering::Relaxed);
        let is_due = last == NEVER || now.saturating_sub(last) >= ANNOUNCED_EVERY_MILLIS;
        if self.is_contended()
            && is_due
            && self.announced.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.contention.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool<Arc<Notify>, C>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const C: usize> Waiting<C> {
    /// The place, if it is there already.
    ///
    /// # Errors
    /// It has to be waited for.
    pub fn now(mut self) -> Result<Permit<C>, Self> {
        let is_granted = self.0.as_ref().is_some_and(|permit| permit.is_granted() == Some(true));
        if is_granted { self.0.take().ok_or(self) } else { Err(self) }
    }

    /// The place, as soon as it is there.
    ///
    /// # Errors
    /// Too many others wait by now.
    pub async fn granted(mut self) -> Result<Permit<C>, Refused> {
        loop {
            match self.0.as_ref().and_then(Permit::is_granted) {
                Some(true) => return self.0.take().ok_or(Refused),
                Some(false) => {}
                None => return Err(Refused),
            }
            if let Some(permit) = &self.0 {
                permit.signal.notified().await;
            }
        }
    }
}

impl<const C: usize> Permit<C> {
    /// `None`: it had to go.
    fn is_granted(&self) -> Option<bool> {
        match self.permits.lock().state(self.id) {
            State::Granted { .. } => Some(true),
            State::Waiting => Some(false),
            State::Gone => None,
        }
    }

    /// Whether an owner waits: then it counts how this place is used.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.permits.is_contended()
    }

    /// Ready when the first owner has to wait after none did; counted from this call on.
    pub fn contention(&self) -> Notified<'_> {
        self.permits.contention()
    }

    /// Says how the place is used.
    pub fn set_use(&self, how: Use) {
        let mut pool = self.permits.lock();
        pool.set_use(self.id, how);
        self.permits.settle(pool);
    }

    /// Another owner has the place from now on.
    pub fn transfer(&self, owner: Owner) {
        let mut pool = self.permits.lock();
        pool.transfer(self.id, owner);
        self.permits.settle(pool);
    }

    /// Returns once the place is to be given back. One that is used again by then says so by [`set_use`](Self::set_use).
    pub async fn called(&self) {
        loop {
            if matches!(self.permits.lock().state(self.id), State::Granted { called: true }) {
                return;
            }
            self.signal.notified().await;
        }
    }
}

impl<const C: usize> Drop for Permit<C> {
    fn drop(&mut self) {
        let mut pool = self.permits.lock();
        if pool.release(self.id).is_none() {
            pool.cancel(self.id);
        }
        self.permits.settle(pool);
    }
}

#[cfg(test)]
#[path = "permits_tests.rs"]
mod tests;
