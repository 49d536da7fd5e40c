//! The mirror table: all mirrors at one moment, arranged so that a decision finds what it needs of each in a few bytes.

use super::mirrors::{Covered, MirrorState};
use crate::repo::Listed;
use std::sync::{Arc, OnceLock};

/// All mirrors, in the order of the config. Immutable once it is published; the prober publishes a new one.
///
/// What is asked of many mirrors for one file lies side by side: 8 bytes for each mirror and repo, so that a proof is found
/// within nanoseconds and a thousand within a microsecond. A mirror's whole state is a dozen misses of the processor's caches.
#[derive(Clone, Debug, Default)]
pub struct MirrorTable {
    states: Vec<Arc<MirrorState>>,
    up: Vec<bool>,
    /// For each repo what each mirror is proven to hold of it. A new table shares what hasn't changed.
    covered: Vec<Arc<[Covered]>>,
    fresh: Fresh,
}

/// For each repo how many mirrors are fresh, and of which sequence, once somebody asked. A copy begins without.
#[derive(Debug, Default)]
struct Fresh(OnceLock<Vec<Counted>>);

type Counted = OnceLock<(u32, usize)>;

impl Clone for Fresh {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl MirrorTable {
    /// Of these mirrors, which know of the same repos.
    #[must_use]
    pub fn new(states: Vec<Arc<MirrorState>>) -> Self {
        let mut table = Self { up: vec![false; states.len()], ..Self::default() };
        for (mirror, state) in states.iter().enumerate() {
            table.note(mirror, state, states.len());
        }
        Self { states, ..table }
    }

    /// The same with the state of mirror number `mirror` replaced, which is given back.
    pub fn replace(&mut self, mirror: usize, state: Arc<MirrorState>) -> Arc<MirrorState> {
        self.note(mirror, &state, self.states.len());
        self.fresh = Fresh::default();
        std::mem::replace(&mut self.states[mirror], state)
    }

    fn note(&mut self, mirror: usize, state: &MirrorState, mirrors: usize) {
        self.up[mirror] = state.reach.is_up();
        if self.covered.len() < state.pairs.len() {
            let nothing = || vec![Covered::default(); mirrors].into();
            self.covered.resize_with(state.pairs.len(), nothing);
        }
        for (column, pair) in self.covered.iter_mut().zip(&state.pairs) {
            if column[mirror] != pair.covered() {
                Arc::make_mut(column)[mirror] = pair.covered();
            }
        }
    }

    /// The mirrors.
    #[must_use]
    pub fn states(&self) -> &[Arc<MirrorState>] {
        &self.states
    }

    /// Whether mirror number `mirror` is up and proven to hold the file that repo number `repo` lists so at `path`, below its
    /// root. Only a proof with exceptions costs a look at them.
    #[must_use]
    pub fn holds(&self, mirror: usize, repo: usize, listed: &Listed, path: &str) -> bool {
        let covered = self.covered.get(repo).map_or(Covered::default(), |column| column[mirror]);
        self.up[mirror] && covered.covers(listed) && !self.is_excepted(mirror, repo, covered, path)
    }

    fn is_excepted(&self, mirror: usize, repo: usize, covered: Covered, path: &str) -> bool {
        covered.has_exceptions() && self.states[mirror].pairs[repo].exceptions.contains(path)
    }

    /// The numbers of those that are up and proven to hold the file.
    pub fn holders(&self, repo: usize, listed: &Listed, path: &str) -> impl Iterator<Item = usize> {
        let column = self.covered.get(repo).map_or(&[][..], |column| column);
        let covers = |(covered, up): (&Covered, &bool)| (*up && covered.covers(listed)).then_some(*covered);
        column.iter().zip(&self.up).map(covers).enumerate().filter_map(move |(mirror, covered)| {
            covered.filter(|covered| !self.is_excepted(mirror, repo, *covered, path)).map(|_| mirror)
        })
    }

    /// The numbers of those that are up and proven to hold just generation `sequence` of repo number `repo`, but for their
    /// exceptions.
    pub fn current(&self, repo: usize, sequence: u32) -> impl Iterator<Item = usize> {
        let column = self.covered.get(repo).map_or(&[][..], |column| column);
        let current = move |(covered, up): (&Covered, &bool)| *up && covered.is_just(sequence);
        column.iter().zip(&self.up).map(current).enumerate().filter_map(|(mirror, is)| is.then_some(mirror))
    }

