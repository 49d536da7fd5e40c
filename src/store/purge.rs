//! Purges: what an operator wants out of the cache, by path or by prefix. Pure.
//!
//! Nobody knows which of a million entries a prefix covers, since their paths are in their trailers only. So a purge is a
//! ban, which every cached answer is held against by the time at which it was stored; behind it the disk is swept, and then
//! the ban has done its work. Bans are few: a list is walked.

use crate::clock::Timestamp;
use crate::http::TreePath;
use serde::{Deserialize, Serialize};

/// Bans at once; a purge beyond it is refused until a sweep is through.
const MAX_BANS: usize = 128;

/// What becomes of what is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is removed.
    Hard,
    /// It stays, to be used only once the origin has said that it is current, or while the origin fails. What a catalogue
    /// lists doesn't go stale: its bytes are read and checked against their SHA-256 instead.
    Soft,
}

/// Canonical paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This one.
    Path(TreePath),
    /// All that begin so, be it in the middle of a name; without the leading '/'.
    Prefix(String),
}

impl Scope {
    /// Whether `path` is meant.
    #[must_use]
    pub fn covers(&self, path: &TreePath) -> bool {
        match self {
            Self::Path(meant) => meant == path,
            Self::Prefix(prefix) => path.as_str().starts_with(prefix.as_str()),
        }
    }

    /// Whether it covers all that `other` does.
    fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Path(path)) => self.covers(path),
            (Self::Prefix(prefix), Self::Prefix(other)) => other.starts_with(prefix.as_str()),
            (Self::Path(_), Self::Prefix(_)) => false,
        }
    }
}

/// What was stored up to a moment is not to be used as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ban {
    pub(super) scope: Scope,
    pub(super) mode: Mode,
    pub(super) since: Timestamp,
}

impl Ban {
    /// Whether it stands against what was stored at `path` then. What comes from the future was stored before the clock
    /// was set back.
    fn covers(&self, path: &TreePath, stored: Timestamp, now: Timestamp) -> bool {
        (stored <= self.since || stored > now) && self.scope.covers(path)
    }
}

/// All bans in force, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Bans(Vec<Ban>);

impl Bans {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The moment after which nothing is banned.
    pub(crate) fn newest(&self) -> Timestamp {
        self.0.iter().map(|ban| ban.since).max().unwrap_or_default()
    }

    /// The hardest that is said of what was stored at `path` then.
    pub(crate) fn verdict(&self, path: &TreePath, stored: Timestamp, now: Timestamp) -> Option<Mode> {
        let modes = self.0.iter().filter(|ban| ban.covers(path, stored, now)).map(|ban| ban.mode);
        modes.max_by_key(|mode| *mode == Mode::Hard)
    }

    /// These and one more, in place of those that it makes needless; `None` if that is too many.
    pub(super) fn with(&self, ban: Ban) -> Option<Self> {
        let needless = |old: &Ban| {
            ban.scope.includes(&old.scope)
                && ban.since >= old.since
                && (ban.mode == Mode::Hard || old.mode == Mode::Soft)
        };
        let mut bans: Vec<Ban> = self.0.iter().filter(|old| !needless(old)).cloned().collect();
        bans.push(ban);
        (bans.len() <= MAX_BANS).then_some(Self(bans))
    }

    /// These without those that have done their work.
    pub(super) fn without(&self, done: &Self) -> Self {
        Self(self.0.iter().filter(|ban| !done.0.contains(ban)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn ban(scope: Scope, mode: Mode, since: u64) -> Ban {
        Ban { scope, mode, since: Timestamp::from_secs(since) }
    }

    fn prefix(text: &str) -> Scope {
        Scope::Prefix(text.to_owned())
    }

    #[test]
    fn what_is_banned() {
        let bans = Bans::default()
            .with(ban(Scope::Path(path("7/x.iso")), Mode::Hard, 100))
            .and_then(|bans| bans.with(ban(prefix("7/updates/"), Mode::Soft, 200)))
            .and_then(|bans| bans.with(ban(prefix("7/updates/x86_64/a"), Mode::Hard, 150)))
            .unwrap();
        // (path, stored, verdict) at 300
        for (text, stored, verdict) in [
            ("7/x.iso", 99, Some(Mode::Hard)),
            ("7/x.iso", 100, Some(Mode::Hard)),
            ("7/x.iso", 101, None),
            ("7/x.iso", 301, Some(Mode::Hard)),
            ("7/x.iso.asc", 0, None),
            ("7/x.iso/", 0, None),
            ("17/x.iso", 0, None),
            ("7/updates/", 200, Some(Mode::Soft)),
            ("7/updates", 200, None),
            ("7/updates/x86_64/b.rpm", 200, Some(Mode::Soft)),
            ("7/updates/x86_64/b.rpm", 201, None),
            ("7/updates/x86_64/abc.rpm", 150, Some(Mode::Hard)),
            ("7/updates/x86_64/abc.rpm", 151, Some(Mode::Soft)),
        ] {
            let found = bans.verdict(&path(text), Timestamp::from_secs(stored), Timestamp::from_secs(300));
            assert_eq!(found, verdict, "{text} of {stored}");
        }
        assert_eq!(bans.newest(), Timestamp::from_secs(200));
        assert!(bans.without(&bans).is_empty());
    }

    #[test]
    fn their_number_is_bounded_and_a_wider_one_takes_the_place_of_others() {
        let mut bans = Bans::default();
        for number in 0..MAX_BANS {
            bans = bans.with(ban(Scope::Path(path(&format!("a/{number}"))), Mode::Soft, 1)).unwrap();
        }
        assert_eq!(bans.with(ban(prefix("b"), Mode::Hard, 2)), None);
        // Again the same, and one for all.
        assert_eq!(
            bans.with(ban(Scope::Path(path("a/1")), Mode::Hard, 2)).map(|bans| bans.count()),
            Some(MAX_BANS)
        );
        assert_eq!(bans.with(ban(prefix("a/"), Mode::Soft, 2)).map(|bans| bans.count()), Some(1));
    }

    fn any_ban() -> impl Strategy<Value = Ban> {
        let scope = prop_oneof![
            "[ab/]{0,3}".prop_map(Scope::Prefix),
            "[ab]/?[ab]{0,2}".prop_map(|text| Scope::Path(path(&text)))
        ];
        (scope, prop_oneof![Just(Mode::Hard), Just(Mode::Soft)], 0..5_u64)
            .prop_map(|(scope, mode, since)| ban(scope, mode, since))
    }

    proptest! {
        /// Against a list that nothing is ever left out of.
        #[test]
        fn leaving_out_needless_ones_changes_no_verdict(
            all in prop::collection::vec(any_ban(), 0..12), text in "[ab]/?[ab]{0,2}", stored in 0..6_u64,
        ) {
            let merged = all.iter().fold(Bans::default(), |bans, ban| bans.with(ban.clone()).unwrap());
            let (path, stored, now) = (path(&text), Timestamp::from_secs(stored), Timestamp::from_secs(5));
            prop_assert_eq!(merged.verdict(&path, stored, now), Bans(all).verdict(&path, stored, now));
            let text = serde_json::to_string(&merged).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bans>(&text).unwrap(), merged);
        }
    }
}
