//! Whether what the origin shows is older than what is on offer. Pure.

use super::verify::Version;
use crate::config::Root;
use crate::repo::{History, Repomd, repomd};

/// In words what tells that `version` is older than the current generation: it is a kept one, or says so itself.
pub(super) fn older(history: &History, version: &Version) -> Option<String> {
    if let Some(kept) = history.by_id(&version.id) {
        return Some(format!("number {}, {}", kept.sequence, kept.id));
    }
    let offered = repomd::parse(&history.current()?.root()?.body, &Root::default()).ok()?;
    let shown = repomd::parse(&version.body, &Root::default()).ok()?;
    is_older(&shown, &offered).then(|| {
        let revision = shown.revision.as_deref().map(|revision| format!("revision {revision}"));
        let made = shown.timestamp.map(|made| format!("made {made}"));
        revision.into_iter().chain(made).collect::<Vec<_>>().join(", ")
    })
}

/// Whether all that can be compared of revision and newest timestamp, at least one of them, is less in `shown`. A
/// revision need be no number, and either may stay the same from push to push.
fn is_older(shown: &Repomd, offered: &Repomd) -> bool {
    let revision = |repomd: &Repomd| repomd.revision.as_deref()?.parse::<u64>().ok();
    let by_revision = revision(shown).zip(revision(offered)).map(|(shown, offered)| shown < offered);
    let by_time = shown.timestamp.zip(offered.timestamp).map(|(shown, offered)| shown < offered);
    (by_revision.is_some() || by_time.is_some()) && by_revision.unwrap_or(true) && by_time.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn older_is_what_says_so_in_all_that_can_be_compared() {
        let repomd = |revision: &str, secs: Option<u64>| Repomd {
            revision: Some(revision.to_owned()),
            timestamp: secs.map(Timestamp::from_secs),
            ..Repomd::default()
        };
        let offered = repomd("100", Some(100));
        let cases = [
            (repomd("99", Some(99)), true),
            (repomd("9", Some(99)), true),
            (repomd("99", Some(100)), false),
            (repomd("99", Some(101)), false),
            (repomd("100", Some(99)), false),
            (repomd("101", Some(99)), false),
            (repomd("9.9", Some(99)), true),
            (repomd("99", None), true),
            (repomd("9.9", None), false),
        ];
        for (shown, expected) in cases {
            assert_eq!(is_older(&shown, &offered), expected, "{shown:?}");
        }
        assert!(!is_older(&Repomd::default(), &Repomd::default()));
    }
}
