//! Where the tree is mastered: an HTTP(S) server, or a local directory.
//!
//! This module asks and checks; it keeps nothing. [`HttpOrigin`] must be awaited on the background runtime, since
//! its pooled connections belong to the runtime that opened them; [`DirectoryOrigin`] blocks, and is called on the
//! blocking pool. The store sees to both.

mod body;
mod breaker;
mod connect;
mod copies;
mod directory;
mod guard;
pub mod http;
mod passed;
mod retained;
mod sight;
mod symlinks;
mod version;

#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tls_test;

pub use body::OriginBody;
pub use copies::{Copied, Wanted};
pub use directory::{DirEntry, DirectoryOrigin, MAX_LISTED, Node, Opened, Stamp};
pub use guard::Health;
pub use http::HttpOrigin;
pub use passed::Passed;
pub use retained::{Linked, Retained};
pub use sight::Sight;
pub use version::Version;

use crate::clock::Timestamp;
use crate::http::TreePath;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The largest body that [`Origin::poll`] takes: repomd.xml is a few KiB, and its parser's bound is the same.
pub const MAX_POLLED_BYTES: u64 = 1024 * 1024;

/// The largest length that is believed: 1 PiB. Sums with it are far from overflowing.
pub const MAX_OBJECT_BYTES: u64 = 1 << 50;

/// Where the tree is mastered.
#[derive(Clone)]
pub enum Origin {
    /// An HTTP(S) server.
    Http(Arc<HttpOrigin>),
    /// A local directory, served in place.
    Directory(Arc<DirectoryOrigin>),
}

/// What a poller knows of the version that it holds. The default holds none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollValidators {
    /// The origin's ETag.
    pub etag: Option<HeaderValue>,
    /// The origin's Last-Modified, as it wrote it.
    pub last_modified: Option<HeaderValue>,
    /// Inode, length and mtime, of a directory origin.
    pub stamp: Option<Stamp>,
}

/// The answer to a poll.
#[derive(Clone, Debug)]
pub enum Polled {
    /// Still the version that the validators name.
    Unchanged,
    /// The origin has no such file.
    Absent,
    /// Another version.
    Changed {
        /// All of it, at most [`MAX_POLLED_BYTES`].
        body: Bytes,
        /// When the origin says it was last modified.
        last_modified: Option<Timestamp>,
        /// For the next poll.
        validators: PollValidators,
    },
}

impl Origin {
    /// Names the origin in the keys of cached objects: two origins never share an entry.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Http(origin) => origin.id().to_owned(),
            Self::Directory(origin) => origin.path().display().to_string(),
        }
    }

    /// How it stands, where that changes.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        match self {
            Self::Http(origin) => Some(origin.health()),
            Self::Directory(_) => None,
        }
    }

    /// Looks at the file that is to be at `path` with `size` bytes, without reading it. To be awaited on the background runtime.
    ///
    /// # Errors
    /// [`OriginError::Absent`], [`OriginError::Length`] and others that speak of the file; or the origin is in trouble.
    pub async fn see(&self, path: &TreePath, size: u64) -> Result<Sight, OriginError> {
        match self {
            Self::Http(origin) => origin.see(path, size).await,
            Self::Directory(origin) => {
                let (origin, path) = (Arc::clone(origin), path.clone());
                tokio::task::spawn_blocking(move || origin.see(&path, size))
                    .await
                    .map_err(|stopped| OriginError::Disk(io::Error::other(stopped)))?
            }
        }
    }

    /// Asks whether `path` is still the version that `known` names. To be awaited on the background runtime.
    pub async fn poll(&self, path: &TreePath, known: &PollValidators) -> Result<Polled, OriginError> {
        match self {
            Self::Http(origin) => origin.poll(path, known).await,
            Self::Directory(origin) => {
                let (origin, path, known) = (Arc::clone(origin), path.clone(), known.clone());
                tokio::task::spawn_blocking(move || origin.poll(&path, &known))
                    .await
                    .map_err(|stopped| OriginError::Disk(io::Error::other(stopped)))?
            }
        }
    }
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The head of the response.
    FirstByte,
    /// The next part of its body.
    NextBytes,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstByte => "the first byte of its answer",
            Self::NextBytes => "the next bytes of a body",
        })
    }
}

