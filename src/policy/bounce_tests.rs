use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const HOUR: u64 = 3600;

fn later(secs: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(secs))
}

fn asks(trail: &mut Trail, file: u64, connection: u64, now: Timestamp) -> Standing {
    trail.asks(file, Ask::Whole, connection, now).standing
}

/// So many connections, each with requests for files of its own, that the key is a crowd at `now`.
fn crowd(trail: &mut Trail, now: Timestamp) {
    for connection in 1000..1016 {
        asks(trail, 100_000 + connection, connection, now);
    }
}

#[test]
fn only_an_open_range_past_the_start_is_a_resume() {
    for (range, ask) in [
        (None, Ask::Whole),
        (Some("bytes=0-"), Ask::Whole),
        (Some("bytes=1-"), Ask::Resume),
        (Some("bytes=1040-"), Ask::Resume),
        (Some("bytes=1-9"), Ask::Whole),
        (Some("bytes=-9"), Ask::Whole),
        (Some("bytes=-"), Ask::Whole),
        (Some("bytes=0-3,9-"), Ask::Whole),
    ] {
        assert_eq!(Ask::from_range(range.map(str::as_bytes)), ask, "{range:?}");
    }
}

#[test]
fn starts_with_one_redirect_and_earns_more() {
    let mut trail = Trail::default();
    let mut redirected = Vec::new();
    for file in 0..20 {
        if asks(&mut trail, file, 1, NOW) == Standing::Clear {
            trail.redirected(file, 0, 1, 1, NOW);
            redirected.push(file);
        }
    }
    assert_eq!(redirected[0], 0);
    assert!(
        !redirected.contains(&1) && !redirected.contains(&2),
        "one in the air at the start: {redirected:?}"
    );
    assert!(redirected.len() >= 14, "it speeds up: {redirected:?}");
}

#[test]
fn a_repeat_is_a_bounce_and_cools_off() {
    // (connection of the repeat, certain, seconds of cool-off)
    for (connection, certain, rest) in [(1, true, 600), (2, false, 60)] {
        let mut trail = Trail::default();
        assert_eq!(trail.asks(7, Ask::Whole, 1, NOW), Past::default());
        trail.redirected(7, 3, 1, 1, NOW);
        let past = trail.asks(7, Ask::Whole, connection, later(1));
        assert_eq!(past.standing, Standing::Bounced { mirror: 3, certain });
        assert!(past.failed.contains(3) && !past.failed.contains(0));
        assert_eq!(asks(&mut trail, 8, 1, later(rest)), Standing::CoolingOff);
        let past = trail.asks(9, Ask::Whole, 1, later(rest + 1));
        assert_eq!(past.standing, Standing::Clear);
        assert!(past.failed.contains(3), "for this client it stays out when the cool-off is over");
        assert!(trail.asks(9, Ask::Whole, 1, later(HOUR)).failed.contains(3));
        assert_eq!(trail.asks(9, Ask::Whole, 1, later(HOUR + 1)), Past::default());
    }
}

#[test]
fn the_second_suspicion_is_certain_and_the_third_is_the_last() {
    let mut trail = Trail::default();
    let mut now = NOW;
    // (mirror, seconds of cool-off)
    for (mirror, rest) in [(1, 60), (2, 600), (3, 3600 - 60 - 600 - 2)] {
        let file = mirror as u64;
        assert_eq!(asks(&mut trail, file, 1, now), Standing::Clear);
        trail.redirected(file, mirror, 1, 1, now);
        now = now.plus(Duration::from_secs(1));
        assert_eq!(asks(&mut trail, file, 2, now), Standing::Bounced { mirror, certain: false });
        now = now.plus(Duration::from_secs(rest - 1));
        assert_eq!(asks(&mut trail, 50, 3, now), Standing::CoolingOff, "after {mirror}");
        now = now.plus(Duration::from_secs(1));
    }
    let past = trail.asks(51, Ask::Whole, 1, now.plus(Duration::from_secs(1)));
    assert_eq!(past.standing, Standing::Clear, "the first is an hour ago");
    assert_eq!(past.failed, [2, 3].into_iter().collect());
}

