//! The client's end of a connection: what its requests share, its socket, and what it waits for.

use super::Edge;
use super::wire::Regions;
use crate::clock;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What all requests of a connection share.
pub struct Peer {
    /// The node.
    pub edge: Arc<Edge>,
    /// The client's address.
    pub addr: IpAddr,
    /// The connection is TLS.
    pub https: bool,
    /// Distinguishes connections within this process.
    pub id: u64,
    /// File regions to send; unused over TLS.
    pub regions: Regions,
    requests: Cell<u32>,
    reset: Cell<bool>,
    waiting: Cell<Waiting>,
}

/// What the connection waits for, and since when.
#[derive(Clone, Copy)]
enum Waiting {
    /// The first byte of a request.
    Idle(Instant),
    /// The rest of its head.
    Head(Instant),
    /// The node: the origin may take its own timeouts.
    Answer,
    /// The client, to take what was written.
    Client(Instant),
}

impl Peer {
    /// A client that has just connected.
    pub fn new(edge: Arc<Edge>, addr: IpAddr, https: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let waiting = Cell::new(Waiting::Idle(clock::monotonic()));
        Self {
            edge,
            addr,
            https,
            id,
            regions: Regions::default(),
            requests: Cell::new(0),
            reset: Cell::new(false),
            waiting,
        }
    }

    /// A request's head is complete.
    pub fn request_begins(&self) {
        self.requests.set(self.requests.get() + 1);
        self.waiting.set(Waiting::Answer);
    }

    /// A response is complete or given up.
    pub fn response_ends(&self) {
        self.requests.set(self.requests.get() - 1);
        if self.requests.get() == 0 {
            self.waiting.set(Waiting::Idle(clock::monotonic()));
        }
    }

    /// The response can't be whole: the socket is to be reset, so that no client takes its end for a clean one.
    pub fn must_reset(&self) {
        self.reset.set(true);
    }

    /// When the connection has waited too long, unless something happens before.
    fn deadline(&self) -> Instant {
        let http = &self.edge.config.http;
        match self.waiting.get() {
            Waiting::Idle(since) => since + http.idle_timeout,
            Waiting::Head(since) => since + http.head_timeout,
            Waiting::Answer => clock::monotonic() + http.write_timeout,
            Waiting::Client(since) => since + http.write_timeout,
        }
    }

    /// Returns once the connection has waited too long.
    pub async fn overdue(&self) {
        loop {
            let deadline = self.deadline();
            if deadline <= clock::monotonic() {
                return;
            }
            tokio::time::sleep_until(deadline.into()).await;
        }
    }
}

/// A client's TCP socket. Counts what is written, and notes what the connection waits for.
pub struct Socket {
    tcp: TcpStream,
    peer: Rc<Peer>,
}

impl Socket {
    /// The socket of `peer`.
    pub const fn new(tcp: TcpStream, peer: Rc<Peer>) -> Self {
        Self { tcp, peer }
    }

    /// The socket itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Ready once the kernel takes more.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.tcp.poll_write_ready(cx);
        if ready.is_pending() && !matches!(self.peer.waiting.get(), Waiting::Client(_)) {
            self.peer.waiting.set(Waiting::Client(clock::monotonic()));
        }
        ready
    }

    /// So many bytes were written.
    pub fn wrote(&self, bytes: usize) {
        self.peer.edge.metrics.egress_bytes.inc_by(bytes as u64);
        if matches!(self.peer.waiting.get(), Waiting::Client(_)) {
            self.peer.waiting.set(Waiting::Answer);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.peer.reset.get() {
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
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        if let Waiting::Idle(_) = self.peer.waiting.get() {
            self.peer.waiting.set(Waiting::Head(clock::monotonic()));
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
        ready!(self.poll_write_ready(cx))?;
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
