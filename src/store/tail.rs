//! How readers follow a fill: which bytes are there, and a typed end.
//!
//! The fill alone writes progress; readers are woken by notification. Bytes that are there are in the file and never
//! change. An end that nobody declared (the task died) is [`FillError::Abandoned`], never a clean one.

use super::FillError;
use super::ahead::{Reading, Request, window};
use super::spans::Spans;
use super::surplus::Accounts;
use super::wants::Wants;
use crate::clock;
use crate::http::ByteRange;
use crate::shares::Owner;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::watch;

/// The end of a listed object that waits for its SHA-256.
pub const HELD_BACK_BYTES: u64 = 16 * 1024;
/// A range that begins at most this far beyond where the fill stands waits for it; one further on is fetched beside it.
pub(super) const NEAR_BYTES: u64 = 8 << 20;
/// A reader of the whole tells the fill where it is once it is so much further, or has to wait.
const TELL_BYTES: u64 = 256 << 10;

/// How far a fill is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Bytes that are in the file.
    pub(super) spans: Spans,
    /// Bytes that somebody is fetching.
    pub(super) claimed: Spans,
    /// Up to where all bytes are there and hashed, while they are fetched in order.
    pub(super) filled_to: Option<u64>,
    /// From here on it is the SHA-256 alone that tells whether the bytes belong together.
    pub(super) unsure_from: Option<u64>,
    /// The length of a listed object: its end waits for the SHA-256.
    pub(super) listed_length: Option<u64>,
    pub(super) end: End,
}

impl Progress {
    /// Whether a reader has all `length` bytes of it, or could have.
    pub(super) fn is_whole(&self, length: Option<u64>) -> bool {
        match self.end {
            End::NotYet => length.is_some_and(|length| self.spans.is_whole(length)),
            End::Complete | End::Committed | End::Uncommitted(_) => true,
            End::Failed(_) => false,
        }
    }

    /// What a reader at `offset` is told now; `None`: wait.
    fn standing(&self, offset: u64, reads: Reads) -> Option<Result<u64, Arc<FillError>>> {
        match &self.end {
            End::Failed(error) => return Some(Err(Arc::clone(error))),
            End::Complete | End::Committed | End::Uncommitted(_) => return Some(Ok(self.spans.end())),
            End::NotYet => {}
        }
        let there = self.spans.end_of(offset).unwrap_or(0);
        let ready = there.min(self.held_back_from(reads).unwrap_or(u64::MAX));
        (ready > offset).then_some(Ok(ready))
    }

    /// From where on a listed object's bytes wait for its SHA-256. Who reads a part waits only where that is soon known:
    /// of a part alone it never is.
    fn held_back_from(&self, reads: Reads) -> Option<u64> {
        let length = self.listed_length?;
        let end = length.saturating_sub(HELD_BACK_BYTES);
        match reads {
            Reads::Whole => Some(end),
            Reads::Part => {
                let is_soon_known = self.filled_to.is_some_and(|at| at + NEAR_BYTES >= length);
                self.unsure_from.into_iter().chain(is_soon_known.then_some(end)).min()
            }
        }
    }
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

/// What a reader is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Whole,
    Part,
}

/// What a reader has told the fill.
#[derive(Debug)]
enum Told {
    Nothing,
    /// That it reads all bytes, and is at this offset.
    At(u64),
    /// That it wants all bytes at once.
    All,
    Ranges(Box<Ranged>),
}

/// A reader of ranges.
#[derive(Debug)]
struct Ranged {
    reading: Reading,
    /// Whom blocks of which few bytes are read are charged to.
    owner: Owner,
    held: Option<Held>,
}

/// One reader's view of a file that is being filled.
pub struct Tail {
    file: Arc<File>,
    origin: watch::Receiver<Progress>,
    watching: Watching,
    wants: Arc<Wants>,
    /// Its number among the readers.
    reader: u64,
    told: Told,
    /// `None` where what is read costs the origin nothing.
    surplus: Option<Accounts>,
}

