//! All files of one generation: small, sorted, never changed.
//!
//! One string holds all paths, one array the rest, and one table says which row a path has: a file costs its path and at
//! most 68 bytes, nothing is allocated for each, and a look takes three misses of the processor's caches instead of the dozen
//! of a binary search.

use super::checksum::Sha256;
use super::listed::MAX_PATH_BYTES;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, RandomState};

/// The files of a generation, by path.
#[derive(Clone, Default)]
pub struct Catalogue {
    /// All paths, in order, without anything between them.
    paths: Box<str>,
    /// Sorted by path, each path once.
    rows: Box<[Row]>,
    /// Numbers of rows, by path.
    by_path: HashTable<u32>,
    hasher: RandomState,
}

/// What kind of file an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A package or a drpm.
    Package,
    /// Metadata whose name carries its own checksum.
    Metadata,
    /// Metadata whose name is used again for other bytes at the next push.
    Reused,
}

/// One file of a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Length in bytes.
    pub size: u64,
    /// None where repodata has a checksum of another kind.
    pub sha256: Option<Sha256>,
    /// What it is.
    pub kind: Kind,
    /// Sequence of the first generation from which on this very file has been listed without a gap.
    pub since: u32,
}

/// A file before it is in a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Length in bytes.
    pub size: u64,
    /// None where repodata has a checksum of another kind.
    pub sha256: Option<Sha256>,
    /// What it is.
    pub kind: Kind,
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

impl Catalogue {
    /// Puts `files` in order. A file that `previous`, the generation before, lists with the same size and SHA-256
    /// inherits its `since`; any other is new in `sequence`.
    ///
    /// Also returns how many paths were left out. A path listed twice with different facts is one: which of them holds
    /// can't be known, and a wrong checksum would refuse the right bytes. Unlisted, the file is passed on as it is. (The
    /// same entry twice is one entry.) Paths of more than 1024 bytes are left out as well.
    #[must_use]
    pub fn build(mut files: Vec<(String, FileFacts)>, previous: Option<&Self>, sequence: u32) -> (Self, u32) {
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
            let known = previous.and_then(|previous| previous.find(path));
            let unchanged = known.filter(|known| known.size == facts.size && known.sha256 == facts.sha256);
            let since = unchanged.map_or(sequence, |known| known.since);
            let FileFacts { size, sha256, kind } = *facts;
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

    /// The file at `path`, relative to the repo.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Entry> {
        let is_it = |index: &u32| self.rows[*index as usize].path(&self.paths) == path;
        let index = self.by_path.find(self.hasher.hash_one(path), is_it)?;
        Some(self.rows[*index as usize].entry)
    }

    /// All files, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Entry)> {
        self.rows.iter().map(|row| (row.path(&self.paths), row.entry))
    }

    /// How many files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without any file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory that it takes, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.paths.len() + size_of_val(&*self.rows) + self.by_path.allocation_size()
    }

    /// All paths, one after the other, as [`Catalogue::from_sorted`] takes them back.
    pub(super) fn paths(&self) -> &str {
        &self.paths
    }

    /// From the parts of another catalogue; None if they are not what a catalogue is made of.
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

impl PartialEq for Catalogue {
    fn eq(&self, other: &Self) -> bool {
        (&self.paths, &self.rows) == (&other.paths, &other.rows)
    }
}

impl Eq for Catalogue {}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalogue({} files)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(size: u64) -> FileFacts {
        FileFacts { size, sha256: Some(Sha256::of(&size.to_le_bytes())), kind: Kind::Package }
    }

    fn files(list: &[(&str, u64)]) -> Vec<(String, FileFacts)> {
        list.iter().map(|&(path, size)| (path.to_owned(), facts(size))).collect()
    }

    #[test]
    fn finds_what_it_was_built_of() {
        let (first, left_out) = Catalogue::build(files(&[("b", 2), ("a/c", 3), ("a", 1), ("b", 2)]), None, 7);
        assert_eq!(left_out, 0);
        let listed: Vec<_> = first.iter().map(|(path, entry)| (path, entry.size, entry.since)).collect();
        assert_eq!(listed, [("a", 1, 7), ("a/c", 3, 7), ("b", 2, 7)]);
        assert_eq!(first.find("a/c").map(|entry| entry.sha256), Some(facts(3).sha256));
        for absent in ["", "a/", "a/b", "c", "aa"] {
            assert_eq!(first.find(absent), None);
        }

        let (next, _) = Catalogue::build(files(&[("a", 1), ("b", 4), ("d", 5)]), Some(&first), 8);
        let since: Vec<_> = next.iter().map(|(path, entry)| (path, entry.since)).collect();
        assert_eq!(since, [("a", 7), ("b", 8), ("d", 8)]);
    }

    #[test]
    fn a_path_with_two_truths_is_left_out() {
        let long = "x".repeat(MAX_PATH_BYTES + 1);
        let (catalogue, left_out) =
            Catalogue::build(files(&[("a", 1), ("b", 2), ("a", 3), ("a", 1), (&long, 4)]), None, 1);
        assert_eq!((catalogue.find("a"), catalogue.len(), left_out), (None, 1, 2));
    }

    #[test]
    fn a_file_costs_its_path_and_at_most_68_bytes() {
        for files in [450, 900, 1000, 1790] {
            let list: Vec<_> = (0..files).map(|n| (format!("Packages/p{n:04}"), facts(n))).collect();
            let (catalogue, _) = Catalogue::build(list, None, 1);
            let each = catalogue.memory_bytes() / files as usize - "Packages/p0000".len();
            assert!((61..=68).contains(&each), "{each} for each of {files}");
        }
    }
}
