//! The breaker in use: who may ask the origin, and what became of it.
//!
//! Owns the one [`Breaker`] of an origin, the bound on connections that are being opened, and the counts. The lock is
//! held for a step of the state machine only.

use super::OriginError;
use super::breaker::{Breaker, Outcome, Ticket};
use crate::clock::{self, Timestamp};
use hyper::Uri;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tower_service::Service;

/// Connections that are being opened at once, TLS handshakes included; more wait.
const MAX_CONNECTS: usize = 32;
/// Clocks that differ by so many seconds are told of in the log.
const SKEW_TOLD: f64 = 60.0;
/// A failure is remembered with so many characters.
const MAX_REASON_CHARS: usize = 256;

/// Why a request counts as it does, as the `outcome` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Answered,
    ServerError,
    Unreachable,
    Silent,
    Broken,
    Dropped,
    Withheld,
}

impl Verdict {
    const ALL: [Self; 7] = [
        Self::Answered,
        Self::ServerError,
        Self::Unreachable,
        Self::Silent,
        Self::Broken,
        Self::Dropped,
        Self::Withheld,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ServerError => "server-error",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Broken => "broken",
            Self::Dropped => "dropped",
            Self::Withheld => "withheld",
        }
    }
}

/// How the origin stands, for people and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// It is asked.
    pub is_up: bool,
    /// When it came to be so; `None` if it was never otherwise.
    pub since: Option<Timestamp>,
    /// While it is down: the last failure.
    pub reason: Option<String>,
    /// While it is down: when the next request may be the probe.
    pub next_probe: Option<Timestamp>,
    /// How far the wall clock here is ahead of the origin's, in seconds, to about one; `None` before its first Date.
    pub clock_skew: Option<f64>,
    /// Requests since the start by what became of them.
    pub requests: Vec<(&'static str, u64)>,
}

/// Stands between everybody and the origin.
pub(super) struct Guard {
    breaker: Mutex<Breaker>,
    requests: [AtomicU64; Verdict::ALL.len()],
    connects: Semaphore,
    clock_skew: Mutex<Option<f64>>,
}

impl Guard {
    /// No Retry-After counts for longer than `cap`.
    pub(super) fn new(cap: Duration) -> Arc<Self> {
        Arc::new(Self {
            breaker: Mutex::new(Breaker::new(cap)),
            requests: Default::default(),
            connects: Semaphore::new(MAX_CONNECTS),
            clock_skew: Mutex::default(),
        })
    }

    /// The right to send one request for `target`.
    pub(super) fn admit(&self, target: &str) -> Result<Admitted<'_>, OriginError> {
        let mut hasher = DefaultHasher::new();
        target.hash(&mut hasher);
        match self.lock().admit(hasher.finish(), clock::monotonic()) {
            Ok(ticket) => Ok(Admitted { guard: self, ticket: Some(ticket) }),
            Err(refusal) => {
                self.count(Verdict::Withheld);
                Err(OriginError::Withheld { reason: refusal.reason.to_string() })
            }
        }
    }

    /// The origin's clock showed `date` when the one here showed `here`.
    pub(super) fn note_clock(&self, date: Timestamp, here: Timestamp) {
        // A Date is cut to a second: half of one later is the likeliest.
        let date = date.plus(Duration::from_millis(500));
        let skew = here.since(date).as_secs_f64() - date.since(here).as_secs_f64();
        let before = self.clock_skew.lock().unwrap_or_else(PoisonError::into_inner).replace(skew);
        if skew.abs() >= SKEW_TOLD && before.is_none_or(|before| before.abs() < SKEW_TOLD) {
            tracing::warn!(
                seconds = skew.round(),
                "this host's clock and the origin's differ: one of them is wrong"
            );
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.lock().is_up()
    }

    pub(super) fn health(&self) -> Health {
        let standing = self.lock().standing();
        let (now, monotonic) = (clock::now().as_millis(), clock::monotonic());
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let wall = |at: std::time::Instant| {
            let (ahead, ago) =
                (at.saturating_duration_since(monotonic), monotonic.saturating_duration_since(at));
            Timestamp::from_millis((now + millis(ahead)).saturating_sub(millis(ago)))
        };
        let total = |verdict: &Verdict| self.requests[*verdict as usize].load(Ordering::Relaxed);
        Health {
            is_up: standing.is_up,
            since: standing.since.map(wall),
            reason: standing.reason.map(|reason| reason.to_string()),
            next_probe: standing.next_probe.map(wall),
            clock_skew: *self.clock_skew.lock().unwrap_or_else(PoisonError::into_inner),
            requests: Verdict::ALL.iter().map(|verdict| (verdict.word(), total(verdict))).collect(),
        }
    }

    fn count(&self, verdict: Verdict) {
        self.requests[verdict as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn settle(&self, ticket: Ticket, verdict: Verdict, outcome: Outcome) {
        self.count(verdict);
        let (was_up, standing) = {
            let mut breaker = self.lock();
            let was_up = breaker.is_up();
            breaker.settle(ticket, outcome, clock::monotonic(), fastrand::f64());
            (was_up, breaker.standing())
        };
        match (was_up, standing.is_up) {
            (true, false) => {
                let reason = standing.reason.as_deref().unwrap_or_default();
                tracing::warn!(reason, "the origin is down: it is only probed now");
            }
            (false, true) => tracing::info!("the origin is up again"),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that may be sent. Dropped unsettled, it counts as one whose asker left.
pub(super) struct Admitted<'a> {
    guard: &'a Guard,
    ticket: Option<Ticket>,
}

impl Admitted<'_> {
    /// The origin answered.
    pub(super) fn answered(mut self) {
        self.end(Verdict::Answered, Outcome::Answered);
    }

    /// There was no connection.
    pub(super) fn unreachable(mut self, error: &OriginError) {
        self.end(Verdict::Unreachable, Outcome::Unreachable(words(error)));
    }

    /// There was a connection, but no answer; in time, or at all.
    pub(super) fn broken(mut self, error: &OriginError) {
        let silent = matches!(error, OriginError::Silent { .. });
        let verdict = if silent { Verdict::Silent } else { Verdict::Broken };
        self.end(verdict, Outcome::Broken(words(error)));
    }

    /// The origin answered that something is wrong with it.
    pub(super) fn failed(mut self, error: &OriginError, retry_after: Option<Duration>) {
        self.end(Verdict::ServerError, Outcome::Failed { reason: words(error), retry_after });
    }

    fn end(&mut self, verdict: Verdict, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            self.guard.settle(ticket, verdict, outcome);
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.end(Verdict::Dropped, Outcome::Dropped);
    }
}

fn words(error: &OriginError) -> Arc<str> {
    error.to_string().chars().take(MAX_REASON_CHARS).collect::<String>().into()
}

/// A connector with a bound: few connections are opened at once, and none once the origin counts as down, but for the
/// probe's. Those who waited for their turn while it went down don't knock as well.
#[derive(Clone)]
pub(super) struct Connects<C> {
    inner: C,
    guard: Arc<Guard>,
}

impl<C> Connects<C> {
    pub(super) const fn new(inner: C, guard: Arc<Guard>) -> Self {
        Self { inner, guard }
    }
}

type Fault = Box<dyn Error + Send + Sync>;

impl<C> Service<Uri> for Connects<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<Fault>,
{
    type Response = C::Response;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, Fault>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // The one that is ready is used, its clone waits for the next call.
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            let _turn = guard.connects.acquire().await?;
            if !guard.lock().may_connect() {
                return Err("the origin went down meanwhile".into());
            }
            ready.call(uri).await.map_err(Into::into)
        })
    }
}
