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
        self.breaker.is_up()
    }
}

#[test]
fn what_makes_it_count_as_down() {
    let answered = Outcome::Answered;
    for (what, met, up) in [
        ("connections to one path", vec![(1, unreachable()), (1, unreachable()), (1, unreachable())], false),
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
fn probes_come_one_at_a_time_and_more_slowly_up_to_each_second() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.meets(1, unreachable());
    }
    for delay in [250, 500, 1000, 1000, 1000, 1000, 1000] {
        bench.wait(delay - 1);
        assert_eq!(bench.admits(1), None, "{delay} ms are not over");
        assert!(!bench.breaker.may_connect());
        bench.wait(1);
        let probe = bench.admits(1).expect("the probe");
        assert_eq!(bench.admits(2), None, "one at a time");
        assert!(bench.breaker.may_connect());
        bench.settle(probe, unreachable());
    }
    bench.wait(1000);
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
    bench.wait(999);
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
        // A path that is known to fail lets others have their turn first.
        bench.now += CAP.max(PROBE_LEASE) + OTHERS_TURN;
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
    fn a_dead_origin_is_asked_now_and_then(
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
