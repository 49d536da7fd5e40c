//! Parts of an object, put away until the next fill goes on with them: a file in `parts/` like an entry's, with holes where
//! bytes are missing, whose trailer says which are there and of which version.
//!
//! It is moved to `tmp/` before anything is written to it again, so that what lies in `parts/` never changes. Nothing of
//! another epoch is taken: the bytes of a part have no sums to be verified by, and can be fetched again.

use super::entry::{Record, encode, meta, read_any};
use super::files::Files;
use super::{Disk, Draft, Key, Stage};
use crate::http::ByteRange;
use crate::origin::Version;
use crate::store::object::{Meta, Object};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use tokio::runtime::Handle;

/// More spans than these aren't put away: a trailer has its bound.
const MAX_SPANS: usize = 4096;

/// Parts as they were found.
pub(in crate::store) struct Parts<F: Files> {
    pub(in crate::store) draft: Draft<F>,
    pub(in crate::store) meta: Meta,
    pub(in crate::store) version: Version,
    pub(in crate::store) spans: Vec<ByteRange>,
    /// What they take on disk.
    pub(in crate::store) disk_bytes: u64,
}

impl<F: Files> Disk<F> {
    /// Puts a draft's parts away; what they take on disk.
    pub(in crate::store) fn keep(
        &self,
        draft: &mut Draft<F>,
        object: &Object,
        meta: &Meta,
        version: &Version,
        spans: &[ByteRange],
    ) -> io::Result<u64> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        let fits = !spans.is_empty() && spans.len() <= MAX_SPANS;
        // One key counts for one file: beside an entry that is stale they would take room that nobody counts.
        let fits = fits
            && matches!(self.files.facts_at(&self.path(&self.key(object))), Err(e) if e.kind() == ErrorKind::NotFound);
        let record = Record::of_parts(&self.origin, object, meta, version, spans).filter(|_| fits);
        let (Some(record), false, Stage::Open) = (record, *closed, draft.stage) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "these parts can't be put away"));
        };
        // Blocks that were promised for the rest are free again.
        self.files.truncate(&draft.file, spans.iter().map(|span| span.end).max().unwrap_or(0))?;
        self.files.write_all_at(&draft.file, &encode(Vec::new(), &record)?, record.length)?;
        let stored = i64::try_from(meta.stored.as_secs()).unwrap_or(0);
        self.files.set_modified(&draft.file, self.epoch().mark(stored))?;
        if let Err(error) = self.files.sync(&draft.file) {
            draft.stage = Stage::Spoiled;
            return Err(io::Error::other(error));
        }
        let disk_bytes = self.files.facts(&draft.file)?.allocated;
        self.files.rename(&draft.path, &self.parts_path(&self.key(object)))?;
        draft.stage = Stage::Committed;
        Ok(disk_bytes)
    }

    /// Takes what was put away of an object, to be gone on with; removes what is of no use.
    pub(in crate::store) fn take_parts(
        &self,
        object: &Object,
        pool: &Handle,
    ) -> io::Result<Option<Parts<F>>> {
        let at = self.parts_path(&self.key(object));
        let path = self.next_draft();
        let file = match self.files.open_to_write(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => Arc::new(other?),
        };
        self.files.rename(&at, &path)?;
        let (files, written, pool) = (Arc::clone(&self.files), Arc::default(), pool.clone());
        // Dropped, it is removed.
        let draft = Draft { file, written, files, path, stage: Stage::Open, pool };
        let facts = self.files.facts(&draft.file)?;
        if !self.epoch().is_on(facts.modified) {
            return Ok(None);
        }
        let record = read_any(&*self.files, &draft.file, facts.length)?;
        let Some(record) = record.filter(|record| record.is_of(&self.origin, object)) else {
            return Ok(None);
        };
        let (Some((version, spans)), length) = (record.parts(), record.length) else { return Ok(None) };
        let Some(meta) = meta(record) else { return Ok(None) };
        self.files.truncate(&draft.file, length)?;
        Ok(Some(Parts { draft, meta, version, spans, disk_bytes: facts.allocated }))
    }

    pub(super) fn parts_path(&self, key: &Key) -> PathBuf {
        self.root.join(super::PARTS).join(key.0.hex())
    }
}
