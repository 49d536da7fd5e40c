//! The one accountant: each request is counted and logged here, once, when its response is over.

use super::access_log::Record;
use super::asked::Asked;
use super::peer::Peer;
use crate::clock;
use crate::metrics::{Outcome, Path};
use crate::policy::Reason;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

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

/// The account of one response. Its body and its file regions share it; whichever is dropped last closes it.
pub struct Tally {
    peer: Rc<Peer>,
    asked: Asked,
    started: Instant,
    verdict: Verdict,
    bytes: Cell<u64>,
    ended: Cell<bool>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

impl Tally {
    /// Opens the account of a response to `asked`.
    pub fn new(peer: Rc<Peer>, asked: Asked, verdict: Verdict) -> Rc<Self> {
        let started = asked.started;
        Rc::new(Self { peer, asked, started, verdict, bytes: Cell::new(0), ended: Cell::new(false) })
    }

    /// Body bytes handed to the connection.
    pub fn sent(&self, bytes: usize, path: Path) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.peer.edge.metrics.body_bytes(path).inc_by(bytes as u64);
    }

    /// Body bytes that sendfile took.
    pub fn sent_by_sendfile(&self, bytes: usize) {
        self.sent(bytes, Path::Sendfile);
    }

    /// The body of unknown length came to its end.
    pub fn ends(&self) {
        self.ended.set(true);
    }

    fn is_complete(&self) -> bool {
        match self.verdict.body_bytes {
            Some(expected) => self.bytes.get() == expected,
            None => self.ended.get(),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let edge = &self.peer.edge;
        let took = clock::monotonic() - self.started;
        let complete = self.is_complete();
        edge.metrics.requests(self.verdict.outcome, self.verdict.reason).inc();
        edge.metrics.responses(self.verdict.status).inc();
        edge.metrics.request_seconds.observe(took.as_secs_f64());
        if !complete {
            edge.metrics.responses_cut.inc();
        }
        if edge.log.is_on() {
            edge.log.write(Record {
                time: clock::now(),
                client: self.asked.client.addr,
                method: self.asked.method,
                path: std::mem::take(&mut self.asked.target),
                protocol: self.asked.protocol,
                https: self.peer.https,
                status: self.verdict.status,
                bytes: self.bytes.get(),
                complete,
                decision: self.verdict.outcome.word(),
                reason: self.verdict.reason.word(),
                cache: self.verdict.cache,
                mirror: self.verdict.mirror.map(|mirror| edge.config.mirrors[mirror].name.clone()),
                range: self.asked.text(&http::header::RANGE),
                user_agent: self.asked.text(&http::header::USER_AGENT).unwrap_or_default(),
                took,
            });
        }
        self.peer.response_ends();
    }
}
