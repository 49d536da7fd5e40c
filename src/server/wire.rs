//! sendfile(2) under hyper.
//!
//! A body frame that stands for a region of a file ([`Chunk::File`]) shows hyper a slice of [`WINDOW`], an array whose
//! bytes nobody reads, and queues the region on its connection. [`Wire`] recognises the slice by its address when hyper
//! writes it, sends the region with sendfile instead, and reports the bytes as written. Framing, keep-alive and pipelining
//! stay hyper's.
//!
//! Invariants: regions are queued in the order in which hyper gets their frames, so the first window slice belongs to the
//! first region, and both have the same number of bytes left. Whatever disagrees is an internal error that resets the
//! connection. hyper must queue buffers instead of copying them: `writev(true)`, never `pipeline_flush(true)`.

use super::account::Tally;
use super::peer::Socket;
use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Most bytes that one sendfile call may send: one fast client must not hold up its worker's others.
pub const WINDOW_BYTES: usize = 1 << 20;

static WINDOW: [u8; WINDOW_BYTES] = [0; WINDOW_BYTES];

/// A piece of a body on its way through hyper.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// So many bytes of the region that was queued with it.
    File(usize),
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(left) => *left,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::File(left) => &WINDOW[..(*left).min(WINDOW_BYTES)],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::File(left) => *left -= count,
        }
    }
}

/// A region of a file that is to be sent.
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

/// The regions that a connection still has to send, in order. Shared by its bodies and its [`Wire`].
pub type Regions = Rc<RefCell<VecDeque<Region>>>;

/// A plaintext connection whose window slices are sent by sendfile.
pub struct Wire {
    socket: TokioIo<Socket>,
    regions: Regions,
}

impl Wire {
    /// Over `socket`, with the queue that the connection's bodies fill.
    pub fn new(socket: Socket, regions: Regions) -> Self {
        Self { socket: TokioIo::new(socket), regions }
    }

    fn write(&self, bufs: &[IoSlice<'_>], first_window: usize) -> io::Result<usize> {
        let tcp = self.socket.inner().tcp();
        let before = &bufs[..first_window];
        let before_bytes: usize = before.iter().map(|buf| buf.len()).sum();
        if before_bytes > 0 {
            // MORE: what precedes the file must share its first segment.
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let sent =
                rustix::net::sendmsg(tcp, before, &mut rustix::net::SendAncillaryBuffer::default(), flags)?;
            if sent < before_bytes {
                return Ok(sent);
            }
        }
        match self.send_region(bufs[first_window].len()) {
            Ok(sent) => Ok(before_bytes + sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && before_bytes > 0 => Ok(before_bytes),
            Err(error) => Err(error),
        }
    }

    fn send_region(&self, shown: usize) -> io::Result<usize> {
        let mut regions = self.regions.borrow_mut();
        let region =
            regions.front_mut().ok_or_else(|| io::Error::other("a window slice without a region"))?;
        let left = usize::try_from(region.end - region.offset).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        if shown != left {
            return Err(io::Error::other(format!("a window slice of {shown} bytes for a region of {left}")));
        }
        let sent =
            rustix::fs::sendfile(self.socket.inner().tcp(), &region.file, Some(&mut region.offset), left)?;
        if sent == 0 {
            region.tally.is_damaged();
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was sent"));
        }
        region.tally.sent_by_sendfile(sent);
        if region.offset == region.end {
            regions.pop_front();
        }
        Ok(sent)
    }
}

impl Drop for Wire {
    /// What is queued will not be sent. It has to go with the connection: each region holds the account of its response,
    /// which holds the connection's peer, which holds the queue.
    fn drop(&mut self) {
        drop(self.regions.take());
    }
}

fn is_window(buf: &IoSlice<'_>) -> bool {
    WINDOW.as_ptr_range().contains(&buf.as_ptr())
}

impl hyper::rt::Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first_window) = bufs.iter().position(is_window) else {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        };
        loop {
            ready!(self.socket.inner().tcp().poll_write_ready(cx))?;
            let tried = self
                .socket
                .inner()
                .tcp()
                .try_io(tokio::io::Interest::WRITABLE, || self.write(bufs, first_window));
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                Ok(sent) => {
                    self.socket.inner().wrote(sent);
                    return Poll::Ready(Ok(sent));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}
