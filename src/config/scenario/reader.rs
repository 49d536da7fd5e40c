//! Reads a scenario.

use super::{
    Clients, HostKind, Installs, MirrorGroup, PlannedFile, PlannedPush, PlannedRapid, Policy, Region,
    Scenario, Sync,
};
use crate::config::load::{outside_window, text_of, toml};
use crate::config::read::{Kind, Report, Source, Table};
use crate::config::{Bandwidth, Delivery, Mistake, Warning, kinds, node, repos};
use crate::geo::Code;
use std::path::Path;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// As many as one scenario may have; the time of a plan doesn't depend on it.
const MOST_HOSTS: usize = 1_000_000_000;
/// Shares are written with so many digits that they come to 1 within this.
const ROUNDING: f64 = 0.005;

impl Scenario {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// All mistakes in it, by line.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        match text_of(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) => {
                let text = format!("expected a scenario, but it can't be read: {error}");
                Err(vec![Mistake { file: path.to_owned(), line: 1, text }])
            }
        }
    }

    /// Reads `text` as if it stood in `path`.
    ///
    /// # Errors
    /// All mistakes in it, by line.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let report = Report::default();
        let source = Source::new(path, text);
        let entries = toml(&report, &source, text).unwrap_or_default();
        let mut root = Table::root(&report, &source, entries);
        let scenario = scenario(&mut root);
        root.finish();
        report.into_result(scenario, path)
    }
}

fn scenario(t: &mut Table<'_>) -> Scenario {
    let lasts = t.or("lasts", &kinds::duration("1s", "60days"), 2 * DAY);
    let push = t.section("push", |t| push(t, lasts));
    let rapid =
        t.given("rapid").then(|| t.section("rapid", |t| rapid(t, lasts.saturating_sub(push.at + push.flip))));
    Scenario {
        lasts,
        hosts: t.or("hosts", &kinds::count(1, MOST_HOSTS), 1_000_000) as u64,
        seed: t.or("seed", &kinds::count(0, MOST_HOSTS), 1) as u64,
        push,
        rapid,
        installs: t.section("installs", installs),
        clients: t.section("clients", clients),
        kinds: host_kinds(t),
        regions: regions(t),
        mirrors: mirror_groups(t),
        sync: t.section("sync", sync),
        policy: t.section("policy", policy),
    }
}

fn push(t: &mut Table<'_>, lasts: Duration) -> PlannedPush {
    let count = t.or("packages", &kinds::count(1, 100_000), 80);
    let bytes = t.or("bytes", &kinds::size("1 kB", "1 PB"), 250_000_000);
    let sizes = t.list("sizes", &kinds::size("1 B", "1 TB"));
    if sizes.is_some() && (t.given("packages") || t.given("bytes")) {
        t.mistake("sizes", "expected either this or packages and bytes");
    }
    let sizes = sizes.filter(|sizes| !sizes.is_empty()).unwrap_or_else(|| uneven(count, bytes));
    let drpm = t.optional("drpm", &kinds::share());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a size"
    )]
    let file =
        |size: u64| PlannedFile { size, drpm: drpm.map(|share| ((size as f64 * share) as u64).max(1)) };
    let push = PlannedPush {
        at: t.or("at", &kinds::duration("0s", "60days"), Duration::ZERO),
        time: t.or("time", &kinds::duration("0s", "1day"), 14 * HOUR),
        flip: t.or("flip", &kinds::duration("0s", "1day"), Duration::from_secs(30)),
        files: sizes.into_iter().map(file).collect(),
        metadata: t.or("metadata", &kinds::size("1 kB", "10 GB"), 12_000_000),
    };
    if push.at + push.flip >= lasts {
        t.mistake("at", "expected a push that is offered before the end");
    }
    push
}

/// `left`: from when the rapid repo is offered until the end.
fn rapid(t: &mut Table<'_>, left: Duration) -> PlannedRapid {
    let count = t.or("packages", &kinds::count(1, 100_000), 8);
    let bytes = t.or("bytes", &kinds::size("1 kB", "1 PB"), 25_000_000);
    let rapid = PlannedRapid {
        files: uneven(count, bytes).into_iter().map(|size| PlannedFile { size, drpm: None }).collect(),
        metadata: t.or("metadata", &kinds::size("1 kB", "10 GB"), 100_000),
        expire: t.or("expire", &kinds::duration("0s", "30days"), Duration::from_secs(15 * 60)),
        before_updates: t.or("before_updates", &kinds::duration("0s", "60days"), Duration::ZERO),
        delivery: repos::delivery(t, Delivery::Own),
    };
    if rapid.before_updates >= left {
        t.mistake("before_updates", "expected updates that are offered before the end");
    }
    if rapid.delivery == Delivery::Window {
        t.mistake("delivery", "expected \"own\" or \"offload\": a plan has one window, that of updates");
    }
    rapid
}

