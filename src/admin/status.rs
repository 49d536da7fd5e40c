//! The node's state as one value: what `/api/v1/status` sends and the status page shows.
//!
//! Field names are stable. Times are RFC 3339 text, rates are bits per second, sizes are bytes.

use super::Admin;
use super::pushes::{Held, Push};
use crate::clock::{self, Timestamp};
use crate::config::{Bandwidth, Delivery};
use crate::geo::Code;
use crate::policy::{Fault, MirrorState, MirrorTable, Pair, Phase, Reach, RepoView, Repos};
use crate::push;
use crate::store::{DiskTrouble, Mode, Purged, Store, StoreStats};
use serde::Serialize;
use std::collections::BTreeMap;

/// Exceptions of a proof that are named.
const NAMED_EXCEPTIONS: usize = 5;

/// The node's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Its name.
    pub node: String,
    /// Of freshet.
    pub version: &'static str,
    /// When this value was made.
    pub now: String,
    /// When the process started.
    pub started: String,
    /// It takes traffic.
    pub ready: bool,
    /// Why it doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// It lets transfers finish and accepts no more.
    pub draining: bool,
    /// Where the tree is mastered.
    pub origin: Origin,
    /// In the order of the config.
    pub repos: Vec<Repo>,
    /// In the order of the config.
    pub mirrors: Vec<Mirror>,
    /// What the node sends.
    pub egress: Egress,
    /// What it holds.
    pub cache: Cache,
    /// Open client connections.
    pub connections: Connections,
    /// Clients that came back from a mirror that failed them, since the start.
    pub bounces: u64,
}

/// The origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Origin {
    /// Its base URL, or the local directory.
    pub url: String,
    /// `up`, `down`, or `local`.
    pub state: &'static str,
    /// When it came to be so; null if it was never otherwise.
    pub since: Option<String>,
    /// Down: what happened.
    pub reason: Option<String>,
    /// Down: when the next request may be the probe.
    pub next_probe: Option<String>,
    /// How far this host's clock is ahead of the origin's, in seconds, to about one; null for a local tree.
    pub clock_skew_seconds: Option<f64>,
}

/// A repo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repo {
    /// `name/release/arch`
    pub id: String,
    /// Its directory.
    pub path: String,
    /// `window`, `own`, or `offload`.
    pub delivery: &'static str,
    /// What is on offer; null until the origin was seen.
    pub generation: Option<Generation>,
    /// Who delivers it now.
    pub window: Window,
    /// Reachable mirrors that are proven to hold the current generation.
    pub fresh_mirrors: usize,
    /// `confirmed`: the origin answers, and this is the newest state that it shows. `not-current`: it shows a newer one, which
    /// can't be offered. `unconfirmed`: it hasn't answered of late. `expired`: nor for `push.stale`, so that repomd.xml is no
    /// longer served.
    pub currency: &'static str,
    /// Why what is on offer isn't the origin's newest state; null: it is.
    pub not_current: Option<String>,
    /// When the origin last answered for it; kept over a restart.
    pub confirmed: Option<String>,
    /// The newest push.
    pub push: Push,
    /// Why the newest push isn't offered although its metadata are complete; null: it is.
    pub held: Option<Held>,
    /// Files of the generation on offer that the origin doesn't have as they are listed, and what is wrong with them. Its new
    /// files were looked at before it was offered; the first generation's are looked at behind that.
    pub faults: BTreeMap<String, String>,
}

/// A generation on offer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Generation {
    /// Its number at this node.
    pub sequence: u32,
    /// SHA-256 of its repomd.xml.
    pub id: String,
    /// As repomd.xml has it.
    pub revision: Option<String>,
    /// When the distribution made it.
    pub published: String,
    /// When this node began to offer it.
    pub flipped: String,
    /// Files listed.
    pub files: usize,
    /// Their sizes together.
    pub bytes: u64,
    /// Packages new in it.
    pub new_files: u32,
    /// Their sizes together.
    pub new_bytes: u64,
    /// Entries of its metadata that are not usable.
    pub left_out: u32,
    /// Every file has a digest.
    pub verified: bool,
    /// The algorithms of these digests, the weakest first: `sha1`, `sha512`.
    pub digests: Vec<&'static str>,
    /// Some files are listed by SHA-1 or MD5, which show an accident, and no attack.
    pub weak: bool,
    /// Generations that are still served, this one included.
    pub kept: usize,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// `open`, `extended` (too few mirrors are fresh), or `closed`.
    pub phase: &'static str,
    /// When the newest push opened it.
    pub opened: Option<String>,
    /// When it ends or ended.
    pub closes: Option<String>,
    /// Until then; 0 when it isn't open.
    pub seconds_left: u64,
}

