//! What a decision costs by itself, without HTTP: a proof, a redirect, a mirrorlist, among a thousand mirrors with fifty repos.

use freshet::clock::{Timestamp, monotonic};
use freshet::config::{Delivery, Mirror, Repo, Scope};
use freshet::geo::{Code, Whereabouts};
use freshet::http::TreePath;
use freshet::listing::{Form, Order, mirrorlist};
use freshet::policy::client::Agent;
use freshet::policy::decide::{self, Facts};
use freshet::policy::lists::{self, Listing};
use freshet::policy::{
    Client, Decision, Exceptions, MirrorState, MirrorTable, Orders, Pair, Past, Proof, Reach, RepoView, Repos,
};
use freshet::repo::{Generation, History, ListedFile, Repomd, Sha256};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Nanoseconds of each step, in the median of several rounds.
#[derive(Debug, clap::Args)]
pub struct Proofs {
    /// Mirrors, 1 to 10000.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    mirrors: u32,
    /// Repos, 1 to 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repos: u32,
    /// Of the mirrors, those that have the latest generation already, in percent.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    fresh: u32,
}

const PACKAGES: u32 = 4000;
const ROUNDS: usize = 15;
const BELOW: &str = "Packages/package-with-a-name-0.rpm";
const STEPS: u32 = 20_000;
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const COUNTRIES: [&str; 8] = ["DE", "US", "FR", "JP", "BR", "IN", "ZA", "AU"];

pub fn run(line: &Proofs) {
    let repos = Repos::new((0..line.repos).map(repo).map(Arc::new).collect());
    let settings: Vec<Mirror> = (0..line.mirrors).map(mirror).collect();
    let states =
        settings.iter().zip(0..).map(|(mirror, number)| Arc::new(state(mirror, number, line, &repos)));
    let table = MirrorTable::new(states.collect());
    let orders = Orders::new(&settings);
    let paths: Vec<TreePath> = (0..line.repos)
        .flat_map(|repo| (0..PACKAGES).step_by(7).map(move |number| path(repo, number)))
        .map(|path| TreePath::new(&path).expect("a path of the tree"))
        .collect();
    let clients: Vec<Client> = (0..5000).map(client).collect();
    let mut rng = fastrand::Rng::with_seed(1);

    println!("{} mirrors, {} repos, {} % of the mirrors fresh", line.mirrors, line.repos, line.fresh);
    let listed = repos.locate(&paths[0]).and_then(|place| place.listed).expect("it is listed");
    report("a proof of a mirror and a file", || {
        let (mirror, repo) = (rng.usize(..settings.len()), rng.usize(..line.repos as usize));
        black_box(table.holds(mirror, repo, &listed, BELOW));
    });
    report("all mirrors that hold a file", || {
        black_box(table.holders(rng.usize(..line.repos as usize), &listed, BELOW).count());
    });
    let mut redirects = 0_u64;
    report("a redirect", || {
        let (path, client) = (&paths[rng.usize(..paths.len())], &clients[rng.usize(..clients.len())]);
        let place = repos.locate(path);
        let facts = Facts {
            repos: &repos,
            mirrors: &table,
            orders: &orders,
            place: place.as_ref(),
            is_cached: &|| true,
            client,
            past: Past::default(),
            shed: 0.0,
            now: NOW,
        };
        let decision = black_box(decide::decide(&facts, &|_| true));
        redirects += u64::from(matches!(decision, Decision::Redirect(_)));
    });
    assert!(redirects > 0, "none of them led to a mirror");
    let own = ["http://node.example/".to_owned(), "http://node.example/~1/".to_owned()];
    let mut list = |countries: &[Code], clients: &[Client]| {
        let (repo, client) = (rng.usize(..line.repos as usize), &clients[rng.usize(..clients.len())]);
        let view = &repos.views()[repo];
        let current = view.history.current().expect("it has one");
        let listing = Listing { repo, current, https: None, countries, client };
        let named = lists::nearest(&table, &orders, &listing, 20);
        let bases: Vec<&str> = named.iter().map(|index| settings[*index].url.as_str()).collect();
        black_box(mirrorlist(Form::Centos, "", &own, &bases, Order::MirrorsFirst, view.repo.path.as_str()));
    };
    report("a mirrorlist", || list(&[], &clients));
    let wanted: Vec<Code> = ["DE", "FR"].iter().filter_map(|code| code.parse().ok()).collect();
    report("a mirrorlist for two countries", || list(&wanted, &clients));
    let strangers: Vec<Client> = (1_000_000..1_000_000 + ROUNDS as u32 * STEPS).map(client).collect();
    let mut next = strangers.iter();
    report("a network's order of mirrors, made anew", || {
        black_box(next.next().map(|client| orders.best(&table, client)));
    });
}

