//! All files of one generation.
//!
//! That of the current generation is whole; an older one is kept as what makes it different from the one after it. It costs what
//! a push changes, and one look more for each push since.

mod difference;
mod whole;

use super::digest::{Algorithm, Digest};
use difference::Difference;
pub(super) use difference::Parts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use whole::Whole;

/// The files of a generation, by path. A copy costs nothing.
#[derive(Clone)]
pub struct Catalogue {
    /// Names these files within this process, however they are kept.
    id: u64,
    kept: Kept,
}

#[derive(Clone)]
enum Kept {
    Whole(Arc<Whole>),
    Difference(Arc<Difference>),
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
    /// A package whose name had other bytes of the same length before: a HEAD can't tell the two, so nothing proves that a
    /// mirror has these.
    Replaced,
}

impl Kind {
    /// True if a file of this name and length on a mirror is this very file.
    #[must_use]
    pub const fn is_provable(self) -> bool {
        matches!(self, Self::Package | Self::Metadata)
    }

    /// A package or a drpm.
    #[must_use]
    pub const fn is_package(self) -> bool {
        matches!(self, Self::Package | Self::Replaced)
    }
}

/// One file of a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Length in bytes.
    pub size: u64,
    /// None where repodata has no checksum of a known kind.
    pub digest: Option<Digest>,
    /// What it is.
    pub kind: Kind,
    /// Sequence of the first generation from which on this very file has been listed without a gap.
    pub since: u32,
}

impl Entry {
    /// The same before it was in a catalogue.
    #[must_use]
    pub const fn facts(&self) -> FileFacts {
        // What the catalogue made of it, it makes of it again.
        let kind = if matches!(self.kind, Kind::Replaced) { Kind::Package } else { self.kind };
        FileFacts { size: self.size, digest: self.digest, kind }
    }
}

/// A file before it is in a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Length in bytes.
    pub size: u64,
    /// None where repodata has no checksum of a known kind.
    pub digest: Option<Digest>,
    /// What it is.
    pub kind: Kind,
}

impl Catalogue {
    /// Puts `files` in order. A file that `previous`, the generation before, lists with the same size and digest
    /// inherits its `since`; any other is new in `sequence`. A package that has another digest and the same size there is
    /// [`Kind::Replaced`], and stays so.
    ///
    /// Also returns how many paths were left out. A path listed twice with different facts is one: which of them holds
    /// can't be known, and a wrong checksum would refuse the right bytes. Unlisted, the file is passed on as it is. (The
    /// same entry twice is one entry.) Paths of more than 1024 bytes are left out as well.
    #[must_use]
    pub fn build(files: Vec<(String, FileFacts)>, previous: Option<&Self>, sequence: u32) -> (Self, u32) {
        let known = |path: &str| previous.and_then(|previous| previous.find(path));
        let (whole, left_out) = Whole::build(files, known, sequence);
        (Self::of(whole), left_out)
    }

