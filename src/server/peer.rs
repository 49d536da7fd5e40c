//! The client's end of a connection: what its requests share, its socket, and what it waits for.

use super::Edge;
use super::clients::{self, SharedTrail};
use super::egress::SHORTEST_QUEUE;
use super::h2::outgoing::Outgoing;
use super::handshakes::{Handshakes, Turn};
use super::memory::{Account, Part};
use super::pacer::Flow;
use super::proxied::Proxied;
use super::seats::Seat;
use super::waits::{Patience, Waits};
use crate::clock;
use crate::geo::Whereabouts;
use crate::http::Forwarded;
use crate::policy::bounce::Link;
use crate::policy::client::{self, Agent};
use crate::shares::Use;
use rustix::io::retry_on_intr;
use rustix::net::SendFlags;
use std::cell::{Cell, OnceCell, RefCell};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What all requests of a connection share.
pub struct Peer {
    /// The node.
    pub edge: Arc<Edge>,
    /// The client's address, or that of the proxy it comes through.
    pub addr: IpAddr,
    /// The same as the log has it: an IPv4 address as such, also where it came in the form of an IPv6 one.
    pub addr_text: Box<str>,
    /// The client speaks TLS.
    pub https: bool,
    /// Distinguishes connections within this process.
    pub id: u64,
    /// What it holds of memory.
    pub memory: Account,
    /// TLS ends here, not at a proxy: the worker's handshakes.
    handshakes: Option<Rc<Handshakes>>,
    /// The turn that its handshake has, or waits for.
    turn: RefCell<Option<Turn>>,
    /// The TLS handshake is over, or there is none.
    is_shaken: Cell<bool>,
    seat: Seat,
    /// It is a proxy that says truly for whom it asks.
    trusted: bool,
    /// Who sent the last request: it is nearly always the same.
    latest: RefCell<Latest>,
    /// Where that client's requests are noted.
    trail: RefCell<Option<SharedTrail>>,
    reset: Cell<bool>,
    waits: Cell<Waits>,
    /// Payload of one TCP segment, in bytes.
    segment: Cell<u32>,
    /// Bytes on the wire for which there is a permit, and that haven't been sent.
    permitted: Cell<u64>,
    outgoing: OnceCell<Arc<Outgoing>>,
    /// Body bytes that HTTP/2 had written when that was last looked at.
    written: Cell<u64>,
}

/// Payload of a segment with an MTU of 1500 and TCP timestamps, until the kernel has told.
const COMMON_SEGMENT: u32 = 1448;
/// Heads of a segment: Ethernet, IP, TCP with timestamps. As interfaces count them: without preamble, checksum and gap.
const HEADS_V4: u64 = 14 + 20 + 32;
const HEADS_V6: u64 = 14 + 40 + 32;

/// A User-Agent, from an address, and what the two make of a client.
struct Latest {
    addr: IpAddr,
    whereabouts: Whereabouts,
    user_agent: Box<[u8]>,
    agent: Agent,
}

impl Peer {
    /// A client that has just connected, or a load balancer for it.
    /// `handshakes`: those of its worker, where it begins with TLS.
    pub fn new(
        edge: Arc<Edge>,
        seat: Seat,
        addr: IpAddr,
        handshakes: Option<Rc<Handshakes>>,
        proxied: &Proxied,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let waits = Cell::new(Waits::new(clock::monotonic()));
        let addr = addr.to_canonical();
        let (trusted, addr_text) =
            (!proxied.nameless && edge.config.http.trusts(addr), addr.to_string().into());
        let whereabouts = edge.geo.find(addr);
        let agent = Agent::new(addr, whereabouts, b"");
        let latest = RefCell::new(Latest { addr, whereabouts, user_agent: Box::default(), agent });
        let (segment, permitted) = (Cell::new(COMMON_SEGMENT), Cell::new(0));
        let (trail, reset) = (RefCell::default(), Cell::new(false));
        let memory = Account::new(edge.memory.clone(), id);
        Self {
            edge,
            addr,
            addr_text,
            https: handshakes.is_some() || proxied.https,
            id,
            memory,
            is_shaken: Cell::new(handshakes.is_none()),
            handshakes,
            turn: RefCell::default(),
            seat,
            trusted,
            latest,
            trail,
            reset,
            waits,
            segment,
            permitted,
            outgoing: OnceCell::new(),
            written: Cell::new(0),
        }
    }

    /// What `bytes` come to on the wire, if nothing has to be sent twice.
    pub fn on_wire(&self, bytes: u64) -> u64 {
        let heads = if self.addr.is_ipv4() { HEADS_V4 } else { HEADS_V6 };
        bytes + bytes.div_ceil(self.segment.get().into()) * heads
    }

    /// Ready once some of the `wanted` bytes of `flow` may be sent: how many, at least one.
    pub fn poll_permit(&self, flow: &Flow, cx: &mut Context<'_>, wanted: u64) -> Poll<u64> {
        if self.handshakes.is_some() {
            ready!(self.memory.poll_room(cx));
        }
        let pacer = &self.edge.egress.pacer;
        let bytes = ready!(pacer.poll_permit(flow, cx, wanted, |bytes| self.on_wire(bytes)));
        if pacer.is_on() {
            self.permitted.set(self.permitted.get() + self.on_wire(bytes));
        }
        Poll::Ready(bytes)
    }

    /// What its HTTP/2 has taken and not written. From this call on only that counts as progress: a client has the node write other
    /// frames as it likes.
    pub fn outgoing(&self) -> Arc<Outgoing> {
        self.outgoing.get_or_init(Arc::default).clone()
    }

