//! Suspects: entries whose bytes are read and compared before a client gets them. Those of another epoch, stored before the
//! machine went down, and those that this process gives out for the first time.

use super::entry::{read_record, read_sums};
use super::files::{Facts, Files, Modified, System};
use super::{Disk, Found, Key, key_of, on_disk, sums};
use crate::http::ByteRange;
use crate::store::object::{Identity, Object};
use crate::store::spans::Spans;
use std::io::{self, ErrorKind};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Read at once.
const PIECE_BYTES: u64 = 1024 * 1024;

/// An entry whose bytes are to be verified.
pub(in crate::store) struct Suspect<F: Files = System> {
    pub(in crate::store) found: Found<F>,
    pub(super) sums: Vec<u32>,
    pub(super) modified: Modified,
    pub(in crate::store) length: u64,
    /// Bytes that are as they should be: whole blocks.
    pub(in crate::store) good: Spans,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Verified {
    /// Some more bytes are good.
    Some,
    /// All of them, and the entry is marked as good.
    Whole(Finding),
    /// The entry is not what was stored, and was removed.
    Damaged(Finding),
}

/// Whether somebody else verified the same entry meanwhile, and was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Finding {
    New,
    /// Counted already; by now another entry may have the place of a damaged one.
    Known,
}

/// What an entry is found to be, without asking for its object.
pub(in crate::store) enum Examined<F: Files = System> {
    /// Gone, or of this epoch.
    Settled,
    Suspect(Box<Suspect<F>>),
    Damaged,
}

impl<F: Files> Suspect<F> {
    /// The next block that isn't known to be good: the first from `from` on, or else the first of all.
    fn next(&self, from: u64) -> Option<ByteRange> {
        let gap = |start| self.good.gaps(ByteRange { start, end: self.length }).into_iter().next();
        let block = sums::block_bytes(self.length);
        let start = gap(from).or_else(|| gap(0))?.start / block * block;
        Some(ByteRange { start, end: (start + block).min(self.length) })
    }

    fn expects(&self, block: ByteRange) -> Option<u32> {
        let number = block.start / sums::block_bytes(self.length);
        self.sums.get(usize::try_from(number).ok()?).copied()
    }
}

impl<F: Files> Disk<F> {
    /// Verifies at least one more block, and others up to `bytes` in all: those from `from` on first.
    pub(in crate::store) fn verify(
        &self,
        suspect: &mut Suspect<F>,
        from: u64,
        bytes: u64,
    ) -> io::Result<Verified> {
        let (mut at, mut left) = (from, bytes);
        let mut read = vec![0; usize::try_from(suspect.length.min(PIECE_BYTES)).unwrap_or(0)];
        while let Some(block) = suspect.next(at) {
            if left < block.len() && left < bytes {
                return Ok(Verified::Some);
            }
            match self.sum(suspect, block, &mut read) {
                Ok(sum) if suspect.expects(block) == Some(sum) => suspect.good.insert(block),
                Ok(_) => return self.discard(suspect),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return self.discard(suspect),
                Err(error) => return Err(error),
            }
            (at, left) = (block.end, left.saturating_sub(block.len()));
        }
        let finding = self.mark(suspect);
        if finding == Finding::New {
            // The mark has broken the seal.
            suspect.found.seal = self.files.facts(&suspect.found.file)?.seal;
        }
        Ok(Verified::Whole(finding))
    }

    fn mark(&self, suspect: &Suspect<F>) -> Finding {
        let _alone = self.alone();
        let (file, epoch) = (&suspect.found.file, self.epoch());
        if self.files.facts(file).is_ok_and(|facts| epoch.is_on(facts.modified)) {
            return Finding::Known;
        }
        // Neither synced nor insisted on: what has no mark is verified once more.
        let _ = self.files.set_modified(file, epoch.mark(suspect.modified.seconds));
        Finding::New
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.concluding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum(&self, suspect: &Suspect<F>, block: ByteRange, read: &mut [u8]) -> io::Result<u32> {
        let (mut hasher, mut at) = (crc32fast::Hasher::new(), block.start);
        while at < block.end {
            let piece = usize::try_from(block.end - at).unwrap_or(usize::MAX).min(read.len());
            self.files.read_exact_at(&suspect.found.file, &mut read[..piece], at)?;
            hasher.update(&read[..piece]);
            at += piece as u64;
        }
        Ok(hasher.finalize())
    }

    /// Removes it, unless another one has its place by now.
    fn discard(&self, suspect: &Suspect<F>) -> io::Result<Verified> {
        let _alone = self.alone();
        let path = self.path(&suspect.found.key);
        if !self.files.is_at(&suspect.found.file, &path) {
            return Ok(Verified::Damaged(Finding::Known));
        }
        self.remove_file(&path)?;
        Ok(Verified::Damaged(Finding::New))
    }

    /// The names of the entries in one of the 256 directories.
    pub(in crate::store) fn keys(&self, shard: u8) -> io::Result<Vec<Key>> {
        let shard = format!("{shard:02x}");
        let names = self.files.list(&self.objects.join(&shard))?;
        let key = |name: std::ffi::OsString| Some(Key(format!("{shard}{}", name.to_str()?).parse().ok()?));
        Ok(names.into_iter().filter_map(key).collect())
    }

    /// What the entry of this name is worth; removes it where it is nothing.
    pub(in crate::store) fn examine(&self, key: &Key) -> io::Result<Examined<F>> {
        let path = self.path(key);
        let file = match self.files.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Examined::Settled),
            other => other?,
        };
        let facts = self.files.facts(&file)?;
        if self.epoch().is_on(facts.modified) {
            return Ok(Examined::Settled);
        }
        let record = read_record(&*self.files, &file, facts.length)?.filter(|record| {
            let identity = record.listed.map(|(digest, size)| Identity { digest, size });
            let object = Object::from_name(&record.path, identity);
            object.is_ok_and(|object| key_of(&record.origin, &object) == *key)
        });
        let (file, disk_bytes) = (Arc::new(file), on_disk(facts.length));
        match record {
            Some(record) => match self.suspect(*key, file, record, facts, disk_bytes)? {
                Some(suspect) => Ok(Examined::Suspect(Box::new(suspect))),
                None => self.remove_file(&path).map(|()| Examined::Damaged),
            },
            None => self.remove_file(&path).map(|()| Examined::Damaged),
        }
    }

    /// `None` where not even its trailer makes sense.
    pub(super) fn suspect(
        &self,
        key: Key,
        file: Arc<F::File>,
        record: super::Record,
        facts: Facts,
        disk_bytes: u64,
    ) -> io::Result<Option<Suspect<F>>> {
        let Some(sums) = read_sums(&*self.files, &file, &record)? else { return Ok(None) };
        let length = record.length;
        let Some(meta) = super::meta(record) else { return Ok(None) };
        let found = Found { key, meta, file, disk_bytes, verified: false, seal: facts.seal };
        Ok(Some(Suspect { found, sums, modified: facts.modified, length, good: Spans::default() }))
    }
}
