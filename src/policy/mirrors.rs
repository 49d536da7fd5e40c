//! The mirror table: what each mirror is proven to hold, and whether it can be reached.

use crate::clock::Timestamp;
use crate::config::Mirror;
use crate::repo::{Listed, Sha256};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// All mirrors, in the order of the config. Immutable; the prober publishes a new one.
#[derive(Clone, Debug, Default)]
pub struct MirrorTable {
    /// The mirrors.
    pub mirrors: Vec<Arc<MirrorState>>,
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
    /// Of these mirrors.
    #[must_use]
    pub fn new(mirrors: Vec<Arc<MirrorState>>) -> Self {
        Self { mirrors, fresh: Fresh::default() }
    }

    /// How many reachable mirrors are proven to hold generation `sequence` of repo number `repo`. Counted once: each
    /// decision about a repo with a window asks.
    #[must_use]
    pub fn fresh(&self, repo: usize, sequence: u32) -> usize {
        let count = || self.mirrors.iter().filter(|mirror| mirror.is_current(repo, sequence)).count();
        let repos = || self.mirrors.first().map_or(0, |mirror| mirror.pairs.len());
        let counted = self.fresh.0.get_or_init(|| (0..repos()).map(|_| Counted::new()).collect());
        match counted.get(repo).map(|counted| counted.get_or_init(|| (sequence, count()))) {
            Some((of, fresh)) if *of == sequence => *fresh,
            _ => count(),
        }
    }
}

/// One mirror.
#[derive(Clone, Debug)]
pub struct MirrorState {
    /// Its settings.
    pub mirror: Arc<Mirror>,
    /// Whether it answers.
    pub reach: Reach,
    /// It was seen answering 206 to a range.
    pub ranges: bool,
    /// It answers on IPv4.
    pub ipv4: bool,
    /// It answers on IPv6.
    pub ipv6: bool,
    /// What it holds of each repo, in the order of the config.
    pub pairs: Vec<Pair>,
}

impl MirrorState {
    /// A mirror that nothing is known of yet.
    #[must_use]
    pub fn untried(mirror: Arc<Mirror>, repos: usize) -> Self {
        let pairs = vec![Pair::default(); repos];
        Self { mirror, reach: Reach::Untried, ranges: false, ipv4: false, ipv6: false, pairs }
    }

    /// It is up and proven to hold generation `sequence` of repo number `repo`.
    #[must_use]
    pub fn is_current(&self, repo: usize, sequence: u32) -> bool {
        sequence > 0
            && self.reach.is_up()
            && self.pairs[repo]
                .proof
                .is_some_and(|proof| (proof.sequence, proof.shown) == (sequence, sequence))
    }

    /// It is proven to hold the file that the repo lists so.
    #[must_use]
    pub fn holds(&self, repo: usize, listed: &Listed) -> bool {
        self.proof(repo).is_some_and(|proof| proof.holds(listed.entry.since, listed.until))
    }

    /// What it is proven to hold of repo number `repo`.
    fn proof(&self, repo: usize) -> Option<Proof> {
        self.pairs.get(repo)?.proof
    }

    /// Its URL is https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.mirror.url.starts_with("https:")
    }
}

/// Whether a mirror answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not asked yet.
    Untried,
    /// It answered.
    Up {
        /// When it last did.
        seen: Timestamp,
    },
    /// It failed; it gets no redirects until it answers again.
    Down {
        /// Since when.
        since: Timestamp,
        /// What happened, in words.
        why: String,
    },
}

impl Reach {
    /// It answered when it was last asked.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// It answered within `age` before `now`.
    #[must_use]
    pub fn seen_within(&self, age: Duration, now: Timestamp) -> bool {
        matches!(self, Self::Up { seen } if now.since(*seen) <= age)
    }
}

/// What is known of one repo on one mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What it is proven to hold.
    pub proof: Option<Proof>,
    /// SHA-256 of the repomd.xml that it last showed.
    pub seen: Option<Sha256>,
    /// Why it stands so, in words.
    pub note: String,
    /// When it was last asked.
    pub checked: Timestamp,
}

/// A proof that a mirror holds all files of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Sequence of the proven generation.
    pub sequence: u32,
    /// Sequence of the generation farthest from the proven one, older or newer, that the mirror has shown since; what
    /// isn't listed by all from the one to the other may be gone from the mirror. Equal to `sequence` while it shows
    /// just the proven one. 0 while it shows one that is unknown here: it may have deleted anything, so that the proof
    /// covers nothing.
    pub shown: u32,
    /// When the last of its files was seen.
    pub verified: Timestamp,
}

impl Proof {
    /// Whether a file that generations `since` to `until` list without a gap (`None`: it is still listed) must be there.
    ///
    /// It was there when the proven generation was checked. A mirror that has moved on (`shown`) may have deleted what
    /// was no longer listed by then, so the file has to be in both.
    #[must_use]
    pub fn holds(&self, since: u32, until: Option<u32>) -> bool {
        since <= self.sequence.min(self.shown)
            && until.is_none_or(|until| until >= self.sequence.max(self.shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bandwidth;

    #[test]
    fn a_mirror_is_current_only_while_it_shows_what_it_is_proven_for() {
        let settings = Mirror {
            name: "m".into(),
            url: "http://m.example/".into(),
            country: None,
            continent: None,
            bandwidth: Bandwidth::from_bits_per_second(1),
            networks: vec![],
            private: false,
        };
        let mut mirror = MirrorState::untried(Arc::new(settings), 1);
        mirror.reach = Reach::Up { seen: Timestamp::EPOCH };
        // (shown, current); 0: a generation that is unknown here
        for (shown, expected) in [(3, true), (2, false), (0, false)] {
            mirror.pairs[0].proof = Some(Proof { sequence: 3, shown, verified: Timestamp::EPOCH });
            assert_eq!(mirror.is_current(0, 3), expected, "{shown}");
        }
    }

    #[test]
    fn a_proof_covers_what_its_generations_share() {
        let proof = |sequence, shown| Proof { sequence, shown, verified: Timestamp::EPOCH };
        // (proof, since, until, held)
        let cases = [
            (proof(3, 3), 1, None, true),
            (proof(3, 3), 3, None, true),
            (proof(3, 3), 4, None, false), // new in a generation that isn't proven
            (proof(3, 3), 2, Some(3), true), // removed later, the mirror still shows the old one
            (proof(3, 3), 2, Some(2), false), // removed before what is proven
            (proof(3, 4), 2, Some(3), false), // the mirror has moved on and may have deleted it
            (proof(3, 4), 2, None, true),  // in both
            (proof(3, 4), 4, None, false), // shown but not checked
            (proof(4, 3), 4, None, false), // the mirror went back
            (proof(4, 3), 3, None, true),
            (proof(3, 0), 1, None, false), // the mirror shows an unknown one
        ];
        for (proof, since, until, held) in cases {
            assert_eq!(proof.holds(since, until), held, "{proof:?} since {since} until {until:?}");
        }
    }
}
