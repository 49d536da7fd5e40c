//! `/mirrorlist` and `/metalink`: whom a client is told to ask.

use super::Edge;
use super::answer::Answer;
use super::asked::Asked;
use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::listing::{Metalink, Order, Protocol, Query, Resource, Version, metalink, mirrorlist};
use crate::policy::lists::{self, Listing};
use crate::policy::{Client, Reason, RepoView};
use crate::repo::Generation;
use http::StatusCode;

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

/// The answer, or what is wrong with the query.
pub fn answer(edge: &Edge, asked: &Asked, choice: Choice) -> Result<Answer, String> {
    let query = Query::parse(asked.target.query().unwrap_or_default()).map_err(|error| error.to_string())?;
    let repos = edge.published.repos.load();
    let ids = query.repo_ids();
    // A list of checksums is nothing that yum and dnf could begin with.
    let found = ids.iter().find_map(|id| repos.by_id(id)).filter(|(_, view)| view.repo.checksums.is_none());
    let Some((index, view)) = found else {
        let why = format!("no repo {}", ids.join(" or "));
        return Ok(Answer::error(StatusCode::NOT_FOUND, Reason::NotFound, &why));
    };
    if let Some(age) = query.countme.filter(|_| !asked.is_head) {
        edge.metrics.countme.with_label_values(&[&*view.repo.id, AGES[usize::from(age) - 1]]).inc();
    }
    let Some(current) = view.history.current() else {
        // Better late than a list that leads nowhere: librepo takes an empty list as an error and asks again.
        let why = format!("{} has no generation yet", view.repo.id);
        return Ok(Answer::error(StatusCode::SERVICE_UNAVAILABLE, Reason::OriginDown, &why));
    };
    let mirrors = edge.published.mirrors.load();
    let open = view.phase(mirrors.fresh(index, view.sequence()), asked.now).is_open();
    let order = Order::of(view.repo.delivery, open, edge.config.listing.outside_window);
    let mut named = Vec::new();
    if order != Order::OwnOnly {
        let client = client(edge, asked, &query);
        let https = query.protocol.map(|protocol| protocol == Protocol::Https);
        let listing = Listing { repo: index, current, https, countries: &query.countries, client: &client };
        named = lists::nearest(&mirrors, &edge.orders, &listing, edge.config.listing.max_mirrors);
    }
    let named = named.into_iter().map(|index| &*mirrors.states()[index].mirror);
    let path = view.repo.path.encoded();
    Ok(match choice {
        Choice::Mirrorlist => {
            let bases: Vec<&str> = named.map(|mirror| mirror.url.as_str()).collect();
            let comment = format!("{} generation {}", view.repo.id, current.sequence);
            let list = mirrorlist(query.form, &comment, &edge.own_entries, &bases, order, &path);
            Answer::page(StatusCode::OK, Reason::Mirrorlist, "text/plain; charset=utf-8", list)
        }
        Choice::Metalink => {
            let own = edge.own_entries.iter().map(|base| Resource { base, country: None });
            let others = named.map(|mirror| Resource { base: &mirror.url, country: mirror.country });
            let document = Metalink {
                made: asked.now,
                current: version(current),
                alternates: alternates(view, open, edge.config.push.poll, asked.now),
                resources: order.arrange(own, others),
                repo_path: &path,
            };
            Answer::page(StatusCode::OK, Reason::Mirrorlist, "application/metalink+xml", metalink(&document))
        }
    })
}

/// Whom a list is for.
fn client(edge: &Edge, asked: &Asked, query: &Query) -> Client {
    match query.ip {
        Some(addr) => Client { addr, whereabouts: edge.geo.find(addr), ..asked.client },
        None => asked.client,
    }
}

/// Older generations that a client may still meet: inside a window the one before, until all nodes that poll the same
/// origin must have flipped; outside of it all that are kept.
fn alternates(view: &RepoView, open: bool, poll: std::time::Duration, now: Timestamp) -> Vec<Version<'_>> {
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
        timestamp: generation.published,
        size: repomd.map_or(0, |repomd| repomd.body.len() as u64),
        sha256: generation.id,
        sha512: repomd.map(|repomd| repomd.sha512.as_str()),
    }
}
