//! A bounded number of places: taken, waited for, given back.
//!
//! **Who is next.** Of the classes that may take a place, the first that has a waiter; in it the network that holds least,
//! in that the client that holds least, of that the one that came first. So the first place of a network never waits behind the
//! second of another.
//!
//! **Who gives back.** Places that aren't used are called back while an owner waits that holds less: first what is wanted no
//! more, then what was never used, then what is idle; of these from the network that holds most, the youngest first.
//! A place that is in use is never called back.
//!
//! **Who may wait.** The waiting room is bounded. Where it is full, the network that has most waiting loses its youngest
//! waiter, if it has more than the newcomer's would have.

use super::Owner;
use super::queue::Queue;
use super::ranks::Ranks;
use std::collections::{BTreeSet, HashMap};

/// The bounds of a pool. Class 0 is the most important.
#[derive(Clone, Copy, Debug)]
pub struct Limits<const C: usize> {
    /// Places in all.
    pub places: u64,
    /// Of these, so many are for this class and those before it alone.
    pub reserved: [u64; C],
    /// Places of one network at most, however many are free.
    pub network: u64,
    /// Waiters in all.
    pub waiters: usize,
}

/// How a place is used: in the order in which places are called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Its result is wanted no more.
    Abandoned,
    /// It was never used.
    Silent,
    /// Between two uses.
    Idle,
    /// It is never called back.
    Busy,
}

/// Uses from which places are called back.
const CALLED: usize = 3;

/// What becomes of a request for a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The place has this number.
    Granted(u64),
    /// The waiter has this number, which is its place's, too, once it has one; and what came with the waiter that had to go for it.
    Waits(u64, Option<T>),
    /// Too many wait already.
    Refused,
}

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits.
    Waiting,
    /// It has a place.
    Granted {
        /// Which is to be given back as soon as it isn't in use.
        called: bool,
    },
    /// It had to go.
    Gone,
}

#[derive(Debug)]
struct Place<T> {
    owner: Owner,
    class: usize,
    how: Use,
    called: bool,
    item: T,
}

#[derive(Debug)]
struct Waiter<T> {
    owner: Owner,
    class: usize,
    item: T,
}

#[derive(Debug, Default)]
struct Network {
    held: u64,
    clients: HashMap<u64, u64>,
    waiters: BTreeSet<u64>,
    /// Places that may be called back and aren't yet, by their use.
    unused: [BTreeSet<u64>; CALLED],
}

impl Network {
    /// What it holds, and what the client does.
    fn held_with(&self, owner: Owner) -> (u64, u64) {
        (self.held, self.clients.get(&owner.client).copied().unwrap_or_default())
    }
}

/// Places for items of kind `T` in `C` classes. Each call takes logarithmic time.
#[derive(Debug)]
pub struct Pool<T, const C: usize> {
    limits: Limits<C>,
    next: u64,
    held: [u64; C],
    places: HashMap<u64, Place<T>>,
    waiters: HashMap<u64, Waiter<T>>,
    networks: HashMap<u64, Network>,
    queues: [Queue; C],
    /// Networks by how many wait.
    crowds: Ranks<u64>,
    /// Networks with places that may be called back, by how many they hold.
    givers: [Ranks<u64>; CALLED],
    /// Places that were called back and aren't given back yet.
    called: usize,
}

