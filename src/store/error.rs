//! Why there are no bytes, or no more of them: whose fault it is.

use crate::origin::{OriginError, Passed};
use crate::repo::Digest;
use std::io;
use std::sync::Arc;

/// Why a body broke off, or was refused at its end.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The origin's fault.
    #[error(transparent)]
    Origin(OriginError),
    /// The origin's fault, or the catalogue's: these are not the bytes that are listed.
    #[error("{} is {}, listed is {}", expected.algorithm().title(), received.hex(), expected.hex())]
    Mismatch {
        /// By the catalogue.
        expected: Box<Digest>,
        /// Of what came.
        received: Box<Digest>,
    },
    /// The disk's fault.
    #[error("the cache's disk: {0}")]
    Disk(#[source] io::Error),
    /// The disk tier's bound, met by a body whose length nobody promised.
    #[error("no room in the disk tier")]
    NoRoom,
    /// The node is going down, or nobody read it any more.
    #[error("abandoned")]
    Abandoned,
}

/// Why there is no object.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The origin has no such file.
    #[error("the origin has no such file")]
    Absent,
    /// The origin's answer, neither a file nor a failure: a client is to get it as it is.
    #[error("the origin answered {}", .0.status)]
    Answered(Arc<Passed>),
    /// The path is a directory, asked for without its slash.
    #[error("the path is a directory")]
    IsDirectory,
    /// The origin's fault.
    #[error(transparent)]
    Origin(Arc<OriginError>),
    /// Its body broke off, or is not what is listed; this time, or within the last second.
    #[error(transparent)]
    Body(Arc<FillError>),
    /// [`Store::whole`](super::Store::whole) was asked for less.
    #[error("{length} bytes are more than the {max} that are taken")]
    TooLarge {
        /// Bytes of the object, or so many that came.
        length: u64,
        /// The bound given.
        max: u64,
    },
    /// It passed through, since the disk tier has no room or the origin forbids to store it.
    #[error("it can't be stored")]
    NotStored,
    /// Too much is being filled or passed through already.
    #[error("too many bodies are being fetched from the origin")]
    Busy,
    /// The node is going down.
    #[error("the node is going down")]
    ShuttingDown,
}

/// Why nothing was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// As many purges as there may be at once wait for their sweep.
    #[error("too many purges are under way; try again once the disk is swept")]
    TooMany,
    /// The node is going down.
    #[error("the node is going down")]
    ShuttingDown,
}

impl FetchError {
    /// Whether the origin answered, and not with the file: it has none, not under this name, or not for everybody.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Absent | Self::IsDirectory | Self::Answered(_))
    }

    /// Whether the origin answered, and has no such file (under this name).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Absent | Self::IsDirectory => true,
            Self::Answered(passed) => passed.is_absence(),
            _ => false,
        }
    }

    /// Whether the origin has no such file although a catalogue lists it.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Origin(error) if matches!(**error, OriginError::Denied { .. }))
    }
}

impl From<OriginError> for FetchError {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Absent => Self::Absent,
            OriginError::Answered(passed) => Self::Answered(passed),
            OriginError::IsDirectory => Self::IsDirectory,
            other => Self::Origin(Arc::new(other)),
        }
    }
}
