//! The body of a response: pieces of memory and regions of files, as whole or growing sources provide them.

use super::account::{Held, Tally};
use super::{buffers, residency};
use crate::http::multipart::Piece;
use crate::http::range::ByteRange;
use crate::metrics::Path;
use crate::store::{PassBody, Tail};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Of a region, at most: one fast client must not hold up its worker's others.
const REGION_BYTES: u64 = 1 << 20;

/// Where the regions of a body come from.
pub enum Supply {
    /// Nowhere: the body is in memory, of its own.
    Memory,
    /// Nowhere: the body is in memory, and counted there for all responses that have it.
    Lent,
    /// Nowhere: the body is of what the node keeps in memory for all.
    Kept,
    /// A whole file.
    File(Arc<File>),
    /// A file that a fill still writes.
    Growing(Tail),
    /// The origin, uncached.
    Pass(PassBody),
}

/// How file bytes get to the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// As regions, which the connection sends as it can.
    Regions,
    /// Read and handed over ([`super::h2`]).
    Copy,
}

/// A piece of a body.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes of a file, which are in the page cache.
    File(Region),
}

impl Chunk {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(region) => region.end - region.offset,
        }
    }
}

/// A region of a file that is to be sent. Whoever sends it counts its bytes.
#[derive(Debug)]
pub struct Region {
    /// The file.
    pub file: Arc<File>,
    /// The next byte to send.
    pub offset: u64,
    /// The end of the region.
    pub end: u64,
    /// Whose bytes they are.
    pub tally: Rc<Tally>,
}

/// A response's body. Dropping it before its end cuts the response.
pub struct ResponseBody {
    supply: Supply,
    lane: Lane,
    pieces: VecDeque<Piece>,
    /// Body bytes still to be handed to the connection; `None` if the length isn't known beforehand.
    left: Option<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Of what is copied, so many bytes at most.
    most: u64,
    tally: Rc<Tally>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The cache file can't be read.
    #[error("reading the cached file: {0}")]
    Disk(#[from] io::Error),
    /// The fill or the origin's answer failed.
    #[error("{0}")]
    Fill(String),
}

impl ResponseBody {
    /// A body of `pieces`, `length` bytes in all where that is known; none where the head alone was asked for.
    pub fn new(tally: Rc<Tally>, supply: Supply, pieces: Vec<Piece>, length: Option<u64>) -> Self {
        let lane = if tally.asked.protocol == "2" { Lane::Copy } else { Lane::Regions };
        let (supply, pieces, length) = match tally.asked.is_head {
            true => (Supply::Memory, Vec::new(), Some(0)),
            false => (supply, pieces, length),
        };
        tally.holds(held(&supply, &pieces));
        let mut pieces = VecDeque::from(pieces);
        if lane == Lane::Copy && matches!(supply, Supply::Kept) {
            // Frames outlive the response, and what they are of may be kept no more by then.
            let outgoing = tally.peer.outgoing();
            for piece in &mut pieces {
                if let Piece::Bytes(bytes) = piece {
                    *bytes = outgoing.share(std::mem::take(bytes));
                }
            }
        }
        Self { supply, lane, pieces, left: length, reading: None, most: 0, tally }
    }

    /// Whose body it is.
    pub const fn tally(&self) -> &Rc<Tally> {
        &self.tally
    }

    /// Its length, where that is known: what is still to come.
    pub const fn length(&self) -> Option<u64> {
        self.left
    }

    /// Its bytes are in memory once, for all that ask for them.
    pub const fn is_kept(&self) -> bool {
        matches!(self.supply, Supply::Kept)
    }

    /// Of a piece that waits, what isn't counted with the response, in bytes.
    pub const fn uncounted(&self, piece: &Bytes) -> u64 {
        match self.supply {
            Supply::Kept | Supply::Pass(_) => piece.len() as u64,
            Supply::Memory | Supply::Lent | Supply::File(_) | Supply::Growing(_) => 0,
        }
    }

    /// Nothing is to come any more.
    pub fn is_over(&self) -> bool {
        self.left == Some(0)
    }

    /// The next piece; `None` at the end. Of bytes that are copied, so many at most.
    pub fn poll_chunk_of(&mut self, cx: &mut Context<'_>, most: u64) -> Poll<Option<Result<Chunk, Cut>>> {
        self.most = most;
        self.poll_chunk(cx)
    }

