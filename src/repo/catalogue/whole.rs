//! All files of a generation, by themselves: small, sorted, never changed.
//!
//! One string holds all paths, one array the rest, and one table says which row a path has: a file costs its path and at
//! most 68 bytes, nothing is allocated for each, and a look takes three misses of the processor's caches instead of the dozen
//! of a binary search.

use super::{Entry, FileFacts, Kind};
use crate::repo::listed::MAX_PATH_BYTES;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Files by path.
#[derive(Clone, Default)]
pub(super) struct Whole {
    /// All paths, in order, without anything between them.
    paths: Box<str>,
    /// Sorted by path, each path once.
    rows: Box<[Row]>,
    /// Numbers of rows, by path.
    by_path: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Row {
    entry: Entry,
    start: u32,
    length: u16,
}

impl Row {
    fn path<'a>(&self, paths: &'a str) -> &'a str {
        let start = self.start as usize;
        &paths[start..start + usize::from(self.length)]
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
        let mut paths = String::with_capacity(files.iter().map(|(path, _)| path.len()).sum());
        let mut rows = Vec::with_capacity(files.len());
        let mut left_out = 0;
        for same_path in files.chunk_by(|a, b| a.0 == b.0) {
            let (path, facts) = &same_path[0];
            let room = u32::try_from(paths.len()).ok().zip(u16::try_from(path.len()).ok());
            let contradicted = same_path.iter().any(|(_, other)| other != facts);
            let Some((start, length)) = room.filter(|_| !contradicted && path.len() <= MAX_PATH_BYTES) else {
                left_out += 1;
                continue;
            };
            let FileFacts { size, sha256, kind } = *facts;
            let same_size = known(path).filter(|known| known.size == size);
            let unchanged = same_size.filter(|known| known.sha256 == sha256);
            let since = unchanged.map_or(sequence, |known| known.since);
            let kind = match (kind, unchanged, same_size) {
                (Kind::Package, Some(known), _) if known.kind == Kind::Replaced => Kind::Replaced,
                (Kind::Package, None, Some(known)) if known.sha256.is_some() => Kind::Replaced,
                _ => kind,
            };
            paths.push_str(path);
            rows.push(Row { entry: Entry { size, sha256, kind, since }, start, length });
        }
        (Self::indexed(paths.into(), rows.into()), left_out)
    }

    fn indexed(paths: Box<str>, rows: Box<[Row]>) -> Self {
        let hasher = RandomState::new();
        let mut by_path = HashTable::with_capacity(rows.len());
        let hash = |index: &u32| hasher.hash_one(rows[*index as usize].path(&paths));
        for index in (0..).take(rows.len()) {
            by_path.insert_unique(hash(&index), index, hash);
        }
        Self { paths, rows, by_path, hasher }
    }

    /// Of these, which are in order.
    pub(super) fn of<'a>(files: impl ExactSizeIterator<Item = (&'a str, Entry)>) -> Self {
        let mut paths = String::new();
        let mut rows = Vec::with_capacity(files.len());
        for (path, entry) in files {
            // They are of a catalogue already, which has none that is too long.
            let (start, length) = (paths.len() as u32, path.len() as u16);
            paths.push_str(path);
            rows.push(Row { entry, start, length });
        }
        Self::indexed(paths.into(), rows.into())
    }

    /// The file at `path`, relative to the repo.
    pub(super) fn find(&self, path: &str) -> Option<Entry> {
        let is_it = |index: &u32| self.rows[*index as usize].path(&self.paths) == path;
        let index = self.by_path.find(self.hasher.hash_one(path), is_it)?;
        Some(self.rows[*index as usize].entry)
    }

    /// All files, by path.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Entry)> {
        self.rows.iter().map(|row| (row.path(&self.paths), row.entry))
    }

    /// The file of this number, by path.
    pub(super) fn at(&self, number: usize) -> Option<(&str, Entry)> {
        self.rows.get(number).map(|row| (row.path(&self.paths), row.entry))
    }

    /// How many files.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.paths.len() + size_of_val(&*self.rows) + self.by_path.allocation_size()
    }

    /// As [`Catalogue::from_sorted`](super::Catalogue::from_sorted) does.
    pub(super) fn from_sorted(
        paths: &str,
        entries: impl ExactSizeIterator<Item = (u16, Entry)>,
    ) -> Option<Self> {
        let mut rows = Vec::with_capacity(entries.len());
        let (mut start, mut before) = (0, "");
        for (length, entry) in entries {
            let end = start + usize::from(length);
            let path = paths.get(start..end)?;
            if path <= before {
                return None;
            }
            rows.push(Row { entry, start: u32::try_from(start).ok()?, length });
            (start, before) = (end, path);
        }
        (start == paths.len()).then(|| Self::indexed(paths.into(), rows.into()))
    }
}
