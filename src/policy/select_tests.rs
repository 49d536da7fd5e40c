use super::*;
use crate::config::Mirror;
use crate::geo::Whereabouts;
use crate::policy::client::Agent;
use crate::policy::{Pair, Proof, Reach};
use crate::repo::{Entry, Kind};
use std::cell::RefCell;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

/// A mirror that is up and proven to hold generation 1 of the one repo.
fn mirror(name: &str, url: &str) -> MirrorState {
    let settings = Mirror::new(name, url);
    let proof = Some(Proof { sequence: 1, shown: 1, verified: NOW });
    MirrorState {
        reach: Reach::Up { seen: NOW },
        ipv4: true,
        pairs: vec![Pair { proof, ..Pair::default() }],
        ..MirrorState::untried(Arc::new(settings), 1)
    }
}

fn holding() -> Holding {
    let entry = Entry { size: 1, digest: None, kind: Kind::Package, since: 1 };
    Holding {
        path: TreePath::new("7/os/a.rpm").unwrap(),
        size: entry.size,
        ground: Ground::Listed { repo: 0, listed: Listed { entry, until: None }, above: Some(0) },
    }
}

fn client(user_agent: &str, https: bool) -> Client {
    Client { https, ..Client::somewhere("192.0.2.1", user_agent) }
}

#[test]
fn schemes_and_failures_rule_mirrors_out() {
    let (yum, dnf) = ("urlgrabber/3.10 yum/3.4.3", "libdnf");
    // (User-Agent, over https, mirror's scheme, failed the client, why not)
    let cases = [
        (dnf, false, "https", false, None),
        (dnf, true, "http", false, Some(Unfit::PlainHttp)),
        (yum, false, "http", false, None),
        (yum, false, "https", false, Some(Unfit::OldTls)),
        (yum, true, "https", false, None),
        (dnf, false, "http", true, Some(Unfit::FailedThisClient)),
    ];
    let holdings = [holding()];
    for (agent, https, scheme, failed, why) in cases {
        let table = MirrorTable::new(vec![Arc::new(mirror("a", &format!("{scheme}://mirror.example/")))]);
        let client = client(agent, https);
        let failed: Failed = failed.then_some(0).into_iter().collect();
        let wanted = Wanted { client: &client, failed, is_at_risk: false, holdings: &holdings, now: NOW };
        let unfit = fits(0, &table, &wanted, &|_| true).err();
        assert_eq!(unfit, why, "{agent} https {https} {scheme}");
        assert_eq!(
            ranked(&table, &Orders::new(&[]), &wanted, &|_| true, 1).len(),
            usize::from(why.is_none())
        );
        let full = fits(0, &table, &wanted, &|_| false).err();
        assert_eq!(full, why.or(Some(Unfit::Full)));
    }
}

#[test]
fn a_disputed_mirror_takes_no_large_files() {
    let disputed = MirrorState { disputed_until: Some(NOW), ..mirror("a", "http://mirror.example/") };
    let table = MirrorTable::new(vec![Arc::new(disputed)]);
    let client = client("libdnf", false);
    let before = Timestamp::from_secs(999_999);
    for (size, now, why) in [
        (LARGE_BYTES, before, Some(Unfit::Disputed)),
        (LARGE_BYTES, NOW, None),
        (LARGE_BYTES - 1, before, None),
    ] {
        let holdings = [Holding { size, ..holding() }];
        let failed = Failed::default();
        let wanted = Wanted { client: &client, failed, is_at_risk: false, holdings: &holdings, now };
        assert_eq!(fits(0, &table, &wanted, &|_| true).err(), why, "{size} bytes at {now}");
    }
}

#[test]
fn ranges_need_a_mirror_that_was_seen_answering_one_and_many_need_the_node() {
    for (range, ranges, why) in [
        (None, false, None),
        (Some("bytes=5-"), true, None),
        (Some("bytes=5-"), false, Some(Unfit::Ranges)),
        (Some("bytes=0-9,20-29"), true, Some(Unfit::ManyRanges)),
    ] {
        let mirror = MirrorState { ranges, ..mirror("a", "http://mirror.example/") };
        let agent = Agent::new("192.0.2.1".parse().unwrap(), Whereabouts::default(), b"libdnf");
        let client = Client::new(agent, false, range.map(str::as_bytes));
        let holdings = [holding()];
        let wanted = Wanted {
            client: &client,
            failed: Failed::default(),
            is_at_risk: false,
            holdings: &holdings,
            now: NOW,
        };
        let table = MirrorTable::new(vec![Arc::new(mirror)]);
        assert_eq!(fits(0, &table, &wanted, &|_| true).err(), why, "{range:?}");
    }
}

