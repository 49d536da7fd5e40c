use super::*;
use proptest::prelude::*;

const RATE: Rate = Rate { per_second: 1500, burst: 12_000 };

fn of(network: u64) -> Owner {
    Owner::new(network, network)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_flood_delays_its_own_network_and_no_other() {
    let mut turns = Turns::new(Rate { per_second: 10, burst: 20 });
    let flood: Vec<u64> = (0..1000).map(|_| turns.ask(of(1), Stage::Begins, millis(0))).collect();
    assert_eq!(turns.next(millis(0)), Next::Turn(flood[0]));
    let other = turns.ask(of(2), Stage::Begins, millis(0));
    assert_eq!(turns.take_delayed(), 0);
    // It is next, and one more of the same network goes in turn with the flood.
    let order: Vec<Next> = (0..2).map(|_| turns.next(millis(0))).collect();
    assert!(order.contains(&Next::Turn(other)), "{order:?}");
    while let Next::Turn(_) = turns.next(millis(0)) {}
    assert_eq!(turns.next(millis(0)), Next::At(millis(100)), "the flood has had 20");
    let third = turns.ask(of(2), Stage::Begins, millis(50));
    assert_eq!(turns.next(millis(50)), Next::Turn(third));
    assert_eq!(turns.next(millis(50)), Next::At(millis(100)));
    assert_eq!(turns.next(millis(100)), Next::Turn(flood[20]));
}

#[test]
fn among_a_hundred_networks_that_flood_the_first_of_another_waits_for_one_round() {
    let mut turns = Turns::new(RATE);
    for network in 0..100 {
        (0..50).for_each(|_| _ = turns.ask(of(network), Stage::Begins, millis(0)));
    }
    for _ in 0..250 {
        turns.next(millis(0));
    }
    let honest = turns.ask(of(1000), Stage::Begins, millis(1));
    let before = (0..).find(|_| turns.next(millis(1)) == Next::Turn(honest)).unwrap();
    assert!(before <= 100, "{before} turns before it");
}

#[test]
fn two_thousand_hosts_behind_one_address_that_start_in_one_minute_are_never_late() {
    for within in [1000, 60_000] {
        let mut turns = Turns::new(RATE);
        // Three transfers each, and three flights for each handshake.
        let mut starts: Vec<u64> = (0..2000 * 3 * 2).map(|_| fastrand::u64(0..within)).collect();
        starts.sort_unstable();
        for start in starts {
            let id = turns.ask(of(1), Stage::Begins, millis(start));
            assert_eq!(turns.next(millis(start)), Next::Turn(id), "at {start} of {within} ms");
            assert_eq!(turns.take_delayed(), 0);
        }
    }
}

#[test]
fn one_that_stands_for_many_networks_has_no_rate_and_those_that_leave_hold_nobody_up() {
    let mut turns = Turns::new(Rate { per_second: 1, burst: 1 });
    for _ in 0..100 {
        let id = turns.ask(of(1).many(), Stage::Begins, millis(0));
        assert_eq!(turns.next(millis(0)), Next::Turn(id));
    }
    let (first, second) =
        (turns.ask(of(2), Stage::Begins, millis(0)), turns.ask(of(2), Stage::Begins, millis(0)));
    turns.cancel(first);
    assert_eq!(turns.next(millis(0)), Next::Turn(second));
    assert_eq!(turns.take_delayed(), 0);
    let late = turns.ask(of(2), Stage::Begins, millis(1));
    assert_eq!(turns.take_delayed(), 1);
    turns.cancel(late);
    assert_eq!((turns.next(millis(1)), turns.waiting()), (Next::None, 0));
    // What is over is forgotten.
    turns.ask(of(3), Stage::Begins, millis(5000));
    assert_eq!(turns.networks.len(), 1);
}

#[test]
fn one_that_goes_on_comes_before_its_networks_beginners_and_before_no_other_network() {
    let mut turns = Turns::new(Rate { per_second: 10, burst: 3 });
    let begin: Vec<u64> = (0..5).map(|_| turns.ask(of(1), Stage::Begins, millis(0))).collect();
    assert_eq!(turns.next(millis(0)), Next::Turn(begin[0]));
    let goes_on = turns.ask(of(1), Stage::GoesOn, millis(1));
    let other = turns.ask(of(2), Stage::Begins, millis(1));
    let order: Vec<Next> = (0..3).map(|_| turns.next(millis(1))).collect();
    assert_eq!(order, [other, goes_on, begin[1]].map(Next::Turn), "the other network has had least");
    assert_eq!(turns.next(millis(1)), Next::At(millis(100)), "it is within the rate, too");
}

/// What a test does next.
#[derive(Clone, Debug)]
enum Step {
    Ask(u64, Stage),
    /// The one that asked as the so-manieth leaves.
    Leave(prop::sample::Index),
    Next,
}

fn steps() -> impl Strategy<Value = Step> {
    let stage = prop_oneof![Just(Stage::GoesOn), Just(Stage::Begins)];
    prop_oneof![
        3 => (0..3_u64, stage).prop_map(|(network, stage)| Step::Ask(network, stage)),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => Just(Step::Next),
    ]
}

proptest! {
    /// Whichever askers leave, in whatever order, of each network the first of those that are left has the next turn.
    #[test]
    fn the_first_of_those_that_stayed_is_next(steps in prop::collection::vec(steps(), 1..200)) {
        let mut turns = Turns::new(RATE);
        let (mut asked, mut waiting) = (Vec::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Ask(network, stage) => {
                    let id = turns.ask(of(network), stage, millis(0));
                    asked.push((network, stage, id));
                    waiting.insert((network, stage, id));
                }
                Step::Leave(index) if !asked.is_empty() => {
                    let gone = index.get(&asked);
                    turns.cancel(gone.2);
                    waiting.remove(gone);
                }
                Step::Leave(_) => {}
                Step::Next => {
                    let first = |network| waiting.range((network, Stage::GoesOn, 0)..).next().copied();
                    let firsts: Vec<_> = (0..3).filter_map(|network| first(network).filter(|next| next.0 == network)).collect();
                    let next = turns.next(millis(0));
                    let taken = firsts.iter().find(|(_, _, id)| Next::Turn(*id) == next);
                    prop_assert!(taken.is_some() || firsts.is_empty() && next == Next::None, "{next:?} of {firsts:?}");
                    if let Some(taken) = taken {
                        waiting.remove(taken);
                    }
                }
            }
            prop_assert_eq!(turns.waiting(), waiting.len());
        }
    }

    /// In no stretch of time does a network have more than its rate and its burst; and no turn is lost.
    #[test]
    fn a_network_has_its_rate(
        asks in prop::collection::vec((0..3_u64, 0..40_u64), 1..300),
        per_second in 1..50_u32,
        burst in 1..20_u32,
    ) {
        let mut turns = Turns::new(Rate { per_second, burst });
        let (mut now, mut had, mut owners) = (Duration::ZERO, Vec::new(), HashMap::new());
        let mut take = |turns: &mut Turns, owners: &HashMap<u64, u64>, now: Duration| loop {
            match turns.next(now) {
                Next::Turn(id) => had.push((owners[&id], now)),
                next => break next,
            }
        };
        for (network, pause) in &asks {
            now += millis(*pause);
            let id = turns.ask(of(*network), Stage::Begins, now);
            owners.insert(id, *network);
            take(&mut turns, &owners, now);
        }
        while let Next::At(due) = take(&mut turns, &owners, now) {
            prop_assert!(due > now);
            now = due;
        }
        prop_assert_eq!(had.len(), asks.len());
        for network in 0..3 {
            let times: Vec<Duration> = had.iter().filter(|(of, _)| *of == network).map(|(_, at)| *at).collect();
            for (from, first) in times.iter().enumerate() {
                for (to, last) in times.iter().enumerate().skip(from) {
                    let most = f64::from(burst) + (*last - *first).as_secs_f64() * f64::from(per_second) + 0.001;
                    prop_assert!((to - from) as f64 + 1.0 <= most + 1e-6, "{} in {:?}", to - from + 1, *last - *first);
                }
            }
        }
    }
}
