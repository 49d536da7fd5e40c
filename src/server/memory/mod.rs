//! What connections hold of memory for clients that don't take it: `http.memory` is its ceiling.
//!
//! Counted are buffers of TLS and HTTP/2, bodies that are in memory, heads that are kept while they are answered, and long heads
//! that haven't come whole. A connection counts its own ([`Account`]), and tells the node in steps. Near the ceiling the slowest
//! connections end ([`Slowest`]); at the ceiling connections that need buffers wait for that.

mod account;
mod shared;

pub use account::{Account, Part};
pub use shared::Shared;

use crate::clock;
use crate::shares::{Holding, Slowest, slowest};
use prometheus::IntCounter;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

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
    awaits_node: AtomicBool,
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
        let since = Duration::from_nanos(self.since_nanos.load(Ordering::Relaxed));
        let awaits_node = self.awaits_node.load(Ordering::Relaxed);
        Holding { id, bytes, progress, since, awaits_node }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(ceiling: u64) -> Arc<Memory> {
        Memory::new(ceiling, IntCounter::new("ended", "for others").unwrap())
    }

    #[tokio::test]
    async fn at_the_ceiling_others_wait_until_the_slowest_has_ended() {
        let memory = memory(1 << 20);
        let (fast, stalled) = (Account::new(memory.clone(), 1), Account::new(memory.clone(), 2));
        for account in [&fast, &stalled] {
            account.keeps(1000);
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
        assert!(!lock(&memory.holders)[&1].ends.load(Ordering::Relaxed));
        assert_eq!(memory.ended.get(), 1);
        down.0.send(true).unwrap();
        watching.await.unwrap();
    }
}
