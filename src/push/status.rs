//! How one repo's pushes stand, for the status page and readiness.

use super::fault::Held;
use super::{PushHandle, Watched};
use crate::clock::Timestamp;
use crate::policy::{Currency, RepoView};
use std::collections::BTreeMap;

/// Wrong files of a generation on offer that are told; more are counted only.
const MAX_FAULTS: usize = 100;

/// How one repo's pushes stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoState {
    /// `name/release/arch`
    pub id: String,
    /// When the origin last answered a poll.
    pub last_poll: Option<Timestamp>,
    /// Why the newest poll or push failed; None once all is well again.
    pub last_error: Option<String>,
    /// Why the newest push isn't offered although its metadata are complete, and since when.
    pub held: Option<(Held, Timestamp)>,
    /// What the newest attempt left out of its push, in words.
    pub without: Vec<String>,
    /// Files of the generation on offer that the origin doesn't have as they are listed, and what is wrong with them.
    pub faults: BTreeMap<String, String>,
    /// The origin seems not to be done with publishing, and is given some polls more.
    pub is_unfinished: bool,
    /// The number of the newest [order](super::PushHandle::order) that was carried out.
    pub answered: u64,
    /// What is being done.
    pub step: Step,
    /// When the newest push was first seen.
    pub detected: Option<Timestamp>,
    /// When its packages were in the cache; after it was offered, if they took longer than `push.warm_for`.
    pub warmed: Option<Timestamp>,
    /// When it was offered to clients.
    pub offered: Option<Timestamp>,
    /// Files of the generation on offer that would be lost to clients at once if the next push removed them.
    pub unretained_files: usize,
    /// Why they can't be kept.
    pub unretained_why: Option<String>,
}

/// What is being done for a repo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the next poll is waited for.
    #[default]
    Idle,
    /// The metadata of a push are fetched and verified.
    Fetching,
    /// Its new files are looked at.
    Checking {
        /// Seen, or wrong.
        done: u32,
        /// All that are to be.
        total: u32,
    },
    /// The packages that are new in it are fetched.
    Warming {
        /// Fetched, or failed.
        done: u32,
        /// All that are to be.
        total: u32,
    },
    /// It is written to disk and published.
    Flipping,
}

impl Step {
    /// The word for it in the status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fetching => "fetching",
            Self::Checking { .. } => "checking",
            Self::Warming { .. } => "warming",
            Self::Flipping => "flipping",
        }
    }
}

/// Whether a repo is current, as clients, alerts and people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoCurrency {
    /// `name/release/arch`
    pub id: String,
    /// What may be said of what is on offer.
    pub currency: Currency,
    /// Why it isn't the origin's newest state, in words; None: it is.
    pub not_current: Option<String>,
}

impl PushHandle {
    /// Whether each repo is current at `now`, in the order of the config.
    #[must_use]
    pub fn currencies(&self, now: Timestamp) -> Vec<RepoCurrency> {
        let repos = self.shared.published.repos.load();
        let one = |(view, watched): (&std::sync::Arc<RepoView>, &Watched)| {
            let currency = view.currency(&self.shared.config.push, now);
            let not_current = why_not_current(view, currency, watched.status().last_error.as_deref());
            RepoCurrency { id: view.repo.id.clone(), currency, not_current }
        };
        repos.views().iter().zip(&self.shared.repos).map(one).collect()
    }
}

fn why_not_current(view: &RepoView, currency: Currency, last_error: Option<&str>) -> Option<String> {
    if view.history.current().is_none() {
        return Some(format!("no generation yet: {}", last_error.unwrap_or("the origin is being asked")));
    }
    match currency {
        Currency::Confirmed => None,
        Currency::NotCurrent => {
            let since = view.confirmed.behind_since().unwrap_or_default();
            let why = last_error.unwrap_or("it is being fetched");
            Some(format!("the origin shows a newer state since {since}, which can't be offered: {why}"))
        }
        Currency::Unconfirmed | Currency::Expired => {
            Some(format!("the origin hasn't answered since {}", view.confirmed.at()))
        }
    }
}

/// A [`RepoState`] in the making: without the id, which never changes.
#[derive(Debug, Default)]
pub(super) struct Status(RepoState);

impl std::ops::Deref for Status {
    type Target = RepoState;

    fn deref(&self) -> &RepoState {
        &self.0
    }
}

impl std::ops::DerefMut for Status {
    fn deref_mut(&mut self) -> &mut RepoState {
        &mut self.0
    }
}

impl Status {
    pub(super) fn state(&self, id: &str) -> RepoState {
        RepoState { id: id.to_owned(), ..self.0.clone() }
    }

    /// Notes a failure; whether it is another than the one before.
    pub(super) fn fail(&mut self, error: &str, is_unfinished: bool) -> bool {
        (self.step, self.is_unfinished) = (Step::Idle, is_unfinished);
        let is_news = self.last_error.as_deref() != Some(error);
        self.last_error = Some(error.to_owned());
        is_news
    }

    /// All is well.
    pub(super) fn settle(&mut self) {
        (self.last_error, self.is_unfinished, self.step) = (None, false, Step::Idle);
    }

    /// Notes that a push is held.
    pub(super) fn hold(&mut self, held: &Held, now: Timestamp) -> News {
        let before = self.held.take();
        let same_push = before.as_ref().filter(|(before, _)| before.generation == held.generation);
        let news = match same_push {
            None => News::Push,
            Some((before, _)) if (&before.file, &before.fault) == (&held.file, &held.fault) => News::Nothing,
            Some(_) => News::Reason,
        };
        let since = same_push.map_or(now, |(_, since)| *since);
        self.is_unfinished = false;
        self.last_error = Some(format!("held: {held}"));
        self.held = Some((held.clone(), since));
        news
    }

    /// Notes a wrong file of the generation on offer; whether it is the first.
    pub(super) fn fault(&mut self, file: &str, fault: String) -> bool {
        let is_first = self.faults.is_empty();
        if self.faults.len() < MAX_FAULTS || self.faults.contains_key(file) {
            self.faults.insert(file.to_owned(), fault);
        }
        is_first
    }
}

/// What is new about a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is another push that is held.
    Push,
    /// It is held for another reason.
    Reason,
    /// Nothing is.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::Sha256;

    #[test]
    fn a_hold_ends_what_was_unfinished() {
        let held = Held { generation: Sha256::of(b"1"), file: "a".into(), fault: "absent".into(), files: 1 };
        let mut status = Status::default();
        status.fail("no signature yet", true);
        assert!(status.is_unfinished);
        assert_eq!(status.hold(&held, Timestamp::from_secs(1)), News::Push);
        assert!(!status.is_unfinished, "who waits for the push has an answer");
        assert_eq!(status.last_error.as_deref(), Some("held: a: absent"));
        // A later error is told instead, though the hold stands beside it.
        status.fail("the origin can't be reached", false);
        assert_eq!(status.last_error.as_deref(), Some("the origin can't be reached"));
        assert!(status.held.is_some());
    }
}
