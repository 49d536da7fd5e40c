use super::*;
use crate::config::{Mirror, Repo};
use crate::http::TreePath;
use crate::policy::{Failed, MirrorState, Pair, Proof, Reach, RepoView};
use crate::repo::{Catalogue, FileFacts, Generation, History, ListedFile, Repomd, Sha256};
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn package() -> FileFacts {
    FileFacts { size: 1000, digest: Some(Sha256::of(b"a").into()), kind: Kind::Package }
}

/// One repo that mirrors are to take, with one file, `a.rpm`, or images with a list of checksums.
fn repos(path: &str, facts: FileFacts, checksums: Option<&str>) -> Repos {
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
        checksums: checksums.map(Into::into),
    };
    let generation = Generation {
        id: Sha256::of(b"repomd"),
        sequence: 1,
        published: NOW,
        flipped: NOW,
        revision: None,
        catalogue: Catalogue::build(vec![(path.into(), facts)], None, 1).0,
        pinned: Vec::new(),
        new_files: 1,
        new_bytes: 1000,
        left_out: 0,
        verified: true,
    };
    let history = History::new([Arc::new(generation)]);
    Repos::new(vec![Arc::new(RepoView::new(Arc::new(repo), history, None))])
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
    let repos = repos("a.rpm", file, None);
    with_facts(&repos, &mirrors(count), "7/os/a.rpm", user_agent, |facts| {
        decide(&Facts { past, ..facts }, &|_| true)
    })
}