/// A request for more that waits until the network's account has drained.
#[derive(Debug)]
struct Held {
    request: Request,
    drained: Pin<Box<tokio::time::Sleep>>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.wants.leave(self.reader);
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Tail {
    /// A reader of the whole. Nothing is fetched for it until it [wants](Self::want_whole) something.
    pub(super) fn new(
        file: Arc<File>,
        progress: watch::Receiver<Progress>,
        wants: Arc<Wants>,
        surplus: Option<Accounts>,
    ) -> Self {
        let watching = Watching::Idle(progress.clone());
        let reader = wants.reader();
        Self { file, origin: progress, watching, wants, reader, told: Told::Nothing, surplus }
    }

    /// The file that grows. Only what [`Tail::poll_past`] has named may be read.
    #[must_use]
    pub const fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// All bytes are to be fetched, as this reader [gets on](Self::poll_past).
    pub fn want_whole(&mut self) {
        self.tell_offset(0);
    }

    /// All bytes are to be fetched, whether anybody reads them or not: for a push.
    pub(super) fn want_all(&mut self) {
        self.told = Told::All;
        self.wants.all(self.reader);
    }

    /// These ranges, not empty and read in this order, are to be fetched, and no more, as this reader
    /// [gets on](Self::poll_past). What comes with them in whole blocks is charged to the owner's network: where that has had
    /// too much of late, they come the slower. On a runtime that has time.
    pub fn want(&mut self, ranges: &[ByteRange], owner: Owner) {
        let Some(first) = ranges.first() else { return };
        let mut reading = Reading::of(ranges);
        let request = reading.goes_on(*first);
        let held = request.and_then(|request| self.request(request, owner));
        self.told = Told::Ranges(Box::new(Ranged { reading, owner, held }));
    }

    /// Tells the fill what a reader of ranges wants next, or gives it back where its network has to wait.
    fn request(&self, request: Request, owner: Owner) -> Option<Held> {
        let charged = self.surplus.as_ref().map_or(Ok(()), |surplus| {
            let surplus_bytes = self.missing_bytes(&request.blocks).saturating_sub(request.read_bytes);
            let mut surplus = surplus.lock().unwrap_or_else(PoisonError::into_inner);
            surplus.charge(owner, surplus_bytes, clock::monotonic())
        });
        match charged {
            Ok(()) => {
                self.wants.parts(self.reader, request.blocks);
                None
            }
            Err(wait) => Some(Held { request, drained: Box::pin(tokio::time::sleep(wait)) }),
        }
    }

    /// A reader of ranges is at the start of `rest`.
    fn goes_on(&self, cx: &mut Context<'_>, ranged: &mut Ranged, rest: ByteRange) {
        if let Some(request) = ranged.reading.goes_on(rest) {
            ranged.held = self.request(request, ranged.owner);
        }
        while let Some(mut held) = ranged.held.take() {
            if held.drained.as_mut().poll(cx).is_pending() {
                ranged.held = Some(held);
                return;
            }
            ranged.held = self.request(held.request, ranged.owner);
        }
    }

    /// Bytes of these blocks that are neither here nor on their way.
    fn missing_bytes(&self, blocks: &Spans) -> u64 {
        let progress = self.origin.borrow();
        let there: Spans = progress.spans.iter().chain(progress.claimed.iter()).collect();
        blocks.iter().flat_map(|blocks| there.gaps(blocks)).map(ByteRange::len).sum()
    }

    /// Waits until bytes after `offset` are there, and gives the end of those that can be read on from it. At the end of the
    /// body, and only there, it gives the length even where that is not more than `offset`.
    pub async fn past(&mut self, offset: u64) -> Result<u64, Arc<FillError>> {
        let rest = ByteRange { start: offset, end: u64::MAX };
        std::future::poll_fn(|cx| self.poll_past(cx, rest)).await
    }

    /// The same, polled, for a reader that goes on to the end of `range`. The range may differ from call to call.
    pub fn poll_past(&mut self, cx: &mut Context<'_>, range: ByteRange) -> Poll<Result<u64, Arc<FillError>>> {
        let offset = range.start;
        let reads = match std::mem::replace(&mut self.told, Told::Nothing) {
            Told::Ranges(mut ranged) => {
                self.goes_on(cx, &mut ranged, range);
                self.told = Told::Ranges(ranged);
                Reads::Part
            }
            Told::At(told) if offset.abs_diff(told) >= TELL_BYTES => {
                self.tell_offset(offset);
                Reads::Whole
            }
            told => {
                self.told = told;
                Reads::Whole
            }
        };
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
                        let last = progress.borrow().standing(offset, reads);
                        self.watching = Watching::Idle(progress);
                        return Poll::Ready(last.unwrap_or_else(|| Err(Arc::new(FillError::Abandoned))));
                    }
                },
                Watching::Taken => unreachable!("put back before each return"),
            };
            let now = progress.borrow_and_update().standing(offset, reads);
            if let Some(answer) = now {
                self.watching = Watching::Idle(progress);
                return Poll::Ready(answer);
            }
            if matches!(self.told, Told::At(told) if told != offset) {
                self.tell_offset(offset);
            }
            self.watching = Watching::Waiting(Box::pin(async move {
                let alive = progress.changed().await.is_ok();
                (progress, alive)
            }));
        }
    }

    /// Tells the fill where this reader of all bytes is.
    fn tell_offset(&mut self, offset: u64) {
        self.told = Told::At(offset);
        self.wants.whole(self.reader, offset.saturating_add(window(offset)));
    }

    /// Whether all bytes came and match, wherever they are now.
    pub(super) fn is_right(&self) -> bool {
        self.origin.borrow().is_whole(None)
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
