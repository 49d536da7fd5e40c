//! The client's end of a connection: what its requests share, its socket, and what it waits for.

use super::Edge;
use super::waits::{Patience, Waits};
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
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What all requests of a connection share.
pub struct Peer {
    /// The node.
    pub edge: Arc<Edge>,
    /// The client's address.
    pub addr: IpAddr,
    /// The same as the log has it: an IPv4 address as such, also where it came in the form of an IPv6 one.
    pub addr_text: Box<str>,
    /// The connection is TLS.
    pub https: bool,
    /// Distinguishes connections within this process.
    pub id: u64,
    /// File regions to send; unused over TLS.
    pub regions: Regions,
    reset: Cell<bool>,
    waits: Cell<Waits>,
}

impl Peer {
    /// A client that has just connected.
    pub fn new(edge: Arc<Edge>, addr: IpAddr, https: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let waits = Cell::new(Waits::new(clock::monotonic()));
        let (regions, reset) = (Regions::default(), Cell::new(false));
        let addr_text = addr.to_canonical().to_string().into();
        Self { edge, addr, addr_text, https, id, regions, reset, waits }
    }

    /// The response can't be whole: the socket is to be reset, so that no client takes its end for a clean one.
    pub fn must_reset(&self) {
        self.reset.set(true);
    }

    /// Something happened that bears on what the connection waits for.
    pub fn note(&self, event: impl FnOnce(&mut Waits)) {
        let mut waits = self.waits.get();
        event(&mut waits);
        self.waits.set(waits);
    }

    /// Returns once the connection has waited too long.
    pub async fn overdue(&self) {
        let http = &self.edge.config.http;
        let patience =
            Patience { idle: http.idle_timeout, head: http.head_timeout, write: http.write_timeout };
        // A deadline can come nearer while this sleeps, so it never sleeps for longer than the shortest one.
        let step = patience.idle.min(patience.head).min(patience.write);
        loop {
            let now = clock::monotonic();
            let deadline = self.waits.get().deadline(patience).unwrap_or(now + step);
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline.min(now + step).into()).await;
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

    /// So many bytes were written.
    pub fn wrote(&self, bytes: usize) {
        self.peer.edge.metrics.egress_bytes.inc_by(bytes as u64);
        self.peer.note(|waits| waits.sent(clock::monotonic()));
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
        self.peer.note(|waits| waits.received(clock::monotonic()));
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
