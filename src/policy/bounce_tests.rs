use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const HOUR: u64 = 3600;

fn later(secs: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(secs))
}

fn asks(trail: &mut Trail, file: u64, link: impl Into<Link>, now: Timestamp) -> Standing {
    trail.asks(file, Ask::Whole, link, now).standing
}

/// The connections of a crowd.
const CROWD: std::ops::Range<u64> = 1000..1010;

/// A trail that is one of a crowd's at [`NOW`]: hosts have come one by one.
fn of_a_crowd() -> Trail {
    let mut trail = Trail::default();
    for (connection, ago) in CROWD.rev().zip(1..) {
        asks(&mut trail, 100_000 + connection, connection, Timestamp::from_secs(NOW.as_secs() - 14 + ago));
    }
    trail
}

/// They all ask for files of their own.
fn crowd(trail: &mut Trail, now: Timestamp) {
    for connection in CROWD {
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
        let now = if file < 3 { NOW } else { later(2) };
        if asks(&mut trail, file, 1 + file % 3, now) == Standing::Clear {
            trail.redirected(file, 0, 1, 1 + file % 3, now);
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
fn with_more_transfers_than_failures_left_not_more_may_be_young() {
    // (transfers at a time, of 300 files that are asked for within a minute so many are redirected)
    for (parallel, redirects) in
        [(1, 100..=300), (2, 250..=300), (3, 250..=300), (4, 3..=3), (10, 3..=3), (20, 3..=3)]
    {
        let mut trail = Trail::default();
        let (mut redirected, mut at_once) = (0, 0);
        for file in 0..300 {
            let now = NOW.plus(Duration::from_millis(file * 200));
            let connection = 1 + file % parallel;
            if asks(&mut trail, file, connection, now) == Standing::Clear {
                trail.redirected(file, 0, 1, connection, now);
                redirected += 1;
                at_once += u64::from(file < parallel);
            }
        }
        assert!(redirects.contains(&redirected), "{parallel} at a time: {redirected} of 300");
        assert_eq!(at_once, 1, "{parallel} at a time: one of those that come together");
    }
}

fn over_http2(file: u64, transfers: u64) -> Link {
    if file < 2 * transfers {
        Link::from(1 + file % transfers)
    } else {
        Link::new(1, 1 + u32::try_from(file % transfers).unwrap())
    }
}

/// Of 300 files that are asked for within a minute, over these connections, so many are redirected.
fn redirected_over(link: impl Fn(u64) -> Link) -> usize {
    let mut trail = Trail::default();
    let is_redirected = |file: &u64| {
        let now = NOW.plus(Duration::from_millis(file * 200));
        let is_clear = asks(&mut trail, *file, link(*file), now) == Standing::Clear;
        if is_clear {
            trail.redirected(*file, 0, 1, link(*file), now);
        }
        is_clear
    };
    (0..300).filter(is_redirected).count()
}

#[test]
fn where_transfers_cannot_be_counted_three_redirects_may_be_young() {
    assert_eq!(redirected_over(|_| Link::UNKNOWN), 3, "a proxy's");
    assert!(redirected_over(|file| Link::from(1 + file % 3)) >= 250);
    // As librepo over HTTP/2: a connection for each transfer at first, then one for all.
    assert!(redirected_over(|file| over_http2(file, 3)) >= 250);
    assert_eq!(redirected_over(|file| over_http2(file, 4)), 3);
    let single = |file| Link::new(1, 1 + u32::try_from(file % 3).unwrap());
    assert_eq!(redirected_over(single), 3, "one connection for all from the start");
}

#[test]
fn connections_that_are_late_count_for_their_burst() {
    // Ten transfers; the node sees two of their connections at first, and the others 80 ms later.
    let mut trail = Trail::default();
    let (mut redirected, mut hang) = (0, 0);
    for file in 0..300 {
        let millis = file * 10;
        let now = NOW.plus(Duration::from_millis(millis));
        let connection = if millis < 80 { 1 + file % 2 } else { 1 + file % 10 };
        if asks(&mut trail, file, connection, now) == Standing::Clear {
            trail.redirected(file, 0, 1, connection, now);
            redirected += 1;
            hang += usize::from(millis < 80);
        }
    }
    assert_eq!((redirected, hang), (3, 3), "more would be young at once");
}

#[test]
fn requests_that_are_decided_at_the_same_time_share_what_is_left() {
    let mut trail = Trail::default();
    let ask =
        |trail: &mut Trail, file| trail.asks_beside_others(file, Ask::Whole, 1 + file % 10, NOW).standing;
    assert_eq!(
        (0..3).map(|file| ask(&mut trail, file)).collect::<Vec<_>>(),
        [Standing::Clear, Standing::SlowStart, Standing::SlowStart]
    );
    // The first is served by the node in the end, the next is redirected.
    trail.decided(0);
    assert_eq!(ask(&mut trail, 3), Standing::Clear);
    trail.redirected(3, 0, 1, 4, NOW);
    trail.decided(3);
    assert_eq!(ask(&mut trail, 4), Standing::SlowStart);
    assert!(trail.promises.is_empty());
}

#[test]
fn over_an_unknown_connection_others_count_once_a_failure_would_have_come_back() {
    let mut trail = Trail::default();
    let mut redirected = Vec::new();
    for file in 0..20 {
        let now = NOW.plus(Duration::from_millis(file * 10));
        if asks(&mut trail, file, Link::UNKNOWN, now) == Standing::Clear {
            trail.redirected(file, 0, 1, Link::UNKNOWN, now);
            redirected.push(file);
        }
    }
    assert_eq!(redirected, [0], "20 transfers may have begun together");
    for file in 20..23 {
        assert_eq!(asks(&mut trail, file, Link::UNKNOWN, later(1)) == Standing::Clear, file == 22);
    }
    assert_eq!(asks(&mut trail, 23, Link::UNKNOWN, later(1)), Standing::Clear);
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
fn in_a_crowd_each_host_stands_for_itself() {
    let mut trail = of_a_crowd();
    // Two hosts, a second apart, with three connections each; each asks once on all of them.
    let (one, other) = ([1, 2, 3], [11, 12, 13]);
    for (host, secs) in [(one, 0), (other, 1)] {
        assert_eq!(asks(&mut trail, host[0], host[0], later(secs)), Standing::Clear);
        trail.redirected(host[0], 5, 1, host[0], later(secs));
        for connection in &host[1..] {
            assert_eq!(asks(&mut trail, 200 + connection, *connection, later(secs)), Standing::SlowStart);
        }
    }
    // What others ask for confirms nothing; what it asks for itself does.
    crowd(&mut trail, later(2));
    assert_eq!(asks(&mut trail, 30, 1, later(2)), Standing::Clear, "the third that this host asks for since");
    crowd(&mut trail, later(2));
    assert_eq!(asks(&mut trail, 31, 4, later(3)), Standing::Clear, "a host of its own");

    // A repeat from another host: served, nobody cools off, but the one that was redirected gets no more than that one.
    let past = trail.asks(11, Ask::Whole, 4, later(3));
    assert_eq!(past, Past { standing: Standing::Repeated { mirror: 5 }, failed: Failed::default() });
    assert_eq!(asks(&mut trail, 34, 4, later(3)), Standing::Clear);
    trail.redirected(34, 6, 1, 4, later(3));

    // From the same host, on another connection: that host cools off, though the mirror is not blamed.
    let past = trail.asks(1, Ask::Whole, 3, later(4));
    assert_eq!(past.standing, Standing::Bounced { mirror: 5, certain: false });
    assert_eq!(asks(&mut trail, 36, 2, later(4)), Standing::CoolingOff);
    let next = trail.asks(37, Ask::Whole, 5, later(5));
    assert!(next.standing == Standing::Clear && next.failed == Failed::default(), "{next:?}");

    // On the same connection it is certain: the mirror is out for all.
    let past = trail.asks(34, Ask::Whole, 4, later(6));
    assert_eq!(past.standing, Standing::Bounced { mirror: 6, certain: true });
    let next = trail.asks(38, Ask::Whole, 6, later(7));
    assert!(next.standing == Standing::Clear && next.failed.contains(6), "{next:?}");
}

/// How a mirror fails a transfer: when it comes back after so many seconds, and how.
fn failure(kind: u8, secs: u64) -> (u64, Ask) {
    match kind % 3 {
        0 => (0, Ask::Whole),               // refused
        1 => (30 + secs % 31, Ask::Whole),  // librepo's timeouts
        _ => (1 + secs % 110, Ask::Resume), // cut off in the middle
    }
}

/// A transfer: when it ends, its file, how it fails if it does, and the connection that is free with it.
type Transfer = (u64, u64, Option<Ask>, Option<u64>);

/// A client with so many parallel transfers that retries a failure at once, before it goes on. As curl does, it begins with a
/// connection for each transfer, and then takes any that is free: a redirect frees the node's at once.
///
/// From some time on every mirror fails it for good, and the prober sees nothing of it. `draws` are (kind of failure, seconds,
/// connection) of one transfer each. Returns when it was failed.
fn failures(
    trail: &mut Trail,
    parallel: usize,
    draws: &[(u8, u64, usize)],
    dies_at: usize,
    others: &mut dyn FnMut(&mut Trail, u64),
) -> Vec<u64> {
    let (mut failed_at, mut active, mut next) = (Vec::new(), Vec::<Transfer>::new(), 0);
    let (mut free, mut opened) = (Vec::<u64>::new(), 0);
    for (round, &(kind, secs, choice)) in draws.iter().enumerate() {
        let (mut now, mut file, mut ask) = (0, next, Ask::Whole);
        if active.len() == parallel {
            let first = (0..parallel).min_by_key(|&index| active[index].0).unwrap();
            let (ended, ended_file, failure, connection) = active.remove(first);
            free.extend(connection);
            now = ended;
            if let Some(how) = failure {
                failed_at.push(now);
                (file, ask) = (ended_file, how);
            }
        }
        next += u64::from(file == next);
        let connection = if opened < parallel as u64 || free.is_empty() {
            opened += 1;
            opened
        } else {
            free.swap_remove(choice % free.len())
        };
        others(trail, now);
        let past = trail.asks(file, ask, connection, later(now));
        let mirror = (0..9).find(|mirror| !past.failed.contains(*mirror)).unwrap();
        let redirected = past.standing == Standing::Clear;
        if redirected {
            trail.redirected(file, mirror, 1000, connection, later(now));
            free.push(connection);
        }
        active.push(if redirected && round >= dies_at {
            let (after, how) = failure(kind, secs);
            (now + after, file, Some(how), None)
        } else {
            (now + secs, file, None, (!redirected).then_some(connection))
        });
    }
    failed_at
}

fn most_within_an_hour(times: &[u64]) -> usize {
    let within = |from: &u64| times.iter().filter(|time| (*from..*from + HOUR).contains(*time)).count();
    times.iter().map(within).max().unwrap_or(0)
}

proptest! {
    /// One client with any number of transfers, whose retries arrive on any of its connections, with any time between events:
    /// never a fourth failure.
    #[test]
    fn failing_mirrors_cost_at_most_three_failures_an_hour(
        parallel in 1..=20usize,
        dies_at in 0..150usize,
        slow in prop::bool::ANY,
        draws in prop::collection::vec((0..3u8, 0..=200u64, 0..20usize), 600),
    ) {
        let draws: Vec<_> =
            draws.into_iter().map(|(kind, secs, on)| (kind, if slow { secs } else { secs % 2 }, on)).collect();
        let times = failures(&mut Trail::default(), parallel, &draws, dies_at, &mut |_, _| {});
        prop_assert!(most_within_an_hour(&times) <= 3, "{times:?}");
    }

    /// The same for a host in a crowd, whose mirrors refuse it.
    #[test]
    fn refusing_mirrors_cost_a_host_in_a_crowd_no_more(
        parallel in 1..=20usize,
        dies_at in 0..40usize,
        draws in prop::collection::vec((Just(0u8), 1..=2u64, 0..20usize), 80),
    ) {
        let times = failures(&mut of_a_crowd(), parallel, &draws, dies_at, &mut |trail, now| crowd(trail, later(now)));
        prop_assert!(most_within_an_hour(&times) <= 3, "{times:?}");
    }
}
