//! `/mirrorlist` and `/metalink`: whom a client is told to ask.

use super::Edge;
use super::answer::Answer;
use super::asked::{Asked, Refused};
use super::taken::Document;
use crate::clock::{self, Timestamp};
use crate::config;
use crate::http::TreePath;
use crate::listing::{
    Metalink, Order, Protocol, Query, QueryError, Resource, Version, metalink, mirrorlist, named,
};
use crate::policy::lists::{self, Listing};
use crate::policy::{Client, MirrorTable, Reason, RepoView};
use crate::repo::Generation;
use http::StatusCode;
use std::time::Duration;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A list of base URLs.
    Mirrorlist,
    /// A Metalink document.
    Metalink,
}

/// Whether the path asks for a choice of mirrors: `/mirrorlist`, `/metalink`, and `/` with a query that names a repo, as
/// mirrorlist.centos.org had it.
pub fn wanted(path: &TreePath, query: Option<&str>) -> Option<Choice> {
    match path.as_str() {
        "mirrorlist" => Some(Choice::Mirrorlist),
        "metalink" => Some(Choice::Metalink),
        "" if query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("repo="))) => {
            Some(Choice::Mirrorlist)
        }
        _ => None,
    }
}

/// The labels of `countme`.
const AGES: [&str; 4] = ["1", "2", "3", "4"];

/// A metalink waits so long for a repo's first generation where the origin is a directory, which is read at once. Where it is
/// a server, files and metalinks wait for `origin.patience`.
const FIRST_READING: Duration = Duration::from_secs(15);

/// Between two looks for the first generation.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A list that is asked for.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// Which.
    pub choice: Choice,
    /// The query, without its `?`.
    pub query: &'a str,
    /// By whom.
    pub client: &'a Client,
    /// When.
    pub now: Timestamp,
}

/// The list, or what is wrong with the query. Before a repo's first generation a metalink is waited for: librepo comes back at
/// once after an error, and a document that names no checksum is none.
pub async fn answer(edge: &Edge, asked: &Asked, choice: Choice) -> Answer {
    let query = asked.target.query().unwrap_or_default();
    let wish = Wish { choice, query, client: &asked.client, now: asked.now };
    let (query, index) = match find(edge, &wish) {
        Ok(found) => found,
        Err(refused) => return Answer::from(refused),
    };
    if let Some(age) = query.countme.filter(|_| !asked.is_head) {
        let id = &*edge.config.repos[index].id;
        edge.metrics.countme.with_label_values(&[id, AGES[usize::from(age) - 1]]).inc();
    }
    if choice == Choice::Metalink {
        let patience = match edge.config.origin {
            config::Origin::Http { patience, .. } => patience,
            config::Origin::Directory { .. } => FIRST_READING,
        };
        while edge.published.repos.load().views()[index].history.current().is_none() {
            let left = patience.saturating_sub(clock::monotonic() - asked.started);
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
        }
    }
    let sequence = || edge.published.repos.load().views()[index].sequence();
    let before = sequence();
    let list = list(edge, &wish, &query, index);
    // repomd.xml follows, and has to be the one that the metalink names.
    if choice == Choice::Metalink && !asked.is_head && before > 0 && before == sequence() {
        edge.taken.note(asked, index, Document::Metalink, before);
    }
    list
}

/// What [`answer`] would be, without waiting and without counting.
pub fn would_be(edge: &Edge, wish: &Wish<'_>) -> Answer {
    match find(edge, wish) {
        Ok((query, index)) => list(edge, wish, &query, index),
        Err(refused) => Answer::from(refused),
    }
}

/// What is asked, and the number of the repo.
fn find(edge: &Edge, wish: &Wish<'_>) -> Result<(Query, usize), Refused> {
    let bad = |error: QueryError| Refused::bad_request(error.to_string());
    let query = Query::parse(wish.query).map_err(bad)?;
    // A list of checksums is nothing that yum and dnf could begin with.
    let repos = || edge.config.repos.iter().enumerate().filter(|(_, repo)| repo.checksums.is_none());
    let ids = query.repo_ids();
    let exact = ids.iter().find_map(|id| repos().find(|(_, repo)| repo.id == *id));
    let found = exact.map(|(index, _)| index).or_else(|| named::find(repos(), &edge.config.aliases, &query));
    match (found, query.lacks()) {
        (Some(index), _) => Ok((query, index)),
        (None, Some(error)) => Err(bad(error)),
        (None, None) => {
            let why = format!("no repo {}", ids.join(" or "));
            Err(Refused { status: StatusCode::NOT_FOUND, reason: Reason::NotFound, why })
        }
    }
}

