//! What a mirror is proven to hold, and whether it can be reached.

use super::{Exceptions, Note, client};
use crate::clock::Timestamp;
use crate::config::Mirror;
use crate::repo::{Listed, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// What the node itself gives each client at least. A mirror that sends the node less takes none.
pub const LEAST_BYTES_PER_SECOND: u64 = 32_000;

/// One mirror.
#[derive(Clone, Debug)]
pub struct MirrorState {
    /// Its settings.
    pub mirror: Arc<Mirror>,
    /// Of its name: for the order of mirrors ([`super::select::rank`]).
    pub hash: u64,
    /// Whether it answers.
    pub reach: Reach,
    /// It was seen answering 206 to a range.
    pub ranges: bool,
    /// It answers on IPv4.
    pub ipv4: bool,
    /// It answers on IPv6.
    pub ipv6: bool,
    /// How long a repomd.xml takes from there, smoothed.
    pub latency: Option<Duration>,
    /// Bytes per second of a mebibyte from there, the last time that one was read.
    pub throughput: Option<u64>,
    /// Until then clients' returns and probes are taken to disagree: clients come back from it, and probes find all there.
    pub disputed_until: Option<Timestamp>,
    /// What it holds of each repo, in the order of the config.
    pub pairs: Vec<Pair>,
}

impl MirrorState {
    /// A mirror that nothing is known of yet.
    #[must_use]
    pub fn untried(mirror: Arc<Mirror>, repos: usize) -> Self {
        let (hash, pairs) = (client::hash(mirror.name.as_str()), vec![Pair::default(); repos]);
        Self {
            mirror,
            hash,
            reach: Reach::Untried,
            ranges: false,
            ipv4: false,
            ipv6: false,
            latency: None,
            throughput: None,
            disputed_until: None,
            pairs,
        }
    }

    /// It is up and proven to hold generation `sequence` of repo number `repo`, but for its exceptions.
    #[must_use]
    pub fn is_current(&self, repo: usize, sequence: u32) -> bool {
        self.reach.is_up() && self.pairs[repo].covered().is_just(sequence)
    }

    /// It is proven to hold the file that the repo lists so at `path`, below its root.
    #[must_use]
    pub fn holds(&self, repo: usize, listed: &Listed, path: &str) -> bool {
        self.pairs.get(repo).is_some_and(|pair| pair.holds(listed, path))
    }

    /// It is so slow that clients are better served here, whatever there is to do: librepo gives up below 1000 B/s, and people
    /// long before.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.throughput.is_some_and(|bytes_per_second| bytes_per_second < LEAST_BYTES_PER_SECOND)
    }

    /// Clients of several networks came back from it lately, for what probes find there.
    #[must_use]
    pub fn is_disputed(&self, now: Timestamp) -> bool {
        self.disputed_until.is_some_and(|until| now < until)
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
    /// The files that it lacks all the same. None without a proof.
    pub exceptions: Exceptions,
    /// SHA-256 of the repomd.xml that it last showed.
    pub seen: Option<Sha256>,
    /// Why it stands so, in words.
    pub note: Note,
    /// When it was last asked.
    pub checked: Timestamp,
    /// When it was proven for the generation that `proof` names: how long a push took to get there.
    pub since: Timestamp,
}

impl Pair {
    /// The generations whose common files it is proven to hold.
    #[must_use]
    pub fn covered(&self) -> Covered {
        let covered = self.proof.map_or(Covered::default(), Covered::from);
        if self.exceptions.is_empty() { covered } else { covered.with_exceptions() }
    }

    /// It is proven to hold the file that the repo lists so at `path`, below its root.
    #[must_use]
    pub fn holds(&self, listed: &Listed, path: &str) -> bool {
        self.covered().covers(listed) && !self.exceptions.contains(path)
    }
}

/// From one generation to another: what all of them list without a gap is there, but for the proof's exceptions. None while
/// `oldest` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    oldest: u32,
    /// And whether there are exceptions, in its top bit: no repo is pushed two thousand million times.
    newest: u32,
}

/// The bit of [`Covered`] that says so.
const EXCEPTIONS: u32 = 1 << 31;

impl Covered {
    const fn with_exceptions(self) -> Self {
        Self { newest: self.newest | EXCEPTIONS, ..self }
    }

    /// Whether the proof has exceptions: they have to be asked as well.
    #[must_use]
    pub const fn has_exceptions(self) -> bool {
        self.newest & EXCEPTIONS != 0
    }

    const fn newest(self) -> u32 {
        self.newest & !EXCEPTIONS
    }

    /// Whether the file that a repo lists so must be there, unless it is one of the exceptions.
    ///
    /// It was there when the proven generation was checked. A mirror that has moved on may have deleted what was no
    /// longer listed by then, so the file has to be in both.
    #[must_use]
    pub fn covers(self, listed: &Listed) -> bool {
        listed.entry.since <= self.oldest && listed.until.is_none_or(|until| until >= self.newest())
    }

    /// Whether it is this one generation.
    #[must_use]
    pub const fn is_just(self, sequence: u32) -> bool {
        sequence > 0 && self.oldest == sequence && self.newest() == sequence
    }
}

impl From<Proof> for Covered {
    fn from(proof: Proof) -> Self {
        let Proof { sequence, shown, .. } = proof;
        Self { oldest: sequence.min(shown), newest: sequence.max(shown) }
    }
}

/// A proof that a mirror holds all files of one generation, but for those that [`Pair::exceptions`] names.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Fault;
    use crate::repo::{Entry, Kind};

    #[test]
    fn a_mirror_is_current_only_while_it_shows_what_it_is_proven_for() {
        let settings = Mirror::new("m", "http://m.example/");
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
            let entry = Entry { size: 1, digest: None, kind: Kind::Package, since };
            let covered = Covered::from(proof).covers(&Listed { entry, until });
            assert_eq!(covered, held, "{proof:?} since {since} until {until:?}");
            // With exceptions, all others.
            let exceptions = Exceptions::default().with("lacking", Fault::Mirror);
            let pair = Pair { proof: Some(proof), exceptions, ..Pair::default() };
            assert_eq!(pair.covered().is_just(3), Covered::from(proof).is_just(3), "{proof:?}");
            for (path, excepted) in [("lacking", true), ("another", false)] {
                assert_eq!(pair.holds(&Listed { entry, until }, path), held && !excepted, "{proof:?} {path}");
            }
        }
    }
}
