use super::*;
use crate::config::{Mirror, Repo};
use crate::http::TreePath;
use crate::policy::{Failed, MirrorState, Pair, Proof, Reach, RepoView};
use crate::repo::{Catalogue, FileFacts, Generation, History, Sha256};
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn package() -> FileFacts {
    FileFacts { size: 1000, digest: Some(Sha256::of(b"a").into()), kind: Kind::Package }
}

/// One repo that mirrors are to take, with one file.
fn repos(facts: FileFacts) -> Repos {
    let repo = Repo {
        name: "os".into(),
        release: String::new(),
        arch: String::new(),
        id: "os".into(),
        path: TreePath::new("7/os").unwrap(),
        delivery: Delivery::Offload,
        window: Duration::ZERO,
        window_scope: Scope::Repo,
        window_max_push: 0,
        window_min_mirrors: 0,
        twin: None,
        priority: crate::config::Priority::Normal,
        checksums: None,
    };
    let generation = Generation {
        id: Sha256::of(b"repomd"),
        sequence: 1,
        published: NOW,
        flipped: NOW,
        revision: None,
        catalogue: Catalogue::build(vec![("a.rpm".into(), facts)], None, 1).0,
        pinned: Vec::new(),
        new_files: 1,
        new_bytes: 1000,
        left_out: 0,
        verified: true,
    };
    let history = History::new([Arc::new(generation)]);
    Repos::new(vec![Arc::new(RepoView {
        repo: Arc::new(repo),
        history,
        window: None,
        confirmed: Arc::default(),
    })])
}

/// So many mirrors, all proven to hold it.
fn mirrors(count: usize) -> MirrorTable {
    let mirror = |n: usize| {
        let settings = Mirror::new(&format!("m{n}"), &format!("http://m{n}.example/"));
        let proof = Some(Proof { sequence: 1, shown: 1, verified: NOW });
        Arc::new(MirrorState {
            reach: Reach::Up { seen: NOW },
            ipv4: true,
            pairs: vec![Pair { proof, ..Pair::default() }],
            ..MirrorState::untried(Arc::new(settings), 1)
        })
    };
    MirrorTable::new((0..count).map(mirror).collect())
}

fn decided(count: usize, user_agent: &str, past: Past) -> Decision {
    decided_of(package(), count, user_agent, past)
}

fn decided_of(file: FileFacts, count: usize, user_agent: &str, past: Past) -> Decision {
    let (repos, mirrors) = (repos(file), mirrors(count));
    let path = TreePath::new("7/os/a.rpm").unwrap();
    let place = repos.locate(&path);
    let client = Client::somewhere("192.0.2.1", user_agent);
    let facts = Facts {
        repos: &repos,
        mirrors: &mirrors,
        orders: &Orders::new(&[]),
        place: place.as_ref(),
        is_cached: &|| true,
        client: &client,
        past,
        shed: 0.0,
        now: NOW,
    };
    decide(&facts, &|_| true)
}

fn named(decision: Decision) -> Vec<usize> {
    let Decision::Redirect(Redirect { mirror, path, others, size, reason }) = decision else {
        return Vec::new();
    };
    assert_eq!((path.as_str(), size, reason), ("7/os/a.rpm", 1000, Reason::Offload));
    assert!(others.iter().all(|(_, path)| path.as_str() == "7/os/a.rpm"));
    std::iter::once(mirror).chain(others.into_iter().map(|(index, _)| index)).collect()
}

#[test]
fn a_redirect_names_the_next_best_and_never_one_that_failed_the_client() {
    let all = named(decided(5, "libdnf", Past::default()));
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(named(decided(2, "libdnf", Past::default())).len(), 2);
    assert_eq!(named(decided(5, "urlgrabber/3.10 yum/3.4.3", Past::default())), all[..1]);

    let failed: Failed = all[..1].iter().copied().collect();
    let rest = named(decided(5, "libdnf", Past { failed, ..Past::default() }));
    assert_eq!((rest.len(), &rest[..2]), (3, &all[1..]));
    let failed = (0..4).collect();
    assert_eq!(named(decided(5, "libdnf", Past { failed, ..Past::default() })), [4]);
    let past = Past { failed, ..Past::default() };
    assert_eq!(decided(4, "libdnf", past), Decision::Serve(Reason::NoFreshMirror));
}

#[test]
fn only_who_stands_clear_is_redirected() {
    for (standing, reason) in [
        (Standing::Clear, Reason::Offload),
        (Standing::SlowStart, Reason::SlowStart),
        (Standing::CoolingOff, Reason::CoolOff),
        (Standing::Repeated { mirror: 0 }, Reason::SlowStart),
        (Standing::Bounced { mirror: 0, certain: false }, Reason::Bounce),
    ] {
        assert_eq!(decided(2, "libdnf", Past { standing, ..Past::default() }).reason(), reason);
    }
}

#[test]
fn what_nothing_can_be_proven_of_is_served_and_says_so() {
    for (file, reason) in [
        (FileFacts { kind: Kind::Replaced, ..package() }, Reason::NoFreshMirror),
        (FileFacts { digest: None, ..package() }, Reason::NoFreshMirror),
        (FileFacts { kind: Kind::Reused, ..package() }, Reason::Metadata),
    ] {
        assert_eq!(decided_of(file, 3, "curl", Past::default()), Decision::Serve(reason), "{file:?}");
    }
}
