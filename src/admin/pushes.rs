//! How pushes stand, as `/api/v1/status` and `/api/v1/push` tell it. Field names are stable.

use crate::clock::{self, Timestamp};
use crate::push::{PushHandle, RepoState, Step};
use serde::Serialize;

/// The newest push.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Push {
    /// `idle`, `fetching`, `checking`, `warming`, or `flipping`.
    pub step: &'static str,
    /// Packages fetched, while it is warming.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmed_files: Option<u32>,
    /// Packages to be fetched, while it is warming.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warming_files: Option<u32>,
    /// Files seen or found wrong, while it is checking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_files: Option<u32>,
    /// Files to be looked at, while it is checking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checking_files: Option<u32>,
    /// When the origin last answered.
    pub last_poll: Option<String>,
    /// Why the newest poll or push failed.
    pub last_error: Option<String>,
    /// The origin seems not to be done with publishing, and is given some polls more.
    pub unfinished: bool,
    /// What the push is offered without although its metadata name it.
    pub without: Vec<String>,
    /// The number of the newest `POST /api/v1/push` that was carried out; the answer to each has its own.
    pub answered: u64,
    /// When the push was first seen.
    pub detected: Option<String>,
    /// When its packages were in the cache.
    pub warmed: Option<String>,
    /// When it was offered to clients.
    pub offered: Option<String>,
    /// Files of a local tree that would be lost to clients at once if the next push removed them.
    pub unretained_files: usize,
    /// Why they can't be kept; null: all are.
    pub unretained_why: Option<String>,
}

/// Why a push is held.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// SHA-256 of its repomd.xml.
    pub id: String,
    /// The file that is wrong at the origin, from the tree's root; of several the first that was found.
    pub file: String,
    /// What is wrong with it.
    pub fault: String,
    /// Files that were found wrong; others may not have been looked at.
    pub files: u32,
    /// Since when.
    pub since: String,
}

/// How one repo's pushes stand: the answer to `GET /api/v1/push`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PushState {
    /// `name/release/arch`
    pub id: String,
    /// The newest push.
    pub push: Push,
    /// Why it isn't offered.
    pub held: Option<Held>,
}

impl Push {
    pub(super) fn of(state: &RepoState) -> Self {
        let text = |time: Option<Timestamp>| time.map(clock::shown);
        let progress = |(done, total)| (Some(done), Some(total));
        let (checked, warmed) = match state.step {
            Step::Checking { done, total } => (progress((done, total)), (None, None)),
            Step::Warming { done, total } => ((None, None), progress((done, total))),
            _ => ((None, None), (None, None)),
        };
        Self {
            step: state.step.word(),
            warmed_files: warmed.0,
            warming_files: warmed.1,
            checked_files: checked.0,
            checking_files: checked.1,
            last_poll: text(state.last_poll),
            last_error: state.last_error.clone(),
            unfinished: state.is_unfinished,
            without: state.without.clone(),
            answered: state.answered,
            detected: text(state.detected),
            warmed: text(state.warmed),
            offered: text(state.offered),
            unretained_files: state.unretained_files,
            unretained_why: state.unretained_why.clone(),
        }
    }
}

impl Held {
    pub(super) fn of(state: &RepoState) -> Option<Self> {
        let (held, since) = state.held.clone()?;
        Some(Self {
            id: held.generation.hex(),
            file: held.file,
            fault: held.fault,
            files: held.files,
            since: clock::shown(since),
        })
    }
}

/// All repos, or the one addressed as `name/release/arch`.
pub(super) fn states(pushes: &PushHandle, repo: Option<&str>) -> Vec<PushState> {
    let states = pushes.states().into_iter().filter(|state| repo.is_none_or(|repo| state.id == repo));
    let told = |state: RepoState| PushState { push: Push::of(&state), held: Held::of(&state), id: state.id };
    states.map(told).collect()
}