/// Prints the median over the rounds.
fn report(what: &str, mut step: impl FnMut()) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = monotonic();
            (0..STEPS).for_each(|_| step());
            begun.elapsed().as_secs_f64() * 1e9 / f64::from(STEPS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{what:42} {:>10.0} ns", rounds[ROUNDS / 2]);
}

fn path(repo: u32, number: u32) -> String {
    format!("9/repo-{repo}/x86_64/Packages/package-with-a-name-{number}.rpm")
}

/// A repo that was pushed twice: one package in twenty is new.
fn repo(number: u32) -> RepoView {
    let name = format!("repo-{number}");
    let repo = Repo {
        path: TreePath::new(&format!("9/{name}/x86_64")).expect("a path of the tree"),
        id: format!("{name}/9/x86_64"),
        name,
        release: "9".into(),
        arch: "x86_64".into(),
        delivery: Delivery::Window,
        window: Duration::from_secs(24 * 3600),
        window_scope: Scope::Push,
        window_max_push: u64::MAX,
        window_min_mirrors: 1,
        twin: None,
        priority: freshet::config::Priority::Normal,
        checksums: None,
    };
    let generation = |sequence: u32, previous: Option<&Generation>| {
        let package = |package: u32| ListedFile {
            path: format!("Packages/package-with-a-name-{package}.rpm"),
            size: 100_000,
            digest: Some(
                Sha256::of(
                    format!("{package} {}", if package.is_multiple_of(20) { sequence } else { 0 }).as_bytes(),
                )
                .into(),
            ),
        };
        let repomd = format!("<repomd>{number} {sequence}</repomd>").into();
        let packages = (0..PACKAGES).map(package).collect();
        Generation::assemble(&repomd, &Repomd::default(), packages, vec![], vec![], previous, NOW, NOW)
    };
    let history = History::default().with(generation(1, None), Duration::MAX, NOW);
    let next = generation(2, history.current().map(|current| &**current));
    RepoView::new(Arc::new(repo), history.with(next, Duration::MAX, NOW), None)
}

fn mirror(number: u32) -> Mirror {
    let country: Option<Code> = COUNTRIES[number as usize % COUNTRIES.len()].parse().ok();
    Mirror {
        country,
        continent: country.and_then(Code::continent),
        ..Mirror::new(&format!("m{number}"), &format!("http://m{number}.example/centos/"))
    }
}

fn state(mirror: &Mirror, number: u32, line: &Proofs, repos: &Repos) -> MirrorState {
    let sequence = if number % 100 < line.fresh { 2 } else { 1 };
    let pair = |view: &Arc<RepoView>| Pair {
        proof: Some(Proof { sequence, shown: sequence, verified: NOW }),
        seen: view.history.by_sequence(sequence).map(|generation| generation.id),
        exceptions: Exceptions::default(),
        note: format!("proven: holds generation {sequence}").into(),
        checked: NOW,
        since: NOW,
    };
    MirrorState {
        reach: Reach::Up { seen: NOW },
        ipv4: true,
        pairs: repos.views().iter().map(pair).collect(),
        ..MirrorState::untried(Arc::new(mirror.clone()), 0)
    }
}

/// Each in a network of its own.
fn client(number: u32) -> Client {
    let country: Option<Code> = COUNTRIES[number as usize % COUNTRIES.len()].parse().ok();
    let whereabouts =
        Whereabouts { country, continent: country.and_then(Code::continent), ..Whereabouts::default() };
    let addr = Ipv4Addr::from(0x0100_0000_u32.wrapping_add(number << 8));
    Client::new(Agent::new(addr.into(), whereabouts, b"libdnf"), false, None)
}
