//! What connections hold of memory for clients that don't take it: `http.memory` is its ceiling.
//!
//! Counted are buffers of TLS and HTTP/2, pieces of bodies, heads that are kept while they are answered, and long heads that
//! haven't come whole. A connection counts its own, and tells the node in steps of `STEP_BYTES`: more at once, less when its last
//! response is over. Near the ceiling the slowest connections end ([`Slowest`]); at the ceiling connections that need buffers wait for that.

use crate::clock;
use crate::shares::{Holding, Slowest, slowest};
use prometheus::IntCounter;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// A connection reports what it holds in steps of so much; less than one step isn't reported at all.
const STEP_BYTES: u64 = 8 << 10;
/// A connection that is at work tells that it holds less by so much at least.
const LESS_BYTES: u64 = 128 << 10;
/// A flood says so in the log this often.
const WARNED_EVERY: Duration = Duration::from_secs(10);
/// While connections end for others, the next look comes so soon.
const SOON: Duration = Duration::from_millis(20);

/// What all connections hold together.
#[derive(Debug)]
pub struct Memory {
    ceiling: u64,
    held: AtomicU64,
    /// Those that hold something.
    holders: Mutex<HashMap<u64, Arc<Holder>>>,
    /// Those that wait until it is less than the ceiling.
    waiting: Mutex<Vec<Waker>>,
    rising: Notify,
    ended: IntCounter,
    began: Instant,
    /// When the log may have the next line of it, in seconds since it began.
    warn_from_secs: AtomicU64,
}

/// A connection, as others see it.
#[derive(Debug, Default)]
struct Holder {
    bytes: AtomicU64,
    progress: AtomicU64,
    since_nanos: AtomicU64,
    /// It has to end.
    ends: AtomicBool,
    signal: Notify,
}

impl Memory {
    /// A ceiling in bytes; connections that end for it are counted.
    #[must_use]
    pub fn new(ceiling: u64, ended: IntCounter) -> Arc<Self> {
        Arc::new(Self {
            ceiling,
            held: AtomicU64::new(0),
            holders: Mutex::default(),
            waiting: Mutex::default(),
            rising: Notify::new(),
            ended,
            began: clock::monotonic(),
            warn_from_secs: AtomicU64::new(0),
        })
    }

    /// What all connections hold, in bytes.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Ready while there is less than the ceiling.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.held() < self.ceiling {
            return Poll::Ready(());
        }
        lock(&self.waiting).push(cx.waker().clone());
        // It may have become less meanwhile.
        if self.held() < self.ceiling { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends connections where that is needed, until `shutdown` turns true.
    pub async fn watch(&self, mut shutdown: watch::Receiver<bool>) {
        let mut slowest = Slowest::default();
        loop {
            let pause = self.look(&mut slowest);
            let next = async {
                match pause {
                    // What rises is looked at at once.
                    Some(pause) => drop(tokio::time::timeout(pause, self.rising.notified()).await),
                    None => self.rising.notified().await,
                }
            };
            tokio::select! {
                () = next => {}
                _ = shutdown.wait_for(|down| *down) => return,
            }
        }
    }

    /// Looks at what connections do; how long until the next look, where one is due.
    fn look(&self, slowest: &mut Slowest) -> Option<Duration> {
        if self.held() < self.half() {
            return None;
        }
        let now = self.began.elapsed();
        let (mut holdings, mut ending) = (Vec::new(), 0);
        for (id, holder) in &*lock(&self.holders) {
            let bytes = holder.bytes.load(Ordering::Relaxed);
            match holder.ends.load(Ordering::Relaxed) {
                true => ending += bytes,
                false if bytes > 0 => holdings.push(holder.holding(*id, bytes)),
                false => {}
            }
        }
        slowest.look(&holdings, now);
        let left = self.held().saturating_sub(ending);
        if left < self.high() {
            return Some(slowest::WINDOW);
        }
        let chosen = slowest.choose(&holdings, left - self.low(), now);
        self.warns(left, chosen.len(), now);
        let holders = lock(&self.holders);
        for holder in chosen.iter().filter_map(|id| holders.get(id)) {
            holder.ends.store(true, Ordering::Relaxed);
            holder.signal.notify_one();
            self.ended.inc();
        }
        Some(SOON)
    }

    /// Says so in the log, once in [`WARNED_EVERY`].
    fn warns(&self, held: u64, connections: usize, now: Duration) {
        let due = self.warn_from_secs.load(Ordering::Relaxed);
        if connections > 0 && now.as_secs() >= due {
            self.warn_from_secs.store((now + WARNED_EVERY).as_secs(), Ordering::Relaxed);
            tracing::warn!(held, connections, "http.memory is nearly used up: the slowest connections end");
        }
    }

    /// From here on it is measured how connections progress.
    const fn half(&self) -> u64 {
        self.ceiling / 2
    }

    /// From here on connections end, until less than [`low`](Self::low) is left.
    const fn high(&self) -> u64 {
        self.ceiling / 8 * 7
    }

    const fn low(&self) -> u64 {
        self.ceiling / 4 * 3
    }

    fn adds(&self, bytes: u64) {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if [self.half(), self.high()].iter().any(|mark| (before..before + bytes).contains(mark)) {
            self.rising.notify_one();
        }
    }

    fn subtracts(&self, bytes: u64) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.ceiling && before - bytes < self.ceiling {
            std::mem::take(&mut *lock(&self.waiting)).into_iter().for_each(Waker::wake);
        }
    }
}