/// What comes of the facts about a request for `path`.
fn with_facts<T>(
    repos: &Repos,
    mirrors: &MirrorTable,
    path: &str,
    user_agent: &str,
    then: impl FnOnce(Facts<'_>) -> T,
) -> T {
    let path = TreePath::new(path).unwrap();
    let place = repos.locate(&path);
    let client = Client::somewhere("192.0.2.1", user_agent);
    then(Facts {
        repos,
        mirrors,
        orders: &Orders::new(&[]),
        place: place.as_ref(),
        is_cached: &|| true,
        client: &client,
        past: Past::default(),
        shed: 0.0,
        now: NOW,
    })
}

fn named(decision: Decision) -> Vec<usize> {
    let Decision::Redirect(Redirect { mirror, path, others, size, reason }) = decision else {
        return Vec::new();
    };
    assert_eq!((path.as_str(), size), ("7/os/a.rpm", 1000));
    assert!(matches!(reason, Reason::Offload | Reason::Pressure));
    assert!(others.iter().all(|(_, path)| path.as_str() == "7/os/a.rpm"));
    std::iter::once(mirror).chain(others.into_iter().map(|(index, _)| index)).collect()
}

#[test]
fn a_redirect_names_the_next_best_and_never_one_that_failed_the_client() {
    let all = named(decided(5, "libdnf", Past::default()));
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(named(decided(2, "libdnf", Past::default())).len(), 2);
    let (repos, mirrors) = (repos("a.rpm", package(), None), mirrors(5));
    let of_yum = with_facts(&repos, &mirrors, "7/os/a.rpm", "urlgrabber/3.10 yum/3.4.3", |facts| {
        decide(&Facts { shed: 1.0, ..facts }, &|_| true)
    });
    assert_eq!(named(of_yum), all[..1]);

    let failed: Failed = all[..1].iter().copied().collect();
    let rest = named(decided(5, "libdnf", Past { failed, ..Past::default() }));
    assert_eq!((rest.len(), &rest[..2]), (3, &all[1..]));
    let failed = (0..4).collect();
    assert_eq!(named(decided(5, "libdnf", Past { failed, ..Past::default() })), [4]);
    let past = Past { failed, ..Past::default() };
    assert_eq!(decided(4, "libdnf", past), Decision::Serve(Reason::NoFreshMirror));
}

#[test]
fn what_the_coming_push_removes_or_replaces_stays_with_the_node() {
    let other = FileFacts { digest: Some(Sha256::of(b"other").into()), ..package() };
    for (coming, reason) in [
        (None, Reason::Offload),
        (Some(("a.rpm", package())), Reason::Offload),
        (Some(("b.rpm", package())), Reason::Superseded),
        (Some(("a.rpm", other)), Reason::Superseded),
        (Some(("a.rpm", FileFacts { size: 1001, ..package() })), Reason::Superseded),
    ] {
        let now = repos("a.rpm", package(), None);
        let coming =
            coming.map(|(path, file)| repos(path, file, None).views()[0].history.current().cloned().unwrap());
        let now = now.with(0, RepoView { coming, ..RepoView::clone(&now.views()[0]) });
        // Nor is it shed.
        let decision = with_facts(&now, &mirrors(2), "7/os/a.rpm", "libdnf", |facts| {
            decide(&Facts { shed: if reason == Reason::Superseded { 1.0 } else { 0.0 }, ..facts }, &|_| true)
        });
        assert_eq!(decision.reason(), reason);
    }
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

#[test]
fn who_may_not_recover_is_shed_last_images_go_to_mirrors_for_everybody_and_boot_loaders_follow_nothing() {
    let (dnf, zypper, grub) = ("libdnf", "ZYpp 17.31.8 (curl 7.88.1)", "GRUB 2.06");
    let metadata = FileFacts { kind: Kind::Metadata, ..package() };
    let all_of_the_rest = 0.8;
    // (file, of images, User-Agent, share that is shed, reason)
    for (path, file, images, user_agent, shed, reason) in [
        ("a.rpm", package(), false, dnf, 0.0, Reason::Offload),
        ("a.rpm", package(), false, zypper, 0.0, Reason::NoRetry),
        ("a.rpm", package(), false, "curl/7.88.1", all_of_the_rest, Reason::NoRetry),
        ("a.rpm", package(), false, zypper, 1.0, Reason::Pressure),
        ("a.rpm", package(), false, grub, 1.0, Reason::Firmware),
        ("repodata/1-primary.xml.gz", metadata, false, dnf, 0.0, Reason::Offload),
        ("repodata/1-primary.xml.gz", metadata, false, zypper, 0.0, Reason::NoRetry),
        ("repodata/1-primary.xml.zck", metadata, false, dnf, 1.0, Reason::Metadata),
        ("a.iso", package(), true, dnf, 0.0, Reason::Offload),
        ("a.iso", package(), true, zypper, 0.0, Reason::Offload),
        ("a.iso", package(), true, "Mozilla/5.0 (X11)", 0.0, Reason::Offload),
        ("a.iso", package(), true, grub, 1.0, Reason::Firmware),
        ("a.iso", package(), true, "UefiHttpBoot/1.0", 0.0, Reason::Firmware),
    ] {
        let repos = repos(path, file, images.then_some("CHECKSUM"));
        let path = format!("7/os/{path}");
        let (decision, last) = with_facts(&repos, &mirrors(2), &path, user_agent, |facts| {
            let facts = Facts { shed, ..facts };
            (decide(&facts, &|_| true), last_resort(&facts, Reason::OriginDown, &|_| true))
        });
        assert_eq!(decision.reason(), reason, "{path} for {user_agent} at {shed}");
        let is_kept = matches!(reason, Reason::Firmware | Reason::Metadata);
        assert_eq!(last.is_none(), is_kept, "{path} for {user_agent}: even where the node can't serve it");
    }
}

#[test]
fn who_may_not_recover_is_sent_for_packages_only_where_a_mirror_was_just_seen() {
    let mut late = mirrors(1).states()[0].as_ref().clone();
    late.reach = Reach::Up { seen: Timestamp::from_secs(NOW.as_secs() - 31) };
    let mirrors = MirrorTable::new(vec![Arc::new(late)]);
    for (images, user_agent, is_sent) in
        [(false, "libdnf", true), (false, "ZYpp", false), (true, "ZYpp", true), (true, "curl", true)]
    {
        let repos = repos("a", package(), images.then_some("CHECKSUM"));
        let decision = with_facts(&repos, &mirrors, "7/os/a", user_agent, |facts| {
            decide(&Facts { shed: 1.0, ..facts }, &|_| true)
        });
        let is_redirect = matches!(decision, Decision::Redirect(_));
        assert_eq!(is_redirect, is_sent, "images {images} for {user_agent}: {decision:?}");
    }
}

#[test]
fn unlisted_images_are_for_everybody_but_boot_loaders_and_unlisted_packages_are_not() {
    let (repos, mirrors) = (repos("a", package(), None), mirrors(1));
    let spots = vec![super::super::Spot { mirror: 0, ipv6: false }];
    for (path, user_agent, reason) in [
        ("isos/a.iso", "Mozilla/5.0", Reason::Sighted),
        ("isos/a.iso", "GRUB 2.06", Reason::Firmware),
        ("extra/a.rpm", "libdnf", Reason::Sighted),
        ("extra/a.rpm", "ZYpp", Reason::NoRetry),
        ("extra/a.xml.zck", "libdnf", Reason::Unlisted),
    ] {
        let path = TreePath::new(path).unwrap();
        let holding = Holding { path: path.clone(), size: 1 << 20, ground: Ground::Sighted(spots.clone()) };
        let decision = with_facts(&repos, &mirrors, path.as_str(), user_agent, |facts| {
            sighted(&Facts { place: None, ..facts }, &holding, &|_| true)
        });
        assert_eq!(decision.reason(), reason, "{} for {user_agent}", path.as_str());
    }
}

/// A repo with these files (path, content) in each of its generations, `twin` being the number of its twin.
fn generations(id: &str, twin: Option<usize>, generations: &[&[(&str, &str)]]) -> Arc<RepoView> {
    let listed = |(path, content): &(&str, &str)| ListedFile {
        path: (*path).to_owned(),
        size: content.len() as u64,
        digest: Some(Sha256::of(content.as_bytes()).into()),
    };
    let mut history = History::default();
    for files in generations {
        let repomd = format!("{id} {files:?}").into();
        let files = files.iter().map(listed).collect();
        let previous = history.current().cloned();
        let next = Generation::assemble(
            &repomd,
            &Repomd::default(),
            files,
            vec![],
            vec![],
            previous.as_deref(),
            NOW,
            NOW,
        );
        history = history.with(next, Duration::from_secs(3600), NOW);
    }
    let only = repos("a.rpm", package(), None);
    let view = RepoView::clone(&only.views()[0]);
    let path = TreePath::new(&format!("7/{id}")).unwrap();
    let repo = Repo { id: id.to_owned(), path, twin, ..Repo::clone(&view.repo) };
    Arc::new(RepoView { repo: Arc::new(repo), history, ..view })
}

#[test]
fn a_twin_stands_for_a_file_only_by_what_it_lists_under_that_name_itself() {
    let (a, other) = (("a.rpm", "bytes"), ("a.rpm", "other"));
    // (what rapid listed, what its twin listed, whether mirrors of the twin count)
    type Listing<'a> = &'a [&'a [(&'a str, &'a str)]];
    let cases: [(Listing<'_>, Listing<'_>, bool); 6] = [
        (&[&[a]], &[&[a]], true),
        (&[&[a]], &[&[]], false),
        (&[&[a]], &[&[other]], false),
        // Replaced by the right bytes at the same length: a mirror's may be the others.
        (&[&[a]], &[&[other], &[a]], false),
        // A push has removed it there: mirrors of the twin may have deleted it.
        (&[&[a]], &[&[a], &[]], false),
        // From both: then its clients are those of yesterday, here as there.
        (&[&[a], &[]], &[&[a], &[]], true),
    ];
    for (rapid, updates, counts) in cases {
        let repos =
            Repos::new(vec![generations("rapid", Some(1), rapid), generations("updates", None, updates)]);
        let path = TreePath::new("7/rapid/a.rpm").unwrap();
        let place = repos.locate(&path).unwrap();
        let listed = place.listed.unwrap();
        let holdings = holdings(&repos, &place, &listed);
        let paths: Vec<_> = holdings.iter().map(|holding| holding.path.as_str()).collect();
        let expected: &[&str] =
            if counts { &["7/rapid/a.rpm", "7/updates/a.rpm"] } else { &["7/rapid/a.rpm"] };
        assert_eq!(paths, expected, "{rapid:?} {updates:?}");
    }
}
