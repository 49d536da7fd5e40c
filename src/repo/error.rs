//! Why a repodata document was refused.

use crate::shown;
use std::io;
use std::sync::Arc;

/// A document that can't be used: which one, where in it (uncompressed), and why.
///
/// All but [`Fault::Read`] are the origin's fault: trying again brings the same.
#[derive(Debug, thiserror::Error)]
#[error("{document}: byte {at}: {fault}")]
pub struct RepodataError {
    /// `repomd`, `primary` or `prestodelta`.
    pub document: &'static str,
    /// Offset in the uncompressed document at which reading stopped.
    pub at: u64,
    /// What is wrong there.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a document.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The input failed: the disk, or damaged, truncated or oversized compressed data.
    #[error("can't read on: {0}")]
    Read(Arc<io::Error>),
    /// Not well-formed XML.
    #[error("not well-formed: {}", shown::line(.0))]
    Malformed(String),
    /// Well-formed, but more than repodata ever needs.
    #[error("refused: {0}")]
    Refused(&'static str),
}
