//! Holds the budget: while more is to be sent than the capacity allows, transfers wait here for their turn.
//!
//! Whoever sends asks for a permit, for at most so much that a turn is short. While the budget isn't spent and nobody waits,
//! that costs an atomic; beyond it, [`FairQueue`] says whose turn is next, and one task gives turns as fast as the budget
//! earns them. Bytes are those on the wire, with the heads of TCP, IP and Ethernet. What needs no permit (heads, TLS records) is
//! spent all the same.

use crate::clock;
use crate::metrics::Metrics;
use crate::policy::budget::Budget;
use crate::policy::fair::{Class, FLOOR, FairQueue, Floor, FlowId, Sender};
use crate::shares::Owner;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Turns are for so much time of the whole capacity, shared by all who wait.
const ROUND: Duration = Duration::from_millis(10);
/// A turn is no shorter: below it, system calls would cost more than they send.
const SHORTEST_TURN: u64 = 16 << 10;
/// A turn is no longer: a worker's other connections want theirs.
const LONGEST_TURN: u64 = 1 << 20;
/// The shortest time between two rounds of turns.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Whoever is due has its turn from what the budget earns, before all but metadata. Only who has had none so long after is sent
/// more than that, and nobody else less for it: else metadata would wait for as long as floors take more than there is.
const GRACE: Duration = Duration::from_millis(250);

/// The budget, and who waits for it.
#[derive(Debug)]
pub struct Pacer {
    /// What times are counted from.
    epoch: Instant,
    budget: Budget,
    /// As many as wait in the queue, or haven't taken their turn yet.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    arrived: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    fair: FairQueue,
    /// By the flow's slot.
    waits: Vec<Wait>,
}

#[derive(Debug, Default)]
struct Wait {
    has_turn: bool,
    waker: Option<Waker>,
}

/// One transfer, as the pacer knows it.
#[derive(Debug)]
pub struct Flow {
    owner: Owner,
    class: Cell<Class>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Some from its first wait on.
    id: Option<FlowId>,
    floor: Floor,
    /// What it waits for: bytes of the transfer, and the same on the wire.
    asked: Option<(u64, u64)>,
}

impl Flow {
    /// A transfer that hasn't begun.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { owner, class: Cell::new(Class::Metadata), state: RefCell::default() }
    }

    /// What it is a transfer of; before it begins.
    pub fn goes_as(&self, class: Class) {
        self.class.set(class);
    }
}

