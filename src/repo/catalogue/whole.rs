//! All files of a generation, by themselves: small, sorted, never changed.
//!
//! One string holds all paths, one array all digests, another the rest, and one table says which row a path has: a file costs
//! its path, at most 36 bytes and its digest (32 bytes of SHA-256), nothing is allocated for each, and a look takes four misses
//! of the processor's caches instead of the dozen of a binary search.

use super::{Entry, FileFacts, Kind};
use crate::repo::digest::{Algorithm, Digest};
use crate::repo::listed::MAX_PATH_BYTES;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Files by path.
#[derive(Clone, Default)]
pub(super) struct Whole {
    /// All paths, in order, without anything between them.
    paths: Box<str>,
    /// All digests, in the rows' order, without anything between them.
    digests: Box<[u8]>,
    /// Sorted by path, each path once.
    rows: Box<[Row]>,
    /// Numbers of rows, by path.
    by_path: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Row {
    size: u64,
    since: u32,
    /// Of the path among all paths, and its length.
    start: u32,
    digest_start: u32,
    length: u16,
    kind: Kind,
    algorithm: Option<Algorithm>,
}

impl Row {
    fn path<'a>(&self, paths: &'a str) -> &'a str {
        let start = self.start as usize;
        &paths[start..start + usize::from(self.length)]
    }

    fn entry(&self, digests: &[u8]) -> Entry {
        let start = self.digest_start as usize;
        let digest =
            self.algorithm.and_then(|algorithm| Digest::from_raw(&digests[start..start + algorithm.bytes()]));
        Entry { size: self.size, digest, kind: self.kind, since: self.since }
    }
}

/// Whether other bytes have come under a name. Digests of different algorithms don't tell: a repo that changes its algorithm
/// would else be kept from its mirrors until each package has another name.
fn are_others(before: Option<Digest>, now: Option<Digest>) -> bool {
    before.is_some_and(|before| now.is_none_or(|now| now.algorithm() == before.algorithm() && now != before))
}

/// Files as they are put in, by path.
struct Rows {
    paths: String,
    digests: Vec<u8>,
    rows: Vec<Row>,
}

impl Rows {
    fn for_files(files: usize) -> Self {
        Self { paths: String::new(), digests: Vec::new(), rows: Vec::with_capacity(files) }
    }

    /// Whether there was room for it.
    fn push(&mut self, path: &str, entry: Entry) -> bool {
        let Entry { size, digest, kind, since } = entry;
        let starts = u32::try_from(self.paths.len()).ok().zip(u32::try_from(self.digests.len()).ok());
        let Some(((start, digest_start), length)) = starts.zip(u16::try_from(path.len()).ok()) else {
            return false;
        };
        self.paths.push_str(path);
        self.digests.extend_from_slice(digest.as_ref().map_or(&[], Digest::as_bytes));
        let algorithm = digest.map(|digest| digest.algorithm());
        self.rows.push(Row { size, since, start, digest_start, length, kind, algorithm });
        true
    }
}

impl Whole {
    /// As [`Catalogue::build`](super::Catalogue::build) does; `known` is what the generation before lists at a path.
    pub(super) fn build(
        mut files: Vec<(String, FileFacts)>,
        known: impl Fn(&str) -> Option<Entry>,
        sequence: u32,
    ) -> (Self, u32) {
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut rows = Rows::for_files(files.len());
        let mut left_out = 0;
        for same_path in files.chunk_by(|a, b| a.0 == b.0) {
            let (path, facts) = &same_path[0];
            let contradicted = same_path.iter().any(|(_, other)| other != facts);
            if contradicted || path.len() > MAX_PATH_BYTES {
                left_out += 1;
                continue;
            }
            let FileFacts { size, digest, kind } = *facts;
            let same_size = known(path).filter(|known| known.size == size);
            let unchanged = same_size.filter(|known| known.digest == digest);
            let since = unchanged.map_or(sequence, |known| known.since);
            let kind = match (kind, unchanged, same_size) {
                (Kind::Package, Some(known), _) if known.kind == Kind::Replaced => Kind::Replaced,
                (Kind::Package, None, Some(known)) if are_others(known.digest, digest) => Kind::Replaced,
                _ => kind,
            };
            left_out += u32::from(!rows.push(path, Entry { size, digest, kind, since }));
        }
        (Self::indexed(rows), left_out)
    }

    fn indexed(Rows { paths, digests, rows }: Rows) -> Self {
        let hasher = RandomState::new();
        let mut by_path = HashTable::with_capacity(rows.len());
        let hash = |index: &u32| hasher.hash_one(rows[*index as usize].path(&paths));
        for index in (0..).take(rows.len()) {
            by_path.insert_unique(hash(&index), index, hash);
        }
        Self { paths: paths.into(), digests: digests.into(), rows: rows.into(), by_path, hasher }
    }

    /// Of these, which are in order, and of a catalogue already.
    pub(super) fn of<'a>(files: impl ExactSizeIterator<Item = (&'a str, Entry)>) -> Self {
        let mut rows = Rows::for_files(files.len());
        for (path, entry) in files {
            rows.push(path, entry);
        }
        Self::indexed(rows)
    }

    /// The file at `path`, relative to the repo.
    pub(super) fn find(&self, path: &str) -> Option<Entry> {
        let is_it = |index: &u32| self.rows[*index as usize].path(&self.paths) == path;
        let index = self.by_path.find(self.hasher.hash_one(path), is_it)?;
        Some(self.rows[*index as usize].entry(&self.digests))
    }

    /// All files, by path.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Entry)> {
        self.rows.iter().map(|row| (row.path(&self.paths), row.entry(&self.digests)))
    }

    /// The paths from the tree's root on: they lie outside of the repo.
    pub(super) fn outside(&self) -> impl Iterator<Item = &str> {
        let start = self.rows.partition_point(|row| row.path(&self.paths) < "/");
        self.rows[start..].iter().map(|row| row.path(&self.paths)).take_while(|path| path.starts_with('/'))
    }

    /// The file of this number, by path.
    pub(super) fn at(&self, number: usize) -> Option<(&str, Entry)> {
        self.rows.get(number).map(|row| (row.path(&self.paths), row.entry(&self.digests)))
    }

    /// How many files.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.paths.len() + self.digests.len() + size_of_val(&*self.rows) + self.by_path.allocation_size()
    }

    /// As [`Catalogue::from_sorted`](super::Catalogue::from_sorted) does.
    pub(super) fn from_sorted(
        paths: &str,
        entries: impl ExactSizeIterator<Item = (u16, Entry)>,
    ) -> Option<Self> {
        let mut rows = Rows::for_files(entries.len());
        let (mut start, mut before) = (0, "");
        for (length, entry) in entries {
            let end = start + usize::from(length);
            let path = paths.get(start..end)?;
            if path <= before || !rows.push(path, entry) {
                return None;
            }
            (start, before) = (end, path);
        }
        (start == paths.len()).then(|| Self::indexed(rows))
    }
}
