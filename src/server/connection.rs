//! One client connection: its socket, its timers, its protocol, its end.

use super::Edge;
use super::handle::handle;
use super::wire::{Regions, Wire};
use crate::clock;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

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
    fn new(edge: Arc<Edge>, addr: IpAddr, https: bool) -> Self {
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
    async fn overdue(&self) {
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

/// Serves one accepted connection until it ends, is overdue, or the node drains.
pub async fn serve(
    edge: Arc<Edge>,
    tcp: TcpStream,
    addr: IpAddr,
    tls: Option<TlsAcceptor>,
    drain: watch::Receiver<bool>,
) {
    let peer = Rc::new(Peer::new(edge, addr, tls.is_some()));
    let socket = Socket { tcp, peer: peer.clone() };
    let connection = async {
        match tls {
            None => plain(&peer, socket, drain).await,
            Some(tls) => secure(&peer, socket, tls, drain).await,
        }
    };
    // The reason of an end is the client's affair: it hung up, spoke no HTTP, or was reset by us (and logged then).
    tokio::select! {
        ended = connection => if let Err(error) = ended { tracing::debug!(client = %addr, %error, "connection ended") },
        () = peer.overdue() => tracing::debug!(client = %addr, "connection timed out"),
    }
}

type Ended = Result<(), Box<dyn std::error::Error>>;

async fn plain(peer: &Rc<Peer>, socket: Socket, drain: watch::Receiver<bool>) -> Ended {
    let wire = Wire::new(socket, peer.regions.clone());
    let service = service_fn(|request| handle(peer.clone(), request));
    let connection = pin!(http1_builder().serve_connection(wire, service));
    until_drained(connection, drain, http1::Connection::graceful_shutdown).await
}

async fn secure(peer: &Rc<Peer>, socket: Socket, tls: TlsAcceptor, drain: watch::Receiver<bool>) -> Ended {
    let stream = tls.accept(socket).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let service = service_fn(|request| handle(peer.clone(), request));
    if is_h2 {
        let connection = pin!(http2_builder().serve_connection(io, service));
        until_drained(connection, drain, http2::Connection::graceful_shutdown).await
    } else {
        let connection = pin!(http1_builder().serve_connection(io, service));
        until_drained(connection, drain, http1::Connection::graceful_shutdown).await
    }
}

async fn until_drained<C>(
    mut connection: Pin<&mut C>,
    mut drain: watch::Receiver<bool>,
    shut_down: fn(Pin<&mut C>),
) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        _ = drain.wait_for(|draining| *draining) => shut_down(connection.as_mut()),
    }
    Ok(connection.await?)
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A multi-range request of librepo carries up to 16 kB of header fields.
    builder.writev(true).max_buf_size(64 << 10).max_headers(64).half_close(false);
    builder
}

fn http2_builder() -> http2::Builder<OnThisThread> {
    let mut builder = http2::Builder::new(OnThisThread);
    // Explicit limits: a client costs at most these, whatever frames it sends (rapid reset and its kin).
    builder
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(64)
        .max_header_list_size(32 << 10)
        .max_send_buf_size(256 << 10)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10);
    builder
}

/// HTTP/2 streams run as tasks of the connection's own thread.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