impl Holder {
    fn holding(&self, id: u64, bytes: u64) -> Holding {
        let progress = self.progress.load(Ordering::Relaxed);
        Holding {
            id,
            bytes,
            progress,
            since: Duration::from_nanos(self.since_nanos.load(Ordering::Relaxed)),
            awaits_node: false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection holds memory for.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// A head that hasn't come whole, or a message of a TLS handshake.
    Input,
    /// Heads that are being answered.
    Heads,
    /// Pieces of bodies.
    Bodies,
    /// Frames of HTTP/2.
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
    is_listed: Cell<bool>,
    holder: Arc<Holder>,
}

impl Account {
    /// Of a connection with this number, which holds nothing yet.
    #[must_use]
    pub fn new(memory: Arc<Memory>, id: u64) -> Self {
        let (parts, told, is_listed) = (Default::default(), Cell::new(0), Cell::new(false));
        Self { memory, id, parts, told, is_listed, holder: Arc::default() }
    }

    /// It holds so many bytes for a part from now on.
    pub fn set(&self, part: Part, bytes: u64) {
        if self.parts[part as usize].replace(bytes) != bytes {
            self.tell();
        }
    }

    /// It holds the head of one more request, of so many bytes.
    pub fn keeps_head(&self, bytes: u64) {
        self.set(Part::Heads, self.parts[Part::Heads as usize].get() + bytes);
    }

    /// It doesn't hold it any more.
    pub fn drops_head(&self, bytes: u64) {
        self.set(Part::Heads, self.parts[Part::Heads as usize].get().saturating_sub(bytes));
    }

    /// Bytes of bodies have left.
    pub fn progressed(&self, bytes: u64) {
        if self.told.get() > 0 {
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
        let is_at_work = self.parts[Part::Heads as usize].get() > 0;
        if bytes > told {
            if told == 0 {
                self.begins();
            }
            self.told.set(bytes);
            self.holder.bytes.store(bytes, Ordering::Relaxed);
            self.memory.adds(bytes - told);
        } else if bytes < told && (!is_at_work || told - bytes >= LESS_BYTES) {
            self.told.set(bytes);
            self.holder.bytes.store(bytes, Ordering::Relaxed);
            self.memory.subtracts(told - bytes);
        }
    }

    fn begins(&self) {
        let since = u64::try_from(self.memory.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.holder.since_nanos.store(since, Ordering::Relaxed);
        self.holder.progress.store(0, Ordering::Relaxed);
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

    fn memory(ceiling: u64) -> Arc<Memory> {
        Memory::new(ceiling, IntCounter::new("ended", "for others").unwrap())
    }

    #[test]
    fn what_a_connection_holds_is_told_in_steps_and_while_it_is_at_work_not_less() {
        let memory = memory(1 << 30);
        let account = Account::new(memory.clone(), 1);
        account.keeps_head(300);
        assert_eq!(memory.held(), 0, "a short head isn't told");
        account.set(Part::Records, 40 << 10);
        assert_eq!(memory.held(), 48 << 10);
        account.set(Part::Records, 0);
        assert_eq!(memory.held(), 48 << 10, "it is at work");
        account.drops_head(300);
        assert_eq!(memory.held(), 0);
        account.set(Part::Input, 64 << 10);
        drop(account);
        assert_eq!((memory.held(), lock(&memory.holders).len()), (0, 0));
    }

    #[tokio::test]
    async fn at_the_ceiling_others_wait_until_the_slowest_has_ended() {
        let memory = memory(1 << 20);
        let (fast, stalled) = (Account::new(memory.clone(), 1), Account::new(memory.clone(), 2));
        for account in [&fast, &stalled] {
            account.keeps_head(1000);
            account.set(Part::Bodies, 511 << 10);
        }
        fast.progressed(10 << 20);
        assert_eq!(memory.held(), 1 << 20);
        let waits = tokio::spawn({
            let memory = memory.clone();
            async move { std::future::poll_fn(|cx| memory.poll_room(cx)).await }
        });
        let down = watch::channel(false);
        let watching = tokio::spawn({
            let memory = memory.clone();
            async move { memory.watch(down.1).await }
        });
        stalled.ends().await;
        assert!(!waits.is_finished());
        drop(stalled);
        waits.await.unwrap();
        assert!(!fast.holder.ends.load(Ordering::Relaxed));
        assert_eq!(memory.ended.get(), 1);
        down.0.send(true).unwrap();
        watching.await.unwrap();
    }
}
