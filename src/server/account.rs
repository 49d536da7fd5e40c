//! The one accountant: each request is counted and logged here, once, when its response is over.

use super::access_log::Record;
use super::asked::Asked;
use super::egress::SHORTEST_QUEUE;
use super::pacer::Flow;
use super::peer::Peer;
use super::waits::Waits;
use crate::clock;
use crate::metrics::{Outcome, Path};
use crate::policy::Reason;
use crate::policy::fair::Class;
use crate::store::Object;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::task::{Context, Poll};

/// What there is to say of a response when its head is ready.
#[derive(Debug)]
pub struct Verdict {
    /// The status code.
    pub status: u16,
    /// What became of the request.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What the cache had.
    pub cache: &'static str,
    /// The mirror that took it, by number.
    pub mirror: Option<usize>,
    /// Body bytes that a whole response has; `None` if unknown beforehand.
    pub body_bytes: Option<u64>,
}

/// The client hung up while the node was at work. 499 is nginx's number for it; it is never sent.
const CLIENT_LEFT: Verdict = Verdict {
    status: 499,
    outcome: Outcome::Answer,
    reason: Reason::ClientLeft,
    cache: "none",
    mirror: None,
    body_bytes: None,
};

/// The account of one request, opened when its head is read. Its handler, its body and its file regions share it;
/// whichever is dropped last closes it.
pub struct Tally {
    /// The connection.
    pub peer: Rc<Peer>,
    /// The request.
    pub asked: Asked,
    /// What is being sent.
    pub object: OnceCell<Object>,
    verdict: OnceCell<Verdict>,
    bytes: Cell<u64>,
    ended: Cell<bool>,
    /// The node is to go on, not the client.
    ours: Cell<bool>,
    /// The egress knows that it has begun.
    begun: Cell<bool>,
    /// The transfer, as the pacer knows it.
    flow: Flow,
    /// What of the response is in memory.
    held: Cell<Held>,
}

/// Bytes of a response that are in memory until it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// For it alone.
    pub own: u64,
    /// Counted once for all that have them ([`crate::server::memory::Shared`]).
    pub shared: u64,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

impl Tally {
    /// Opens the account of a request.
    pub fn open(peer: Rc<Peer>, asked: Asked) -> Rc<Self> {
        peer.note(Waits::begins);
        peer.memory.keeps(asked.memory_bytes());
        let (bytes, ended, ours) = (Cell::new(0), Cell::new(false), Cell::new(true));
        let flow = Flow::new(asked.client.owner);
        Rc::new(Self {
            peer,
            asked,
            object: OnceCell::new(),
            verdict: OnceCell::new(),
            bytes,
            ended,
            ours,
            begun: Cell::new(false),
            flow,
            held: Cell::default(),
        })
    }

    /// What is going to be sent goes before others, or after them.
    pub fn goes_as(&self, class: Class) {
        self.flow.goes_as(class);
    }

    /// Ready once some of the `wanted` bytes may be sent: how many, at least one.
    pub fn poll_permit(&self, cx: &mut Context<'_>, wanted: u64) -> Poll<u64> {
        let permit = self.peer.poll_permit(&self.flow, cx, wanted);
        match permit {
            Poll::Ready(_) => self.is_ready(),
            Poll::Pending => self.is_starved(),
        }
        permit
    }

    /// The head of the response is ready.
    pub fn answered(&self, verdict: Verdict) {
        let egress = &self.peer.edge.egress;
        egress.takes_on(verdict.body_bytes.unwrap_or(0));
        if egress.pacer.is_on() && verdict.body_bytes.is_none_or(|bytes| bytes > SHORTEST_QUEUE.into()) {
            egress.begins();
            self.begun.set(true);
        }
        let first = self.verdict.set(verdict).is_ok();
        debug_assert!(first, "one response for each request");
        self.is_ready();
    }

    /// So much of the response is in memory until it is over.
    pub fn holds(&self, held: Held) {
        let before = self.held.replace(held);
        debug_assert_eq!(before, Held::default(), "one body for each response");
        self.peer.memory.keeps(held.own);
        self.peer.memory.shares(held.shared);
    }

    /// There is something to send.
    pub fn is_ready(&self) {
        if self.ours.replace(false) {
            self.peer.note(|waits| waits.ready(clock::monotonic()));
        }
    }

    /// There is nothing to send until origin or disk go on.
    pub fn is_starved(&self) {
        if !self.ours.replace(true) {
            self.peer.note(Waits::starved);
        }
    }

    /// Body bytes handed to the connection.
    pub fn sent(&self, bytes: usize, path: Path) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.peer.edge.metrics.body_bytes(path).inc_by(bytes as u64);
    }

    /// The response can't be whole: the client sees a reset. On HTTP/2 it is the stream's, which hyper sees to.
    pub fn is_cut(&self) {
        if self.asked.protocol != "2" {
            self.peer.must_reset();
        }
    }

    /// The file is not as long as it should be, or can't be read: the client sees a reset, and the store forgets it.
    pub fn is_damaged(&self) {
        self.is_cut();
        if let Some(object) = self.object.get() {
            let (edge, object) = (self.peer.edge.clone(), object.clone());
            tokio::task::spawn_local(async move { edge.store.damaged(&object).await });
        }
    }

    /// The body of unknown length came to its end.
    pub fn ends(&self) {
        self.ended.set(true);
    }

    fn is_complete(&self, verdict: &Verdict) -> bool {
        match verdict.body_bytes {
            Some(expected) => self.bytes.get() == expected,
            None => self.ended.get(),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let now = clock::monotonic();
        let Held { own, shared } = self.held.get();
        self.peer.memory.keeps_no_more(self.asked.memory_bytes() + own);
        self.peer.memory.shares_no_more(shared);
        self.peer.note(|waits| waits.ends(self.ours.get(), now));
        let edge = &self.peer.edge;
        let verdict = self.verdict.take().unwrap_or(CLIENT_LEFT);
        edge.egress.pacer.leaves(&self.flow);
        if self.begun.get() {
            edge.egress.is_over();
        }
        edge.egress.is_relieved(verdict.body_bytes.unwrap_or(0).saturating_sub(self.bytes.get()));
        let complete = self.is_complete(&verdict);
        let took = now - self.asked.started;
        edge.metrics.requests(verdict.outcome, verdict.reason).inc();
        edge.metrics.responses(verdict.status).inc();
        edge.metrics.request_seconds.observe(took.as_secs_f64());
        if !complete {
            edge.metrics.responses_cut.inc();
        }
        if edge.log.is_on() {
            let (range, agent) = (self.asked.range(), self.asked.agent());
            let client = &self.asked.client;
            let named = (client.addr != self.peer.addr).then(|| client.addr.to_string());
            edge.log.write(&Record {
                time: clock::date(),
                client: named.as_deref().unwrap_or(&self.peer.addr_text),
                method: self.asked.method,
                path: self.asked.logged_target(),
                protocol: self.asked.protocol,
                https: client.https,
                status: verdict.status,
                bytes: self.bytes.get(),
                complete,
                decision: verdict.outcome.word(),
                reason: verdict.reason.word(),
                cache: verdict.cache,
                mirror: verdict.mirror.map(|mirror| &*edge.config.mirrors[mirror].name),
                range: range.as_deref(),
                user_agent: &agent,
                took,
            });
        }
    }
}