/// A mirror.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// Of the tree's root there.
    pub url: String,
    /// Two letters.
    pub country: Option<Code>,
    /// `up`, `down`, or `untried`.
    pub state: &'static str,
    /// Up: when it last answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// Down: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Down: what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It was seen answering a range.
    pub ranges: bool,
    /// It answers on IPv4.
    pub ipv4: bool,
    /// It answers on IPv6.
    pub ipv6: bool,
    /// How long a repomd.xml takes from there, in milliseconds, smoothed.
    pub latency_ms: Option<f64>,
    /// Bits per second of a mebibyte from there, read about once an hour.
    pub throughput: Option<u64>,
    /// Until when it takes no large files, since clients came back from it for what probes find there.
    pub disputed_until: Option<String>,
    /// Redirects that named it, since the start.
    pub redirects: u64,
    /// Bytes that it is expected to have been sent ahead of the bandwidth that it donates.
    pub ahead_bytes: u64,
    /// Bytes that it may be (`mirrors.ahead`): then it is full, but for small files of networks that have little there.
    pub ahead_limit_bytes: u64,
    /// What it holds of each repo.
    pub repos: Vec<Holding>,
}

/// One repo on one mirror.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holding {
    /// The repo.
    pub id: String,
    /// The generation that it is proven to hold.
    pub proven_sequence: Option<u32>,
    /// When it was proven for that one.
    pub proven_at: Option<String>,
    /// That is the current one, and the mirror is up.
    pub fresh: bool,
    /// The files of it that the mirror lacks; absent where it lacks none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<Exceptions>,
    /// The generation that its repomd.xml names; null if it names none that this node knows.
    pub shows: Option<u32>,
    /// SHA-256 of that repomd.xml; null while it was never seen.
    pub shows_id: Option<String>,
    /// Why it stands so.
    pub note: String,
    /// When it was last asked.
    pub checked: Option<String>,
}

/// What a mirror lacks of a repo that it is proven for: the node serves it itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exceptions {
    /// How many files, and groups of files.
    pub count: usize,
    /// The first of them: paths below the repo, and patterns such as `drpms/*`.
    pub files: Vec<String>,
    /// Those that the origin lacks as well; the first of them.
    pub lacking_at_origin: Vec<String>,
}

/// What the node sends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Egress {
    /// Over the last second.
    pub bits_per_second: u64,
    /// What it may send; null: without a bound.
    pub capacity: Option<u64>,
    /// One divided by the other.
    pub pressure: f64,
    /// Share of redirectable requests that is shed to mirrors, 0 to 1.
    pub shed: f64,
    /// Bytes written to clients since the start.
    pub sent_bytes: u64,
}

/// What the node holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cache {
    /// Gauges, by the `what` label of `freshet_store`.
    #[serde(flatten)]
    pub gauges: BTreeMap<&'static str, u64>,
    /// Why the disk may not take new entries; null: it does.
    pub trouble: Option<Trouble>,
    /// Counts since the start, by the `event` label of `freshet_store_events_total`.
    pub events: BTreeMap<&'static str, u64>,
}

/// What `POST /api/v1/purge` did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Purge {
    /// The path, canonical and decoded, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The prefix, the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `hard` or `soft`.
    pub mode: Mode,
    /// Objects let go of in memory.
    pub memory: u64,
    /// Objects removed from disk so far.
    pub removed: u64,
    /// Objects on disk marked to be revalidated so far.
    pub marked: u64,
    /// Listed objects on disk found whole so far, by their SHA-256.
    pub verified: u64,
    /// The disk is swept; else that goes on, and the purge is in force all the same.
    pub complete: bool,
    /// It outlives a restart.
    pub persisted: bool,
    /// The tree is a local directory: only open files were let go of.
    pub served_in_place: bool,
}

impl Purge {
    pub(super) fn of(field: &str, meant: String, mode: Mode, purged: Purged) -> Self {
        let (path, prefix) = if field == "path" { (Some(meant), None) } else { (None, Some(meant)) };
        let Purged { memory, removed, marked, verified, complete, persisted, served_in_place } = purged;
        Self { path, prefix, mode, memory, removed, marked, verified, complete, persisted, served_in_place }
    }
}

