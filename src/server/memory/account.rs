//! What one connection holds, as it counts it.

use super::{Holder, Memory, lock};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

/// A connection reports what it holds in steps of so much; less than one step isn't reported at all.
const STEP_BYTES: u64 = 8 << 10;
/// A connection that is at work tells that it holds less by so much at least, or when it holds nothing. A client that stalls over TLS
/// has [`Part::Records`] of more than that.
const LESS_BYTES: u64 = 32 << 10;
/// One that holds something again after less than this goes on as before: its client takes piece after piece.
const PAUSE: Duration = Duration::from_secs(3);

/// What a connection holds memory for.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// A head that hasn't come whole, or a message of a TLS handshake.
    Input,
    /// Heads that are being answered, and what their answers have in memory of their own.
    Requests,
    /// A piece of a body that waits.
    Bodies,
    /// Frames of HTTP/2, with the pieces of bodies in them.
    Frames,
    /// Records of TLS.
    Records,
}

const PARTS: usize = 5;

/// What one connection holds.
#[derive(Debug)]
pub struct Account {
    memory: Arc<Memory>,
    id: u64,
    parts: [Cell<u64>; PARTS],
    told: Cell<u64>,
    /// Bytes of [`Shared`](super::Shared): the node has counted them.
    shared: Cell<u64>,
    /// When it held something last, on the node's clock.
    held_until: Cell<Option<Duration>>,
    /// Its requests wait for the node.
    is_nodes_turn: Cell<bool>,
    is_listed: Cell<bool>,
    holder: Arc<Holder>,
}

impl Account {
    /// Of a connection with this number, which holds nothing yet.
    #[must_use]
    pub fn new(memory: Arc<Memory>, id: u64) -> Self {
        let (parts, told, is_listed) = (Default::default(), Cell::new(0), Cell::new(false));
        let (shared, held_until, is_nodes_turn) = (Cell::new(0), Cell::new(None), Cell::new(false));
        Self { memory, id, parts, told, shared, held_until, is_nodes_turn, is_listed, holder: Arc::default() }
    }

    /// It holds so many bytes for a part from now on.
    pub fn set(&self, part: Part, bytes: u64) {
        if self.parts[part as usize].replace(bytes) != bytes {
            self.tell();
            self.tell_turn();
        }
    }

    /// All its requests wait for the node from now on, or not all.
    pub fn set_nodes_turn(&self, is_nodes_turn: bool) {
        if self.is_nodes_turn.replace(is_nodes_turn) != is_nodes_turn {
            self.tell_turn();
        }
    }

    /// It holds so many bytes more for requests.
    pub fn keeps(&self, bytes: u64) {
        self.set(Part::Requests, self.parts[Part::Requests as usize].get() + bytes);
    }

    /// It doesn't hold them any more.
    pub fn keeps_no_more(&self, bytes: u64) {
        self.set(Part::Requests, self.parts[Part::Requests as usize].get().saturating_sub(bytes));
    }

    /// It has so many bytes more that others have, too: they tell for how much it stands, and are counted elsewhere.
    pub fn shares(&self, bytes: u64) {
        self.shares_so_much(self.shared.get() + bytes);
    }

    /// It hasn't them any more.
    pub fn shares_no_more(&self, bytes: u64) {
        self.shares_so_much(self.shared.get().saturating_sub(bytes));
    }

    fn shares_so_much(&self, bytes: u64) {
        if self.shared.replace(bytes) != bytes {
            self.show();
        }
    }

    /// Bytes of bodies have left.
    pub fn progressed(&self, bytes: u64) {
        if self.is_listed.get() {
            // One thread alone writes it.
            let before = self.holder.progress.load(Ordering::Relaxed);
            self.holder.progress.store(before + bytes, Ordering::Relaxed);
        }
    }

