//! Carrying out a decision.

use super::Edge;
use super::answer::{Answer, Served};
use super::asked::Asked;
use super::consider::{PinnedFile, PinnedPath, Question};
use super::redirect;
use super::respond::validators;
use super::taken::Document;
use crate::clock;
use crate::config;
use crate::http::conditional;
use crate::http::range::{self, ByteRange, Requested};
use crate::listing::{Extent, IndexEntry, index};
use crate::origin::{MAX_LISTED, OriginError};
use crate::policy::client::Recovery;
use crate::policy::{Currency, Past, Reason};
use crate::store::{Content, Demand, FetchError, Meta, Object, Source};
use http::StatusCode;
use http::header::RANGE;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries of an origin that fails. The store remembers a failure for as long.
const RETRY: Duration = Duration::from_secs(1);

/// A file that lies in memory with its generation: repomd.xml and what signs it.
///
/// Once the origin has been silent for `push.stale`, these alone get a 503: dnf then takes another mirror of its list, or
/// what it has, and says so, instead of taking old metadata for current. All else goes on, also mirrorlist and metalink (which
/// lead to nodes that may see the origin), metadata of any name and packages: a client that began with an
/// earlier repomd.xml can finish, and breaking its transaction would protect nobody.
pub fn pinned(edge: &Edge, asked: &Asked, question: &Question<'_>, pinned: PinnedFile) -> Answer {
    if question.currency() == Some(Currency::Expired) {
        let why = "the origin has not answered for this repo for longer than push.stale";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, Reason::OriginDown, why);
    }
    let Some(content) = pinned.content else {
        let why = "the repomd.xml that the client has is of a generation without this file";
        return Answer::error(StatusCode::NOT_FOUND, Reason::NotFound, why);
    };
    // librepo asks for a signature only where there has to be one, others on the off chance.
    let asks_on = pinned.is_signed || asked.client.recovery != Recovery::Retries;
    if asks_on && !asked.is_head && question.pinned_path() == Some(PinnedPath::Root) {
        edge.taken.note(asked, pinned.repo, Document::Root, pinned.sequence);
    }
    let (reason, cache_control) = (Reason::Metadata, question.cache_control());
    Answer::Content(Served {
        content,
        object: None,
        part: None,
        reason,
        class: question.class(),
        cache_control,
    })
}

/// The node answers itself: from the cache, from the origin, or, where it can't, by its last resort.
pub async fn serve(
    edge: &Edge,
    asked: &Asked,
    question: &Question<'_>,
    at_hand: Option<Content>,
    past: Past,
    reason: Reason,
) -> Answer {
    let path = &question.path;
    if path.is_directory()
        && let Some(answer) = Box::pin(listing(edge, asked, question)).await.transpose()
    {
        return answer.unwrap_or_else(|error| failed(asked, question, &error));
    }
    let mut object = question.object();
    let fetched = match at_hand {
        Some(content) if content.is_fresh(asked.now) && edge.store.stands(&object, &content) => Ok(content),
        // Boxed, as all that most requests don't do: an idle connection holds room for what it may have to do.
        _ => Box::pin(fetch_by_any_name(edge, asked, question, &mut object, past)).await,
    };
    match fetched {
        Ok(content) => within(edge, asked, question, &object, content, reason).await,
        Err(error) => match question.last_resort(past, fault(&error)) {
            Some(redirect) => redirect::to_mirror(edge, asked, question, &redirect),
            None => failed(asked, question, &error),
        },
    }
}

/// By its own name; what the repo has dropped by its name in the twin, too. `object` is then the one that was found.
async fn fetch_by_any_name(
    edge: &Edge,
    asked: &Asked,
    question: &Question<'_>,
    object: &mut Object,
    past: Past,
) -> Result<Content, FetchError> {
    let Some(twin) = question.in_twin() else { return fetch(edge, asked, question, object, past).await };
    if question.is_superseded() {
        // The origin has it by the twin's name alone.
        if let Some(content) = edge.store.find(object).await {
            return Ok(content);
        }
        if let Ok(content) = ask(edge, asked, &twin).await {
            *object = twin;
            return Ok(content);
        }
        return fetch(edge, asked, question, object, past).await;
    }
    let fetched = fetch(edge, asked, question, object, past).await;
    if fetched.as_ref().is_err_and(|error| matches!(error, FetchError::Absent) || error.is_denial())
        && let Ok(content) = ask(edge, asked, &twin).await
    {
        *object = twin;
        return Ok(content);
    }
    fetched
}

/// As much of it as the request is after.
async fn ask(edge: &Edge, asked: &Asked, object: &Object) -> Result<Content, FetchError> {
    let demand = demand(asked, object);
    if asked.is_head {
        edge.store.head(object, demand).await
    } else if asked.conditions.contains_key(RANGE) {
        edge.store.fetch_parts(object, demand).await
    } else {
        edge.store.fetch(object, demand).await
    }
}

/// For whom the store fetches it.
fn demand(asked: &Asked, object: &Object) -> Demand {
    Demand::of_client(asked.client.owner, object.identity.is_some())
}

/// From disk or origin. While the origin fails and no mirror can help, tries again for `origin.patience`: librepo comes
/// back at once after an error, so that a moment's failure would cost it all its retries.
async fn fetch(
    edge: &Edge,
    asked: &Asked,
    question: &Question<'_>,
    object: &Object,
    past: Past,
) -> Result<Content, FetchError> {
    let patience = match edge.config.origin {
        config::Origin::Http { patience, .. } => patience,
        config::Origin::Directory { .. } => Duration::ZERO,
    };
    loop {
        let fetched = ask(edge, asked, object).await;
        let Err(error) = &fetched else { return fetched };
        let may_pass = matches!(error, FetchError::Origin(_) | FetchError::Body(_) | FetchError::Busy)
            && !(error.is_denial() && question.is_superseded());
        let left = patience.saturating_sub(clock::monotonic() - asked.started);
        if !may_pass || left.is_zero() || question.last_resort(past, fault(error)).is_some() {
            return fetched;
        }
        tokio::time::sleep(RETRY.min(left)).await;
    }
}

