use super::super::{Lines, client};
use super::*;
use crate::shares::Owner;

const AHEAD: Duration = Duration::from_secs(10);

#[test]
fn what_is_sent_ahead_is_as_configured() {
    let now = Timestamp::from_secs(1000);
    for seconds in [1, 10, 60] {
        let donated = [Bandwidth::from_bits_per_second(80_000_000)];
        let load = MirrorLoad::new(donated, Duration::from_secs(seconds));
        assert_eq!(load.ahead(0, now), (0, seconds * 10_000_000));
        load.sent(0, seconds * 10_000_000 - 1, now);
        assert!(load.has_room(0, now));
        load.sent(0, 1, now);
        assert!(!load.has_room(0, now));
        let later = now.plus(Duration::from_millis(500));
        assert_eq!(load.ahead(0, later), (seconds * 10_000_000 - 5_000_000, seconds * 10_000_000));
    }
}

#[test]
fn a_mirror_is_sent_no_more_than_it_donates() {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(8_000_000)], AHEAD); // 1 MB/s
    let mut sent = 0;
    let mut now = Timestamp::from_secs(1000);
    for _ in 0..100 {
        while load.has_room(0, now) {
            load.sent(0, 100_000, now);
            sent += 100_000;
        }
        now = now.plus(Duration::from_secs(1));
    }
    let allowed = 100 * 1_000_000 + 10 * 1_000_000;
    assert!(sent <= allowed + 100_000, "{sent}");
    assert!(sent >= allowed - 1_100_000, "{sent}");
}

#[test]
fn a_clock_that_is_set_back_fills_no_bucket() {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(8_000_000)], AHEAD); // 1 MB/s
    let before = Timestamp::from_secs(10_000);
    load.sent(0, 15_000_000, before);
    let after = Timestamp::from_secs(10_000 - 3600);
    assert!(!load.has_room(0, after), "the level is kept");
    assert!(load.has_room(0, after.plus(Duration::from_secs(6))), "it drains from the new time on");

    // A request that was overtaken by others makes no time pass twice.
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(8_000_000)], AHEAD);
    load.sent(0, 15_000_000, before);
    for _ in 0..1000 {
        load.sent(0, 0, Timestamp::from_millis(before.as_millis() - 50));
        load.sent(0, 0, before);
    }
    assert!(!load.has_room(0, before));
}

const GB: u64 = 1_000_000_000;
const MB: u64 = 1_000_000;
const NOW: Timestamp = Timestamp::from_secs(1000);

/// Mirrors, each of which is a client's first choice as often as any other.
struct Mirrors {
    load: MirrorLoad,
    lines: Lines,
    count: u64,
}

impl Mirrors {
    fn new(count: u64, gigabits_per_second: u64) -> Self {
        let donated = Bandwidth::from_bits_per_second(gigabits_per_second * GB);
        let load = MirrorLoad::new((0..count).map(|_| donated), AHEAD);
        Self { load, lines: Lines::default(), count }
    }

    /// The mirror that an address of the network is redirected to for a file of `bytes`.
    fn redirects(&self, network: u64, bytes: u64, now: Timestamp) -> Option<usize> {
        let asker = Asker::new(network, bytes);
        let order = (0..self.count).map(|number| usize::try_from((network + number) % self.count).unwrap());
        let mirror = order.into_iter().find(|mirror| self.load.has_room_for(*mirror, &asker, now))?;
        let expected = || self.lines.expected(Owner::new(network, network), bytes, now);
        self.load.charge(mirror, network, bytes, expected, now);
        Some(mirror)
    }
}

/// An attack: from so many networks, in each of which an address asks so many times a second for files of so many bytes.
#[derive(Clone, Copy, Debug)]
struct Attack {
    networks: u64,
    per_second: f64,
    bytes: u64,
}

/// The share of files that mirrors take of others from the moment on at which the attack begins: of 180 networks that ask, by
/// turns, for a gigabit of such files each 5 s.
fn taken(mirrors: &Mirrors, attack: Attack, bytes: u64) -> f64 {
    let every = bytes / 25_000;
    let (mut taken, mut all, mut due, mut number) = (0.0, 0.0, 0.0, 0_u64);
    for milli in 0..10_000 {
        let now = NOW.plus(Duration::from_millis(milli));
        due += attack.per_second * attack.networks as f64 / 1000.0;
        while due >= 1.0 {
            due -= 1.0;
            number += 1;
            mirrors.redirects(1_000_000 + client::hash(&number) % attack.networks, attack.bytes, now);
        }
        if milli % every == 0 {
            all += 1.0;
            taken += f64::from(mirrors.redirects(milli / every % 180, bytes, now).is_some());
        }
    }
    taken / all
}

#[test]
fn files_that_are_asked_for_and_not_followed_leave_others_their_redirects() {
    for networks in [0, 1, 10, 100] {
        // More than any line takes, and as much as one may take.
        for (per_second, size) in [(30.0, 10 * GB), (30.0, GB), (30.0, 5 * MB), (0.12, GB)] {
            for bytes in [MB, 60 * MB] {
                let attack = Attack { networks, per_second, bytes: size };
                let taken = taken(&Mirrors::new(2, 10), attack, bytes);
                assert!(taken >= 0.95, "{attack:?}: {taken} of files of {bytes} bytes");
            }
        }
    }
}

#[test]
fn images_that_are_asked_for_and_not_followed_leave_others_what_is_large() {
    for networks in [1, 10] {
        let attack = Attack { networks, per_second: 30.0, bytes: 10 * GB };
        let taken = taken(&Mirrors::new(20, 1), attack, 80 * MB);
        assert!(taken >= 0.95, "{attack:?}: {taken}");
    }
}

