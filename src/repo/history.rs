//! What a node knows of one repo's generations.

use super::catalogue::{Entry, Kind};
use super::checksum::Sha256;
use super::generation::Generation;
use crate::clock::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Most generations that are kept, however long they should be.
pub const MAX_GENERATIONS: usize = 64;

/// The generations of one repo, newest first. Immutable; a flip makes another.
#[derive(Clone, Debug, Default)]
pub struct History {
    generations: Vec<Arc<Generation>>,
}

/// A file, and how long it has been listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// As the newest generation that lists the path has it.
    pub entry: Entry,
    /// None: the current generation lists it. Some: the sequence of the last one that did.
    pub until: Option<u32>,
}

impl Listed {
    /// True if a mirror that is proven at the generation of sequence `proven` holds these very bytes: every generation
    /// from `entry.since` to `until` lists them. Never true without a digest, and never for a name that had or gets other
    /// bytes: there a mirror's may be those.
    #[must_use]
    pub fn held_at(&self, proven: u32) -> bool {
        let identified = self.entry.digest.is_some() && self.entry.kind.is_provable();
        identified && self.entry.since <= proven && self.until.is_none_or(|until| proven <= until)
    }
}

impl History {
    /// Of these generations, in any order.
    #[must_use]
    pub fn new(generations: impl IntoIterator<Item = Arc<Generation>>) -> Self {
        let mut generations: Vec<_> = generations.into_iter().collect();
        generations.sort_by_key(|generation| std::cmp::Reverse(generation.sequence));
        generations.dedup_by_key(|generation| generation.sequence);
        generations.truncate(MAX_GENERATIONS);
        Self { generations }.linked()
    }

    /// The same with all catalogues but the newest kept as differences from the next.
    fn linked(mut self) -> Self {
        for at in 1..self.generations.len() {
            let next = self.generations[at - 1].catalogue.clone();
            let older = &self.generations[at];
            let catalogue = older.catalogue.before(&next);
            self.generations[at] = Arc::new(Generation { catalogue, ..Generation::clone(older) });
        }
        self
    }

    /// The history after a flip to `generation`, without those superseded for longer than `keep`.
    #[must_use]
    pub fn with(&self, generation: Generation, keep: Duration, now: Timestamp) -> Self {
        let all = std::iter::once(Arc::new(generation)).chain(self.generations.iter().cloned());
        let mut next = Self::new(all);
        let kept = next.generations.windows(2).take_while(|pair| now.since(pair[0].flipped) <= keep).count();
        next.generations.truncate(kept + 1);
        next
    }