/// So many sizes that come to `bytes` as packages do: a few hold most of it. (The quantiles of an exponential distribution, cubed:
/// of 80 packages the largest fifth has 85 % of the bytes.)
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "shares of a size"
)]
fn uneven(count: usize, bytes: u64) -> Vec<u64> {
    let quantile = |n: usize| (-(1.0 - (n as f64 + 0.5) / count as f64).ln()).powi(3);
    let sum: f64 = (0..count).map(quantile).sum();
    let size = |n| ((quantile(n) / sum * bytes as f64) as u64).max(1);
    (0..count).map(size).collect()
}

fn installs(t: &mut Table<'_>) -> Installs {
    Installs {
        per_hour: t.or("per_hour", &kinds::count(0, MOST_HOSTS), 0) as u64,
        packages: t.or("packages", &kinds::count(1, 10_000), 12) as u64,
        bytes: t.or("bytes", &kinds::size("1 kB", "1 TB"), 30_000_000),
    }
}

fn clients(t: &mut Table<'_>) -> Clients {
    Clients {
        round_trip: t.or("round_trip", &kinds::duration("0s", "10s"), Duration::from_millis(40)),
        mtu: t.or("mtu", &kinds::count(576, 65_536), 1500) as u64,
    }
}

fn host_kinds(t: &mut Table<'_>) -> Vec<HostKind> {
    let all = t.sections("checks", host_kind);
    whole(t, "checks", all.iter().map(|kind| kind.share));
    if all.is_empty() { usual_hosts() } else { all }
}

fn host_kind(t: &mut Table<'_>) -> HostKind {
    let every = t.or("every", &kinds::duration("1s", "30days"), DAY);
    let from = t.optional("from", &kinds::duration("0s", "1day"));
    if from.is_some() && every < DAY {
        t.mistake("from", "expected no time of day for hosts that look more than once a day");
    }
    let for_so_long = kinds::duration("0s", "30days");
    HostKind {
        name: t.required("name", &kinds::name()).unwrap_or_default(),
        share: t.or("share", &kinds::share(), 1.0),
        every,
        from,
        spread: t.or("spread", &for_so_long, every).min(every),
        expire: t.or("expire", &for_so_long, Duration::ZERO),
        list: t.or("list", &for_so_long, Duration::ZERO),
        yum: t.or("yum", &kinds::truth(), false),
        drpms: t.or("drpms", &kinds::share(), 0.0),
        needs: bounds(t, "needs", &kinds::share(), (0.2, 1.0)),
    }
}

/// Reports shares that don't come to 1.
fn whole(t: &Table<'_>, key: &'static str, shares: impl Iterator<Item = f64>) {
    let sum: f64 = shares.sum();
    if t.given(key) && (sum - 1.0).abs() > ROUNDING {
        t.mistake(key, &format!("expected shares that come to 1, but these come to {sum:.3}"));
    }
}

/// A list of two, the lesser first.
fn bounds<T: PartialOrd + Copy + 'static>(
    t: &mut Table<'_>,
    key: &'static str,
    kind: &Kind<T>,
    default: (T, T),
) -> (T, T) {
    match t.list(key, kind).as_deref() {
        None => default,
        Some([least, most]) if least <= most => (*least, *most),
        Some(_) => {
            t.mistake(key, &format!("expected a list of the least and the most, each {}", kind.what));
            default
        }
    }
}

/// What an operator has who knows nothing of his hosts: yum-cron and dnf-automatic as they come, and people.
fn usual_hosts() -> Vec<HostKind> {
    let kind = |name: &str, share| HostKind {
        name: name.to_owned(),
        share,
        every: DAY,
        from: None,
        spread: DAY,
        expire: Duration::ZERO,
        list: Duration::ZERO,
        yum: false,
        drpms: 0.0,
        needs: (0.2, 1.0),
    };
    // Out of cron.daily (anacron: from 3 h on, within 45 min), and then up to 6 h later.
    let yum_cron = HostKind {
        from: Some(3 * HOUR),
        spread: 6 * HOUR + HOUR * 3 / 4,
        expire: 6 * HOUR,
        list: DAY,
        yum: true,
        ..kind("yum-cron", 0.5)
    };
    // dnf-automatic-install.timer: at 6 h, within an hour; dnf takes metadata for new for 48 h.
    let dnf_automatic =
        HostKind { from: Some(6 * HOUR), spread: HOUR, expire: 2 * DAY, ..kind("dnf-automatic", 0.3) };
    // By hand or by configuration management, at any time.
    let dnf = HostKind { expire: 2 * DAY, ..kind("dnf", 0.2) };
    vec![yum_cron, dnf_automatic, dnf]
}