/// Greedy networks that follow: what a mirror of 1 Gbit/s is sent of each within 100 s, where the network asks for files of
/// `sizes` as long as it gets one, each half second.
fn greedy(networks: u64, sizes: &[u64]) -> Vec<u64> {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(GB)], AHEAD);
    let mut sent = vec![0; usize::try_from(networks).unwrap()];
    for step in 0..200 {
        let now = NOW.plus(Duration::from_millis(500 * step));
        for (network, sent) in (0..).zip(&mut sent) {
            let mut refused = 0;
            for size in sizes.iter().cycle().skip(client::hash(&(step, network)) as usize % 7).take(200) {
                if load.has_room_for(0, &Asker::new(network, *size), now) {
                    load.charge(0, network, *size, || *size, now);
                    *sent += size;
                } else if refused == sizes.len() {
                    break;
                } else {
                    refused += 1;
                }
            }
        }
    }
    sent
}

#[test]
fn a_mirror_is_sent_no_more_than_it_donates_by_any_number_of_networks() {
    const SECOND: u64 = 125 * MB;
    for networks in [1, 2, 20, 100] {
        for sizes in [&[MB][..], &[10 * MB, 200_000, 70 * MB], &[GB, 5 * MB, 4 * GB]] {
            let sent: u64 = greedy(networks, sizes).iter().sum();
            let largest = sizes.iter().max().unwrap();
            let ahead = if networks == 1 { 10 } else { 32 };
            assert!(sent <= (100 + ahead) * SECOND + largest, "{networks} networks, {sizes:?}: {sent}");
            assert!(sent >= 99 * SECOND, "{networks} networks, {sizes:?}: {sent}");
        }
    }
}

#[test]
fn a_mirror_is_sent_no_more_than_it_donates_by_networks_that_ask_once() {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(GB)], AHEAD);
    let (mut sent, mut network) = (0, 0);
    for step in 0..500 {
        let now = NOW.plus(Duration::from_millis(200 * step));
        for size in [MB, 50 * MB, 4 * GB].into_iter().cycle().take(100) {
            network += 1;
            if load.has_room_for(0, &Asker::new(network, size), now) {
                load.charge(0, network, size, || size, now);
                sent += size;
            }
        }
    }
    let at_once = 32 * 125 * MB + 4 * GB;
    assert!((99 * 125 * MB..=100 * 125 * MB + at_once).contains(&sent), "{sent}");
}

#[test]
fn a_greedy_network_leaves_others_half_of_their_even_shares() {
    // The first always asks before the others.
    let sent = greedy(4, &[MB]);
    assert!(sent.iter().all(|sent| *sent >= 100 * 125 * MB / 4 / 2), "{sent:?}");
}

#[test]
fn a_network_alone_is_sent_no_more_than_the_mirror_donates_whatever_is_expected() {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(GB)], AHEAD);
    let room = |network: u64, now| load.has_room_for(0, &Asker::new(network, 50 * MB), now);
    let mut sent = 0;
    for second in 0..100 {
        let now = NOW.plus(Duration::from_secs(second));
        while room(1, now) {
            load.charge(0, 1, 50 * MB, || 0, now);
            sent += 50 * MB;
        }
        assert!(room(2, now), "and nothing is full for another one");
    }
    // But for what was charged while the account was calm.
    assert_eq!(load.ahead(0, NOW.plus(Duration::from_secs(99))).0, 0);
    assert!((99 * 125 * MB..=(110 * 125 + 50) * MB).contains(&sent), "{sent}");
}

#[test]
fn a_bounce_gives_back_what_is_not_drained() {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(GB)], AHEAD); // 125 MB/s
    let charge = |network, bytes| load.charge(0, network, bytes, || bytes, NOW);
    charge(1, 300 * MB);
    charge(2, 300 * MB);
    load.give_back(0, 1, 200 * MB, NOW);
    assert_eq!(load.ahead(0, NOW).0, 400 * MB);
    load.give_back(0, 1, GB, NOW);
    assert_eq!(load.ahead(0, NOW).0, 300 * MB, "no other network's part");
    load.give_back(0, 3, GB, NOW);
    assert_eq!(load.ahead(0, NOW).0, 300 * MB);
    load.give_back(0, 2, GB, NOW.plus(Duration::from_secs(2)));
    assert_eq!(load.ahead(0, NOW.plus(Duration::from_secs(2))).0, 0);
}

#[test]
fn networks_are_remembered_up_to_a_bound_and_as_long_as_they_have_a_part() {
    let load = MirrorLoad::new([Bandwidth::from_bits_per_second(GB)], AHEAD);
    let charge = |network, bytes, now| load.charge(0, network, bytes, || bytes, now);
    charge(1, 5 * MB, NOW);
    for network in 2..2000 {
        charge(network, 1000, NOW);
    }
    let known = || load.lock(0).networks.len();
    assert_eq!(known(), MOST_NETWORKS);
    assert!(load.lock(0).held(1).charged > 0.0, "one that has more is kept");
    charge(1, 1, NOW.plus(Duration::from_secs(60)));
    assert_eq!(known(), 1);
}

#[test]
fn of_a_thousand_full_mirrors_few_are_looked_into() {
    let donated = (0..1000).map(|_| Bandwidth::from_bits_per_second(GB));
    let load = MirrorLoad::new(donated, AHEAD);
    for mirror in 0..1000 {
        load.charge(mirror, 1, 2 * GB, || 2 * GB, NOW);
    }
    let asker = Asker::new(2, MB);
    let with_room = (0..1000).filter(|mirror| load.has_room_for(*mirror, &asker, NOW)).count();
    assert_eq!(u32::try_from(with_room).unwrap(), MOST_LOOKS);
}