impl Pacer {
    /// Without bound, until [`Pacer::set`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            epoch: clock::monotonic(),
            budget: Budget::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            arrived: Notify::new(),
            metrics,
        }
    }

    /// From now on so many bytes per second; 0 is no bound.
    pub fn set(&self, bytes_per_second: u64) {
        self.budget.set(bytes_per_second);
        self.arrived.notify_one();
    }

    /// Whether there is a bound at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.bytes_per_second() > 0
    }

    /// Its rate; 0 is no bound.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.budget.bytes_per_second()
    }

    /// What the budget counts time by.
    #[must_use]
    pub fn time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.epoch)
    }

    /// Bytes have left for which there was no permit.
    pub fn spent(&self, on_wire: u64, now: Instant) {
        if self.is_on() {
            self.budget.spend(on_wire, self.time(now));
        }
    }

    /// Bytes for which there was a permit haven't been sent.
    pub fn unspent(&self, on_wire: u64) {
        self.budget.refund(on_wire);
    }

    /// Ready once `flow` may send: how many of the `wanted` bytes, at least one. `on_wire` says what bytes are there.
    pub fn poll_permit(
        &self,
        flow: &Flow,
        cx: &mut Context<'_>,
        wanted: u64,
        on_wire: impl Fn(u64) -> u64,
    ) -> Poll<u64> {
        if !self.is_on() && flow.state.borrow().asked.is_none() {
            return Poll::Ready(wanted);
        }
        let now = self.time(clock::monotonic());
        let mut state = flow.state.borrow_mut();
        if state.asked.is_none() {
            let waiting = self.waiting.load(Ordering::Relaxed);
            let bytes = wanted.min(self.turn_bytes(waiting));
            let cost = on_wire(bytes);
            if waiting == 0 && self.budget.ahead(now).is_zero() {
                self.budget.spend(cost, now);
                state.floor.had(cost, FLOOR, now);
                return Poll::Ready(bytes);
            }
            state.asked = Some((bytes, cost));
            self.joins_line(flow, &mut state, now, cx.waker().clone());
            return Poll::Pending;
        }
        let (Some(id), Some((bytes, cost))) = (state.id, state.asked) else { return Poll::Pending };
        let mut queue = self.lock();
        let wait = &mut queue.waits[id.slot()];
        if !wait.has_turn {
            wait.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        *wait = Wait::default();
        let floor = queue.fair.floor(id);
        drop(queue);
        state.asked = None;
        state.floor.had(cost, floor, now);
        Poll::Ready(bytes)
    }

    fn joins_line(&self, flow: &Flow, state: &mut State, now: Duration, waker: Waker) {
        let (_, cost) = state.asked.unwrap_or_default();
        let mut queue = self.lock();
        let id = *state.id.get_or_insert_with(|| {
            let Owner { network, client, .. } = flow.owner;
            let sender = Sender { client, network, class: flow.class.get() };
            queue.fair.join(sender)
        });
        if queue.waits.len() <= id.slot() {
            queue.waits.resize_with(id.slot() + 1, Wait::default);
        }
        queue.waits[id.slot()] = Wait { has_turn: false, waker: Some(waker) };
        let start = queue.fair.start(flow.owner.client, flow.owner.network, self.budget.bytes_per_second());
        queue.fair.wait(id, cost, state.floor.due(now, start));
        self.waiting.store(queue.fair.waiting(), Ordering::Relaxed);
        drop(queue);
        self.arrived.notify_one();
    }

    /// A transfer is over, or given up.
    pub fn leaves(&self, flow: &Flow) {
        let mut state = flow.state.borrow_mut();
        let Some(id) = state.id.take() else { return };
        let asked = state.asked.take();
        let mut queue = self.lock();
        let had_turn = std::mem::take(&mut queue.waits[id.slot()]).has_turn;
        queue.fair.leave(id);
        self.waiting.store(queue.fair.waiting(), Ordering::Relaxed);
        drop(queue);
        if let Some((_, cost)) = asked.filter(|_| had_turn) {
            self.budget.refund(cost);
        }
    }

    /// Gives turns until `shutdown` turns true, and from then on to everybody.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let pause = self.give_turns();
            let round = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => self.arrived.notified().await,
                }
            };
            tokio::select! {
                () = round => {}
                _ = shutdown.wait_for(|down| *down) => break,
            }
        }
        self.set(0);
        self.give_turns();
    }

    /// Gives the turns that are due; how long until there may be more, if anybody waits.
    fn give_turns(&self) -> Option<Duration> {
        let now = self.time(clock::monotonic());
        let mut wakers = Vec::new();
        let mut queue = self.lock();
        let Queue { fair, waits } = &mut *queue;
        loop {
            let is_spent = !self.budget.ahead(now).is_zero();
            let turn = if is_spent { fair.next_due(now.saturating_sub(GRACE)) } else { fair.next(now) };
            let Some(turn) = turn else { break };
            if is_spent {
                self.metrics.egress_yielded_bytes.inc_by(turn.bytes);
            } else {
                self.budget.spend(turn.bytes, now);
            }
            let wait = &mut waits[turn.flow.slot()];
            wait.has_turn = true;
            wakers.extend(wait.waker.take());
        }
        let waiting = fair.waiting();
        let due = fair.due();
        drop(queue);
        self.waiting.store(waiting, Ordering::Relaxed);
        self.metrics.egress_waiting.set(waiting.try_into().unwrap_or(i64::MAX));
        wakers.into_iter().for_each(Waker::wake);
        let earned = self.budget.ahead(now);
        due.map(|due| earned.min((due + GRACE).saturating_sub(now)).clamp(SHORTEST_PAUSE, ROUND))
    }

    /// How many bytes a turn is for, with so many who wait.
    fn turn_bytes(&self, waiting: usize) -> u64 {
        let round =
            self.budget.bytes_per_second() / (Duration::from_secs(1).as_millis() / ROUND.as_millis()) as u64;
        (round / (waiting as u64 + 1)).clamp(SHORTEST_TURN, LONGEST_TURN)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn pacer(bytes_per_second: u64) -> Arc<Pacer> {
        let pacer = Arc::new(Pacer::new(Arc::new(Metrics::new())));
        pacer.set(bytes_per_second);
        pacer
    }

    async fn permit(pacer: &Pacer, flow: &Flow, wanted: u64) -> u64 {
        poll_fn(|cx| pacer.poll_permit(flow, cx, wanted, |bytes| bytes)).await
    }

    #[tokio::test]
    async fn without_bound_everything_is_permitted() {
        let (pacer, flow) = (pacer(0), Flow::new(Owner::new(1, 1)));
        assert_eq!(permit(&pacer, &flow, u64::MAX).await, u64::MAX);
        pacer.leaves(&flow);
    }

    #[tokio::test]
    async fn whoever_waits_has_a_turn_and_whoever_leaves_gives_it_back() {
        let (pacer, shutdown) = (pacer(10_000_000), watch::channel(false));
        let giving = tokio::spawn({
            let (pacer, down) = (pacer.clone(), shutdown.1.clone());
            async move { pacer.run(down).await }
        });
        let flows: Vec<Flow> = (0..20).map(|client| Flow::new(Owner::new(client, client))).collect();
        let mut sent = 0;
        let begun = clock::monotonic();
        for _ in 0..5 {
            for flow in &flows {
                sent += permit(&pacer, flow, 100_000).await;
            }
        }
        let earned = 10_000_000.0 * (begun.elapsed() + Duration::from_millis(100)).as_secs_f64();
        assert!(sent as f64 <= earned, "{sent} of {earned}");
        flows.iter().for_each(|flow| pacer.leaves(flow));
        let flow = Flow::new(Owner::new(1, 1));
        pacer.spent(1_000_000, clock::monotonic());
        let left = tokio::time::timeout(Duration::ZERO, permit(&pacer, &flow, 1000)).await;
        assert!(left.is_err(), "the budget is spent");
        pacer.leaves(&flow);
        assert_eq!(pacer.lock().fair.waiting(), 0);
        let _ = shutdown.0.send(true);
        giving.await.unwrap();
        assert!(!pacer.is_on(), "at the end nobody waits any more");
    }
}
