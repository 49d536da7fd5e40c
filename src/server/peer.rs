//! The client's end of a connection: what its requests share, and what it waits for.

use super::Edge;
use super::clients::{self, SharedTrail};
use super::h2::outgoing::Outgoing;
use super::handshakes::{self, Handshakes, Turn};
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
use crate::shares::turns::Stage;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

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
    /// Turns that it has asked for.
    turns: Cell<u32>,
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
            turns: Cell::new(0),
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

    /// The kernel cuts what is sent into segments of so many bytes.
    pub fn sends_segments_of(&self, bytes: u32) {
        self.segment.set(bytes.max(1));
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
    pub fn sent(&self, bytes: usize, now: Instant) {
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
            self.note(|waits| waits.sent(progress, now));
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

    /// The connection ends now: responses that aren't over must not look as if they were, nor lie in the kernel's queue for long.
    pub fn gives_up_responses(&self) {
        let has_some = self.outgoing.get().is_some_and(|outgoing| outgoing.has_some());
        if has_some || self.waits.get().transfers() > 0 {
            self.must_reset();
        }
    }

    /// The socket is to be reset.
    pub fn is_to_be_reset(&self) -> bool {
        self.reset.get()
    }

    /// Something happened that bears on what the connection waits for.
    pub fn note(&self, event: impl FnOnce(&mut Waits)) {
        let mut waits = self.waits.get();
        event(&mut waits);
        self.waits.set(waits);
        self.memory.set_nodes_turn(waits.is_nodes_turn());
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
        let has_unsent = self.outgoing.get().is_some_and(|outgoing| outgoing.has_some());
        self.waits.get().seat_use(has_unsent, now)
    }

    /// Ready once the next flight of its handshake may be read.
    pub fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(handshakes) = &self.handshakes else { return Poll::Ready(()) };
        let mut turn = self.turn.borrow_mut();
        let turn = turn.get_or_insert_with(|| {
            self.note(|waits| waits.lines_up(clock::monotonic()));
            let owner = client::owner(self.addr);
            let owner = if self.edge.config.http.trusts(self.addr) { owner.many() } else { owner };
            handshakes.ask(owner, self.next_stage())
        });
        ready!(turn.poll(cx));
        self.note(|waits| waits.has_its_turn(clock::monotonic()));
        Poll::Ready(())
    }

    /// A handshake of more turns than one takes has no more of them before others than one that begins.
    fn next_stage(&self) -> Stage {
        let had = self.turns.replace(self.turns.get().saturating_add(1));
        if (1..handshakes::TURNS).contains(&had) { Stage::GoesOn } else { Stage::Begins }
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

    /// A TLS handshake is under way.
    pub fn is_shaking(&self) -> bool {
        !self.is_shaken.get()
    }

    /// What is sent is records of TLS, which the node makes.
    pub fn has_records(&self) -> bool {
        self.handshakes.is_some() && self.is_shaken.get()
    }

    /// It speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.outgoing.get().is_some()
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
