//! A client's socket: what is written to it is counted, and the kernel's queue of it is kept short.

use super::egress::SHORTEST_QUEUE;
use super::memory::Part;
use super::peer::Peer;
use crate::clock;
use rustix::io::retry_on_intr;
use rustix::net::SendFlags;
use std::cell::Cell;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What a connection is spoken over.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Returns once there may be something to read; at once where that can't be told.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;

    /// The socket, where what is written to it is what the client reads: files may be sent to it by sendfile(2).
    fn sendfile_socket(&self) -> Option<&Socket>;

    /// The client has proven fast: larger pieces are worth their memory.
    fn is_fast(&self) -> bool;
}

/// A client's TCP socket. Counts what is written, and notes what the connection waits for.
pub struct Socket {
    tcp: TcpStream,
    peer: Rc<Peer>,
    queue: Cell<Queue>,
    /// Bytes that came in the TLS handshake.
    shaken: Cell<u64>,
}

/// How much the kernel takes from the node that it can't send yet.
#[derive(Clone, Copy)]
enum Queue {
    /// Little, until the client has taken a mebibyte within a second: so many bytes since then.
    Short { since: Instant, bytes: u64 },
    /// Its part of what the capacity allows for all; 0: what the kernel holds to be right.
    Long { bytes: u32 },
}

/// Unsent bytes up to which a socket counts as writable (TCP_NOTSENT_LOWAT). What lies in a queue is counted as sent, and ten
/// thousand slow clients would have gigabytes in theirs, which ends in less for everybody. Shorter ones take more calls: 10,000
/// clients of 4 kB/s each, alone, took 0.12 of a core with 16 KiB, 0.10 with 32, 0.09 with 64.
const SHORT_QUEUE: u32 = SHORTEST_QUEUE;
/// A client that takes so much within [`FAST_WITHIN`] gets a long queue, which takes fewer calls for the same bytes.
const FAST_BYTES: u64 = 1 << 20;
const FAST_WITHIN: Duration = Duration::from_secs(1);
/// What rustls holds at most of what a client doesn't take: 64 KiB in records, each in memory of its own.
const RECORDS: u64 = 80 << 10;
/// The same where it gets 32 KiB at a time.
const SHORT_RECORDS: u64 = 40 << 10;

impl Socket {
    /// The socket of `peer`.
    pub fn new(tcp: TcpStream, peer: Rc<Peer>) -> Self {
        let socket = socket2::SockRef::from(&tcp);
        if let Ok(segment) = socket.tcp_mss() {
            peer.sends_segments_of(segment);
        }
        // Both fail only if the connection has.
        let _ = socket.set_tcp_notsent_lowat(SHORT_QUEUE);
        let queue = Cell::new(Queue::Short { since: clock::monotonic(), bytes: 0 });
        Self { tcp, peer, queue, shaken: Cell::new(0) }
    }

    fn wrote(&self, bytes: usize) {
        let now = clock::monotonic();
        self.peer.sent(bytes, now);
        let (since, before) = match self.queue.get() {
            Queue::Short { since, bytes } => (since, bytes),
            Queue::Long { bytes } => return self.keeps_long(bytes),
        };
        let bytes = before + bytes as u64;
        let is_late = now.saturating_duration_since(since) > FAST_WITHIN;
        self.queue.set(if is_late {
            Queue::Short { since: now, bytes: 0 }
        } else if bytes < FAST_BYTES {
            Queue::Short { since, bytes }
        } else {
            self.long(self.peer.edge.egress.queue_bytes())
        });
    }

    fn long(&self, bytes: u32) -> Queue {
        // Fails only if the connection has.
        let _ = socket2::SockRef::from(&self.tcp).set_tcp_notsent_lowat(bytes);
        Queue::Long { bytes }
    }

    /// A queue follows the number of transfers: at once where it has to be shorter, and else not at each change.
    fn keeps_long(&self, bytes: u32) {
        let wanted = self.peer.edge.egress.queue_bytes();
        // 0 is no bound.
        let [is, should] = [bytes, wanted].map(|bytes| if bytes == 0 { u32::MAX } else { bytes });
        if should < is || should / 4 >= is {
            self.queue.set(self.long(wanted));
        }
    }

    /// The client has proven fast.
    pub fn is_fast(&self) -> bool {
        matches!(self.queue.get(), Queue::Long { .. })
    }

    /// The kernel takes no more: what TLS holds of records by then.
    fn is_stalled(&self) {
        if self.peer.has_records() {
            let is_short = !self.is_fast() && !self.peer.is_http2();
            self.peer.memory.set(Part::Records, if is_short { SHORT_RECORDS } else { RECORDS });
        }
    }

    /// Bytes that the kernel may hold at most which the client hasn't taken.
    pub fn queue_bytes(&self) -> usize {
        socket2::SockRef::from(&self.tcp).send_buffer_size().unwrap_or_default()
    }

    /// Sends all of `bytes`, and tells the kernel that more follows at once.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn send_before_more(&self, mut bytes: &[u8]) -> io::Result<()> {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        while !bytes.is_empty() {
            let send = || Ok(retry_on_intr(|| rustix::net::send(&self.tcp, bytes, flags))?);
            let sent = self.tcp.async_io(Interest::WRITABLE, send).await?;
            self.wrote(sent);
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Returns once there may be room for something.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Sends some of a file's bytes from `offset` on, which goes forward, at most up to `end`; 0 at the file's own end.
    ///
    /// # Errors
    /// There is no room ([`io::ErrorKind::WouldBlock`]), the connection failed, or the file can't be read.
    pub fn sendfile(&self, file: &File, offset: &mut u64, end: u64) -> io::Result<usize> {
        let most = usize::try_from(end - *offset).unwrap_or(usize::MAX);
        let send = || Ok(retry_on_intr(|| rustix::fs::sendfile(&self.tcp, file, Some(offset), most))?);
        let sent = self.tcp.try_io(Interest::WRITABLE, send)?;
        self.wrote(sent);
        Ok(sent)
    }
}

impl Transport for Socket {
    async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.tcp.poll_read_ready(cx)).await
    }

    fn sendfile_socket(&self) -> Option<&Self> {
        Some(self)
    }

    fn is_fast(&self) -> bool {
        Self::is_fast(self)
    }
}

impl Transport for TlsStream<Socket> {
    /// Of what came, some may be decrypted already.
    async fn readable(&self) -> io::Result<()> {
        Ok(())
    }

    fn sendfile_socket(&self) -> Option<&Socket> {
        None
    }

    fn is_fast(&self) -> bool {
        self.get_ref().0.is_fast()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.peer.returns_permit();
        if self.peer.is_to_be_reset() {
            // Zero linger: close() sends RST. Nothing to be done if the socket is dead already.
            let _ = socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.peer.is_shaking() {
            ready!(self.tcp.poll_read_ready(cx))?;
            ready!(self.peer.poll_turn(cx));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        if self.peer.is_shaking() {
            self.shaken.set(self.shaken.get() + (buf.filled().len() - before) as u64);
            self.peer.memory.set(Part::Input, self.shaken.get());
        }
        // Over HTTP/2 what comes may be a frame that begins no request.
        if !self.peer.is_http2() {
            self.peer.note(|waits| waits.received(clock::monotonic()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(written) = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs) else {
            self.is_stalled();
            return Poll::Pending;
        };
        let written = written?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS flushes once it has written all.
        self.peer.memory.set(Part::Records, 0);
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
