//! The digests of a body on its way: SHA-256, by which an entry is known on disk, and the one that a catalogue lists it by.

use super::FillError;
use super::object::Identity;
use crate::repo::{Digester, Hasher, Sha256};

/// What is hashed of a body that arrives in pieces.
pub(super) struct Sums {
    sha256: Hasher,
    listed: Option<Identity>,
    /// Where it is listed by another digest than SHA-256.
    other: Option<Digester>,
}

impl Sums {
    /// Of no bytes yet.
    pub(super) fn of(listed: Option<Identity>) -> Self {
        let other = listed.filter(|listed| listed.digest.sha256().is_none());
        Self { sha256: Hasher::default(), listed, other: other.map(|listed| listed.digester()) }
    }

    /// Takes the next piece.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(other) = &mut self.other {
            other.update(bytes);
        }
    }

    /// The SHA-256 of all pieces, if they are what is listed.
    pub(super) fn check(self) -> Result<Sha256, FillError> {
        let sha256 = self.sha256.finish();
        if let Some(listed) = self.listed {
            listed.check(self.other.map_or_else(|| sha256.into(), Digester::finish))?;
        }
        Ok(sha256)
    }
}
