//! How one repo's pushes stand, for the status page and readiness.

use super::retain::Unretained;
use super::{PushHandle, Watched};
use crate::clock::Timestamp;
use crate::policy::{Currency, RepoView};

/// How one repo's pushes stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoState {
    /// `name/release/arch`
    pub id: String,
    /// When the origin last answered a poll.
    pub last_poll: Option<Timestamp>,
    /// Why the newest poll or push failed; None once all is well again.
    pub last_error: Option<String>,
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
pub(super) struct Status {
    pub(super) last_poll: Option<Timestamp>,
    pub(super) last_error: Option<String>,
    pub(super) step: Step,
    pub(super) detected: Option<Timestamp>,
    pub(super) warmed: Option<Timestamp>,
    pub(super) offered: Option<Timestamp>,
    pub(super) unretained: Option<Unretained>,
}

impl Status {
    pub(super) fn state(&self, id: &str) -> RepoState {
        let Self { last_poll, ref last_error, step, detected, warmed, offered, ref unretained } = *self;
        RepoState {
            id: id.to_owned(),
            last_poll,
            last_error: last_error.clone(),
            step,
            detected,
            warmed,
            offered,
            unretained_files: unretained.as_ref().map_or(0, |unretained| unretained.files),
            unretained_why: unretained.as_ref().map(|unretained| unretained.why.clone()),
        }
    }

    /// Notes a failure; whether it is another than the one before.
    pub(super) fn fail(&mut self, error: &str) -> bool {
        self.step = Step::Idle;
        let is_news = self.last_error.as_deref() != Some(error);
        self.last_error = Some(error.to_owned());
        is_news
    }
}
