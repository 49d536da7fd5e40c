//! Turns at what is done one at a time: the network that had least of late is next, and each network has so many in a second at most.
//!
//! A network that asks for more than that delays its own. What it didn't use of the last seconds, it may have at once.

use super::Owner;
use super::ranks::Ranks;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How many turns a network has.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// In a second.
    pub per_second: u32,
    /// At once, after it has had none for a while.
    pub burst: u32,
}

/// Which turns of a network come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It goes on with what had a turn already, which would be lost.
    GoesOn,
    /// It begins.
    Begins,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The one that asked under this number.
    Turn(u64),
    /// Of those that ask, each has to wait until then at least.
    At(Duration),
    /// None asks.
    None,
}

#[derive(Debug, Default)]
struct Network {
    waiting: BTreeSet<(Stage, u64)>,
    /// Turns that it had, counted from where the others were when it came.
    had: u64,
    /// The time at which it has used up no more than it earned.
    even_at: Duration,
    is_unbounded: bool,
}

/// Those that ask for turns. Each call takes logarithmic time.
#[derive(Debug)]
pub struct Turns {
    /// A turn is earned in so much time.
    each: Duration,
    ahead: Duration,
    next: u64,
    /// Where the networks are that get turns now, in turns that they had.
    had: u64,
    /// What they ask for, and their network.
    askers: HashMap<u64, (Stage, u64)>,
    networks: HashMap<u64, Network>,
    ready: Ranks<u64>,
    late: BTreeSet<(Duration, u64)>,
    /// Networks that used up more than they earned, and until when.
    remembered: BTreeSet<(Duration, u64)>,
    /// Turns that had to wait for their network's rate.
    delayed: u64,
}

impl Turns {
    /// With so many for each network.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let each = Duration::from_secs(1) / rate.per_second.max(1);
        Self {
            each,
            ahead: each * rate.burst.saturating_sub(1),
            next: 0,
            had: 0,
            askers: HashMap::new(),
            networks: HashMap::new(),
            ready: Ranks::default(),
            late: BTreeSet::new(),
            remembered: BTreeSet::new(),
            delayed: 0,
        }
    }

    /// Asks for a turn: its number.
    pub fn ask(&mut self, owner: Owner, stage: Stage, now: Duration) -> u64 {
        self.forget(now);
        let id = self.next;
        self.next += 1;
        self.askers.insert(id, (stage, owner.network));
        let network = self.networks.entry(owner.network).or_default();
        network.is_unbounded = owner.is_many;
        network.waiting.insert((stage, id));
        if network.waiting.len() == 1 {
            self.line_up(owner.network, now);
        }
        id
    }

    /// One that asked wants no turn any more.
    pub fn cancel(&mut self, id: u64) {
        let Some((stage, number)) = self.askers.remove(&id) else { return };
        let Some(network) = self.networks.get_mut(&number) else { return };
        network.waiting.remove(&(stage, id));
        if network.waiting.is_empty() {
            let due = self.due_of(number);
            self.ready.remove(number);
            self.late.remove(&(due, number));
            self.drop_unless_remembered(number);
        }
    }

    /// Gives the next turn, if one may have it.
    pub fn next(&mut self, now: Duration) -> Next {
        while let Some((due, number)) = self.late.first().copied().filter(|(due, _)| *due <= now) {
            self.late.remove(&(due, number));
            self.line_up(number, now);
        }
        let Some(number) = self.ready.first() else {
            return self.late.first().map_or(Next::None, |(due, _)| Next::At(*due));
        };
        self.ready.remove(number);
        let Some(network) = self.networks.get_mut(&number) else { return Next::None };
        let Some((_, id)) = network.waiting.pop_first() else { return Next::None };
        self.had = network.had;
        network.had += 1;
        if !network.is_unbounded {
            self.remembered.remove(&(network.even_at, number));
            network.even_at = network.even_at.max(now) + self.each;
            self.remembered.insert((network.even_at, number));
        }
        self.askers.remove(&id);
        if network.waiting.is_empty() {
            self.drop_unless_remembered(number);
        } else {
            self.line_up(number, now);
        }
        Next::Turn(id)
    }

    /// Turns that had to wait since their network was beyond its rate: those since this was asked last.
    pub fn take_delayed(&mut self) -> u64 {
        std::mem::take(&mut self.delayed)
    }

    /// Those that ask.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.askers.len()
    }

    /// When a network may have its next turn.
    fn due_of(&self, number: u64) -> Duration {
        let network = self.networks.get(&number).filter(|network| !network.is_unbounded);
        network.map_or(Duration::ZERO, |network| network.even_at.saturating_sub(self.ahead))
    }

    fn line_up(&mut self, number: u64, now: Duration) {
        let had = self.had;
        let Some(network) = self.networks.get_mut(&number) else { return };
        // Turns that it hasn't asked for, it doesn't get later.
        network.had = network.had.max(had);
        let (had, first) = (network.had, network.waiting.first().map(|(_, id)| *id));
        let due = self.due_of(number);
        if due > now {
            self.late.insert((due, number));
            self.delayed += 1;
        } else {
            self.ready.add(number, had, first.unwrap_or_default());
        }
    }

    fn drop_unless_remembered(&mut self, number: u64) {
        let is_remembered = |network: &Network| self.remembered.contains(&(network.even_at, number));
        if !self.networks.get(&number).is_some_and(is_remembered) {
            self.networks.remove(&number);
        }
    }

    /// Forgets networks that have used up no more than they earned.
    fn forget(&mut self, now: Duration) {
        while let Some((until, number)) = self.remembered.first().copied().filter(|(until, _)| *until <= now)
        {
            self.remembered.remove(&(until, number));
            if self.networks.get(&number).is_some_and(|network| network.waiting.is_empty()) {
                self.networks.remove(&number);
            }
        }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
