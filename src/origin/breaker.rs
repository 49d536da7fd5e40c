//! Whether the origin is asked at all: a circuit breaker, without IO, clock or randomness.
//!
//! While the origin is up everybody may ask. It is down once [`THRESHOLD`] failures came in a row, with no answer
//! between them: connections that failed, each for itself, or answers that failed (5xx, 429, silence, a break before the
//! head), of which those of one path count once, since one broken path says nothing of the others. While it is down one
//! request at a time is the probe, at intervals that double up to a cap; everybody else is refused at once. Where it can
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
/// A probe that has said nothing for so long no longer keeps the next one from asking: its origin may have been
/// switched off and on again under it.
const PROBE_LEASE: Duration = Duration::from_secs(5);
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
    /// Up. No probe waits longer than `cap`.
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
                    (down.probe, down.next) = (None, now + FIRST_DELAY.min(self.cap));
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
        let delay = doubled.min(self.cap).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
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
mod tests {
    use super::*;
    use crate::clock;
    use proptest::prelude::*;

    const CAP: Duration = Duration::from_secs(4);

    fn unreachable() -> Outcome {
        Outcome::Unreachable("refused".into())
    }

    fn failed(retry_after: Option<u64>) -> Outcome {
        Outcome::Failed { reason: "503".into(), retry_after: retry_after.map(Duration::from_secs) }
    }

    fn broken() -> Outcome {
        Outcome::Broken("hung up".into())
    }

    /// A breaker and a time that a test moves.
    struct Bench {
        breaker: Breaker,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { breaker: Breaker::new(CAP), now: clock::monotonic() }
        }

        fn wait(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        fn admits(&mut self, path: u64) -> Option<Ticket> {
            self.breaker.admit(path, self.now).ok()
        }

        fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
            self.breaker.settle(ticket, outcome, self.now, 0.0);
        }

        /// One request, admitted for sure.
        fn meets(&mut self, path: u64, outcome: Outcome) {
            let ticket = self.admits(path).expect("admitted");
            self.settle(ticket, outcome);
        }

