use super::*;
use crate::config::{Bandwidth, Mirror};
use crate::policy::{Pair, Proof, Reach};
use crate::repo::{Entry, Kind};
use std::cell::RefCell;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

/// A mirror that is up and proven to hold generation 1 of the one repo.
fn mirror(name: &str, url: &str) -> MirrorState {
    let settings = Mirror {
        name: name.into(),
        url: url.into(),
        country: None,
        continent: None,
        bandwidth: Bandwidth::from_bits_per_second(1_000_000_000),
        networks: Vec::new(),
        private: false,
    };
    let proof = Some(Proof { sequence: 1, shown: 1, verified: NOW });
    MirrorState {
        reach: Reach::Up { seen: NOW },
        ipv4: true,
        pairs: vec![Pair { proof, ..Pair::default() }],
        ..MirrorState::untried(Arc::new(settings), 1)
    }
}

fn holding() -> Holding {
    let entry = Entry { size: 1, sha256: None, kind: Kind::Package, since: 1 };
    Holding { repo: 0, listed: Listed { entry, until: None }, path: TreePath::new("7/os/a.rpm").unwrap() }
}

fn client(user_agent: &str, https: bool) -> Client {
    Client::new("192.0.2.1".parse().unwrap(), user_agent.as_bytes(), https, None)
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
        let wanted = Wanted { client: &client, failed, holdings: &holdings, now: NOW };
        let unfit = fits(0, &table.mirrors[0], &wanted, &|_| true).err();
        assert_eq!(unfit, why, "{agent} https {https} {scheme}");
        assert_eq!(
            ranked(&table, &Orders::new(&[]), &wanted, &|_| true, 1).len(),
            usize::from(why.is_none())
        );
        let full = fits(0, &table.mirrors[0], &wanted, &|_| false).err();
        assert_eq!(full, why.or(Some(Unfit::Full)));
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
        let client = Client::new("192.0.2.1".parse().unwrap(), b"libdnf", false, range.map(str::as_bytes));
        let holdings = [holding()];
        let wanted = Wanted { client: &client, failed: Failed::default(), holdings: &holdings, now: NOW };
        assert_eq!(fits(0, &mirror, &wanted, &|_| true).err(), why, "{range:?}");
    }
}

#[test]
fn the_best_come_first_and_only_they_are_asked_for_room() {
    let mirrors: Vec<_> =
        (0..100).map(|n| Arc::new(mirror(&format!("m{n}"), "http://mirror.example/"))).collect();
    let table = MirrorTable::new(mirrors);
    let orders = Orders::new(&[]);
    let (holdings, client) = ([holding()], client("libdnf", false));
    let wanted = Wanted { client: &client, failed: Failed::default(), holdings: &holdings, now: NOW };
    let mut order: Vec<usize> = (0..100).collect();
    order.sort_by(|&a, &b| {
        let rank = |index: usize| rank(&table.mirrors[index], &client);
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