#[test]
fn how_late_a_return_is_one() {
    let bounced = Standing::Bounced { mirror: 3, certain: true };
    // (size, asked for, seconds later, standing)
    let cases = [
        (1, Ask::Whole, 119, bounced),
        (1, Ask::Whole, 120, Standing::Clear),
        (32_000_000, Ask::Whole, 999, bounced),
        (32_000_000, Ask::Whole, 1000, Standing::Clear),
        (u64::MAX, Ask::Whole, HOUR - 1, bounced),
        (u64::MAX, Ask::Whole, HOUR, Standing::Clear),
        (1, Ask::Resume, 300, bounced),
        (1, Ask::Resume, HOUR - 1, bounced),
        (1, Ask::Resume, HOUR, Standing::Clear),
    ];
    for (size, ask, secs, standing) in cases {
        let mut trail = Trail::default();
        asks(&mut trail, 7, 1, NOW);
        trail.redirected(7, 3, size, 1, NOW);
        for file in 10..13 {
            asks(&mut trail, file, 1, NOW); // even if it is taken to have worked
        }
        assert_eq!(
            trail.asks(7, ask, 1, later(secs)).standing,
            standing,
            "{size} bytes {ask:?} after {secs} s"
        );
    }
}

#[test]
fn the_redirects_that_end_first_are_forgotten_first() {
    let mut trail = Trail::default();
    trail.redirected(7, 3, 64_000_000, 1, NOW);
    for file in 100..300 {
        trail.redirected(file, 3, 1, 1, later(1));
    }
    assert_eq!(trail.redirects.len(), REMEMBERED);
    assert_eq!(asks(&mut trail, 7, 1, later(1500)), Standing::Bounced { mirror: 3, certain: true });
}

#[test]
fn a_clock_that_is_set_back_prolongs_nothing() {
    let mut trail = Trail::default();
    trail.redirected(7, 3, 1, 1, later(HOUR));
    assert_eq!(asks(&mut trail, 7, 1, later(HOUR)), Standing::Bounced { mirror: 3, certain: true });
    trail.redirected(8, 4, 1, 1, later(HOUR));
    assert_eq!(asks(&mut trail, 20, 1, later(0)), Standing::CoolingOff);
    assert_eq!(asks(&mut trail, 8, 1, later(120)), Standing::CoolingOff, "no repeat any more");
    assert_eq!(asks(&mut trail, 21, 1, later(599)), Standing::CoolingOff);
    assert_eq!(asks(&mut trail, 22, 1, later(600)), Standing::Clear);
    assert_eq!(trail.asks(23, Ask::Whole, 1, later(HOUR)).failed, Failed::default());
}

#[test]
fn a_thousand_hosts_behind_one_address_are_no_failing_client() {
    let mut trail = Trail::default();
    let (kernel, mut redirects, mut cooling, mut bounced, mut repeated) = (7, 0, 0, 0, 0);
    for host in 0..1000u64 {
        // Each fetches the same file and ten of its own within 600 ms, on three connections, 600 s in all.
        for step in 0..11 {
            let now = NOW.plus(Duration::from_millis(host * 600 + step * 50));
            let (file, connection) =
                if step == 3 { (kernel, host * 3) } else { (1000 + host * 20 + step, host * 3 + step % 3) };
            let past = trail.asks(file, Ask::Whole, connection, now);
            match past.standing {
                Standing::Clear => {
                    trail.redirected(file, 0, 80_000_000, connection, now);
                    redirects += 1;
                }
                Standing::CoolingOff => cooling += usize::from(host >= 3),
                Standing::Bounced { .. } => bounced += usize::from(host >= 3),
                Standing::Repeated { mirror } => {
                    assert_eq!(mirror, 0);
                    repeated += 1;
                }
                Standing::SlowStart => {}
            }
            assert!(host < 3 || !past.failed.contains(0), "nobody was failed by it");
        }
    }
    assert_eq!((cooling, bounced), (0, 0));
    assert!(repeated > 0 && redirects > 2000, "{repeated} repeated, {redirects} redirected");
}

