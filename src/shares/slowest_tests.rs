use super::*;
use proptest::prelude::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn holding(id: u64, bytes: u64, progress: u64) -> Holding {
    Holding { id, bytes, progress, since: secs(0), awaits_node: false }
}

#[test]
fn what_progresses_least_for_what_it_holds_goes_first() {
    let mut slowest = Slowest::default();
    let at = |second: u64| {
        [
            holding(1, 80 * KIB, second * MIB),
            holding(2, 80 * KIB, 200 * KIB), // took what its kernel has room for
            holding(3, 40 * KIB, second * 32_000),
            holding(4, 400 * KIB, second * 32_000),
            holding(5, 200 * KIB, 10 * MIB + second), // a byte now and then
        ]
    };
    for second in 1..=10 {
        slowest.look(&at(second), secs(second));
    }
    assert_eq!(slowest.choose(&at(11), u64::MAX, secs(11)), [5, 2, 4, 3, 1]);
    assert_eq!(slowest.choose(&at(11), 200 * KIB, secs(11)), [5]);
    assert_eq!(slowest.choose(&at(11), 200 * KIB + 1, secs(11)), [5, 2]);
    assert!(slowest.choose(&at(11), 0, secs(11)).is_empty());
}

#[test]
fn one_that_was_fast_and_stalls_is_slow_within_two_seconds() {
    let mut slowest = Slowest::default();
    let at = |second: u64| {
        [holding(1, 80 * KIB, 1000 * MIB * second.min(5)), holding(2, 80 * KIB, second * 32_000)]
    };
    for second in 1..=7 {
        slowest.look(&at(second), secs(second));
    }
    assert_eq!(slowest.choose(&at(7), 1, secs(7)), [1]);
}

#[test]
fn of_those_that_stand_still_the_newest_stays() {
    let new = |id, since| Holding { since, ..holding(id, 80 * KIB, 100 * KIB) };
    let all = [new(1, Duration::from_millis(9900)), new(2, secs(8)), new(3, secs(9))];
    assert_eq!(Slowest::default().choose(&all, u64::MAX, secs(10)), [2, 3, 1]);
}

#[test]
fn a_connection_that_held_nothing_in_between_begins_anew() {
    let mut slowest = Slowest::default();
    slowest.look(&[holding(1, KIB, 100 * MIB)], secs(2));
    let again = [Holding { since: secs(5), ..holding(1, KIB, 64 * KIB) }, holding(2, KIB, 200 * KIB)];
    assert_eq!(slowest.choose(&again, 1, secs(9)), [1]);
}

#[test]
fn one_that_trickles_below_a_bound_stands_still() {
    let mut slowest = Slowest::default();
    // The second stood still for the last 4 s, the first for longer, but for some bytes in each.
    let at = |second: u64| {
        [holding(1, 80 * KIB, 10 * MIB + 900 * second), holding(2, 80 * KIB, MIB * second.min(8))]
    };
    for second in 1..=12 {
        slowest.look(&at(second), secs(second));
    }
    assert_eq!(slowest.choose(&at(12), u64::MAX, secs(12)), [1, 2]);
}

#[test]
fn one_that_the_node_keeps_waiting_outlives_those_that_trickle() {
    let mut slowest = Slowest::default();
    let waits = |id, bytes| Holding { awaits_node: true, ..holding(id, bytes, MIB) };
    let at = |second: u64| {
        [
            waits(1, 80 * KIB),
            waits(2, MIB),
            holding(3, MIB, 1448 * second),
            holding(4, 80 * KIB, MIB * second),
        ]
    };
    for second in 1..=10 {
        slowest.look(&at(second), secs(second));
    }
    assert_eq!(
        slowest.choose(&at(10), u64::MAX, secs(10)),
        [3, 2, 1, 4],
        "of those that wait, the largest first"
    );
}

proptest! {
    /// Those that took what kernels take, and from then on little, go before those that have just begun and hold no more.
    #[test]
    fn beginners_outlive_those_that_trickle(
        trickling in prop::collection::vec((40..100_u64, 0..32_000_u64), 1..40),
        beginning in prop::collection::vec((1..=40_u64, 0..=AHEAD, 0..3000_u64), 0..40),
    ) {
        let now = secs(10);
        let holdings = |at: Duration| -> Vec<Holding> {
            let trickling = trickling.iter().enumerate().map(|(id, (kib, rate))| {
                holding(id as u64, kib * KIB, AHEAD + rate * at.as_secs())
            });
            let beginning = beginning.iter().enumerate().map(|(id, (kib, progress, millis))| {
                let since = now.saturating_sub(Duration::from_millis(*millis));
                Holding { since, ..holding(1000 + id as u64, kib * KIB, *progress) }
            });
            trickling.chain(beginning.filter(|beginner| beginner.since <= at)).collect()
        };
        let mut slowest = Slowest::default();
        (0..=10).for_each(|second| slowest.look(&holdings(secs(second)), secs(second)));
        let all = trickling.iter().map(|(kib, _)| kib * KIB).sum();
        let mut gone = slowest.choose(&holdings(now), all, now);
        gone.sort_unstable();
        prop_assert_eq!(gone, (0..trickling.len() as u64).collect::<Vec<_>>());
    }

    /// Enough goes, no more than needed, and nothing that goes has progressed more for what it holds than what stays.
    #[test]
    fn enough_goes_and_the_slowest_first(
        all in prop::collection::vec((1..500_u64, 0..10_000_u64), 0..40),
        excess in 0..6000_u64,
    ) {
        let holdings = |second: u64| -> Vec<Holding> {
            all.iter().enumerate().map(|(id, (bytes, rate))| holding(id as u64, *bytes, AHEAD + rate * second)).collect()
        };
        let mut slowest = Slowest::default();
        (0..4).for_each(|second| slowest.look(&holdings(second), secs(second)));
        let now = holdings(4);
        let gone = slowest.choose(&now, excess, secs(4));
        let bytes = |id: &u64| all[*id as usize].0;
        let free: u64 = gone.iter().map(bytes).sum();
        prop_assert!(free >= excess || gone.len() == all.len());
        if let Some(last) = gone.last() {
            prop_assert!(free - bytes(last) < excess);
        }
        let rate = |id: &u64| Some(all[*id as usize].1).filter(|rate| *rate >= LEAST).unwrap_or_default();
        let pace = |id: &u64| rate(id) as f64 / bytes(id) as f64;
        let most = gone.iter().map(pace).fold(0.0, f64::max);
        for holding in now.iter().filter(|holding| !gone.contains(&holding.id)) {
            prop_assert!(pace(&holding.id) >= most * 0.999);
        }
    }
}
