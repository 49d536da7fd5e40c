//! Whether the origin is asked at all: a circuit breaker, without IO, clock or randomness.
//!
//! While the origin is up everybody may ask. It is down once [`THRESHOLD`] failures came in a row, with no answer
//! between them: connections that failed, each for itself, or answers that failed (5xx, 429, silence, a break before the
//! head), of which those of one path count once, since one broken path says nothing of the others. While it is down one
//! request at a time is the probe, at intervals that double up to a second; everybody else is refused at once. Where it can
//! be reached, and only answers badly, paths that are not known to fail may be asked as well, a few each second: one of
//! them may well work. Any answer brings it up. A path whose answer said Retry-After is left alone for that long, up to
//! the cap, whatever the state.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Failures in a row that make the origin count as down.
const THRESHOLD: usize = 3;
/// From going down to the first probe.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Requests for paths that are not known to fail, in each [`OTHERS_WINDOW`], while others do.
const OTHERS: u32 = 8;
const OTHERS_WINDOW: Duration = Duration::from_secs(1);
/// Between two probes of an origin that doesn't talk, a path that is not known to fail has its turn first.
const OTHERS_TURN: Duration = Duration::from_secs(1);
/// The longest time between two probes, however long the origin is down. They are sent only while something is wanted of it:
/// a client waits no longer than this for an origin that works again.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A probe that has said nothing for so long no longer keeps the next one from asking: its origin may have been
/// switched off and on again under it.
const PROBE_LEASE: Duration = PROBE_EVERY;
/// Failing or held paths remembered at once; the oldest make room.
const MAX_PATHS: usize = 1024;

/// The right to ask once. It has to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    /// Failures of a request that was admitted in another state say nothing of this one.
    epoch: u64,
    path: u64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The origin answered, be it that it has no such file.
    Answered,
    /// No connection.
    Unreachable(Arc<str>),
    /// A connection, but no answer for this path.
    Broken(Arc<str>),
    /// An answer, but none that is of use for this path.
    Failed {
        /// In words.
        reason: Arc<str>,
        /// As the answer asks for.
        retry_after: Option<Duration>,
    },
    /// Whoever asked has left.
    Dropped,
}

/// A request that is not to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The last failure, in words.
    pub(super) reason: Arc<str>,
}

/// How the origin stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_up: bool,
    /// When it came to be so; `None` if it was never otherwise.
    pub(super) since: Option<Instant>,
    /// While it is down: the last failure.
    pub(super) reason: Option<Arc<str>>,
    /// While it is down: when the next request may be the probe.
    pub(super) next_probe: Option<Instant>,
}

/// Why it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It doesn't talk.
    Connection,
    /// It answers badly.
    Paths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Unreachable,
    Broken,
    BadAnswer,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    lease_until: Instant,
}

#[derive(Clone, Debug)]
struct Down {
    since: Instant,
    cause: Cause,
    failed_probes: u32,
    next: Instant,
    probe: Option<Probe>,
    /// When paths that are not known to fail began to be counted, and how many were asked for since.
    others_since: Instant,
    others: u32,
}

impl Down {
    fn begin(cause: Cause, now: Instant) -> Self {
        Self { since: now, cause, failed_probes: 0, next: now, probe: None, others_since: now, others: 0 }
    }

    /// Whether one of the other paths may be asked for, counting it.
    fn takes_other(&mut self, now: Instant) -> bool {
        if now >= self.others_since + OTHERS_WINDOW {
            (self.others_since, self.others) = (now, 0);
        }
        let takes = now >= self.others_since && self.others < OTHERS;
        self.others += u32::from(takes);
        takes
    }

    fn is_probed_by(&self, ticket: Ticket) -> bool {
        self.probe.is_some_and(|probe| probe.number == ticket.number)
    }
}

#[derive(Clone, Debug)]
enum State {
    Up { since: Option<Instant> },
    Down(Down),
}

/// The state machine. Its owner serialises the calls.
#[derive(Debug)]
pub(super) struct Breaker {
    cap: Duration,
    tickets: u64,
    epoch: u64,
    state: State,
    /// Connections that failed since the last answer.
    unreachable: usize,
    /// Paths that failed since the last answer, each once.
    failing: Vec<u64>,
    /// Some of them by an answer.
    has_answered_badly: bool,
    /// Paths that are left alone, and until when.
    held: Vec<(u64, Instant)>,
    reason: Arc<str>,
}

impl Breaker {
    /// Up. No Retry-After counts for longer than `cap`.
    pub(super) fn new(cap: Duration) -> Self {
        Self {
            cap,
            tickets: 0,
            epoch: 0,
            state: State::Up { since: None },
            unreachable: 0,
            failing: Vec::new(),
            has_answered_badly: false,
            held: Vec::new(),
            reason: Arc::from(""),
        }
    }

    /// Whether `path` (any number that stands for it) may be asked for now.
    pub(super) fn admit(&mut self, path: u64, now: Instant) -> Result<Ticket, Refusal> {
        let refusal = Refusal { reason: Arc::clone(&self.reason) };
        self.held.retain(|(_, until)| now < *until);
        if self.held.iter().any(|(held, _)| *held == path) {
            return Err(refusal);
        }
        let ticket = Ticket { number: self.tickets, epoch: self.epoch, path };
        if let State::Down(down) = &mut self.state {
            let fails = self.failing.contains(&path);
            if down.cause == Cause::Connection || fails {
                let yields = fails && down.cause == Cause::Connection;
                let due = if yields { down.next + OTHERS_TURN } else { down.next };
                if now < due || down.probe.is_some_and(|probe| now < probe.lease_until) {
                    return Err(refusal);
                }
                down.probe = Some(Probe { number: ticket.number, lease_until: now + PROBE_LEASE });
            } else if !down.takes_other(now) {
                return Err(refusal);
            }
        }
        self.tickets += 1;
        Ok(ticket)
    }

