//! Who sends next, while more is to be sent than the budget allows.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) over *clients*: each has a virtual time up to which it has had its
//! share, the one that is furthest behind is next, and all connections of a client advance the same one. So ten connections
//! get no more than three. Classes go before each other strictly, and a floor goes before all classes but metadata: no client
//! gets less than [`FLOOR`], and no transfer less than [`LIFE`], since librepo gives up below 1000 B/s over 30 s and users long
//! before. A floor is a client's, not a transfer's: else the capacity would be that of the client with most connections.
//!
//! Pure: who waits and `now` in, whose turn it is out. Times are what has passed since some fixed moment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// What each client gets at least, in bytes per second, for all of its transfers.
pub const FLOOR: u64 = 32_000;
/// What each transfer gets at least, in bytes per second: librepo gives up below 1000 B/s over 30 s.
pub const LIFE: u64 = 1_100;
/// Clients of one network that have a floor of their own; more of them share these.
const FLOORS_OF_NETWORK: u64 = 16;
/// What turns are given for: a sixteenth more, for heads of packets and for the turn that is still to come when somebody looks.
const PAID: u64 = FLOOR + FLOOR / 16;
/// Transfers of one network that have that each; more of them share it, since a connection of HTTP/2 carries 64.
const LIVES_OF_NETWORK: u64 = 2000;
/// No transfer that has begun and is the only one of its client waits longer than this between two turns.
pub const LONGEST_GAP: Duration = Duration::from_secs(2);
/// No transfer at all that has begun: at [`LIFE`], a turn of 16 KiB lasts so long, and librepo waits for twice that.
const LONGEST_GAP_OF_MANY: Duration = Duration::from_secs(15);
/// A transfer that hasn't begun waits no longer than this: the promise is 20 s, the rest is for the disk.
pub const LONGEST_START: Duration = Duration::from_secs(18);
/// Transfers of one client key; beyond it there are more hosts behind it. dnf has 3 for each entry of its list; downloaders
/// that split files have up to 16.
const CONNECTIONS_OF_ONE: u32 = 16;
/// Hosts that one key counts for at most: a campus behind one address isn't starved, and a scraper isn't fed.
const MOST_HOSTS_OF_KEY: u32 = 8;
/// Hosts that one network (/24, /48) counts for at most.
const MOST_HOSTS_OF_NETWORK: u32 = 64;

/// What goes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A client can't do anything before it has it.
    Metadata,
    /// Of a repo with `priority = "high"`.
    High,
    /// Of any other.
    Normal,
    /// Of a repo with `priority = "low"`, once nothing else waits.
    Low,
}

impl Class {
    const COUNT: usize = 4;
}

/// When one transfer falls under its floor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    /// Until then it has had its part of the floor; `None` before its first turn.
    paid_until: Option<Duration>,
}

impl Floor {
    /// Until when a transfer may wait that waits from `now` on; if it hasn't begun, for `start` ([`FairQueue::start`]).
    #[must_use]
    pub fn due(&mut self, now: Duration, start: Duration) -> Duration {
        let Some(paid) = &mut self.paid_until else { return now + start };
        // Time in which it didn't want anything is its own.
        *paid = now.max(*paid);
        *paid
    }

    /// It has had `bytes`, of so many that it gets at least in a second ([`FairQueue::floor`]).
    pub fn had(&mut self, bytes: u64, bytes_per_second: u64, now: Duration) {
        let from = self.paid_until.unwrap_or(now);
        let rate = bytes_per_second.clamp(1, PAID);
        let paid = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let longest = LONGEST_GAP_OF_MANY.mul_f64(LIFE as f64 / rate.min(LIFE) as f64);
        let gap = LONGEST_GAP.mul_f64(PAID as f64 / rate as f64).min(longest);
        self.paid_until = Some((from + paid).min(now + gap));
    }
}

/// Who wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// Its address, as a number ([`super::client::owner`]): a client may call itself by many names.
    pub client: u64,
    /// [`super::Client::network`].
    pub network: u64,
    /// Of what it wants.
    pub class: Class,
}

/// A transfer in the queue's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(usize);

impl FlowId {
    /// A small number, that is used again once the flow has left.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.0
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The transfer.
    pub flow: FlowId,
    /// So many bytes it may send.
    pub bytes: u64,
}

/// The queue. Its size is bounded by the transfers that have joined.
#[derive(Debug, Default)]
pub struct FairQueue {
    flows: Vec<Option<Flow>>,
    free: Vec<usize>,
    shares: HashMap<(u64, Class), Share>,
    /// Transfers of each client.
    clients: HashMap<u64, u32>,
    networks: HashMap<u64, Network>,
    /// Clients with a floor of their own, and transfers that have [`LIFE`].
    floors: u64,
    lives: u64,
    /// By virtual start, for each class.
    lines: [BinaryHeap<Reverse<(u64, Ticket)>>; Class::COUNT],
    /// By when the floor is reached.
    dues: BinaryHeap<Reverse<(Duration, Ticket)>>,
    /// The virtual start of whoever had the last turn, for each class.
    virtual_now: [u64; Class::COUNT],
    tickets: u64,
    waiting: usize,
}