/// Trouble with the cache's disk. Answers pass through uncached while it refuses writes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trouble {
    /// Its first failure.
    pub since: String,
    /// Its latest failure.
    pub last: String,
    /// What that was.
    pub why: String,
}

/// Open client connections by listener.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connections {
    /// Plaintext.
    pub http: u64,
    /// TLS.
    pub https: u64,
}

impl Status {
    /// As things stand at `now`.
    pub(super) fn of(admin: &Admin, now: Timestamp) -> Self {
        let edge = &*admin.edge;
        let (repos, mirrors) = (edge.published.repos.load(), edge.published.mirrors.load());
        let readiness = admin.readiness();
        let (states, currencies) = (admin.pushes.states(), admin.pushes.currencies(now));
        let by_mirror =
            |metric: &prometheus::IntCounterVec, mirror: &str| metric.with_label_values(&[mirror]).get();
        let open =
            |listener| edge.metrics.connections.with_label_values(&[listener]).get().try_into().unwrap_or(0);
        Self {
            node: edge.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            now: clock::shown(now),
            started: clock::shown(admin.started),
            ready: readiness.is_ok(),
            not_ready: readiness.err(),
            draining: admin.is_draining(),
            origin: origin(&edge.store),
            repos: repos
                .views()
                .iter()
                .zip(&currencies)
                .enumerate()
                .map(|(index, (view, currency))| repo(index, view, &mirrors, &states, currency, now))
                .collect(),
            mirrors: mirrors
                .states()
                .iter()
                .enumerate()
                .map(|(number, state)| {
                    let redirects = by_mirror(&edge.metrics.mirror_redirects, &state.mirror.name);
                    mirror(state, &repos, redirects, edge.load.ahead(number, now))
                })
                .collect(),
            egress: Egress {
                bits_per_second: edge.egress.bits_per_second(),
                capacity: edge.egress.settings().capacity.map(Bandwidth::bits_per_second),
                pressure: edge.egress.pressure(),
                shed: edge.egress.shed(),
                sent_bytes: edge.metrics.egress_bytes.get(),
            },
            cache: Cache::of(&edge.store.stats(), edge.store.disk_trouble()),
            connections: Connections { http: open("http"), https: open("https") },
            bounces: edge
                .config
                .mirrors
                .iter()
                .map(|mirror| by_mirror(&edge.metrics.bounces, &mirror.name))
                .sum(),
        }
    }
}

fn origin(store: &Store) -> Origin {
    let (url, health) = store.origin();
    let state = match &health {
        None => "local",
        Some(health) if health.is_up => "up",
        Some(_) => "down",
    };
    let text = |time: Option<Timestamp>| time.map(clock::shown);
    Origin {
        url,
        state,
        since: text(health.as_ref().and_then(|health| health.since)),
        next_probe: text(health.as_ref().and_then(|health| health.next_probe)),
        clock_skew_seconds: health.as_ref().and_then(|health| health.clock_skew),
        reason: health.and_then(|health| health.reason),
    }
}

fn repo(
    index: usize,
    view: &RepoView,
    mirrors: &MirrorTable,
    states: &[push::RepoState],
    currency: &push::RepoCurrency,
    now: Timestamp,
) -> Repo {
    let fresh_mirrors = mirrors.fresh(index, view.sequence());
    let phase = view.phase(fresh_mirrors, now);
    let seconds_left = match phase {
        Phase::Open { closes } => closes.since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        Phase::Extended { .. } | Phase::Closed => 0,
    };
    let state = states.iter().find(|state| state.id == view.repo.id).cloned().unwrap_or_default();
    let confirmed = view.confirmed.at();
    Repo {
        id: view.repo.id.clone(),
        path: view.repo.path.as_str().to_owned(),
        delivery: match view.repo.delivery {
            Delivery::Window => "window",
            Delivery::Own => "own",
            Delivery::Offload => "offload",
        },
        generation: generation(view),
        window: Window {
            phase: phase.word(),
            opened: view.window.map(|window| clock::shown(window.opened)),
            closes: view.window.map(|window| clock::shown(window.closes)),
            seconds_left,
        },
        fresh_mirrors,
        currency: currency.currency.word(),
        not_current: currency.not_current.clone(),
        confirmed: (confirmed > Timestamp::EPOCH).then(|| clock::shown(confirmed)),
        push: Push::of(&state),
        held: Held::of(&state),
        faults: state.faults,
    }
}