        fn is_up(&self) -> bool {
            self.breaker.standing().is_up
        }
    }

    #[test]
    fn what_makes_it_count_as_down() {
        let answered = Outcome::Answered;
        for (what, met, up) in [
            (
                "connections to one path",
                vec![(1, unreachable()), (1, unreachable()), (1, unreachable())],
                false,
            ),
            ("two of them", vec![(1, unreachable()), (1, unreachable())], true),
            (
                "an answer between",
                vec![(1, unreachable()), (1, unreachable()), (1, answered.clone()), (1, unreachable())],
                true,
            ),
            ("one broken path", vec![(1, failed(None)); 50], true),
            ("two broken paths", [vec![(1, failed(None)); 9], vec![(2, failed(None)); 9]].concat(), true),
            ("three broken paths", vec![(1, failed(None)), (2, failed(None)), (3, failed(None))], false),
            (
                "a good path between",
                vec![(1, failed(None)), (2, failed(None)), (4, answered), (3, failed(None))],
                true,
            ),
            ("some of each", vec![(1, failed(None)), (1, unreachable()), (2, failed(None))], false),
            ("one path that breaks", vec![(1, broken()); 50], true),
            ("three paths that break", vec![(1, broken()), (2, broken()), (3, broken())], false),
            ("who leaves", vec![(1, Outcome::Dropped); 9], true),
        ] {
            let mut bench = Bench::new();
            met.into_iter().for_each(|(path, outcome)| bench.meets(path, outcome));
            assert_eq!(bench.is_up(), up, "{what}");
        }
    }

    #[test]
    fn probes_come_one_at_a_time_and_ever_slower() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.meets(1, unreachable());
        }
        for delay in [250, 500, 1000, 2000, 4000, 4000, 4000] {
            bench.wait(delay - 1);
            assert_eq!(bench.admits(1), None, "{delay} ms are not over");
            assert!(!bench.breaker.may_connect());
            bench.wait(1);
            let probe = bench.admits(1).expect("the probe");
            assert_eq!(bench.admits(2), None, "one at a time");
            assert!(bench.breaker.may_connect());
            bench.settle(probe, unreachable());
        }
        bench.wait(4000);
        bench.meets(2, Outcome::Answered);
        assert!(bench.is_up() && bench.admits(1).is_some() && bench.admits(2).is_some(), "up at once");
        // And from the beginning again.
        for _ in 0..3 {
            bench.meets(1, unreachable());
        }
        bench.wait(250);
        assert!(bench.admits(1).is_some());
    }

    #[test]
    fn a_silent_or_abandoned_probe_makes_room_for_the_next() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.meets(1, unreachable());
        }
        bench.wait(250);
        let silent = bench.admits(1).unwrap();
        bench.wait(4999);
        assert_eq!(bench.admits(1), None);
        bench.wait(1);
        let abandoned = bench.admits(1).expect("the lease is over");
        bench.settle(abandoned, Outcome::Dropped);
        bench.wait(249);
        assert_eq!(bench.admits(1), None);
        bench.wait(1);
        assert!(bench.admits(1).is_some());
        bench.settle(silent, Outcome::Answered);
        assert!(bench.is_up(), "late, but an answer");
    }

    #[test]
    fn broken_paths_do_not_keep_the_others_out() {
        let mut bench = Bench::new();
        for path in 1..=3 {
            bench.meets(path, failed(None));
        }
        for _ in 0..8 {
            bench.wait(4000);
            bench.meets(1, failed(None));
        }
        // A few of the others each second; then they are known.
        for path in 11..19 {
            assert_eq!(bench.admits(1), None, "a path that is known to fail waits for the backoff");
            bench.meets(path, failed(None));
            assert_eq!(bench.admits(path), None);
        }
        assert_eq!(bench.admits(9), None);
        bench.wait(1000);
        bench.meets(9, Outcome::Answered);
        assert!(bench.is_up());
    }

    #[test]
    fn an_origin_that_dies_while_paths_fail_is_probed_by_one() {
        let mut bench = Bench::new();
        for path in 1..=3 {
            bench.meets(path, failed(None));
        }
        bench.meets(9, unreachable());
        assert_eq!(bench.admits(10), None);
        assert!(!bench.breaker.may_connect());
        bench.wait(500);
        assert!(bench.admits(10).is_some());
        assert_eq!(bench.admits(11), None);
    }

    #[test]
    fn an_origin_that_hangs_up_is_probed_by_one_and_by_new_paths_first() {
        let mut bench = Bench::new();
        for path in 1..=3 {
            bench.meets(path, broken());
        }
        assert_eq!(bench.admits(9), None);
        bench.wait(250);
        assert_eq!(bench.admits(1), None, "it yields");
        bench.meets(8, broken());
        bench.wait(500);
        assert_eq!(bench.admits(8), None, "it is known now");
        let probe = bench.admits(9).unwrap();
        assert_eq!(bench.admits(10), None);
        bench.settle(probe, broken());
        bench.wait(1000 + 1000);
        bench.meets(1, Outcome::Answered);
        assert!(bench.is_up());
    }

    #[test]
    fn a_broken_path_that_probes_a_dead_origin_does_not_keep_it_dead() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.meets(1, unreachable());
        }
        bench.wait(250);
        bench.meets(7, failed(None));
        assert!(bench.is_up());
    }

    #[test]
    fn retry_after_is_honoured_up_to_the_cap() {
        for (asked, millis) in [(2, 2000), (3600, 4000)] {
            let mut bench = Bench::new();
            bench.meets(1, failed(Some(asked)));
            bench.wait(millis - 1);
            assert_eq!(bench.admits(1), None, "{asked}");
            assert!(bench.admits(2).is_some(), "other paths go on");
            bench.wait(1);
            assert!(bench.admits(1).is_some(), "{asked}");
            // Once the origin counts as down, all do.
            let mut bench = Bench::new();
            for path in 1..=3 {
                bench.meets(path, failed(Some(asked)));
            }
            bench.wait(millis - 1);
            assert_eq!(bench.admits(9), None, "{asked}");
            bench.wait(1);
            assert!(bench.admits(9).is_some(), "{asked}");
        }
    }

    #[test]
    fn late_failures_of_a_former_state_count_nothing() {
        let mut bench = Bench::new();
        let crowd: Vec<_> = (0..10).map(|_| bench.admits(1).unwrap()).collect();
        for ticket in &crowd[..6] {
            bench.settle(*ticket, unreachable());
        }
        bench.wait(250);
        bench.meets(1, Outcome::Answered);
        for ticket in &crowd[6..] {
            bench.settle(*ticket, unreachable());
        }
        assert!(bench.is_up());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(u64),
        Settle(usize, Outcome, f64),
        Wait(u64),
    }

    fn steps(outcome: impl Strategy<Value = Outcome> + Clone) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..6_u64).prop_map(Step::Ask),
            (0..8_usize, outcome, 0.0..1.0)
                .prop_map(|(which, outcome, jitter)| Step::Settle(which, outcome, jitter)),
            (0..2000_u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> + Clone {
        prop_oneof![
            Just(Outcome::Answered),
            Just(unreachable()),
            Just(broken()),
            prop::option::of(0..10_000_u64).prop_map(failed),
            Just(Outcome::Dropped),
        ]
    }

    /// Runs the steps; at each admission while down calls `probed`.
    fn run(bench: &mut Bench, steps: Vec<Step>, mut probed: impl FnMut(Ticket, Instant)) {
        let mut open = Vec::new();
        for step in steps {
            match step {
                Step::Wait(millis) => bench.wait(millis),
                Step::Ask(path) => {
                    let up = bench.is_up();
                    if let Some(ticket) = bench.admits(path) {
                        open.push(ticket);
                        if !up {
                            probed(ticket, bench.now);
                        }
                    }
                }
                Step::Settle(which, outcome, jitter) if !open.is_empty() => {
                    let ticket = open.swap_remove(which % open.len());
                    bench.breaker.settle(ticket, outcome, bench.now, jitter);
                }
                Step::Settle(..) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_never_stuck(steps in steps(any_outcome()), path in 0..9_u64) {
            let mut bench = Bench::new();
            run(&mut bench, steps, |_, _| {});
            // Nobody settles anything any more.
            bench.now += CAP.max(PROBE_LEASE);
            let ticket = bench.admits(path);
            prop_assert!(ticket.is_some());
            bench.settle(ticket.unwrap(), Outcome::Answered);
            prop_assert!(bench.is_up() && bench.breaker.failing.is_empty());
            prop_assert!(bench.breaker.held.len() <= MAX_PATHS);
        }

        #[test]
        fn while_it_is_down_one_probe_is_out_at_a_time(
            steps in steps(prop_oneof![
                Just(Outcome::Answered), Just(unreachable()), Just(broken()), Just(Outcome::Dropped),
            ]),
        ) {
            let mut bench = Bench::new();
            let (mut open, mut probe) = (Vec::new(), None);
            for step in steps {
                match step {
                    Step::Wait(millis) => bench.wait(millis),
                    Step::Ask(path) => {
                        let down = !bench.is_up();
                        if let Some(ticket) = bench.admits(path) {
                            open.push(ticket);
                            if down {
                                if let Some((_, since)) = probe {
                                    prop_assert!(bench.now - since >= PROBE_LEASE);
                                }
                                probe = Some((ticket, bench.now));
                            }
                        }
                    }
                    Step::Settle(which, outcome, jitter) if !open.is_empty() => {
                        let ticket = open.swap_remove(which % open.len());
                        bench.breaker.settle(ticket, outcome, bench.now, jitter);
                        if bench.is_up() || probe.is_some_and(|(out, _)| out == ticket) {
                            probe = None;
                        }
                    }
                    Step::Settle(..) => {}
                }
            }
        }

        #[test]
        fn a_dead_origin_is_asked_ever_more_slowly(
            steps in steps(prop_oneof![Just(unreachable()), Just(broken()), Just(Outcome::Dropped)]),
        ) {
            let mut bench = Bench::new();
            for _ in 0..3 {
                bench.meets(1, unreachable());
            }
            let begun = bench.now;
            let mut probes = Vec::new();
            run(&mut bench, steps, |_, at| probes.push(at));
            prop_assert!(!bench.is_up());
            // Three quarters of the delay where the jitter is greatest.
            let apart = FIRST_DELAY.mul_f64(0.75);
            let mut last = begun;
            for at in probes {
                prop_assert!(at >= last + apart, "{:?} after the last", at - last);
                last = at;
            }
        }

        #[test]
        fn an_origin_that_only_fails_is_asked_at_a_bounded_rate(steps in steps(Just(failed(None)))) {
            let mut bench = Bench::new();
            for path in 1..=3 {
                bench.meets(path, failed(None));
            }
            let begun = bench.now;
            let mut asked = 0;
            run(&mut bench, steps, |_, _| asked += 1);
            let seconds = (bench.now - begun).as_secs_f64();
            prop_assert!(!bench.is_up());
            let probes = 1.0 + seconds / FIRST_DELAY.mul_f64(0.75).as_secs_f64();
            prop_assert!(f64::from(asked) <= f64::from(OTHERS) * (seconds + 1.0) + probes, "{asked} in {seconds} s");
        }
    }
}
