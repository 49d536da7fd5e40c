//! TLS handshakes of one worker, which compute for a while: one at a time, in turn by network, with requests in between.
//!
//! A flight of a handshake (what a client sends at once, most often two of them) waits for its turn before it is read. Between two
//! turns the worker does what else there is to do, and looks what has come. A network beyond its rate delays its own.

use crate::clock;
use crate::shares::Owner;
use crate::shares::turns::{Next, Rate, Stage, Turns};
use prometheus::{IntCounter, IntGauge};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Turns for a handshake: its two flights, and one more where the first comes in two pieces.
pub const TURNS: u32 = 3;
/// So many seconds' handshakes a network may have at once.
const BURST_SECONDS: u32 = 8;

/// Who is at it, and who waits.
pub struct Handshakes {
    queue: RefCell<Queue>,
    changed: Notify,
    waiting: IntGauge,
    delayed: IntCounter,
    began: Instant,
}

struct Queue {
    turns: Turns,
    at: At,
    wakers: HashMap<u64, Waker>,
}

/// What the worker is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// The flight of this number.
    Flight(u64),
    /// What else there is to do, after a flight.
    Others,
    /// No flight waits that may go on.
    Free,
}

/// A turn that is waited for, or is there. Dropped, it is the next one's.
pub struct Turn {
    of: Rc<Handshakes>,
    id: u64,
}

impl Handshakes {
    /// With so many handshakes for each network in a second. Runs on the current thread, for as long as that does.
    #[must_use]
    pub fn start(per_second: u32, waiting: IntGauge, delayed: IntCounter) -> Rc<Self> {
        let per_second = per_second.saturating_mul(TURNS);
        let rate = Rate { per_second, burst: per_second.saturating_mul(BURST_SECONDS) };
        let queue = Queue { turns: Turns::new(rate), at: At::Free, wakers: HashMap::new() };
        let (changed, began) = (Notify::new(), clock::monotonic());
        let handshakes = Rc::new(Self { queue: RefCell::new(queue), changed, waiting, delayed, began });
        let running = handshakes.clone();
        tokio::task::spawn_local(async move { running.run().await });
        handshakes
    }

    /// Asks for a turn. Those of handshakes that go on come before their network's others: what was computed for them would be lost.
    pub fn ask(self: &Rc<Self>, owner: Owner, stage: Stage) -> Turn {
        let mut queue = self.queue.borrow_mut();
        let id = queue.turns.ask(owner, stage, self.began.elapsed());
        self.waiting.inc();
        if queue.at == At::Free {
            self.goes_on(&mut queue);
        }
        drop(queue);
        // Where it has to wait for a while, that is waited for there.
        self.changed.notify_one();
        Turn { of: self.clone(), id }
    }

    async fn run(&self) {
        loop {
            let next = {
                let mut queue = self.queue.borrow_mut();
                if queue.at == At::Others {
                    queue.at = At::Free;
                }
                if queue.at == At::Free { self.goes_on(&mut queue) } else { Next::None }
            };
            match next {
                Next::At(due) => {
                    let due = tokio::time::sleep_until((self.began + due).into());
                    tokio::select! {
                        () = due => {}
                        () = self.changed.notified() => {}
                    }
                }
                Next::Turn(_) | Next::None => self.changed.notified().await,
            }
            if self.queue.borrow().at == At::Others {
                // Until all that is ready has had its turn, and sockets have been looked at.
                tokio::task::yield_now().await;
            }
        }
    }

    fn goes_on(&self, queue: &mut Queue) -> Next {
        let next = queue.turns.next(self.began.elapsed().max(Duration::from_nanos(1)));
        if let Next::Turn(id) = next {
            queue.at = At::Flight(id);
            self.delayed.inc_by(queue.turns.take_delayed());
            self.waiting.dec();
            if let Some(waker) = queue.wakers.remove(&id) {
                waker.wake();
            }
        }
        next
    }
}

impl Turn {
    /// Ready once it is there.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.of.queue.borrow_mut();
        if queue.at == At::Flight(self.id) {
            return Poll::Ready(());
        }
        queue.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }

    /// It is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.of.queue.borrow().at == At::Flight(self.id)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.of.queue.borrow_mut();
        queue.wakers.remove(&self.id);
        if queue.at == At::Flight(self.id) {
            queue.at = At::Others;
            self.of.changed.notify_one();
        } else {
            queue.turns.cancel(self.id);
            self.of.waiting.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use tokio::task::LocalSet;

    fn started() -> Rc<Handshakes> {
        let (waiting, delayed) = (IntGauge::new("waiting", "flights"), IntCounter::new("delayed", "flights"));
        Handshakes::start(1000, waiting.unwrap(), delayed.unwrap())
    }

    #[tokio::test]
    async fn between_two_flights_others_have_their_turn() {
        LocalSet::new()
            .run_until(async {
                let handshakes = started();
                let log = Rc::new(RefCell::new(String::new()));
                let mut tasks = Vec::new();
                for number in 0..20 {
                    let (handshakes, log) = (handshakes.clone(), log.clone());
                    tasks.push(tokio::task::spawn_local(async move {
                        let turn = handshakes.ask(Owner::new(number % 3, 0), Stage::Begins);
                        poll_fn(|cx| turn.poll(cx)).await;
                        log.borrow_mut().push('f');
                    }));
                }
                let is_over = Rc::new(Cell::new(false));
                let requests = tokio::task::spawn_local({
                    let (log, is_over) = (log.clone(), is_over.clone());
                    async move {
                        while !is_over.get() {
                            log.borrow_mut().push('r');
                            tokio::task::yield_now().await;
                        }
                    }
                });
                for task in tasks {
                    task.await.unwrap();
                }
                is_over.set(true);
                requests.await.unwrap();
                let log = log.borrow();
                assert!(!log.contains("ff"), "{log}");
            })
            .await;
    }

    #[tokio::test]
    async fn a_turn_that_is_given_up_is_the_next_ones() {
        LocalSet::new()
            .run_until(async {
                let handshakes = started();
                let (first, second, third) = {
                    let ask = || handshakes.ask(Owner::new(1, 1), Stage::Begins);
                    (ask(), ask(), ask())
                };
                poll_fn(|cx| first.poll(cx)).await;
                assert!(!second.is_there());
                drop(second);
                drop(first);
                poll_fn(|cx| third.poll(cx)).await;
            })
            .await;
    }
}