impl<T, const C: usize> Pool<T, C> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits<C>) -> Self {
        Self {
            limits,
            next: 0,
            held: [0; C],
            places: HashMap::new(),
            waiters: HashMap::new(),
            networks: HashMap::new(),
            queues: std::array::from_fn(|_| Queue::default()),
            crowds: Ranks::default(),
            givers: std::array::from_fn(|_| Ranks::default()),
            called: 0,
        }
    }

    /// Asks for a place of `class`: there is one, or the owner waits.
    pub fn request(&mut self, owner: Owner, class: usize, item: T) -> Answer<T> {
        let id = self.next;
        self.next += 1;
        if !self.queues[class].has(owner.network) && self.may_take(owner, class) {
            self.put(id, owner, class, item);
            return Answer::Granted(id);
        }
        let mut gone = None;
        if self.waiters.len() >= self.limits.waiters {
            let Some(waiter) = self.displaced_by(owner) else { return Answer::Refused };
            gone = self.cancel(waiter);
        }
        self.waiters.insert(id, Waiter { owner, class, item });
        let network = self.networks.entry(owner.network).or_default();
        network.waiters.insert(id);
        let (held, waiting) = (network.held_with(owner), network.waiters.len() as u64);
        self.queues[class].push(owner, id, held);
        self.crowds.add(owner.network, waiting, id);
        self.crowds.set(owner.network, waiting);
        Answer::Waits(id, gone)
    }

    /// Takes a waiter out, if it still waits.
    pub fn cancel(&mut self, id: u64) -> Option<T> {
        let Waiter { owner, class, item } = self.waiters.remove(&id)?;
        self.next += 1;
        self.queues[class].remove(owner, id, self.next);
        if let Some(network) = self.networks.get_mut(&owner.network) {
            network.waiters.remove(&id);
            match network.waiters.len() as u64 {
                0 => self.crowds.remove(owner.network),
                waiting => self.crowds.set(owner.network, waiting),
            }
        }
        self.tidy(owner.network);
        Some(item)
    }

    /// Gives a place back.
    pub fn release(&mut self, id: u64) -> Option<T> {
        self.set_use(id, Use::Busy);
        let Place { owner, class, item, .. } = self.places.remove(&id)?;
        self.held[class] -= 1;
        self.account(owner, -1);
        self.tidy(owner.network);
        Some(item)
    }

    /// Says how a place is used. One that is busy again need not be given back.
    pub fn set_use(&mut self, id: u64, how: Use) {
        let Some(place) = self.places.get_mut(&id) else { return };
        if place.called {
            if how == Use::Busy {
                place.called = false;
                self.called -= 1;
            }
            place.how = how;
            return;
        }
        let (before, owner) = (std::mem::replace(&mut place.how, how), place.owner);
        if before != how {
            self.unlist(id, owner, before);
            self.list(id, owner, how);
        }
    }

    /// Another owner has the place from now on.
    pub fn transfer(&mut self, id: u64, owner: Owner) {
        let Some(place) = self.places.get_mut(&id) else { return };
        let (before, how, called) = (std::mem::replace(&mut place.owner, owner), place.how, place.called);
        if !called {
            self.unlist(id, before, how);
        }
        self.account(before, -1);
        self.account(owner, 1);
        if !called {
            self.list(id, owner, how);
        }
        self.tidy(before.network);
    }

    /// Grants a place to the waiter whose turn it is, if there is one: its number. To be called until there is none, whenever
    /// something was given back or taken out.
    pub fn next_granted(&mut self) -> Option<u64> {
        let id = (0..C).find_map(|class| {
            let is_full = (0..=class).any(|first| self.is_full(first));
            if is_full { None } else { self.first_below_its_bound(class).map(|(id, _)| id) }
        })?;
        let Waiter { owner, class, .. } = *self.waiters.get(&id)?;
        let item = self.cancel(id)?;
        self.put(id, owner, class, item);
        Some(id)
    }

    /// Calls a place back, if one is wanted: its number. To be called until there is none, whenever there is a new waiter or the use of
    /// a place has changed. There are never more called back than wait.
    pub fn next_called(&mut self) -> Option<u64> {
        if self.called >= self.waiters.len() {
            return None;
        }
        let id = (0..C).find_map(|class| self.giver_for(class))?;
        let place = self.places.get_mut(&id)?;
        place.called = true;
        let (owner, how) = (place.owner, place.how);
        self.called += 1;
        self.unlist(id, owner, how);
        Some(id)
    }

    /// What became of waiter number `id`.
    #[must_use]
    pub fn state(&self, id: u64) -> State {
        match self.places.get(&id) {
            Some(place) => State::Granted { called: place.called },
            None if self.waiters.contains_key(&id) => State::Waiting,
            None => State::Gone,
        }
    }

    /// What was given with the request of number `id`.
    #[must_use]
    pub fn item(&self, id: u64) -> Option<&T> {
        let waiting = || self.waiters.get(&id).map(|waiter| &waiter.item);
        self.places.get(&id).map(|place| &place.item).or_else(waiting)
    }

    /// Places that are taken.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.iter().sum()
    }

    /// Places that the owner's network holds.
    #[must_use]
    pub fn held_by(&self, owner: Owner) -> u64 {
        self.networks.get(&owner.network).map_or(0, |network| network.held)
    }

    /// Waiters of the owner's network.
    #[cfg(test)]
    pub fn waiting_of(&self, owner: Owner) -> usize {
        self.networks.get(&owner.network).map_or(0, |network| network.waiters.len())
    }

    /// Owners that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Whether the owner's network holds more than its even share of all places.
    #[must_use]
    pub fn is_beyond_its_share(&self, owner: Owner) -> bool {
        self.held_by(owner) * self.networks.len() as u64 > self.limits.places
    }

    /// The place that is to be given back for the first waiter of `class`.
    fn giver_for(&self, class: usize) -> Option<u64> {
        // One that is at its bound gets nothing from others, so that they don't help it; nor does it stand in their way.
        let below = self.first_below_its_bound(class);
        let is_capped = below.is_none();
        let (id, wants) = below.or_else(|| self.queues[class].firsts().next())?;
        let owner = self.waiters.get(&id)?.owner;
        let from = self.first_full(class);
        (0..CALLED).find_map(|how| {
            let givers = self.givers[how].last_first().take_while(|(_, held)| {
                // What isn't wanted goes, even from a network that holds less.
                how == Use::Abandoned as usize || *held > wants || is_capped
            });
            let mut givers = givers.filter(|(network, _)| !is_capped || *network == owner.network);
            givers.find_map(|(network, _)| {
                let unused = &self.networks.get(&network)?.unused[how];
                let mut youngest = unused.iter().rev().copied();
                youngest.find(|id| is_capped || self.places.get(id).is_some_and(|place| place.class >= from))
            })
        })
    }

    /// The first class whose places, with those after it, are all taken, as far as that keeps `class` waiting; 0 where none
    /// are: its network is at its bound.
    fn first_full(&self, class: usize) -> usize {
        (0..=class).find(|first| self.is_full(*first)).unwrap_or_default()
    }

    /// The first waiter whose network may have more, and what it holds.
    fn first_below_its_bound(&self, class: usize) -> Option<(u64, u64)> {
        let is_below = |id: &u64| {
            self.waiters.get(id).is_some_and(|waiter| self.is_below_the_bound_of_a_network(waiter.owner))
        };
        self.queues[class].firsts().find(|(id, _)| is_below(id))
    }

    fn may_take(&self, owner: Owner, class: usize) -> bool {
        !(0..=class).any(|first| self.is_full(first)) && self.is_below_the_bound_of_a_network(owner)
    }

    /// Whether the classes from `first` on have all places that aren't reserved for those before.
    fn is_full(&self, first: usize) -> bool {
        let held: u64 = self.held[first..].iter().sum();
        let reserved: u64 = self.limits.reserved[..first].iter().sum();
        held + reserved >= self.limits.places
    }

    fn is_below_the_bound_of_a_network(&self, owner: Owner) -> bool {
        owner.is_many || self.held_by(owner) < self.limits.network
    }

    /// The waiter that has to go for one of this owner's.
    fn displaced_by(&self, owner: Owner) -> Option<u64> {
        let own = self.networks.get(&owner.network).map_or(0, |network| network.waiters.len() as u64);
        let (largest, waiting) = self.crowds.last_first().next()?;
        if waiting <= own + 1 {
            return None;
        }
        self.networks.get(&largest)?.waiters.last().copied()
    }

    fn put(&mut self, id: u64, owner: Owner, class: usize, item: T) {
        self.places.insert(id, Place { owner, class, how: Use::Busy, called: false, item });
        self.held[class] += 1;
        self.account(owner, 1);
    }

    /// The owner holds one more, or one less.
    fn account(&mut self, owner: Owner, change: i64) {
        let network = self.networks.entry(owner.network).or_default();
        network.held = network.held.saturating_add_signed(change);
        let client = network.clients.entry(owner.client).or_default();
        *client = client.saturating_add_signed(change);
        if *client == 0 {
            network.clients.remove(&owner.client);
        }
        let (held, all) = (network.held_with(owner), network.held);
        self.queues.iter_mut().for_each(|queue| queue.holds(owner, held));
        self.givers.iter_mut().for_each(|givers| givers.set(owner.network, all));
    }

    fn list(&mut self, id: u64, owner: Owner, how: Use) {
        if how == Use::Busy {
            return;
        }
        let network = self.networks.entry(owner.network).or_default();
        network.unused[how as usize].insert(id);
        self.givers[how as usize].add(owner.network, network.held, 0);
    }

    fn unlist(&mut self, id: u64, owner: Owner, how: Use) {
        if how == Use::Busy {
            return;
        }
        let Some(network) = self.networks.get_mut(&owner.network) else { return };
        network.unused[how as usize].remove(&id);
        if network.unused[how as usize].is_empty() {
            self.givers[how as usize].remove(owner.network);
        }
    }

    /// Forgets a network that neither holds a place nor waits.
    fn tidy(&mut self, network: u64) {
        if self.networks.get(&network).is_some_and(|of| of.held == 0 && of.waiters.is_empty()) {
            self.networks.remove(&network);
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