fn regions(t: &mut Table<'_>) -> Vec<Region> {
    let all = t.sections("region", region);
    whole(t, "region", all.iter().map(|region| region.share));
    if all.is_empty() { usual_regions() } else { all }
}

fn region(t: &mut Table<'_>) -> Region {
    let links = t.list("links", &kinds::bandwidth()).filter(|links| !links.is_empty());
    let mut links = links.unwrap_or_else(usual_links);
    links.sort_unstable();
    Region {
        name: t.required("name", &kinds::name()).unwrap_or_default(),
        share: t.or("share", &kinds::share(), 1.0),
        continent: t.or("continent", &kinds::continent(), code("EU")),
        capacity: t.required("capacity", &kinds::bandwidth()).unwrap_or_default(),
        links,
        zones: bounds(t, "zones", &zone(), (0, 0)),
    }
}

/// Hours to UTC.
fn zone() -> Kind<i64> {
    Kind::new("a whole number of hours to UTC, from -12 to 14", |value| {
        let toml::de::DeValue::Integer(number) = value else { return None };
        number.as_str().parse().ok().filter(|hours| (-12..=14).contains(hours))
    })
}

fn usual_links() -> Vec<Bandwidth> {
    [50, 200, 1000].map(|mbit| Bandwidth::from_bits_per_second(mbit * 1_000_000)).into()
}

/// Capacities of a distribution that is known to have asked for a plan.
fn usual_regions() -> Vec<Region> {
    let region = |name: &str, share, continent, gbit: u64, zones| Region {
        name: name.to_owned(),
        share,
        continent: code(continent),
        capacity: Bandwidth::from_bits_per_second(gbit * 1_000_000_000),
        links: usual_links(),
        zones,
    };
    vec![
        region("us", 0.4, "NA", 20, (-8, -5)),
        region("eu", 0.35, "EU", 20, (0, 3)),
        region("elsewhere", 0.25, "AS", 8, (5, 10)),
    ]
}

fn code(letters: &str) -> Code {
    letters.parse().expect("two letters")
}

fn mirror_groups(t: &mut Table<'_>) -> Vec<MirrorGroup> {
    let given = t.given("mirrors");
    let all = t.sections("mirrors", |t| MirrorGroup {
        count: t.or("count", &kinds::count(0, 10_000), 1),
        continent: t.or("continent", &kinds::continent(), code("EU")),
        bandwidth: t.or("bandwidth", &kinds::bandwidth(), Bandwidth::from_bits_per_second(1_000_000_000)),
    });
    let group = |count, continent| MirrorGroup {
        count,
        continent: code(continent),
        bandwidth: Bandwidth::from_bits_per_second(1_000_000_000),
    };
    if given { all } else { vec![group(200, "NA"), group(250, "EU"), group(150, "AS")] }
}

fn sync(t: &mut Table<'_>) -> Sync {
    let time = kinds::duration("0s", "30days");
    Sync {
        every: bounds(t, "every", &kinds::duration("1s", "30days"), (4 * HOUR, 6 * HOUR)),
        takes: t.or("takes", &time, Duration::from_secs(1200)),
        second_hand: t.or("second_hand", &kinds::share(), 0.6),
        dead: t.or("dead", &kinds::share(), 0.02),
        proven: t.or("proven", &time, Duration::from_secs(90)),
        measured: t.list("measured", &time).unwrap_or_default(),
    }
}

fn policy(t: &mut Table<'_>) -> Policy {
    let rules = repos::rules(t);
    let (shed_from, shed_all) = node::thresholds(t);
    Policy {
        delivery: rules.delivery,
        window: rules.window,
        window_scope: rules.window_scope,
        window_max_push: rules.window_max_push,
        window_min_mirrors: rules.window_min_mirrors,
        outside_window: outside_window(t),
        shed_from,
        shed_all,
    }
}