fn generation(view: &RepoView) -> Option<Generation> {
    let current = view.history.current()?;
    let algorithms = current.catalogue.algorithms();
    Some(Generation {
        sequence: current.sequence,
        id: current.id.hex(),
        revision: current.revision.clone(),
        published: clock::shown(current.published),
        flipped: clock::shown(current.flipped),
        files: current.catalogue.len() + current.pinned.len(),
        bytes: current.catalogue.iter().fold(0, |sum: u64, (_, entry)| sum.saturating_add(entry.size)),
        new_files: current.new_files,
        new_bytes: current.new_bytes,
        left_out: current.left_out,
        verified: current.verified,
        digests: algorithms.iter().map(|algorithm| algorithm.name()).collect(),
        weak: algorithms.iter().any(|algorithm| algorithm.is_weak()),
        kept: view.history.generations().len(),
    })
}

fn mirror(state: &MirrorState, repos: &Repos, redirects: u64, ahead: (u64, u64)) -> Mirror {
    let (word, seen, since, why) = match &state.reach {
        Reach::Untried => ("untried", None, None, None),
        Reach::Up { seen } => ("up", Some(clock::shown(*seen)), None, None),
        Reach::Down { since, why } => ("down", None, Some(clock::shown(*since)), Some(why.clone())),
    };
    let pairs = state.pairs.iter().zip(repos.views()).enumerate();
    Mirror {
        name: state.mirror.name.clone(),
        url: state.mirror.url.clone(),
        country: state.mirror.country,
        state: word,
        seen,
        since,
        why,
        ranges: state.ranges,
        ipv4: state.ipv4,
        ipv6: state.ipv6,
        throughput: state.throughput.map(|bytes| bytes.saturating_mul(8)),
        latency_ms: state.latency.map(|latency| latency.as_secs_f64() * 1e3),
        disputed_until: state.disputed_until.map(|until| until.to_string()),
        redirects,
        ahead_bytes: ahead.0,
        ahead_limit_bytes: ahead.1,
        repos: pairs
            .map(|(index, (pair, view))| holding(pair, view, state.is_current(index, view.sequence())))
            .collect(),
    }
}

fn holding(pair: &Pair, view: &RepoView, fresh: bool) -> Holding {
    let shows = pair.seen.as_ref().and_then(|seen| view.history.by_id(seen));
    Holding {
        id: view.repo.id.clone(),
        proven_sequence: pair.proof.map(|proof| proof.sequence),
        proven_at: pair.proof.filter(|_| pair.since > Timestamp::EPOCH).map(|_| clock::shown(pair.since)),
        fresh,
        exceptions: exceptions(pair),
        shows: shows.map(|generation| generation.sequence),
        shows_id: pair.seen.map(|seen| seen.hex()),
        note: pair.note.to_string(),
        checked: (pair.checked > Timestamp::EPOCH).then(|| clock::shown(pair.checked)),
    }
}

fn exceptions(pair: &Pair) -> Option<Exceptions> {
    let lacks = &pair.exceptions;
    let at_origin = lacks.files().filter(|(_, fault)| *fault == Fault::Origin);
    (!lacks.is_empty()).then(|| Exceptions {
        count: lacks.len(),
        files: lacks.names(NAMED_EXCEPTIONS),
        lacking_at_origin: at_origin.take(NAMED_EXCEPTIONS).map(|(path, _)| path.to_owned()).collect(),
    })
}

impl Cache {
    /// All figures of the store, named as its fields are.
    pub(super) fn of(stats: &StoreStats, trouble: Option<DiskTrouble>) -> Self {
        macro_rules! named {
            ($($field:ident),*) => { BTreeMap::from([$((stringify!($field), u64::from(stats.$field))),*]) };
        }
        Self {
            gauges: named!(
                objects,
                disk_bytes,
                reserved_bytes,
                disk_trouble,
                bans,
                memory_bytes,
                open_files,
                flights
            ),
            trouble: trouble.map(|trouble| Trouble {
                since: clock::shown(trouble.since),
                last: clock::shown(trouble.last),
                why: trouble.why,
            }),
            events: named!(
                hits_memory,
                hits_disk,
                hits_tree,
                hits_fill,
                fills_started,
                fills_finished,
                fills_failed,
                fills_abandoned,
                fills_unstored,
                resumed,
                parts_fetched,
                parts_kept,
                revalidated,
                served_stale,
                passed,
                no_room,
                evicted,
                verified,
                damaged,
                purged,
                io_errors
            ),
        }
    }
}