    /// What was permitted and isn't sent now, others may send.
    pub fn returns_permit(&self) {
        let left = self.permitted.take();
        if left > 0 {
            self.edge.egress.pacer.unspent(left);
        }
    }

    /// Bytes have left.
    fn sent(&self, bytes: usize, now: Instant) {
        let on_wire = self.on_wire(bytes as u64);
        let metrics = &self.edge.metrics;
        metrics.egress_bytes.inc_by(bytes as u64);
        metrics.egress_wire_bytes.inc_by(on_wire);
        let permitted = self.permitted.get();
        self.permitted.set(permitted.saturating_sub(on_wire));
        self.edge.egress.pacer.spent(on_wire.saturating_sub(permitted), now);
        let progress = self.outgoing.get().map_or(bytes as u64, |outgoing| {
            let written = outgoing.sent();
            written - self.written.replace(written)
        });
        if progress > 0 {
            self.memory.progressed(progress);
            self.note(|waits| waits.sent(now));
        }
    }

    /// The address that a request comes from: whom a trusted proxy names, or the connection's.
    pub fn speaks_for(&self, forwarded: &Forwarded) -> IpAddr {
        let named = self.trusted.then(|| forwarded.client(|addr| self.edge.config.http.trusts(addr)));
        named.flatten().unwrap_or(self.addr)
    }

    /// Whether a request comes over https.
    pub fn is_https(&self, forwarded: &Forwarded) -> bool {
        let named = if self.trusted { forwarded.https() } else { None };
        named.unwrap_or(self.https)
    }

    /// Who asks from `addr` with this User-Agent.
    pub fn agent(&self, addr: IpAddr, user_agent: &[u8]) -> Agent {
        let mut latest = self.latest.borrow_mut();
        if latest.addr != addr {
            (latest.addr, latest.whereabouts) = (addr, self.edge.geo.find(addr));
            latest.user_agent = user_agent.into();
            latest.agent = Agent::new(addr, latest.whereabouts, user_agent);
        } else if *latest.user_agent != *user_agent {
            latest.user_agent = user_agent.into();
            latest.agent = Agent::new(addr, latest.whereabouts, user_agent);
        }
        latest.agent
    }

    /// The connection's requests are noted in this trail, which is told of its end.
    pub fn leaves_trail(&self, trail: SharedTrail) {
        let mut latest = self.trail.borrow_mut();
        if latest.as_ref().is_some_and(|latest| Arc::ptr_eq(latest, &trail)) {
            return;
        }
        if let Some(before) = latest.replace(trail) {
            clients::closed(&before, self.id);
        }
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
        self.seat.note(|| self.seat_use(clock::monotonic()).0);
    }

    /// The last response is out: the end of the connection is waited for ([`super::linger`]).
    pub fn lingers(&self) {
        self.note(Waits::lingers);
    }

    /// How long ago the connection's last byte was sent, or its last response ended.
    pub fn quiet_for(&self) -> Duration {
        self.waits.get().quiet_for(clock::monotonic())
    }

    /// The connection, with a request that has just come.
    pub fn link(&self) -> Link {
        Link::new(self.id, self.waits.get().transfers() + 1)
    }

    /// How the connection uses its seat ([`Waits::seat_use`]).
    pub fn seat_use(&self, now: Instant) -> (Use, Option<Instant>) {
        if self.outgoing.get().is_some_and(|outgoing| outgoing.has_some()) {
            return (Use::Busy, None);
        }
        self.waits.get().seat_use(now)
    }

    /// Ready once the next flight of its handshake may be read.
    fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(handshakes) = &self.handshakes else { return Poll::Ready(()) };
        let mut turn = self.turn.borrow_mut();
        let turn = turn.get_or_insert_with(|| {
            let owner = client::owner(self.addr);
            handshakes.ask(if self.edge.config.http.trusts(self.addr) { owner.many() } else { owner })
        });
        turn.poll(cx)
    }

    /// If it had a turn, what it has read is answered.
    pub fn turn_is_over(&self) {
        let mut turn = self.turn.borrow_mut();
        if turn.as_ref().is_some_and(Turn::is_there) {
            *turn = None;
        }
    }

    /// The TLS handshake is over.
    pub fn is_shaken(&self) {
        self.is_shaken.set(true);
        self.memory.set(Part::Input, 0);
    }

    /// The connection's seat.
    pub fn seat(&self) -> &Seat {
        &self.seat
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

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(trail) = self.trail.get_mut() {
            clients::closed(trail, self.id);
        }
    }
}

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
/// clients of 4 kB/s each, with nobody beside them, took 0.12 of a core with 16 KiB, 0.10 with 32, 0.09 with 64.
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
            peer.segment.set(segment.max(1));
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
        if self.peer.handshakes.is_some() && self.peer.is_shaken.get() {
            let is_short = !self.is_fast() && self.peer.outgoing.get().is_none();
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
        if !self.peer.is_shaken.get() {
            ready!(self.tcp.poll_read_ready(cx))?;
            ready!(self.peer.poll_turn(cx));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        if !self.peer.is_shaken.get() {
            self.shaken.set(self.shaken.get() + (buf.filled().len() - before) as u64);
            self.peer.memory.set(Part::Input, self.shaken.get());
        }
        // Over HTTP/2 what comes may be a frame that begins no request.
        if self.peer.outgoing.get().is_none() {
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
