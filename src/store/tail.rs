//! How readers follow a fill: a watermark, and a typed end.
//!
//! The fill alone writes progress; readers are woken by notification. Bytes below the watermark are in the file and
//! never change. An end that nobody declared (the task died) is [`FillError::Abandoned`], never a clean one.

use super::FillError;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// How far a fill is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Bytes that readers may have.
    pub(super) watermark: u64,
    pub(super) end: End,
}

/// How a fill ended.
#[derive(Clone, Debug, Default)]
pub(super) enum End {
    #[default]
    NotYet,
    /// All bytes are there, and match.
    Complete,
    /// They are in the cache too.
    Committed,
    /// All bytes are there and match, but the disk refused the entry.
    Uncommitted(Arc<FillError>),
    /// Readers must not end cleanly.
    Failed(Arc<FillError>),
}

type Changed = Pin<Box<dyn Future<Output = (watch::Receiver<Progress>, bool)> + Send + Sync>>;

enum Watching {
    Idle(watch::Receiver<Progress>),
    Waiting(Changed),
    /// Between two states, within one call.
    Taken,
}

/// One reader's view of a file that is being filled.
pub struct Tail {
    file: Arc<File>,
    origin: watch::Receiver<Progress>,
    watching: Watching,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("watermark", &self.watermark()).finish_non_exhaustive()
    }
}

impl Clone for Tail {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.file), self.origin.clone())
    }
}

impl Tail {
    pub(super) fn new(file: Arc<File>, progress: watch::Receiver<Progress>) -> Self {
        Self { file, origin: progress.clone(), watching: Watching::Idle(progress) }
    }

    /// The file that grows. Only what is below the watermark may be read.
    #[must_use]
    pub const fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Bytes that may be read now.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.origin.borrow().watermark
    }

    /// Waits until the watermark is past `offset`, and gives it. At the end of the body, and only there, it gives the
    /// length even where that is not more than `offset`.
    pub async fn past(&mut self, offset: u64) -> Result<u64, Arc<FillError>> {
        std::future::poll_fn(|cx| self.poll_past(cx, offset)).await
    }

    /// The same, polled. `offset` may differ from call to call.
    pub fn poll_past(&mut self, cx: &mut Context<'_>, offset: u64) -> Poll<Result<u64, Arc<FillError>>> {
        loop {
            let mut progress = match std::mem::replace(&mut self.watching, Watching::Taken) {
                Watching::Idle(progress) => progress,
                Watching::Waiting(mut changed) => match changed.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.watching = Watching::Waiting(changed);
                        return Poll::Pending;
                    }
                    Poll::Ready((progress, true)) => progress,
                    Poll::Ready((progress, false)) => {
                        let last = standing(&progress.borrow(), offset);
                        self.watching = Watching::Idle(progress);
                        return Poll::Ready(last.unwrap_or_else(|| Err(Arc::new(FillError::Abandoned))));
                    }
                },
                Watching::Taken => unreachable!("put back before each return"),
            };
            let now = standing(&progress.borrow_and_update(), offset);
            if let Some(answer) = now {
                self.watching = Watching::Idle(progress);
                return Poll::Ready(answer);
            }
            self.watching = Watching::Waiting(Box::pin(async move {
                let alive = progress.changed().await.is_ok();
                (progress, alive)
            }));
        }
    }

    /// Waits until the fill is in the cache.
    pub(super) async fn committed(&self) -> Result<(), Arc<FillError>> {
        let mut progress = self.origin.clone();
        let settled = |p: &Progress| !matches!(p.end, End::NotYet | End::Complete);
        let ended = progress.wait_for(settled).await.map(|p| p.end.clone());
        match ended {
            Ok(End::Committed) => Ok(()),
            Ok(End::Failed(error) | End::Uncommitted(error)) => Err(error),
            Ok(End::NotYet | End::Complete) | Err(_) => Err(Arc::new(FillError::Abandoned)),
        }
    }
}

/// What a reader at `offset` is told now; `None`: wait.
fn standing(progress: &Progress, offset: u64) -> Option<Result<u64, Arc<FillError>>> {
    match &progress.end {
        End::Failed(error) => Some(Err(Arc::clone(error))),
        End::NotYet => (progress.watermark > offset).then_some(Ok(progress.watermark)),
        End::Complete | End::Committed | End::Uncommitted(_) => Some(Ok(progress.watermark)),
    }
}