    /// The generation that is served.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<Generation>> {
        self.generations.first()
    }

    /// All that are kept, newest first.
    #[must_use]
    pub fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// The newest generation whose repomd.xml has this SHA-256.
    #[must_use]
    pub fn by_id(&self, id: &Sha256) -> Option<&Arc<Generation>> {
        self.generations.iter().find(|generation| generation.id == *id)
    }

    /// The generation of this sequence.
    #[must_use]
    pub fn by_sequence(&self, sequence: u32) -> Option<&Arc<Generation>> {
        let at = self.generations.binary_search_by(|generation| sequence.cmp(&generation.sequence)).ok()?;
        Some(&self.generations[at])
    }

    /// The file at `path`, relative to the repo, as the newest generation that lists it has it. A reused name counts
    /// in the current generation only: what an older one had there is gone.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Listed> {
        let mut newest_first = self.generations.iter();
        if let Some(entry) = newest_first.next()?.catalogue.find(path) {
            return Some(Listed { entry, until: None });
        }
        let (entry, sequence) = newest_first
            .find_map(|generation| Some((generation.catalogue.find_gone(path)?, generation.sequence)))?;
        (entry.kind != Kind::Reused).then_some(Listed { entry, until: Some(sequence) })
    }

    /// The paths outside of the repo that a kept generation lists, each with a leading '/'; some more than once.
    pub fn outside(&self) -> impl Iterator<Item = &str> {
        self.generations.iter().flat_map(|generation| generation.catalogue.outside())
    }

    /// The files of generation `target`, in any order, that a mirror, proven at generation `proven`, is not known to hold: all
    /// without a proof, none without a target. A file that was gone in between is among them, since a mirror that
    /// followed has removed it and may not have it back.
    pub fn to_check(&self, target: u32, proven: Option<u32>) -> impl Iterator<Item = (&str, Entry)> {
        // `since` tells of generations up to the target; for a mirror ahead of it only its own catalogue does.
        let ahead = proven.filter(|&proven| proven > target).map(|proven| self.by_sequence(proven));
        let files = self.by_sequence(target).into_iter().flat_map(|generation| generation.catalogue.iter());
        files.filter(move |(path, entry)| match (ahead, proven) {
            (Some(ahead), _) => {
                let held = ahead.and_then(|ahead| ahead.catalogue.find(path));
                held.is_none_or(|held| (held.size, held.digest) != (entry.size, entry.digest))
            }
            (None, Some(proven)) => entry.since > proven,
            (None, None) => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ListedFile;
    use super::super::generation::tests::{generation, package};
    use super::super::repomd::{Record, Repomd};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const LONG: Duration = Duration::from_secs(1_000_000);

    /// What one generation lists: path to content.
    type Model = BTreeMap<u8, u64>;

    fn history(models: &[Model]) -> History {
        let mut history = History::default();
        for (at, model) in models.iter().enumerate() {
            let packages = model.iter().map(|(path, &content)| package(&path.to_string(), content)).collect();
            let next = generation(packages, history.current().map(|current| &**current), at as u64);
            history = history.with(next, LONG, Timestamp::EPOCH);
        }
        history
    }

    /// True if all of these generations list `content` at `path`.
    fn all_list(models: &[Model], path: u8, content: u64) -> bool {
        models.iter().all(|model| model.get(&path) == Some(&content))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]
        #[test]
        fn held_and_to_check_agree_with_the_plain_sets(
            models in prop::collection::vec(prop::collection::btree_map(0..5_u8, 0..3_u64, 0..5), 1..9),
        ) {
            let history = history(&models);
            let count = models.len();
            for path in 0..5_u8 {
                let last = models.iter().rposition(|model| model.contains_key(&path));
                let listed = history.find(&path.to_string());
                prop_assert_eq!(listed.is_some(), last.is_some());
                let (Some(listed), Some(last)) = (listed, last) else { continue };
                let content = models[last][&path];
                prop_assert_eq!(listed.entry.digest, package("", content).digest);
                prop_assert_eq!(listed.until, (last + 1 < count).then_some(last as u32 + 1));
                for proven in 0..count {
                    let held = proven <= last && all_list(&models[proven..=last], path, content);
                    prop_assert_eq!(listed.held_at(proven as u32 + 1), held, "path {} proven {}", path, proven);
                    // The promise itself: a mirror that holds that generation holds the bytes.
                    prop_assert!(!held || models[proven].get(&path) == Some(&content));
                }
                prop_assert!(!listed.held_at(0));
            }
            for target in 0..count {
                for proven in 0..count {
                    let (low, high) = (target.min(proven), target.max(proven));
                    let expected: Vec<_> = models[target]
                        .iter()
                        .filter(|&(&path, &content)| {
                            let between = if proven > target { &models[high..=high] } else { &models[low..=high] };
                            !all_list(between, path, content)
                        })
                        .map(|(path, _)| path.to_string())
                        .collect();
                    let mut checked: Vec<_> =
                        history.to_check(target as u32 + 1, Some(proven as u32 + 1)).map(|(path, _)| path).collect();
                    checked.sort_unstable();
                    prop_assert_eq!(checked, expected, "target {} proven {}", target, proven);
                }
            }
        }
    }

    #[test]
    fn to_check_without_proof_or_target() {
        let one = |path, content| Model::from([(path, content)]);
        let history = history(&[one(1, 1), one(2, 2), one(2, 2)]);
        assert_eq!(history.to_check(3, None).count(), 1);
        assert_eq!(history.to_check(4, None).count(), 0);
        assert_eq!(history.to_check(1, Some(9)).count(), 1);
        // Proven at a generation that is no longer kept: `since` still tells.
        let recent = History::new(history.generations()[..1].iter().cloned());
        assert_eq!((recent.to_check(3, Some(2)).count(), recent.to_check(3, Some(1)).count()), (0, 1));
    }

    #[test]
    fn superseded_generations_are_dropped_after_their_time() {
        let keep = Duration::from_secs(100);
        let mut history = History::default();
        let mut kept = Vec::new();
        for secs in [0, 10, 500, 550, 601, 651] {
            let next =
                generation(vec![package("a", secs)], history.current().map(|current| &**current), secs);
            history = history.with(next, keep, Timestamp::from_secs(secs));
            kept.push(history.generations().iter().map(|generation| generation.sequence).collect::<Vec<_>>());
        }
        let expected: [&[u32]; 6] = [&[1], &[2, 1], &[3, 2], &[4, 3, 2], &[5, 4, 3], &[6, 5, 4]];
        assert_eq!(kept, expected);
        assert_eq!(history.by_sequence(4).map(|generation| generation.sequence), Some(4));
        assert!(history.by_sequence(3).is_none() && history.by_sequence(7).is_none());
        let id = history.generations()[1].id;
        assert_eq!(history.by_id(&id).map(|generation| generation.sequence), Some(5));
        assert!(history.by_id(&Sha256::of(b"")).is_none());

        for secs in 1000..1100 {
            let next = generation(vec![], history.current().map(|current| &**current), secs);
            history = history.with(next, LONG, Timestamp::from_secs(secs));
        }
        assert_eq!(history.generations().len(), MAX_GENERATIONS);
    }

    #[test]
    fn other_bytes_of_the_same_length_are_never_proven() {
        let signed = |path: &str, key: u64| ListedFile {
            path: path.into(),
            size: 100,
            digest: Some(Sha256::of(&key.to_le_bytes()).into()),
        };
        let mut history = History::default();
        for (at, keys) in [(1, [1, 1]), (2, [1, 2]), (3, [1, 2])] {
            let packages = vec![signed("kept", keys[0]), signed("signed-anew", keys[1])];
            let next = generation(packages, history.current().map(|current| &**current), at);
            history = history.with(next, LONG, Timestamp::EPOCH);
        }
        let held = |path: &str, proven| history.find(path).unwrap().held_at(proven);
        assert!((1..=3).all(|proven| held("kept", proven)));
        assert!((1..=3).all(|proven| !held("signed-anew", proven)));
        assert_eq!(history.find("signed-anew").unwrap().entry.kind, Kind::Replaced);
    }

    #[test]
    fn a_reused_name_is_never_an_older_generations() {
        let record = |path: &str| Record {
            kind: "group".into(),
            path: path.into(),
            size: Some(5),
            digest: Some(Sha256::of(b"x").into()),
        };
        let versioned = format!("repodata/{}-comps.xml", Sha256::of(b"x"));
        let repomd =
            Repomd { records: vec![record("repodata/comps.xml"), record(&versioned)], ..Repomd::default() };
        let at = Timestamp::EPOCH;
        let bytes = bytes::Bytes::new();
        let unsummed = ListedFile { path: "old.rpm".into(), size: 1, digest: None };
        let first = Generation::assemble(&bytes, &repomd, vec![unsummed], vec![], vec![], None, at, at);
        let mut history = History::default().with(first.clone(), LONG, at);
        let held = |history: &History, path: &str| history.find(path).map(|listed| listed.held_at(1));
        assert_eq!(held(&history, "repodata/comps.xml"), Some(false));
        assert_eq!(held(&history, &versioned), Some(true));
        assert_eq!(held(&history, "old.rpm"), Some(false), "nothing proves what has no digest");
        history = history.with(generation(vec![], Some(&first), 1), LONG, at);
        assert_eq!(held(&history, "repodata/comps.xml"), None);
        assert_eq!(held(&history, &versioned), Some(true));
    }
}
