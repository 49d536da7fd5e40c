//! The origin's line, while a push uses it: how many client transfers may read from the origin beside it.
//!
//! There is no telling how fast the origin's line is. So while a push fetches, a client's transfer reads its next piece
//! only in turn, and few have their turn at once: TCP then slows the others, and each still gets on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Client transfers that read at once beside a push, which itself fetches up to `push.warm_parallel` files.
const BESIDE_A_PUSH: usize = 4;
/// A transfer that has got nothing for so long takes nothing of the line, and lets the next one have its turn.
const TURN: Duration = Duration::from_secs(1);

/// Owned by the store's cache.
pub(super) struct Gate {
    pushes: AtomicUsize,
    turns: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { pushes: AtomicUsize::new(0), turns: Semaphore::new(BESIDE_A_PUSH) }
    }
}

/// A push fetches as long as this lives.
pub(super) struct Pushing(Arc<Gate>);

impl Drop for Pushing {
    fn drop(&mut self) {
        self.0.pushes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(super) fn push(self: &Arc<Self>) -> Pushing {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        Pushing(Arc::clone(self))
    }

    pub(super) fn is_pushing(&self) -> bool {
        self.pushes.load(Ordering::Relaxed) > 0
    }

    /// Awaits `piece`, the next bytes of a client's transfer, in turn while a push fetches. May be dropped and called again
    /// if `piece` may.
    pub(super) async fn pass<T>(&self, piece: impl Future<Output = T>) -> T {
        if !self.is_pushing() {
            return piece.await;
        }
        let turn = self.turns.acquire().await;
        let mut piece = std::pin::pin!(piece);
        let taken = tokio::time::timeout(TURN, piece.as_mut()).await;
        drop(turn);
        match taken {
            Ok(taken) => taken,
            Err(_) => piece.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn few_read_at_once_beside_a_push_and_all_without_one() {
        for pushes in [false, true] {
            let gate = Arc::new(Gate::default());
            let _push = pushes.then(|| gate.push());
            let (reading, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let mut transfers = JoinSet::new();
            for _ in 0..20 {
                let (gate, reading, most) = (Arc::clone(&gate), Arc::clone(&reading), Arc::clone(&most));
                transfers.spawn(async move {
                    gate.pass(async {
                        most.fetch_max(reading.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        for _ in 0..100 {
                            tokio::task::yield_now().await;
                        }
                        reading.fetch_sub(1, Ordering::Relaxed);
                    })
                    .await;
                });
            }
            transfers.join_all().await;
            assert_eq!(most.load(Ordering::Relaxed), if pushes { BESIDE_A_PUSH } else { 20 });
        }
    }

    #[tokio::test]
    async fn one_that_gets_nothing_holds_no_other_up() {
        let gate = Arc::new(Gate::default());
        let _push = gate.push();
        let mut silent = JoinSet::new();
        for _ in 0..BESIDE_A_PUSH {
            let gate = Arc::clone(&gate);
            silent.spawn(async move { gate.pass(std::future::pending::<()>()).await });
        }
        tokio::task::yield_now().await;
        gate.pass(async {}).await;
    }
}