/// The list of repo number `index`.
fn list(edge: &Edge, wish: &Wish<'_>, query: &Query, index: usize) -> Answer {
    let repos = edge.published.repos.load();
    let view = &repos.views()[index];
    let current = view.history.current();
    if current.is_none() && wish.choice == Choice::Metalink {
        let why = format!("{} has no generation yet", view.repo.id);
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, Reason::OriginDown, &why);
    }
    let mirrors = edge.published.mirrors.load();
    let open = view.phase(mirrors.fresh(index, view.sequence()), wish.now).is_open();
    let order = match current {
        Some(_) => Order::of(view.repo.delivery, open, edge.config.listing.outside_window),
        // No mirror is proven to hold what nobody has seen yet, but the nodes pass on what the origin has.
        None => Order::OwnOnly,
    };
    let own = edge.own_entries.of(query.protocol);
    // Nodes that don't speak the client's protocol are none to it: a window doesn't leave it without any.
    let order = if own.is_empty() && current.is_some() { Order::MirrorsFirst } else { order };
    let named = match current {
        Some(current) if order != Order::OwnOnly => nearest(edge, wish, query, (index, current), &mirrors),
        _ => Vec::new(),
    };
    if own.is_empty() && named.is_empty() && query.protocol.is_some() {
        let why = format!("no URL of this protocol for {}", view.repo.id);
        return Answer::error(StatusCode::NOT_FOUND, Reason::NotFound, &why);
    }
    let named = named.into_iter().map(|index| &*mirrors.states()[index].mirror);
    let path = view.repo.path.encoded();
    match (wish.choice, current) {
        (Choice::Metalink, Some(current)) => {
            let own = own.iter().map(|base| Resource { base, country: None });
            let others = named.map(|mirror| Resource { base: &mirror.url, country: mirror.country });
            let document = Metalink {
                made: clock::date(),
                current: version(current),
                alternates: alternates(view, open, edge.config.push.poll, wish.now),
                resources: order.arrange(own, others),
                repo_path: &path,
            };
            Answer::page(StatusCode::OK, Reason::Mirrorlist, "application/metalink+xml", metalink(&document))
        }
        (_, current) => {
            let bases: Vec<&str> = named.map(|mirror| mirror.url.as_str()).collect();
            let sequence = current.map_or(0, |current| current.sequence);
            let comment = format!("{} generation {sequence}", view.repo.id);
            let list = mirrorlist(query.form, &comment, own, &bases, order, &path);
            Answer::page(StatusCode::OK, Reason::Mirrorlist, "text/plain; charset=utf-8", list)
        }
    }
}

/// The mirrors that a list names, by number.
fn nearest(
    edge: &Edge,
    wish: &Wish<'_>,
    query: &Query,
    (repo, current): (usize, &Generation),
    mirrors: &MirrorTable,
) -> Vec<usize> {
    let client = match query.ip {
        Some(addr) => Client { addr, whereabouts: edge.geo.find(addr), ..*wish.client },
        None => *wish.client,
    };
    let https = query.protocol.map(|protocol| protocol == Protocol::Https);
    let listing = Listing { repo, current, https, countries: &query.countries, client: &client };
    lists::nearest(mirrors, &edge.orders, &listing, edge.config.listing.max_mirrors)
}

/// Older generations that a client may still meet: inside a window the one before, until all nodes that poll the same
/// origin must have flipped; outside of it all that are kept.
fn alternates(view: &RepoView, open: bool, poll: Duration, now: Timestamp) -> Vec<Version<'_>> {
    let generations = view.history.generations();
    let older = generations.get(1..).unwrap_or_default();
    let settled = generations.first().is_some_and(|current| now.since(current.flipped) > poll * 2);
    let still_valid = match (open, settled) {
        (false, _) => older,
        (true, false) => &older[..older.len().min(1)],
        (true, true) => &[],
    };
    still_valid.iter().map(|generation| version(generation)).collect()
}

fn version(generation: &Generation) -> Version<'_> {
    let repomd = generation.root();
    Version {
        timestamp: clock::ahead().date_of(generation.published),
        size: repomd.map_or(0, |repomd| repomd.body.len() as u64),
        sha256: generation.id,
        sha512: repomd.map(|repomd| repomd.sha512.as_str()),
    }
}
