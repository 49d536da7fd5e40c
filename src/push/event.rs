//! What happens to pushes, for the log and for whoever subscribes.

use super::Held;
use crate::clock::Timestamp;
use crate::config::Repo;
use crate::repo::Sha256;
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened in one repo.
#[derive(Clone, Debug)]
pub enum Event {
    /// The origin shows a new generation, whose metadata are complete and verified.
    Detected {
        /// Where.
        repo: Arc<Repo>,
        /// SHA-256 of its repomd.xml.
        generation: Sha256,
        /// Packages that are new in it.
        files: u32,
        /// Their length in bytes.
        bytes: u64,
        /// When its repomd.xml was first seen.
        at: Timestamp,
    },
    /// Its new packages are in the cache, as far as they fit, or the time for that is over. Not of a repo's first
    /// generation.
    Warmed {
        /// Where.
        repo: Arc<Repo>,
        /// SHA-256 of its repomd.xml.
        generation: Sha256,
        /// Packages fetched, or there already.
        files: u32,
        /// Their length in bytes.
        bytes: u64,
        /// Packages that could not be fetched.
        failed: u32,
        /// Packages that were not there in time; they are fetched behind the flip.
        rest: u32,
        /// How long it took.
        took: Duration,
    },
    /// A push is held: clients keep getting the generation before. It is looked at again at each poll.
    Held {
        /// Where.
        repo: Arc<Repo>,
        /// Which push, which file, and what is wrong with it.
        held: Held,
    },
    /// Clients get it from here on.
    Offered {
        /// Where.
        repo: Arc<Repo>,
        /// SHA-256 of its repomd.xml.
        generation: Sha256,
        /// Its place among this node's generations.
        sequence: u32,
        /// When.
        at: Timestamp,
    },
    /// The nodes deliver the repo.
    WindowOpened {
        /// Where.
        repo: Arc<Repo>,
        /// When the window is to end.
        until: Timestamp,
    },
    /// The window's time is over, but too few mirrors are fresh.
    WindowExtended {
        /// Where.
        repo: Arc<Repo>,
    },
    /// The mirrors deliver again.
    WindowClosed {
        /// Where.
        repo: Arc<Repo>,
        /// When.
        at: Timestamp,
    },
    /// A push was given up until the next poll.
    Failed {
        /// Where.
        repo: Arc<Repo>,
        /// Why, in words.
        error: String,
    },
}

impl Event {
    /// Where it happened.
    #[must_use]
    pub fn repo(&self) -> &Arc<Repo> {
        match self {
            Self::Detected { repo, .. }
            | Self::Warmed { repo, .. }
            | Self::Held { repo, .. }
            | Self::Offered { repo, .. }
            | Self::WindowOpened { repo, .. }
            | Self::WindowExtended { repo }
            | Self::WindowClosed { repo, .. }
            | Self::Failed { repo, .. } => repo,
        }
    }

    /// One line in the log.
    pub(super) fn log(&self) {
        let id = self.repo().id.as_str();
        match self {
            Self::Detected { generation, files, bytes, at, .. } => {
                tracing::info!(repo = id, ?generation, new_files = files, new_bytes = bytes, %at, "push detected");
            }
            Self::Warmed { generation, files, bytes, failed, rest, took, .. } => {
                let seconds = took.as_secs_f64();
                if *rest > 0 {
                    let total = files + failed + rest;
                    tracing::warn!(repo = id, "warmed {files} of {total} packages in time, the rest follows");
                }
                tracing::info!(repo = id, ?generation, files, bytes, failed, seconds, "push warmed");
            }
            Self::Held { held, .. } => {
                let generation = &held.generation;
                tracing::error!(
                    repo = id,
                    ?generation,
                    files = held.files,
                    "push held: {}: {}",
                    held.file,
                    held.fault
                );
            }
            Self::Offered { generation, sequence, .. } => {
                tracing::info!(repo = id, ?generation, sequence, "push offered");
            }
            Self::WindowOpened { until, .. } => tracing::info!(repo = id, %until, "window open"),
            Self::WindowExtended { .. } => {
                tracing::info!(repo = id, "window kept open: too few mirrors are fresh");
            }
            Self::WindowClosed { .. } => tracing::info!(repo = id, "window closed"),
            Self::Failed { error, .. } => tracing::warn!(repo = id, "push failed: {error}"),
        }
    }
}
