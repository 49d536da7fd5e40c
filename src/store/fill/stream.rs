//! The origin's bytes from some offset on. A body that breaks off is gone on with where it stopped, of the same version or
//! not at all, for as long as the origin is worth waiting for.

use super::{Fill, FillError};
use crate::clock;
use crate::http::ByteRange;
use crate::origin::http::{Answer, Ask};
use crate::origin::{OriginBody, OriginError, Version};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two tries to go on: the first is made at once, then the pause grows.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A body that broke off after fewer bytes than these has not got on: the pause goes on growing.
const PROGRESS_BYTES: u64 = 256 * 1024;

/// Whose bytes they are for, and so how versions are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// All are hashed in order: of a listed object the SHA-256 decides.
    InOrder,
    /// A part is served before the whole can be checked: only a strong validator tells that it belongs to the rest.
    Part,
}

/// A body, and where it stands.
pub(super) struct Stream<'a> {
    fill: &'a Fill,
    sort: Sort,
    body: OriginBody,
    /// The offset of the next byte.
    at: u64,
    /// Where it ends, if that is known.
    end: Option<u64>,
    /// What was received beyond what could be taken.
    unread: Bytes,
    /// Bytes of the body that come before those that are wanted: the origin gives no ranges.
    skips: u64,
    /// The whole was asked for where a range wasn't given: that is done once.
    fell_back: bool,
    trouble: Option<Trouble>,
}

/// Since when, and from which offset on, the stream doesn't get on.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    at: u64,
    pause: Duration,
}

impl<'a> Stream<'a> {
    /// Of a 200's body.
    pub(super) fn whole(fill: &'a Fill, body: OriginBody) -> Self {
        let (sort, end, unread) = (Sort::InOrder, fill.length, Bytes::new());
        Self { fill, sort, body, at: 0, end, unread, skips: 0, fell_back: false, trouble: None }
    }

    /// Of a part that is asked for now.
    pub(super) async fn open(fill: &'a Fill, range: ByteRange, sort: Sort) -> Result<Self, FillError> {
        let mut trouble = Trouble::at(range.start);
        loop {
            let error = match ask(fill, range, sort).await {
                Ok(given) => {
                    let (at, unread) = (range.start, Bytes::new());
                    let Given { body, end, skips } = given;
                    let fell_back = skips > 0;
                    return Ok(Self { fill, sort, body, at, end, unread, skips, fell_back, trouble: None });
                }
                Err(error) => error,
            };
            let Some(longer) = fill.pause(trouble, &error).await else {
                return Err(FillError::Origin(error));
            };
            trouble = longer;
        }
    }

    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) const fn end(&self) -> Option<u64> {
        self.end
    }

    /// The next bytes, at most `max` of them (which is not 0); `None` at the proper end. May be dropped and called again
    /// without loss.
    pub(super) async fn next(&mut self, max: u64) -> Result<Option<Bytes>, OriginError> {
        while self.unread.is_empty() {
            let Some(mut bytes) = self.body.next().await? else { return Ok(None) };
            let skipped = usize::try_from(self.skips).unwrap_or(usize::MAX).min(bytes.len());
            self.skips -= skipped as u64;
            self.unread = bytes.split_off(skipped);
        }
        let taken = usize::try_from(max).unwrap_or(usize::MAX).min(self.unread.len());
        self.at += taken as u64;
        Ok(Some(self.unread.split_to(taken)))
    }

    /// After an error: goes on where the body stopped. Whatever hinders that, the break is what failed.
    pub(super) async fn resume(&mut self, broken: OriginError) -> Result<(), FillError> {
        let fill = self.fill;
        // Without a version two could mix, unless the SHA-256 decides.
        let is_sure = fill.version.is_some() || fill.object.identity.is_some() && self.sort == Sort::InOrder;
        let rest = self.end.filter(|end| *end > self.at).map(|end| ByteRange { start: self.at, end });
        let Some(rest) = rest.filter(|_| is_sure && broken.is_interruption()) else {
            return Err(FillError::Origin(broken));
        };
        let mut trouble = match self.trouble.filter(|trouble| self.at < trouble.at + PROGRESS_BYTES) {
            None => Trouble::at(self.at),
            Some(trouble) => match fill.pause(trouble, &broken).await {
                Some(longer) => longer,
                None => return Err(FillError::Origin(broken)),
            },
        };
        loop {
            match ask(fill, rest, self.sort).await {
                // Not for each break all over again.
                Ok(given) if given.skips > 0 && self.fell_back => return Err(FillError::Origin(broken)),
                Ok(given) => {
                    self.fell_back = given.skips > 0;
                    (self.body, self.end, self.skips) = (given.body, given.end, given.skips);
                    self.trouble = Some(trouble);
                    fill.cache.counters.resumed.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => match fill.pause(trouble, &error).await {
                    Some(longer) => trouble = longer,
                    None => return Err(FillError::Origin(broken)),
                },
            }
        }
    }
}

impl Trouble {
    fn at(at: u64) -> Self {
        Self { since: clock::monotonic(), at, pause: FIRST_PAUSE }
    }
}

impl Fill {
    /// Waits before the next try; `None` where the error is final, or the origin's trouble lasts too long.
    async fn pause(&self, trouble: Trouble, error: &OriginError) -> Option<Trouble> {
        let gives_up = trouble.since + self.cache.settings.resume_for;
        if !error.may_pass() || clock::monotonic() + trouble.pause > gives_up {
            return None;
        }
        tokio::time::sleep(trouble.pause).await;
        Some(Trouble { pause: (trouble.pause * 2).min(LONGEST_PAUSE), ..trouble })
    }
}

/// What the origin gives for a range.
struct Given {
    body: OriginBody,
    /// Where the body ends.
    end: Option<u64>,
    /// Bytes of it that come before the range: the origin gives no ranges.
    skips: u64,
}

/// A range of the version that is being filled.
async fn ask(fill: &Fill, range: ByteRange, sort: Sort) -> Result<Given, OriginError> {
    // What the SHA-256 decides may come under another validator.
    let sha256_decides = fill.object.identity.is_some() && sort == Sort::InOrder;
    let if_range = fill.version.as_ref().filter(|_| !sha256_decides).map(Version::if_range);
    let is_whole = fill.length.is_some_and(|length| (range.start, range.end) == (0, length));
    let ask = if is_whole { Ask::Whole } else { Ask::Range { range, if_range } };
    let (response, end, skips) = match fill
        .cache
        .origin
        .get(&fill.object.path, fill.object.query.as_deref(), ask, fill.object.size())
        .await?
    {
        Answer::Body(response) => (response, Some(range.end), 0),
        Answer::Whole(response) if sort == Sort::InOrder => {
            // To go on with this later would cost all of it again.
            fill.unpace();
            (response, fill.length, range.start)
        }
        Answer::Whole(_) | Answer::NotModified(_) => return Err(OriginError::RangeIgnored),
    };
    let is_sure = fill.version.as_ref().is_some_and(|version| version.is_in(&response.headers));
    let is_as_long = response.total.is_none() || fill.length.is_none() || response.total == fill.length;
    if !is_as_long || !is_sure && !sha256_decides {
        return Err(OriginError::RangeIgnored);
    }
    if !is_sure {
        fill.progress.send_modify(|progress| {
            progress.unsure_from = Some(progress.unsure_from.unwrap_or(u64::MAX).min(range.start));
        });
    }
    Ok(Given { body: response.body, end, skips })
}
