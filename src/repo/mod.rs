//! Repositories, without IO: what repodata says, and what a node remembers of it.
//!
//! A push is read by [`repomd::parse`], then [`compression::decompress`] and [`primary::parse`] (and
//! [`prestodelta::parse`]); [`Generation::assemble`] makes one immutable state of the repo of them; [`History`]
//! holds the states that a node still answers for; [`mod@encode`] keeps them over a restart.
//!
//! Repodata comes from outside: every parser here is bounded and never panics. What is wrong with one entry costs
//! that entry and is counted (`left_out`); what is wrong with a document costs the document.

pub mod catalogue;
pub mod checksum;
pub mod checksums;
pub mod compression;
mod derived;
mod digest;
pub mod encode;
mod encoding;
mod error;
pub mod generation;
pub mod history;
mod listed;
pub mod prestodelta;
pub mod primary;
pub mod repomd;
pub mod signature;
mod xml;

pub use catalogue::{Catalogue, Entry, FileFacts, Kind};
pub use checksum::{Hasher, Sha256};
pub use derived::Derived;
pub use digest::{Algorithm, Digest, Digester};
pub use encode::{DecodeError, Stored, decode, encode, encode_difference};
pub use error::{Fault, RepodataError};
pub use generation::{Generation, Pinned, REPOMD, root_document};
pub use history::{History, Listed};
pub use listed::{ListedFile, Parsed};
pub use repomd::{Record, Repomd};