#[test]
fn in_a_crowd_each_connection_stands_for_itself() {
    let mut trail = Trail::default();
    crowd(&mut trail, NOW);
    for connection in [1, 2] {
        assert_eq!(asks(&mut trail, connection, connection, NOW), Standing::Clear);
        trail.redirected(connection, 5, 1, connection, NOW);
    }
    // What others ask for confirms nothing; what it asks for itself does.
    crowd(&mut trail, NOW);
    assert_eq!(asks(&mut trail, 30, 1, NOW), Standing::SlowStart);
    asks(&mut trail, 31, 1, NOW);
    assert_eq!(asks(&mut trail, 32, 1, NOW), Standing::Clear);
    assert_eq!(asks(&mut trail, 33, 2, NOW), Standing::SlowStart);

    // A repeat on another connection: served, nobody cools off, but the one that was redirected gets no more.
    let past = trail.asks(1, Ask::Whole, 3, NOW);
    assert_eq!(past, Past { standing: Standing::Repeated { mirror: 5 }, failed: Failed::default() });
    assert_eq!(asks(&mut trail, 34, 3, NOW), Standing::Clear);
    assert_eq!(asks(&mut trail, 35, 1, NOW), Standing::SlowStart);

    // On the same connection it is certain: the mirror is out for all, but only that connection cools off.
    let past = trail.asks(2, Ask::Whole, 2, NOW);
    assert_eq!(past.standing, Standing::Bounced { mirror: 5, certain: true });
    assert!(past.failed.contains(5));
    assert_eq!(asks(&mut trail, 36, 2, NOW), Standing::CoolingOff);
    let other = trail.asks(37, Ask::Whole, 4, NOW);
    assert!(other.standing == Standing::Clear && other.failed.contains(5), "{other:?}");
}

/// How a mirror fails a transfer: when it comes back after so many seconds, and how.
fn failure(kind: u8, secs: u64) -> (u64, Ask) {
    match kind % 3 {
        0 => (0, Ask::Whole),              // refused
        1 => (30 + secs % 31, Ask::Whole), // librepo's timeouts
        _ => (1 + secs, Ask::Resume),      // cut off in the middle
    }
}

/// A transfer: when it ends, its file, and how it fails if it does.
type Transfer = (u64, u64, Option<Ask>);

/// A client with three parallel transfers that retries a failure at once, on any of `connections`, before it goes on.
/// Mirror 0, which it would be sent to first, fails it from some time on for good; the prober sees nothing of it, and
/// mirror 1 is fine. `draws` are (kind of failure, seconds, connection) of one transfer each. Returns when it was failed.
fn failures(
    trail: &mut Trail,
    draws: &[(u8, u64, u64)],
    dies_at: usize,
    others: &mut dyn FnMut(&mut Trail, u64),
) -> Vec<u64> {
    let (mut failed_at, mut active, mut next) = (Vec::new(), Vec::<Transfer>::new(), 0);
    for (round, &(kind, secs, connection)) in draws.iter().enumerate() {
        let (mut now, mut file, mut ask) = (0, next, Ask::Whole);
        if active.len() == 3 {
            let first = (0..3).min_by_key(|&index| active[index].0).unwrap();
            let (ended, ended_file, failure) = active.remove(first);
            now = ended;
            if let Some(how) = failure {
                failed_at.push(now);
                (file, ask) = (ended_file, how);
            }
        }
        next += u64::from(file == next);
        others(trail, now);
        let past = trail.asks(file, ask, connection, later(now));
        let mirror = usize::from(past.failed.contains(0));
        let redirected = past.standing == Standing::Clear;
        if redirected {
            trail.redirected(file, mirror, 1000, connection, later(now));
        }
        active.push(if redirected && mirror == 0 && round >= dies_at {
            let (after, how) = failure(kind, secs);
            (now + after, file, Some(how))
        } else {
            (now + secs, file, None)
        });
    }
    failed_at
}

fn most_within_an_hour(times: &[u64]) -> usize {
    let within = |from: &u64| times.iter().filter(|time| (*from..*from + HOUR).contains(*time)).count();
    times.iter().map(within).max().unwrap_or(0)
}

proptest! {
    /// One dnf, whose retries arrive on any of its connections, with any time between events: never a fourth failure.
    #[test]
    fn a_failing_mirror_costs_at_most_three_failures_an_hour(
        dies_at in 0..60usize,
        slow in prop::bool::ANY,
        draws in prop::collection::vec((0..3u8, 0..=200u64, 1..=6u64), 400),
    ) {
        let draws: Vec<_> =
            draws.into_iter().map(|(kind, secs, on)| (kind, if slow { secs } else { secs % 2 }, on)).collect();
        let times = failures(&mut Trail::default(), &draws, dies_at, &mut |_, _| {});
        prop_assert!(most_within_an_hour(&times) <= 3, "{times:?}");
    }

    /// The same for a host in a crowd, whose mirror refuses it.
    #[test]
    fn a_refusing_mirror_costs_a_host_in_a_crowd_no_more(
        dies_at in 0..60usize,
        draws in prop::collection::vec((Just(0u8), 1..=2u64, 1..=3u64), 100),
    ) {
        let times = failures(&mut Trail::default(), &draws, dies_at, &mut |trail, now| crowd(trail, later(now)));
        prop_assert!(most_within_an_hour(&times) <= 3, "{times:?}");
    }
}
