//! The body of a response: pieces of memory and regions of files, as whole or growing sources provide them.

use super::account::Tally;
use super::wire::{Chunk, Region, Regions, WINDOW_BYTES};
use crate::http::multipart::Piece;
use crate::http::range::ByteRange;
use crate::metrics::Path;
use crate::store::{PassBody, Tail};
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Bytes read from a file at once where they can't be sent by sendfile.
const READ_BYTES: usize = 128 << 10;
/// How far apart the pages are that are asked whether they are in the page cache. The kernel reads ahead in steps of
/// this size (its default `read_ahead_kb`), so pages between two resident ones are resident, too.
const PROBE_BYTES: u64 = 128 << 10;

/// Where the regions of a body come from.
pub enum Supply {
    /// Nowhere: the body is in memory.
    Memory,
    /// A whole file.
    File(Arc<File>),
    /// A file that a fill still writes.
    Growing(Tail),
    /// The origin, uncached.
    Pass(PassBody),
}

/// How file bytes get to the socket.
pub enum Lane {
    /// Queued for sendfile.
    Sendfile(Regions),
    /// Read and handed over.
    Copy,
}

/// A response's body. Dropping it before its end cuts the response.
pub struct ResponseBody {
    supply: Supply,
    lane: Lane,
    pieces: VecDeque<Piece>,
    /// Body bytes still to be handed to hyper; `None` if the length isn't known beforehand.
    left: Option<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
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
    /// A body of `pieces`, `length` bytes in all where that is known.
    pub fn new(tally: Rc<Tally>, supply: Supply, pieces: Vec<Piece>, length: Option<u64>) -> Self {
        let peer = &tally.peer;
        let lane = if peer.https { Lane::Copy } else { Lane::Sendfile(peer.regions.clone()) };
        Self { supply, lane, pieces: pieces.into(), left: length, reading: None, tally }
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
                Some(Piece::Bytes(bytes)) => return Poll::Ready(Some(Ok(self.count(bytes, Path::Memory)))),
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

    /// The next part of `range`, whose rest goes back to the front; `None` at its end.
    fn poll_region(&mut self, cx: &mut Context<'_>, range: ByteRange) -> Poll<Result<Option<Chunk>, Cut>> {
        let (file, available) = match &mut self.supply {
            Supply::File(file) => (file.clone(), range.end),
            Supply::Growing(tail) => {
                let watermark =
                    ready!(tail.poll_past(cx, range)).map_err(|error| Cut::Fill(error.to_string()))?;
                (tail.file().clone(), watermark.min(range.end))
            }
            Supply::Memory | Supply::Pass(_) => return Poll::Ready(Ok(None)),
        };
        if available <= range.start {
            return Poll::Ready(Ok(None));
        }
        let chunk = match &self.lane {
            Lane::Sendfile(_) => {
                let end = available.min(range.start + WINDOW_BYTES as u64);
                let part = ByteRange { start: range.start, end };
                // Also of a fill: what parts it goes on with, nobody may have read since an earlier day.
                ready!(self.poll_resident(cx, &file, part))?;
                self.queue(file, part)
            }
            Lane::Copy => {
                let end = available.min(range.start + READ_BYTES as u64);
                let bytes = ready!(self.poll_read(cx, &file, ByteRange { start: range.start, end }))?;
                self.count(bytes, Path::Copy)
            }
        };
        let start = range.start + bytes::Buf::remaining(&chunk) as u64;
        if start < range.end {
            self.pieces.push_front(Piece::Range(ByteRange { start, end: range.end }));
        }
        Poll::Ready(Ok(Some(chunk)))
    }

    fn queue(&self, file: Arc<File>, part: ByteRange) -> Chunk {
        if let Lane::Sendfile(regions) = &self.lane {
            let region = Region { file, offset: part.start, end: part.end, tally: self.tally.clone() };
            regions.borrow_mut().push_back(region);
        }
        Chunk::File(usize::try_from(part.len()).expect("at most the window"))
    }

    /// Ready once `part` is in the page cache: sendfile would block the whole worker on a page that isn't.
    fn poll_resident(
        &mut self,
        cx: &mut Context<'_>,
        file: &Arc<File>,
        part: ByteRange,
    ) -> Poll<Result<(), Cut>> {
        if self.reading.is_none() {
            if is_resident(file, part) {
                return Poll::Ready(Ok(()));
            }
            let file = file.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || read_ahead(&file, part)));
        }
        ready!(self.poll_reading(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        file: &Arc<File>,
        part: ByteRange,
    ) -> Poll<Result<Bytes, Cut>> {
        if self.reading.is_none() {
            if let Some(bytes) = read_resident(file, part)? {
                return Poll::Ready(Ok(bytes));
            }
            let file = file.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || read_exactly(&file, part)));
        }
        self.poll_reading(cx)
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

impl http_body::Body for ResponseBody {
    type Data = Chunk;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Cut>>> {
        let Poll::Ready(next) = self.poll_piece(cx) else {
            self.tally.is_starved();
            return Poll::Pending;
        };
        self.tally.is_ready();
        match &next {
            Some(Ok(chunk)) => {
                let handed = bytes::Buf::remaining(chunk) as u64;
                self.left = self.left.map(|left| left.saturating_sub(handed));
            }
            Some(Err(cut)) => {
                tracing::debug!(client = %self.tally.peer.addr, %cut, "response cut");
                match cut {
                    Cut::Disk(_) => self.tally.is_damaged(),
                    Cut::Fill(_) => self.tally.peer.must_reset(),
                }
            }
            None => {
                self.left = Some(0);
                self.tally.ends();
            }
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn is_resident(file: &File, part: ByteRange) -> bool {
    let mut byte = [0];
    let mut offset = part.start;
    loop {
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => return false,
            // Memory file systems refuse NOWAIT, and have no other place than memory. Other errors are sendfile's to tell.
            Err(_) => return true,
            Ok(_) => {}
        }
        if offset + 1 >= part.end {
            return true;
        }
        offset = (offset + PROBE_BYTES).min(part.end - 1);
    }
}

fn read_ahead(file: &File, part: ByteRange) -> io::Result<Bytes> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = part.start;
    while offset < part.end {
        let want = usize::try_from(part.end - offset).unwrap_or(READ_BYTES).min(READ_BYTES);
        match file.read_at(&mut buffer[..want], offset)? {
            0 => break,
            read => offset += read as u64,
        }
    }
    Ok(Bytes::new())
}

fn read_resident(file: &File, part: ByteRange) -> io::Result<Option<Bytes>> {
    let mut buffer = BytesMut::zeroed(usize::try_from(part.len()).unwrap_or(READ_BYTES).min(READ_BYTES));
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut buffer)], part.start, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => {
            buffer.truncate(read);
            Ok(Some(buffer.freeze()))
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_exactly(file: &File, part: ByteRange) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(usize::try_from(part.len()).unwrap_or(READ_BYTES).min(READ_BYTES));
    file.read_exact_at(&mut buffer, part.start)?;
    Ok(buffer.freeze())
}