/// One wait of one flow. Of two that start at the same virtual time, the earlier one is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket(u64, usize);

#[derive(Debug)]
struct Flow {
    sender: Sender,
    wait: Option<Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    ticket: Ticket,
    /// That it asks for.
    bytes: u64,
    /// What its client's share was charged, in virtual bytes.
    cost: u64,
}

/// What a client has had in a class.
#[derive(Debug, Default)]
struct Share {
    /// Up to here, in virtual bytes.
    finish: u64,
    flows: u32,
}

/// What is active in a network.
#[derive(Clone, Copy, Debug, Default)]
struct Network {
    hosts: u32,
    clients: u64,
    flows: u64,
}

impl Network {
    fn floors(&self) -> u64 {
        self.clients.min(FLOORS_OF_NETWORK)
    }

    fn lives(&self) -> u64 {
        self.flows.min(LIVES_OF_NETWORK)
    }
}

impl Share {
    fn hosts(&self) -> u32 {
        self.flows.div_ceil(CONNECTIONS_OF_ONE).min(MOST_HOSTS_OF_KEY)
    }
}

impl FairQueue {
    /// A transfer begins to count.
    pub fn join(&mut self, sender: Sender) -> FlowId {
        self.count(sender, 1);
        let flow = Some(Flow { sender, wait: None });
        FlowId(match self.free.pop() {
            Some(slot) => {
                self.flows[slot] = flow;
                slot
            }
            None => {
                self.flows.push(flow);
                self.flows.len() - 1
            }
        })
    }