    fn of(whole: Whole) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), kept: Kept::Whole(Arc::new(whole)) }
    }

    /// From the parts of another catalogue: all paths in order, one after the other, and the rest of each entry. None if they
    /// are not what a catalogue is made of.
    pub(super) fn from_sorted(
        paths: &str,
        entries: impl ExactSizeIterator<Item = (u16, Entry)>,
    ) -> Option<Self> {
        Some(Self::of(Whole::from_sorted(paths, entries)?))
    }

    /// The file at `path`, relative to the repo, or from the tree's root on, with a leading '/'.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Entry> {
        let mut catalogue = self;
        loop {
            match &catalogue.kept {
                Kept::Whole(whole) => return whole.find(path),
                Kept::Difference(difference) => match difference.find(path) {
                    Some(found) => return found,
                    None => catalogue = difference.next(),
                },
            }
        }
    }

    /// The same of a file that the generation after this one doesn't list so. All that a whole one lists.
    #[must_use]
    pub fn find_gone(&self, path: &str) -> Option<Entry> {
        match &self.kept {
            Kept::Whole(whole) => whole.find(path),
            Kept::Difference(difference) => difference.find(path).flatten(),
        }
    }

    /// All files; a whole one's by path.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&str, Entry)> + '_> {
        match &self.kept {
            Kept::Whole(whole) => Box::new(whole.iter()),
            Kept::Difference(difference) => Box::new(difference.iter()),
        }
    }

    /// The paths that lie outside of the repo, each with a leading '/'. Of a difference those that the generation after it
    /// doesn't list so.
    pub fn outside(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.kept {
            Kept::Whole(whole) => Box::new(whole.outside()),
            Kept::Difference(difference) => Box::new(difference.outside_gone()),
        }
    }

    /// Any file, by a number below [`Catalogue::len`], without a walk. None where only a walk would find it: in a difference.
    #[must_use]
    pub fn at(&self, number: usize) -> Option<(&str, Entry)> {
        match &self.kept {
            Kept::Whole(whole) => whole.at(number),
            Kept::Difference(_) => None,
        }
    }

    /// All files by path.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, Entry)> {
        let mut all: Vec<_> = self.iter().collect();
        if let Kept::Difference(_) = self.kept {
            all.sort_unstable_by_key(|(path, _)| *path);
        }
        all
    }

    /// The algorithms of the files' digests, the weakest first.
    #[must_use]
    pub fn algorithms(&self) -> BTreeSet<Algorithm> {
        self.iter().filter_map(|(_, entry)| Some(entry.digest?.algorithm())).collect()
    }

    /// How many files.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.kept {
            Kept::Whole(whole) => whole.len(),
            Kept::Difference(difference) => difference.len(),
        }
    }

    /// True without any file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that it takes by itself, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.kept {
            Kept::Whole(whole) => whole.memory_bytes(),
            Kept::Difference(difference) => difference.memory_bytes(),
        }
    }

    /// The same files, kept as a difference from `next`, the generation after this one.
    #[must_use]
    pub fn before(&self, next: &Self) -> Self {
        let difference = match &self.kept {
            Kept::Whole(whole) => Difference::between(whole, next),
            Kept::Difference(difference) if difference.next().id == next.id => difference.rebased(next),
            Kept::Difference(_) => Difference::between(&Whole::of(self.sorted().into_iter()), next),
        };
        Self { id: self.id, kept: Kept::Difference(Arc::new(difference)) }
    }

    /// The parts of the difference that it is kept as. None if it is kept whole.
    pub(super) fn difference(&self) -> Option<Parts<'_>> {
        match &self.kept {
            Kept::Whole(_) => None,
            Kept::Difference(difference) => Some(difference.parts()),
        }
    }

    /// The catalogue whose difference from `next` has these parts: `gone` as a catalogue of its own, and the paths that
    /// have `come`. None if they aren't the parts of one.
    pub(super) fn from_difference(next: &Self, gone: &Self, come: &[&str]) -> Option<Self> {
        let Kept::Whole(gone_files) = &gone.kept else { return None };
        let difference = Difference::of_parts(next, Whole::clone(gone_files), come)?;
        Some(Self { id: gone.id, kept: Kept::Difference(Arc::new(difference)) })
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::of(Whole::default())
    }
}

impl PartialEq for Catalogue {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
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
    use crate::repo::listed::MAX_PATH_BYTES;

    fn facts(size: u64) -> FileFacts {
        facts_by(Algorithm::Sha256, size)
    }

