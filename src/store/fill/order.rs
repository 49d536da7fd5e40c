//! The two ways in which a fill gets its bytes: all of them in order, hashed on the way; and runs, parts that readers can't
//! wait for.
//!
//! Both claim what they fetch before they ask for it, so that no byte is written twice. What a run has fetched, or is
//! fetching, the pass in order doesn't ask for again: it waits for it and reads it back.

use super::pump::Writer;
use super::stream::{Sort, Stream};
use super::{Fill, FillError, First};
use crate::http::ByteRange;
use crate::repo::Sha256;
use crate::store::sums::Sums;
use crate::store::tail::NEAR_BYTES;
use std::sync::Arc;

/// A body that is all there.
pub(in crate::store) struct Pumped {
    pub(in crate::store) length: u64,
    pub(in crate::store) sha256: Sha256,
}

/// What comes next for the pass in order.
enum Next {
    /// The bytes up to here are in the file.
    There(u64),
    /// A run has claimed the next bytes.
    Claimed,
    /// The next bytes may not be asked for now.
    Ahead,
    /// The bytes up to `to` are claimed now; `gap_end` is where others' begin.
    Free { to: u64, gap_end: Option<u64> },
}

/// Gets all bytes that are missing, in order, beginning with the `first` body if there is one, and checks what is listed.
pub(super) async fn in_order(fill: Arc<Fill>, first: Option<First>) -> Result<Pumped, FillError> {
    let fill = &*fill;
    let mut stream = first.map(|First { body, place }| {
        fill.set_place(Some(place));
        Stream::whole(fill, body)
    });
    let mut writer = Writer::new(fill, 0, Some(Sums::of(fill.object.identity)));
    if let (Some(0), Some(empty)) = (fill.length, &mut stream) {
        // It still has to say that it ends.
        writer.pump(empty, Some(0)).await?;
    }
    while fill.length != Some(writer.at()) {
        let at = writer.at();
        fill.progress.send_modify(|progress| progress.filled_to = Some(at));
        let body = stream.take().filter(|stream| stream.at() == at && stream.end() != Some(at));
        // Without a place nothing is claimed: while a run has a claim it may not wait for one.
        let goes_to = if fill.place().is_some() { fill.goes_to(at) } else { at };
        match fill.claim_next(at, body.as_ref().and_then(Stream::end), goes_to) {
            Next::There(to) => writer.pass_over(to.min(at + NEAR_BYTES)).await?,
            Next::Claimed => fill.wait_for(at).await,
            Next::Ahead if fill.goes_to(at) > at => {
                stream = body;
                fill.set_place(Some(fill.wait_for_place().await));
            }
            Next::Ahead => {
                fill.rests(at).await;
                stream = body.filter(|_| fill.place().is_some());
            }
            Next::Free { to, gap_end } => {
                let mut body = match (body, gap_end) {
                    (Some(stream), _) => stream,
                    (None, Some(end)) => {
                        Stream::open(fill, ByteRange { start: at, end }, Sort::InOrder).await?
                    }
                    // Only a first body has no known length, and nobody claims parts of it.
                    (None, None) => return Err(FillError::Abandoned),
                };
                fill.pace.begins();
                let ended = writer.pump(&mut body, Some(to)).await?;
                fill.pace.ends();
                match (ended, fill.length) {
                    (true, None) => break,
                    // It would wait for its own claim.
                    (true, Some(_)) if writer.at() < to => return Err(FillError::Abandoned),
                    _ => stream = Some(body),
                }
            }
        }
    }
    let length = writer.at();
    fill.set_place(None);
    let sha256 = writer.into_sums().ok_or(FillError::Abandoned)?.check()?;
    Ok(Pumped { length, sha256 })
}

/// Gets one part, which nobody else has claimed.
pub(super) async fn run(fill: Arc<Fill>, range: ByteRange) -> Result<(), (ByteRange, FillError)> {
    let got = async {
        fill.make_room(range).await?;
        let mut stream = Stream::open(&fill, range, Sort::Part).await?;
        let mut writer = Writer::new(&fill, range.start, None);
        writer.pump(&mut stream, Some(range.end)).await.map(drop)
    };
    got.await.map_err(|error| (range, error))
}

impl Fill {
    /// What comes next at `at`, for the pass in order, which goes to `goes_to`. It claims little ahead, so that far ranges stay
    /// free for runs.
    fn claim_next(&self, at: u64, stream_end: Option<u64>, goes_to: u64) -> Next {
        let mut next = Next::Claimed;
        self.progress.send_if_modified(|progress| {
            next = if let Some(to) = progress.spans.end_of(at) {
                Next::There(to)
            } else if progress.claimed.end_of(at).is_some() {
                Next::Claimed
            } else if goes_to <= at {
                Next::Ahead
            } else {
                let bounds = [progress.spans.next_start(at), progress.claimed.next_start(at), self.length];
                let gap_end = bounds.into_iter().flatten().min();
                // Never beyond the end of the stream that it has: where a gap grows, another one is opened.
                let most = goes_to.min(at.saturating_add(NEAR_BYTES));
                let ends = gap_end.into_iter().chain(stream_end).chain([most]);
                let to = ends.min().unwrap_or(at);
                progress.claimed.insert(ByteRange { start: at, end: to });
                Next::Free { to, gap_end }
            };
            false
        });
        next
    }

    /// Waits until the claim on the byte at `at` has ended, one way or the other.
    async fn wait_for(&self, at: u64) {
        let mut progress = self.progress.subscribe();
        // Fails only without the sender, which is here.
        let _ = progress.wait_for(|progress| progress.claimed.end_of(at).is_none()).await;
    }
}