    /// What became of an admitted request. `jitter`, from 0 to 1, shortens the next delay by up to a quarter.
    pub(super) fn settle(&mut self, ticket: Ticket, outcome: Outcome, now: Instant, jitter: f64) {
        match outcome {
            Outcome::Answered => self.answered(ticket, now),
            Outcome::Dropped => {
                if let State::Down(down) = &mut self.state
                    && down.is_probed_by(ticket)
                {
                    (down.probe, down.next) = (None, now + FIRST_DELAY);
                }
            }
            Outcome::Unreachable(reason) => {
                self.failed(ticket, reason, Failure::Unreachable, None, now, jitter);
            }
            Outcome::Broken(reason) => self.failed(ticket, reason, Failure::Broken, None, now, jitter),
            Outcome::Failed { reason, retry_after } => {
                let retry_after = retry_after.map(|after| after.min(self.cap));
                if let Some(after) = retry_after {
                    remember(&mut self.held, (ticket.path, now + after), |(held, _)| *held == ticket.path);
                }
                self.failed(ticket, reason, Failure::BadAnswer, retry_after, now, jitter);
            }
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Whether a connection may be opened: not to an origin that can't be reached, but for the probe.
    pub(super) fn may_connect(&self) -> bool {
        match &self.state {
            State::Up { .. } => true,
            State::Down(down) => down.cause == Cause::Paths || down.probe.is_some(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match &self.state {
            State::Up { since } => Standing { is_up: true, since: *since, reason: None, next_probe: None },
            State::Down(down) => Standing {
                is_up: false,
                since: Some(down.since),
                reason: Some(Arc::clone(&self.reason)),
                next_probe: Some(down.next),
            },
        }
    }

    fn answered(&mut self, ticket: Ticket, now: Instant) {
        self.unreachable = 0;
        self.failing.clear();
        self.has_answered_badly = false;
        self.held.retain(|(held, _)| *held != ticket.path);
        if matches!(self.state, State::Down(_)) {
            self.comes_up(now);
        }
    }

    fn comes_up(&mut self, now: Instant) {
        self.state = State::Up { since: Some(now) };
        self.epoch += 1;
    }

    fn failed(
        &mut self,
        ticket: Ticket,
        reason: Arc<str>,
        kind: Failure,
        retry_after: Option<Duration>,
        now: Instant,
        jitter: f64,
    ) {
        match &mut self.state {
            _ if ticket.epoch != self.epoch => return,
            State::Up { .. } => {
                self.count(ticket.path, kind);
                self.reason = reason;
                if self.unreachable + self.failing.len() < THRESHOLD {
                    return;
                }
                self.epoch += 1;
                let talks = self.unreachable == 0 && self.has_answered_badly;
                let cause = if talks { Cause::Paths } else { Cause::Connection };
                self.state = State::Down(Down::begin(cause, now));
            }
            State::Down(down) if !down.is_probed_by(ticket) && kind != Failure::Unreachable => {
                if let Some(after) = retry_after {
                    (down.others_since, down.others) = (now + after, 0);
                    down.next = down.next.max(now + after);
                }
                return self.count(ticket.path, kind);
            }
            State::Down(down) if (down.cause, kind) == (Cause::Connection, Failure::BadAnswer) => {
                // The origin can be reached again, and the rest is this path's trouble until others have it too.
                self.comes_up(now);
                self.unreachable = 0;
                self.failing = vec![ticket.path];
                self.has_answered_badly = true;
                self.reason = reason;
                return;
            }
            State::Down(down) => {
                // One whose lease ran out says nothing of the one that is out now.
                if down.is_probed_by(ticket) {
                    down.probe = None;
                }
                if kind == Failure::Unreachable {
                    down.cause = Cause::Connection;
                }
                down.failed_probes = down.failed_probes.saturating_add(1);
                self.reason = reason;
                self.count(ticket.path, kind);
            }
        }
        self.postpone(retry_after.unwrap_or_default(), now, jitter);
    }

    fn count(&mut self, path: u64, kind: Failure) {
        self.has_answered_badly |= kind == Failure::BadAnswer;
        match kind {
            Failure::Unreachable => self.unreachable = self.unreachable.saturating_add(1),
            Failure::Broken | Failure::BadAnswer => {
                remember(&mut self.failing, path, |failing| *failing == path);
            }
        }
    }

    fn postpone(&mut self, at_least: Duration, now: Instant, jitter: f64) {
        let State::Down(down) = &mut self.state else { return };
        let doubled = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(down.failed_probes));
        let delay = doubled.min(PROBE_EVERY).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
        down.next = now + delay.max(at_least);
        if !at_least.is_zero() {
            (down.others_since, down.others) = (now + at_least, 0);
        }
    }
}

/// Adds `new` in place of what `same` finds.
fn remember<T>(all: &mut Vec<T>, new: T, same: impl Fn(&T) -> bool) {
    all.retain(|known| !same(known));
    if all.len() == MAX_PATHS {
        all.remove(0);
    }
    all.push(new);
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