    /// Ready while the ceiling isn't reached.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.memory.poll_room(cx)
    }

    /// Returns once the connection has to end for others.
    pub async fn ends(&self) {
        while !self.holder.ends.load(Ordering::Relaxed) {
            self.holder.signal.notified().await;
        }
    }

    fn tell(&self) {
        let sum: u64 = self.parts.iter().map(Cell::get).sum();
        let (told, bytes) =
            (self.told.get(), if sum < STEP_BYTES { 0 } else { sum.next_multiple_of(STEP_BYTES) });
        let is_at_work = self.parts[Part::Requests as usize].get() > 0;
        if bytes > told {
            self.told.set(bytes);
            self.show();
            self.memory.adds(bytes - told);
        } else if bytes < told && (!is_at_work || bytes == 0 || told - bytes >= LESS_BYTES) {
            self.told.set(bytes);
            self.show();
            self.memory.subtracts(told - bytes);
        }
    }

    /// Others see what it has now.
    fn show(&self) {
        let bytes = self.told.get() + self.shared.get();
        match (self.holder.bytes.load(Ordering::Relaxed), bytes) {
            (0, 1..) => self.begins(),
            (1.., 0) => self.held_until.set(Some(self.memory.began.elapsed())),
            _ => {}
        }
        self.holder.bytes.store(bytes, Ordering::Relaxed);
    }

    /// What lies in memory for the client to take isn't the node's turn, whatever else is.
    fn tell_turn(&self) {
        let is_clients =
            [Part::Frames, Part::Records].iter().any(|part| self.parts[*part as usize].get() > 0);
        self.holder.awaits_node.store(self.is_nodes_turn.get() && !is_clients, Ordering::Relaxed);
    }

    fn begins(&self) {
        let now = self.memory.began.elapsed();
        if self.held_until.get().is_none_or(|until| now.saturating_sub(until) >= PAUSE) {
            let since = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            self.holder.since_nanos.store(since, Ordering::Relaxed);
            self.holder.progress.store(0, Ordering::Relaxed);
        }
        if !self.is_listed.replace(true) {
            lock(&self.memory.holders).insert(self.id, self.holder.clone());
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.is_listed.get() {
            lock(&self.memory.holders).remove(&self.id);
        }
        if self.told.get() > 0 {
            self.memory.subtracts(self.told.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;

    fn memory(ceiling: u64) -> Arc<Memory> {
        Memory::new(ceiling, IntCounter::new("ended", "for others").unwrap())
    }

    #[test]
    fn what_a_connection_holds_is_told_in_steps_and_at_once_when_it_is_nothing() {
        let memory = memory(1 << 30);
        let account = Account::new(memory.clone(), 1);
        account.keeps(300);
        assert_eq!(memory.held(), 0, "a short head isn't told");
        account.set(Part::Records, 40 << 10);
        assert_eq!(memory.held(), 48 << 10);
        account.set(Part::Records, 20 << 10);
        assert_eq!(memory.held(), 48 << 10, "it is at work");
        account.set(Part::Records, 0);
        assert_eq!(memory.held(), 0, "its client has taken all");
        account.set(Part::Records, 40 << 10);
        account.keeps(8000);
        account.set(Part::Records, 0);
        assert_eq!(memory.held(), 16 << 10, "a long head");
        account.keeps_no_more(8300);
        assert_eq!(memory.held(), 0);
        account.set(Part::Input, 64 << 10);
        drop(account);
        assert_eq!((memory.held(), lock(&memory.holders).len()), (0, 0));
    }

    #[test]
    fn one_whose_client_takes_piece_after_piece_is_measured_on() {
        let memory = memory(1 << 30);
        let account = Account::new(memory.clone(), 1);
        let holding = || lock(&memory.holders)[&1].holding(1, 0);
        account.set(Part::Records, 40 << 10);
        let since = holding().since;
        account.progressed(1000);
        account.set(Part::Records, 0);
        account.progressed(30_000);
        account.set(Part::Records, 40 << 10);
        assert_eq!((holding().since, holding().progress), (since, 31_000));
    }

    #[test]
    fn what_it_shares_is_its_own_to_others_and_counted_elsewhere() {
        let memory = memory(1 << 30);
        let account = Account::new(memory.clone(), 1);
        account.shares(1 << 20);
        account.set(Part::Records, 40 << 10);
        let seen = || lock(&memory.holders)[&1].bytes.load(Ordering::Relaxed);
        assert_eq!((seen(), memory.held()), ((1 << 20) + (40 << 10), 40 << 10));
        account.set(Part::Records, 0);
        account.shares_no_more(1 << 20);
        assert_eq!((seen(), memory.held()), (0, 0));
    }

    #[test]
    fn it_awaits_the_node_while_nothing_lies_there_for_its_client() {
        let memory = memory(1 << 30);
        let account = Account::new(memory.clone(), 1);
        let awaits_node = || lock(&memory.holders)[&1].holding(1, 0).awaits_node;
        account.set(Part::Input, 40 << 10);
        account.set_nodes_turn(true);
        assert!(awaits_node());
        account.set(Part::Records, 40 << 10);
        assert!(!awaits_node(), "its client stalls");
        account.set(Part::Records, 0);
        assert!(awaits_node());
        account.set_nodes_turn(false);
        assert!(!awaits_node());
    }
}