#[test]
fn the_best_come_first_and_only_they_are_asked_for_room() {
    let mirrors: Vec<_> =
        (0..100).map(|n| Arc::new(mirror(&format!("m{n}"), "http://mirror.example/"))).collect();
    let table = MirrorTable::new(mirrors);
    let orders = Orders::new(&[]);
    let (holdings, client) = ([holding()], client("libdnf", false));
    let wanted = Wanted {
        client: &client,
        failed: Failed::default(),
        is_at_risk: false,
        holdings: &holdings,
        now: NOW,
    };
    let mut order: Vec<usize> = (0..100).collect();
    order.sort_by(|&a, &b| {
        let rank = |index: usize| rank(&table.states()[index], &client);
        rank(b).partial_cmp(&rank(a)).unwrap()
    });
    let full = order[1];
    let asked = RefCell::new(Vec::new());
    let has_room = |index| {
        asked.borrow_mut().push(index);
        index != full
    };
    let best: Vec<usize> =
        ranked(&table, &orders, &wanted, &has_room, 3).into_iter().map(|(index, _)| index).collect();
    assert_eq!(best, [order[0], order[2], order[3]]);
    assert_eq!(*asked.borrow(), order[..4], "nobody else");

    // None of those that failed the client is named, however well it ranks.
    let failed = order[..3].iter().copied().collect();
    let left = ranked(&table, &orders, &Wanted { failed, ..wanted }, &|_| true, 3);
    assert_eq!(left.iter().map(|(index, _)| *index).collect::<Vec<_>>(), order[3..6]);
    assert!(ranked(&table, &orders, &wanted, &|_| true, 0).is_empty());

    // Where none of those that are remembered is fit, all are looked at.
    asked.borrow_mut().clear();
    let only = |index| index == order[97];
    let found = ranked(&table, &orders, &wanted, &only, 3);
    assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [order[97]]);
}

#[test]
fn the_nearest_come_first_and_the_rest_spread_by_what_they_donate() {
    let at = |country: Option<&str>, point: Option<&str>, networks: &[&str], asns: &[u32]| {
        let country = country.map(|code| code.parse::<crate::geo::Code>().unwrap());
        let settings = Mirror {
            country,
            continent: country.and_then(crate::geo::Code::continent),
            point: point.map(|point| point.parse().unwrap()),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            asns: asns.to_vec(),
            ..Mirror::new("m", "http://m.example/")
        };
        MirrorState { mirror: Arc::new(settings), ..mirror("m", "http://m.example/") }
    };
    let whereabouts = Whereabouts {
        country: "DE".parse().ok(),
        continent: "EU".parse().ok(),
        asn: Some(64_500),
        point: "52.5,13.4".parse().ok(),
    };
    let client = Client { whereabouts, ..client("libdnf", false) };
    let order = [
        at(Some("US"), None, &["192.0.2.0/24"], &[]),
        at(Some("DE"), Some("50.1,8.7"), &[], &[64_501]),
        at(Some("FR"), Some("48.9,2.4"), &[], &[]),
        at(Some("FR"), None, &[], &[]),
        at(Some("PT"), Some("32.6,-16.9"), &[], &[]),
        at(Some("TR"), Some("41.0,28.9"), &[], &[]),
        at(None, None, &[], &[]),
        at(Some("AU"), Some("-33.9,151.2"), &[], &[]),
    ];
    let near = |mirror: &MirrorState| rank(mirror, &client).0;
    for pair in order.windows(2) {
        assert!(near(&pair[0]) > near(&pair[1]), "{:?} {:?}", pair[0].mirror, pair[1].mirror);
    }
    assert_eq!(
        near(&order[0]),
        near(&at(None, None, &[], &[64_499, 64_500])),
        "by its number as by its addresses"
    );

    // Of the clients' networks each mirror takes the share that it donates, and one more takes only from what they had.
    let donating = |name: &str, gbits: u64| {
        let bandwidth = crate::config::Bandwidth::from_bits_per_second(gbits * 1_000_000_000);
        let settings = Mirror { bandwidth, ..Mirror::new(name, "http://m.example/") };
        MirrorState::untried(Arc::new(settings), 0)
    };
    let mirrors = [donating("a", 1), donating("b", 2), donating("c", 5), donating("d", 2)];
    let best = |mirrors: &[MirrorState], network: u32| {
        let client = Client::somewhere(&std::net::Ipv4Addr::from(network << 8).to_string(), "libdnf");
        let ranks = mirrors.iter().map(|mirror| rank(mirror, &client));
        ranks.enumerate().max_by(|(_, a), (_, b)| a.partial_cmp(b).unwrap()).unwrap().0
    };
    let mut taken = [0.0_f64; 4];
    for network in 0..20_000 {
        let (three, four) = (best(&mirrors[..3], network), best(&mirrors, network));
        assert!(four == three || four == 3);
        taken[four] += 1.0 / 20_000.0;
    }
    for (taken, share) in taken.into_iter().zip([0.1, 0.2, 0.5, 0.2]) {
        assert!((taken - share).abs() < 0.02, "{taken} {share}");
    }
}