    /// Whether mirror number `mirror` is one of those.
    #[must_use]
    pub fn is_current(&self, mirror: usize, repo: usize, sequence: u32) -> bool {
        self.up[mirror] && self.covered.get(repo).is_some_and(|column| column[mirror].is_just(sequence))
    }

    /// How many reachable mirrors are proven to hold generation `sequence` of repo number `repo`, exceptions aside: these are
    /// few, and no window is to wait for a file that no mirror will ever have. Counted once: each decision about a repo with
    /// a window asks.
    #[must_use]
    pub fn fresh(&self, repo: usize, sequence: u32) -> usize {
        let count = || self.current(repo, sequence).count();
        let counted = self.fresh.0.get_or_init(|| self.covered.iter().map(|_| Counted::new()).collect());
        match counted.get(repo).map(|counted| counted.get_or_init(|| (sequence, count()))) {
            Some((of, fresh)) if *of == sequence => *fresh,
            _ => count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::Mirror;
    use crate::policy::{Exceptions, Fault, Pair, Proof, Reach};
    use crate::repo::{Entry, Kind};
    use proptest::prelude::*;

    /// Proof and whether it has "lacking" as an exception.
    fn state(up: bool, proofs: &[Drawn]) -> Arc<MirrorState> {
        let pair = |drawn: &Drawn| {
            let Some((bounds, lacks)) = drawn else { return Pair::default() };
            let (sequence, shown) = *bounds;
            let proof = Some(Proof { sequence, shown, verified: Timestamp::EPOCH });
            let exceptions = if *lacks {
                Exceptions::default().with("lacking", Fault::Mirror)
            } else {
                Exceptions::default()
            };
            Pair { proof, exceptions, ..Pair::default() }
        };
        let untried = MirrorState::untried(Arc::new(Mirror::new("m", "http://m.example/")), 0);
        let reach = if up { Reach::Up { seen: Timestamp::EPOCH } } else { Reach::Untried };
        Arc::new(MirrorState { reach, pairs: proofs.iter().map(pair).collect(), ..untried })
    }

    type Drawn = Option<((u32, u32), bool)>;

    fn drawn() -> impl Strategy<Value = (bool, Vec<Drawn>)> {
        let proof = prop::option::of(((1..5_u32, 0..5_u32), any::<bool>()));
        (any::<bool>(), prop::collection::vec(proof, 3))
    }

    proptest! {
        #[test]
        fn the_columns_say_what_the_states_do(
            first in prop::collection::vec(drawn(), 1..6),
            then in prop::collection::vec((any::<prop::sample::Index>(), drawn()), 0..8),
            since in 1..5_u32,
            until in prop::option::of(1..5_u32),
        ) {
            let mut table = MirrorTable::new(first.iter().map(|(up, proofs)| state(*up, proofs)).collect());
            for (mirror, (up, proofs)) in &then {
                let before = table.clone();
                let mirror = mirror.index(first.len());
                let old = table.replace(mirror, state(*up, proofs));
                prop_assert!(Arc::ptr_eq(&old, &before.states()[mirror]));
            }
            let entry = Entry { size: 1, digest: None, kind: Kind::Package, since };
            let listed = Listed { entry, until };
            for (repo, path) in (0..4).flat_map(|repo| [(repo, "lacking"), (repo, "another")]) {
                let holds = |(_, state): &(usize, &Arc<MirrorState>)| state.reach.is_up() && state.holds(repo, &listed, path);
                let expected: Vec<_> = table.states().iter().enumerate().filter(holds).map(|(at, _)| at).collect();
                prop_assert_eq!(table.holders(repo, &listed, path).collect::<Vec<_>>(), &expected[..]);
                for mirror in 0..first.len() {
                    prop_assert_eq!(table.holds(mirror, repo, &listed, path), expected.contains(&mirror));
                }
                let current = |state: &&Arc<MirrorState>| repo < 3 && state.is_current(repo, since);
                prop_assert_eq!(table.fresh(repo, since), table.states().iter().filter(current).count());
            }
        }
    }
}