/// Why the origin gave no usable answer. All are the origin's fault, or the network's, but for `Disk` and `Setup`.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// In a directory: absent, unreadable, or a symlink out of the tree.
    #[error("the origin has no such file")]
    Absent,
    /// An answer that is neither a file nor a failure, about what no catalogue lists.
    #[error("the origin answered {}", .0.status)]
    Answered(Arc<Passed>),
    /// An answer that is neither a file nor a failure, about what a catalogue lists: one of the origin's hosts may have it
    /// later than another.
    #[error("the origin answered {status} for a file that its repo lists")]
    Denied {
        /// 404 as a rule.
        status: StatusCode,
    },
    /// The path is a directory, and was asked for without the slash at its end.
    #[error("the path is a directory")]
    IsDirectory,
    /// No connection, or it broke before the head of a response.
    #[error("the origin can't be reached: {reason}")]
    Down {
        /// All of the cause's chain.
        reason: String,
    },
    /// It wasn't asked: it is down, or wants this path to be left alone for a while.
    #[error("the origin is not asked just now: {reason}")]
    Withheld {
        /// The failure that led to it.
        reason: String,
    },
    /// A timer ran out.
    #[error("waited {after:?} for {wait}")]
    Silent {
        /// For what.
        wait: Wait,
        /// For how long.
        after: Duration,
    },
    /// A status that answers nothing.
    #[error("the origin answered {0}")]
    Status(StatusCode),
    /// A redirect to another authority, more than three, or one without a usable Location.
    #[error("the origin redirects to {to:?}, which is not followed")]
    Redirected {
        /// The Location.
        to: String,
    },
    /// An end that can't be told from a cut (close-delimited), of an object whose size and SHA-256 nobody knows.
    #[error("the body has neither a length nor chunks, so that a cut would go unnoticed")]
    NoLength,
    /// The promised length is not the one that the repo's metadata list.
    #[error("the origin promises {promised} bytes where {listed} are listed")]
    Length {
        /// By Content-Length, or by the directory.
        promised: u64,
        /// By the catalogue.
        listed: u64,
    },
    /// The promised length is more than any file has.
    #[error("the origin promises {promised} bytes, which is absurd")]
    Absurd {
        /// By Content-Length.
        promised: u64,
    },
    /// The body goes on after its promised end.
    #[error("the body is longer than the {expected} bytes expected")]
    TooLong {
        /// The promised or listed length.
        expected: u64,
    },
    /// The body ended before its promised end.
    #[error("the body ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes that came.
        received: u64,
        /// The promised or listed length.
        expected: u64,
    },
    /// The connection broke within the body.
    #[error("the body was cut after {received} bytes: {reason}")]
    Cut {
        /// Bytes that came.
        received: u64,
        /// All of the cause's chain.
        reason: String,
    },
    /// A Range was answered with the whole, another range, or another version.
    #[error("the origin did not answer with the range asked for")]
    RangeIgnored,
    /// The directory can't be read (not: a file in it is absent).
    #[error("the origin's directory: {0}")]
    Disk(#[source] io::Error),
    /// The origin can't be set up as configured.
    #[error("{0}")]
    Setup(String),
}

impl OriginError {
    /// Whether another host of the origin may answer otherwise, about what a catalogue lists.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Redirected { .. } | Self::Length { .. })
    }

    /// Whether the same request may be answered in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // Of what is denied a push may be on its way to one of the origin's hosts.
            Self::Down { .. } | Self::Silent { .. } | Self::Withheld { .. } | Self::Denied { .. } => true,
            Self::Status(status) => is_failure(*status),
            _ => self.is_interruption(),
        }
    }

    /// Whether it is the body that broke off, so that its rest may be asked for.
    #[must_use]
    pub const fn is_interruption(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Truncated { .. } | Self::Silent { wait: Wait::NextBytes, .. })
    }
}

/// Whether a status says that something is wrong with the origin at present, rather than what it has.
const fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..)
}

/// An error and all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
