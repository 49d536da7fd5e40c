//! Bytes of others, held against the store's own.

use super::{Backing, Object, Source, Store};
use crate::http::ByteRange;
use crate::repo::{Algorithm, Digest, Digester};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Read at once.
const CHECKED_BYTES: usize = 1024 * 1024;

/// What a comparison with the store's own bytes gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They are the same.
    Same,
    /// These are the store's own.
    Differs(Bytes),
    /// The store has nothing to compare with at hand.
    Unknown,
}

/// What a comparison with a file gave.
enum Found {
    Same,
    Differs(Bytes),
    /// The store's own file isn't what is listed.
    Rotten,
}

impl Store {
    /// Holds a part of a listed object against the store's own bytes. Where the store is itself wrong, they are none: before it
    /// contradicts, all of its file is checked against its digest, and what isn't that is removed. Nothing is fetched, counted,
    /// or taken for a use.
    pub async fn compare(&self, object: &Object, part: ByteRange, theirs: Bytes) -> Comparison {
        self.compared(object, part, theirs).await.unwrap_or(Comparison::Unknown)
    }

    async fn compared(&self, object: &Object, part: ByteRange, theirs: Bytes) -> Option<Comparison> {
        let listed = object.identity?;
        let held = match &self.backing {
            Backing::Cache(cache) => cache.glance(object).await,
            Backing::Tree(tree) => tree.fetch(object).await.ok(),
        };
        match held?.source {
            // Checked when it came there.
            Source::Memory(all) => {
                let (start, end) = (usize::try_from(part.start).ok()?, usize::try_from(part.end).ok()?);
                let ours = all.get(start..end)?;
                let is_same = ours == theirs;
                Some(if is_same { Comparison::Same } else { Comparison::Differs(all.slice_ref(ours)) })
            }
            Source::File(file) => {
                let comparing = move || compare(&file, part, &theirs, listed.size, listed.digest);
                match self.runtime.spawn_blocking(comparing).await.ok()?.ok()? {
                    Found::Same => Some(Comparison::Same),
                    Found::Differs(ours) => Some(Comparison::Differs(ours)),
                    Found::Rotten => {
                        tracing::warn!(path = %object.path, "a file of the node isn't what is listed");
                        if let Backing::Cache(cache) = &self.backing {
                            cache.give_up(object).await;
                        }
                        None
                    }
                }
            }
            Source::Growing(_) | Source::Pass(_) | Source::Apart(_) => None,
        }
    }
}

fn compare(file: &File, part: ByteRange, theirs: &[u8], length: u64, listed: Digest) -> io::Result<Found> {
    let mut ours = vec![0; usize::try_from(part.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut ours, part.start)?;
    if ours == theirs {
        return Ok(Found::Same);
    }
    Ok(if digest(listed.algorithm(), file, length)? == listed {
        Found::Differs(ours.into())
    } else {
        Found::Rotten
    })
}

/// Of the first `length` bytes.
pub(super) fn digest(algorithm: Algorithm, file: &File, length: u64) -> io::Result<Digest> {
    let mut digester = Digester::new(algorithm);
    let mut buffer = vec![0; CHECKED_BYTES];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], at)?;
        digester.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(digester.finish())
}