    /// The next piece; `None` at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk, Cut>>> {
        let Poll::Ready(mut next) = self.poll_piece(cx) else {
            self.tally.is_starved();
            return Poll::Pending;
        };
        self.tally.is_ready();
        if let Some(Ok(chunk)) = &next
            && let Some(left) = self.left
        {
            self.left = left.checked_sub(chunk.len());
            if self.left.is_none() {
                next = Some(Err(Cut::Fill("more bytes than were promised".to_owned())));
            }
        }
        match &next {
            Some(Ok(_)) => {}
            None if self.left.is_some_and(|left| left > 0) => {
                next = Some(Err(Cut::Fill("fewer bytes than were promised".to_owned())));
                self.tally.is_cut();
            }
            Some(Err(cut)) => {
                tracing::debug!(client = %self.tally.peer.addr, %cut, "response cut");
                match cut {
                    Cut::Disk(_) => self.tally.is_damaged(),
                    Cut::Fill(_) => self.tally.is_cut(),
                }
            }
            None => {
                self.left = Some(0);
                self.tally.ends();
            }
        }
        Poll::Ready(next)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk, Cut>>> {
        if let Supply::Pass(pass) = &mut self.supply {
            return pass.poll_next(cx).map(|next| {
                next.map(|piece| match piece {
                    Ok(bytes) => Ok(self.count(bytes, Path::Pass)),
                    Err(error) => Err(Cut::Fill(error.to_string())),
                })
            });
        }
        loop {
            match self.pieces.pop_front() {
                None => return Poll::Ready(None),
                Some(Piece::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Piece::Bytes(bytes)) => return Poll::Ready(Some(Ok(self.part_in_memory(bytes)))),
                Some(Piece::Range(range)) => match self.poll_region(cx, range) {
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(sent) => return Poll::Ready(sent.transpose()),
                    Poll::Pending => {
                        self.pieces.push_front(Piece::Range(range));
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// The next part of `bytes`, whose rest goes back to the front.
    fn part_in_memory(&mut self, mut bytes: Bytes) -> Chunk {
        if self.lane == Lane::Copy && !self.is_kept() {
            // A frame of it that isn't taken would keep all of it in memory, after its response is over.
            let rest = bytes.split_off(self.most_copied().min(bytes.len()));
            bytes = Bytes::copy_from_slice(&bytes);
            if !rest.is_empty() {
                self.pieces.push_front(Piece::Bytes(rest));
            }
        }
        self.count(bytes, Path::Memory)
    }

    fn most_copied(&self) -> usize {
        usize::try_from(self.most).unwrap_or(usize::MAX).clamp(1, buffers::BYTES)
    }

    /// The next part of `range`, whose rest goes back to the front; `None` at its end.
    fn poll_region(&mut self, cx: &mut Context<'_>, range: ByteRange) -> Poll<Result<Option<Chunk>, Cut>> {
        let (file, available) = match &mut self.supply {
            Supply::File(file) => (file.clone(), range.end),
            Supply::Growing(tail) => {
                let watermark =
                    ready!(tail.poll_past(cx, range)).map_err(|error| Cut::Fill(error.to_string()))?;
                (tail.file().clone(), watermark.min(range.end))
            }
            Supply::Memory | Supply::Lent | Supply::Kept | Supply::Pass(_) => return Poll::Ready(Ok(None)),
        };
        if available <= range.start {
            return Poll::Ready(Ok(None));
        }
        let most = if self.lane == Lane::Regions { REGION_BYTES } else { self.most_copied() as u64 };
        let part = ByteRange { start: range.start, end: available.min(range.start + most) };
        // Also of a fill: what parts it goes on with, nobody may have read since an earlier day.
        ready!(self.poll_resident(cx, &file, part))?;
        let chunk = match self.lane {
            Lane::Regions => {
                Chunk::File(Region { file, offset: part.start, end: part.end, tally: self.tally.clone() })
            }
            Lane::Copy => {
                let bytes = buffers::read(&file, part)?;
                if bytes.is_empty() {
                    return Poll::Ready(Err(Cut::Disk(io::ErrorKind::UnexpectedEof.into())));
                }
                self.count(bytes, Path::Copy)
            }
        };
        let start = range.start + chunk.len();
        if start < range.end {
            self.pieces.push_front(Piece::Range(ByteRange { start, end: range.end }));
        }
        Poll::Ready(Ok(Some(chunk)))
    }

    /// Ready once `part` is in the page cache: sendfile would block the whole worker on a page that isn't.
    fn poll_resident(
        &mut self,
        cx: &mut Context<'_>,
        file: &Arc<File>,
        part: ByteRange,
    ) -> Poll<Result<(), Cut>> {
        if self.reading.is_none() {
            if residency::is_resident(file, part) {
                return Poll::Ready(Ok(()));
            }
            let file = file.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || residency::read_ahead(&file, part)));
        }
        ready!(self.poll_reading(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Cut>> {
        let Some(reading) = &mut self.reading else { return Poll::Ready(Ok(Bytes::new())) };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.unwrap_or_else(|panicked| Err(io::Error::other(panicked))).map_err(Cut::Disk))
    }

    fn count(&self, bytes: Bytes, path: Path) -> Chunk {
        self.tally.sent(bytes.len(), path);
        Chunk::Bytes(bytes)
    }
}

/// What a response has in memory until it is over. A single piece of what is kept for all is counted where it waits.
fn held(supply: &Supply, pieces: &[Piece]) -> Held {
    let bytes_of = |piece: &Piece| if let Piece::Bytes(bytes) = piece { bytes.len() as u64 } else { 0 };
    let bytes: u64 = pieces.iter().map(bytes_of).sum();
    match (supply, pieces.len()) {
        (Supply::Lent, _) => Held { own: 0, shared: bytes },
        (Supply::Kept, ..=1) => Held::default(),
        (_, ..=1) => Held { own: bytes, shared: 0 },
        // Of several ranges each has a head.
        (_, count) => Held { own: bytes + (count * size_of::<Piece>()) as u64, shared: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_for_a_response_counts_with_it() {
        let page = [Piece::Bytes(Bytes::from_static(b"page"))];
        let range = || Piece::Range(ByteRange { start: 0, end: 1000 });
        let file = Supply::File(Arc::new(tempfile::tempfile().unwrap()));
        let ranges = [page[0].clone(), range(), page[0].clone(), range(), page[0].clone()];
        for (supply, pieces, own, shared) in [
            (&Supply::Memory, &page[..], 4, 0),
            (&Supply::Lent, &page[..], 0, 4),
            (&Supply::Kept, &page[..], 0, 0),
            (&file, &[range()][..], 0, 0),
            (&file, &ranges[..], 12 + 5 * size_of::<Piece>() as u64, 0),
        ] {
            assert_eq!(held(supply, pieces), Held { own, shared });
        }
    }
}