/// The content; of what can't be stored, just the part that is asked for.
async fn within(
    edge: &Edge,
    asked: &Asked,
    question: &Question<'_>,
    object: &Object,
    content: Content,
    reason: Reason,
) -> Answer {
    let served = Served {
        content,
        object: Some(object.clone()),
        part: None,
        reason,
        class: question.class(),
        cache_control: question.cache_control(),
    };
    if let Source::Apart(_) = served.content.source {
        return Box::pin(apart(edge, asked, question, object, served)).await;
    }
    Answer::Content(served)
}

/// Of what can't be stored, the part that is asked for, or all of it, for this request alone.
async fn apart(
    edge: &Edge,
    asked: &Asked,
    question: &Question<'_>,
    object: &Object,
    mut served: Served,
) -> Answer {
    let fetched = match single_range(asked, &served.content.meta) {
        Some(range) => {
            served.part = Some(range);
            edge.store.pass_range(object, served.content, range, demand(asked, object)).await
        }
        None => edge.store.fetch(object, demand(asked, object)).await,
    };
    match fetched {
        Ok(content) => Answer::Content(Served { content, ..served }),
        Err(error) => failed(asked, question, &error),
    }
}

/// The one range that is asked for, if that is what the request comes to.
fn single_range(asked: &Asked, meta: &Meta) -> Option<ByteRange> {
    let wanted = asked.conditions.get(RANGE);
    let validators = validators(meta);
    let is_plain = conditional::evaluate(&asked.conditions, &validators) == conditional::Outcome::Proceed
        && conditional::if_range_holds(&asked.conditions, &validators);
    match range::requested(wanted.filter(|_| is_plain), meta.length?) {
        Requested::Ranges(ranges) if ranges.len() == 1 => ranges.first().copied(),
        _ => None,
    }
}

/// The listing of a directory of a local tree; `None` where the origin makes its own.
async fn listing(edge: &Edge, asked: &Asked, question: &Question<'_>) -> Result<Option<Answer>, FetchError> {
    let dir = &question.path;
    if let Some(html) = edge.listings.at_hand(dir) {
        return Ok(Some(Answer::Listing(html)));
    }
    // A large directory costs a stat for each entry: few are listed at once, and each once for all who ask meanwhile.
    let Ok(_turn) = edge.listings.turn(asked.client.owner).await else {
        let (status, why) = (StatusCode::SERVICE_UNAVAILABLE, "too many listings are asked for");
        return Ok(Some(Answer::error(status, Reason::Listing, why)));
    };
    if let Some(html) = edge.listings.at_hand(dir) {
        return Ok(Some(Answer::Listing(html)));
    }
    let Some(entries) = edge.store.listing(dir).await? else { return Ok(None) };
    let extent = if entries.len() > MAX_LISTED { Extent::Cut } else { Extent::Whole };
    let entries: Vec<IndexEntry> = entries
        .into_iter()
        .take(MAX_LISTED)
        .filter(|entry| question.shows(&entry.name))
        .map(|entry| IndexEntry {
            name: entry.name,
            is_directory: entry.is_directory,
            size: (!entry.is_directory).then_some(entry.size),
            modified: Some(entry.modified),
        })
        .collect();
    Ok(Some(Answer::Listing(edge.listings.keep(dir, index(dir, &entries, extent).into()))))
}

fn failed(asked: &Asked, question: &Question<'_>, error: &FetchError) -> Answer {
    let not_found = || Answer::error(StatusCode::NOT_FOUND, Reason::NotFound, "not found");
    match error {
        FetchError::Absent => not_found(),
        // A push has removed it.
        error if error.is_denial() && question.is_superseded() => not_found(),
        FetchError::Answered(passed) => Answer::Passed(Arc::clone(passed)),
        FetchError::IsDirectory => {
            // The path as it came, so that a prefix of the mirrorlist's entries survives.
            let path = asked.target.path();
            // One leading slash: with two, a browser would take the first segment for a host.
            Answer::moved(format!("/{}/", path.trim_start_matches('/')))
        }
        // It is listed, so that it isn't removed: one of the origin's hosts lacks it.
        error if error.is_denial() => {
            Answer::error(StatusCode::SERVICE_UNAVAILABLE, Reason::OriginFault, &error.to_string())
        }
        // yum 3 takes 502 as final; 503 it tries again.
        error => Answer::error(StatusCode::SERVICE_UNAVAILABLE, fault(error), &error.to_string()),
    }
}

/// Whose fault it is that a file can't be had.
fn fault(error: &FetchError) -> Reason {
    match error {
        FetchError::Absent | FetchError::IsDirectory | FetchError::Answered(_) => Reason::Removed,
        error if error.is_denial() => Reason::Removed,
        FetchError::Origin(error)
            if matches!(
                **error,
                OriginError::Down { .. } | OriginError::Silent { .. } | OriginError::Withheld { .. }
            ) =>
        {
            Reason::OriginDown
        }
        FetchError::Origin(_) | FetchError::Body(_) => Reason::OriginFault,
        FetchError::TooLarge { .. } | FetchError::NotStored | FetchError::Busy | FetchError::ShuttingDown => {
            Reason::Internal
        }
    }
}
