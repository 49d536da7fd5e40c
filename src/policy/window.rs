//! The window after a push in which the nodes deliver a repo themselves.

use crate::clock::Timestamp;
use crate::config::{Delivery, Repo, Scope};
use crate::repo::Generation;
use serde::{Deserialize, Serialize};

/// A window that a push opened. It is kept on disk, so a restart neither closes nor prolongs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When the push was offered to clients.
    pub opened: Timestamp,
    /// When the window ends, unless too few mirrors are fresh by then.
    pub closes: Timestamp,
}

impl Window {
    /// The window that `generation` opens in `repo`, or none: the repo has none, the push is larger than
    /// `window_max_push`, or its time is over already (a node that starts long after the push).
    ///
    /// It counts from the publication at the origin, so that nodes that start or flip at different times agree.
    #[must_use]
    pub fn opened_by(generation: &Generation, repo: &Repo) -> Option<Self> {
        let too_large = repo.window_scope == Scope::Repo
            && generation.sequence > 1
            && generation.new_bytes > repo.window_max_push;
        if repo.delivery != Delivery::Window || too_large {
            return None;
        }
        let opened = generation.published.min(generation.flipped);
        let closes = opened.plus(repo.window);
        (closes > generation.flipped).then_some(Self { opened, closes })
    }
}

/// Where a repo stands with regard to its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Inside the window.
    Open {
        /// When it ends.
        closes: Timestamp,
    },
    /// Past its end, kept open because fewer than `window_min_mirrors` mirrors are fresh.
    Extended {
        /// When it would have ended.
        due: Timestamp,
    },
    /// No window.
    Closed,
}

impl Phase {
    /// The phase at `now`, with `fresh` mirrors proven to hold the current generation.
    #[must_use]
    pub fn at(window: Option<Window>, repo: &Repo, fresh: usize, now: Timestamp) -> Self {
        match window {
            Some(window) if now < window.closes => Self::Open { closes: window.closes },
            Some(window) if fresh < repo.window_min_mirrors => Self::Extended { due: window.closes },
            _ => Self::Closed,
        }
    }

    /// Open or kept open.
    #[must_use]
    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// The label of the phase in status and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Extended { .. } => "extended",
            Self::Closed => "closed",
        }
    }
}
