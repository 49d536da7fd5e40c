use super::*;
use proptest::prelude::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn holding(id: u64, bytes: u64, progress: u64) -> Holding {
    Holding { id, bytes, progress, since: secs(0) }
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
    assert_eq!(slowest.choose(&at(11), u64::MAX, secs(11)), [2, 5, 4, 3, 1]);
    assert_eq!(slowest.choose(&at(11), 80 * KIB, secs(11)), [2]);
    assert_eq!(slowest.choose(&at(11), 80 * KIB + 1, secs(11)), [2, 5]);
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
    let new = |id, since| Holding { id, bytes: 80 * KIB, progress: 100 * KIB, since };
    let all = [new(1, Duration::from_millis(9900)), new(2, secs(8)), new(3, secs(9))];
    assert_eq!(Slowest::default().choose(&all, u64::MAX, secs(10)), [2, 3, 1]);
}

#[test]
fn a_connection_that_held_nothing_in_between_begins_anew() {
    let mut slowest = Slowest::default();
    slowest.look(&[holding(1, KIB, 100 * MIB)], secs(2));
    let again =
        [Holding { id: 1, bytes: KIB, progress: 64 * KIB, since: secs(5) }, holding(2, KIB, 200 * KIB)];
    assert_eq!(slowest.choose(&again, 1, secs(6)), [1]);
}

proptest! {
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
        let pace = |id: &u64| all[*id as usize].1 as f64 / bytes(id) as f64;
        let most = gone.iter().map(pace).fold(0.0, f64::max);
        for holding in now.iter().filter(|holding| !gone.contains(&holding.id)) {
            prop_assert!(pace(&holding.id) >= most * 0.999);
        }
    }
}
