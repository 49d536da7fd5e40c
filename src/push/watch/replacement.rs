//! A signature that takes another's place while repomd.xml stays: made anew, or of the repomd.xml that comes next. Pure.

use crate::clock::Timestamp;
use crate::repo::Sha256;
use std::time::Duration;

/// The newest such signature, and when it was first seen.
#[derive(Debug, Default)]
pub(super) struct Replacement(Option<(Sha256, Timestamp)>);

impl Replacement {
    /// Whether `signature` has been there for so long without another repomd.xml that it is of this one: a client that gets
    /// the signature of another fails.
    pub(super) fn has_stood(&mut self, signature: Sha256, now: Timestamp, wait: Duration) -> bool {
        let first = self.0.filter(|(known, _)| *known == signature).map_or(now, |(_, first)| first);
        self.0 = Some((signature, first));
        now.since(first) >= wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_has_to_stand_for_a_while() {
        let (at, wait) = (Timestamp::from_secs, Duration::from_secs(45));
        let [one, other] = [b"one", b"two"].map(|bytes| Sha256::of(bytes));
        let mut replacement = Replacement::default();
        for (signature, secs, stands) in [
            (one, 100, false),
            (one, 144, false),
            (one, 145, true),
            // Another begins anew, and so does the first.
            (other, 150, false),
            (one, 190, false),
            (one, 235, true),
        ] {
            assert_eq!(replacement.has_stood(signature, at(secs), wait), stands, "at {secs} s");
        }
    }
}