    /// A transfer is over, or given up.
    pub fn leave(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id.0).and_then(Option::take) else { return };
        if let Some(wait) = flow.wait {
            self.waiting -= 1;
            if let Some(share) = self.shares.get_mut(&(flow.sender.client, flow.sender.class)) {
                share.finish = share.finish.saturating_sub(wait.cost);
            }
        }
        self.free.push(id.0);
        self.count(flow.sender, -1);
        self.tidy();
    }

    /// A transfer wants `bytes`; its floor is reached at `due`.
    pub fn wait(&mut self, id: FlowId, bytes: u64, due: Duration) {
        let Some(flow) = self.flows.get_mut(id.0).and_then(Option::as_mut) else { return };
        if flow.wait.is_some() {
            return;
        }
        self.tickets += 1;
        self.waiting += 1;
        let (ticket, sender) = (Ticket(self.tickets, id.0), flow.sender);
        let class = sender.class as usize;
        let in_network = self.networks.get(&sender.network).map_or(1, |network| network.hosts);
        let share = self.shares.entry((sender.client, sender.class)).or_default();
        let start = share.finish.max(self.virtual_now[class]);
        let crowded = u64::from(in_network.max(MOST_HOSTS_OF_NETWORK));
        let cost = bytes * crowded / u64::from(MOST_HOSTS_OF_NETWORK) / u64::from(share.hosts().max(1));
        share.finish = start + cost;
        flow.wait = Some(Wait { ticket, bytes, cost });
        self.lines[class].push(Reverse((start, ticket)));
        self.dues.push(Reverse((due, ticket)));
        // Who always has its turn because it is due leaves its ticket in its line.
        self.tidy();
    }

    /// The next turn, while there is something to spend.
    pub fn next(&mut self, now: Duration) -> Option<Turn> {
        let metadata = Class::Metadata as usize;
        let ticket = self.pop_line(metadata).or_else(|| self.pop_due(now));
        let ticket =
            ticket.or_else(|| (metadata + 1..Class::COUNT).find_map(|class| self.pop_line(class)))?;
        Some(self.turn(ticket))
    }

    /// The next turn that can't be put off, though there is nothing to spend.
    pub fn next_due(&mut self, now: Duration) -> Option<Turn> {
        let ticket = self.pop_due(now)?;
        Some(self.turn(ticket))
    }

    /// When the first of those who wait is due.
    #[must_use]
    pub fn due(&mut self) -> Option<Duration> {
        while let Some(Reverse((due, ticket))) = self.dues.peek() {
            if self.waits(*ticket) {
                return Some(*due);
            }
            self.dues.pop();
        }
        None
    }

    /// How long a transfer of this client may wait for its first turn: where the floors of those that have joined take all of so
    /// many bytes per second, it has to wait until some are over; and the longer, the more transfers its client or its network has.
    #[must_use]
    pub fn start(&self, client: u64, network: u64, bytes_per_second: u64) -> Duration {
        let in_network = self.networks.get(&network).map_or(0, |network| network.flows);
        if in_network > LIVES_OF_NETWORK {
            return LONGEST_START.mul_f64(in_network as f64 / LIVES_OF_NETWORK as f64);
        }
        if self.floors * PAID + self.lives * LIFE > bytes_per_second {
            return LONGEST_START;
        }
        let own = self.clients.get(&client).copied().unwrap_or_default();
        (LONGEST_GAP * own.div_ceil(CONNECTIONS_OF_ONE)).clamp(LONGEST_GAP, LONGEST_START)
    }

    /// What a transfer gets at least, in bytes per second: its part of its client's floor, and of those of its network.
    #[must_use]
    pub fn floor(&self, id: FlowId) -> u64 {
        let Some(flow) = self.flows.get(id.0).and_then(Option::as_ref) else { return PAID };
        let flows = u64::from(self.clients.get(&flow.sender.client).copied().unwrap_or(1).max(1));
        let network = self.networks.get(&flow.sender.network).copied().unwrap_or_default();
        let in_network = FLOORS_OF_NETWORK * PAID / network.flows.max(1);
        let life = (LIVES_OF_NETWORK * LIFE / network.flows.max(1)).min(LIFE);
        (PAID / flows).min(in_network).max(life).max(1)
    }

    /// Transfers that wait for a turn.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    fn waits(&self, ticket: Ticket) -> bool {
        let flow = self.flows.get(ticket.1).and_then(Option::as_ref);
        flow.and_then(|flow| flow.wait).is_some_and(|wait| wait.ticket == ticket)
    }

    fn pop_line(&mut self, class: usize) -> Option<Ticket> {
        while let Some(Reverse((start, ticket))) = self.lines[class].pop() {
            if self.waits(ticket) {
                self.virtual_now[class] = self.virtual_now[class].max(start);
                return Some(ticket);
            }
        }
        None
    }

    fn pop_due(&mut self, now: Duration) -> Option<Ticket> {
        while let Some(Reverse((due, ticket))) = self.dues.peek().copied() {
            if !self.waits(ticket) {
                self.dues.pop();
            } else if due <= now {
                self.dues.pop();
                return Some(ticket);
            } else {
                break;
            }
        }
        None
    }

    fn turn(&mut self, ticket: Ticket) -> Turn {
        self.waiting -= 1;
        let flow = self.flows[ticket.1].as_mut();
        let wait = flow.and_then(|flow| flow.wait.take()).expect("only a ticket that waits is popped");
        Turn { flow: FlowId(ticket.1), bytes: wait.bytes }
    }

    fn count(&mut self, sender: Sender, by: i32) {
        let share = self.shares.entry((sender.client, sender.class)).or_default();
        let before = share.hosts();
        share.flows = share.flows.saturating_add_signed(by);
        let after = share.hosts();
        let flows = self.clients.entry(sender.client).or_default();
        let was_there = *flows > 0;
        *flows = flows.saturating_add_signed(by);
        let is_there = *flows > 0;
        if !is_there {
            self.clients.remove(&sender.client);
        }
        let network = self.networks.entry(sender.network).or_default();
        let (floors, lives) = (network.floors(), network.lives());
        network.hosts = network.hosts + after - before;
        network.flows = network.flows.saturating_add_signed(by.into());
        network.clients = network.clients + u64::from(is_there) - u64::from(was_there);
        self.floors = self.floors + network.floors() - floors;
        self.lives = self.lives + network.lives() - lives;
        if network.flows == 0 {
            self.networks.remove(&sender.network);
        }
    }

    /// Forgets clients that have left and are not ahead of the others, and tickets that don't wait any more, once these are
    /// the most.
    fn tidy(&mut self) {
        let joined = self.flows.len() - self.free.len();
        if self.shares.len() > 2 * joined + 64 {
            let virtual_now = self.virtual_now;
            self.shares.retain(|(_, class), share| {
                share.flows > 0 || (joined > 0 && share.finish > virtual_now[*class as usize])
            });
        }
        if self.dues.len() > 2 * self.waiting + 64 {
            let dues = std::mem::take(&mut self.dues);
            self.dues = dues.into_iter().filter(|Reverse((_, ticket))| self.waits(*ticket)).collect();
        }
        for class in 0..Class::COUNT {
            if self.lines[class].len() > 2 * self.waiting + 64 {
                let line = std::mem::take(&mut self.lines[class]);
                self.lines[class] =
                    line.into_iter().filter(|Reverse((_, ticket))| self.waits(*ticket)).collect();
            }
        }
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