    fn facts_by(algorithm: Algorithm, size: u64) -> FileFacts {
        let digest = Some(Digest::of(algorithm, &size.to_le_bytes()));
        FileFacts { size, digest, kind: Kind::Package }
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
        assert_eq!(first.find("a/c").map(|entry| entry.digest), Some(facts(3).digest));
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

    #[test]
    fn a_longer_digest_costs_its_length_and_a_shorter_one_saves_it() {
        let size = |algorithm| {
            let list = (0..1000).map(|n| (format!("Packages/p{n:04}"), facts_by(algorithm, n))).collect();
            Catalogue::build(list, None, 1).0.memory_bytes()
        };
        for algorithm in Algorithm::ALL {
            let expected = size(Algorithm::Sha256) + 1000 * algorithm.bytes() - 1000 * 32;
            assert_eq!(size(algorithm), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn each_file_has_the_digest_that_it_was_listed_by() {
        let list: Vec<_> = (0..60_u64)
            .map(|n| {
                let facts = facts_by(Algorithm::ALL[n as usize % 6], n);
                (format!("p{n}"), FileFacts { digest: facts.digest.filter(|_| n % 7 != 0), ..facts })
            })
            .collect();
        let (catalogue, _) = Catalogue::build(list.clone(), None, 1);
        for (path, facts) in &list {
            assert_eq!(catalogue.find(path).map(|entry| entry.digest), Some(facts.digest), "{path}");
        }
        assert!(catalogue.algorithms().into_iter().eq(Algorithm::ALL), "the weakest first");
        let (other, _) = Catalogue::build(list[..30].to_vec(), None, 1);
        assert_eq!(catalogue.before(&other), catalogue);
    }

    #[test]
    fn what_another_algorithm_lists_is_not_taken_for_replaced() {
        let list = |algorithm, content: u64| {
            let digest = Some(Digest::of(algorithm, &content.to_le_bytes()));
            vec![("a".to_owned(), FileFacts { size: 9, digest, kind: Kind::Package })]
        };
        let (first, _) = Catalogue::build(list(Algorithm::Sha1, 1), None, 1);
        let then = |algorithm, content| {
            let entry = Catalogue::build(list(algorithm, content), Some(&first), 2).0.find("a").unwrap();
            (entry.kind, entry.since)
        };
        assert_eq!(then(Algorithm::Sha1, 1), (Kind::Package, 1));
        assert_eq!(then(Algorithm::Sha1, 2), (Kind::Replaced, 2));
        // Nothing tells whether they are the same bytes: mirrors are to be asked anew.
        assert_eq!(then(Algorithm::Sha512, 1), (Kind::Package, 2));
    }

    #[test]
    fn an_older_one_costs_what_the_push_changed() {
        let list = |version: &dyn Fn(u64) -> u64| -> Vec<_> {
            (0..10_000).map(|n| (format!("Packages/package-{n}-{}.rpm", version(n)), facts(n))).collect()
        };
        let (first, _) = Catalogue::build(list(&|_| 0), None, 1);
        let (second, _) = Catalogue::build(list(&|n| u64::from(n % 100 == 0)), Some(&first), 2);
        let older = first.before(&second);
        assert_eq!((older.len(), &older), (10_000, &first));
        assert!(older.memory_bytes() * 20 < first.memory_bytes(), "{}", older.memory_bytes());
    }

    type Model = std::collections::BTreeMap<u8, u64>;

    proptest::proptest! {
        #[test]
        fn differences_say_what_whole_catalogues_do(
            models in proptest::collection::vec(proptest::collection::btree_map(0..6_u8, 0..3_u64, 0..6), 1..6),
        ) {
            let mut whole: Vec<Catalogue> = Vec::new();
            // Newest first, as a history has them.
            let mut kept: Vec<Catalogue> = Vec::new();
            for (model, sequence) in models.iter().zip(1..) {
                let list = |model: &Model| model.iter().map(|(path, size)| (path.to_string(), facts(*size))).collect();
                let next = Catalogue::build(list(model), whole.last(), sequence).0;
                let again = Catalogue::build(list(model), kept.first(), sequence).0;
                proptest::prop_assert_eq!(&again, &next, "differences give the same since");
                whole.push(next);
                kept.insert(0, again);
                for at in 1..kept.len() {
                    kept[at] = kept[at].before(&kept[at - 1].clone());
                }
            }
            whole.reverse();
            // One that is left out in the middle.
            if kept.len() > 2 {
                proptest::prop_assert_eq!(&kept[2].before(&kept[0]), &whole[2]);
            }
            for (at, (kept, whole)) in kept.iter().zip(&whole).enumerate() {
                proptest::prop_assert_eq!(kept, whole);
                proptest::prop_assert_eq!((kept.len(), kept.iter().count()), (whole.len(), whole.len()));
                for path in (0..6_u8).map(|path| path.to_string()) {
                    let found = whole_find(&models, at, &path);
                    proptest::prop_assert_eq!(kept.find(&path).map(|entry| entry.size), found);
                    if at > 0 {
                        let next = whole_find(&models, at - 1, &path);
                        let gone = found.filter(|size| Some(*size) != next);
                        // Also what was gone in between and has come back: it has another `since`.
                        proptest::prop_assert!(gone.is_none() || kept.find_gone(&path).map(|entry| entry.size) == gone);
                    }
                }
            }
        }
    }

    fn whole_find(models: &[Model], newest_first: usize, path: &str) -> Option<u64> {
        let model = &models[models.len() - 1 - newest_first];
        model.iter().find(|(known, _)| known.to_string() == path).map(|(_, size)| *size)
    }
}
