//! Clients that come back from a mirror in which each probe finds what it is to have: a backend that probes don't reach, or a
//! network between the two. Pure.
//!
//! Probes have the last word on proofs, since a client can say what it likes. Where clients of several networks came back and
//! probes find nothing, nobody knows who is right: until that has been over for a while, the mirror takes no large files.

use crate::clock::Timestamp;
use std::time::Duration;

/// Networks whose clients have to come back: of fewer, a firewall of their own may be the reason.
const NETWORKS: usize = 3;
/// A return counts for this long, and so does the dispute after the last one.
const LASTS: Duration = Duration::from_secs(600);
/// A network whose returns no probe has explained counts again only after so long. So a few networks that come back for as long
/// as they like keep the mirror disputed for twice [`LASTS`], and not for ever; of a mirror that does fail clients, ever new
/// networks come back.
const COUNTS_ANEW: Duration = Duration::from_secs(24 * 3600);
/// Networks that are remembered, at 24 bytes each.
const MOST: usize = 1024;

/// Returns from one mirror that its probes haven't explained.
#[derive(Debug, Default)]
pub(super) struct Dispute {
    /// Of each network; the one whose last return that counts is the newest last.
    returns: Vec<Returns>,
}

/// The returns of one network.
#[derive(Clone, Copy, Debug)]
struct Returns {
    network: u64,
    first: Timestamp,
    /// Within [`LASTS`] of the first.
    last: Timestamp,
}

impl Dispute {
    /// A client of `network` came back.
    pub(super) fn returned(&mut self, network: u64, now: Timestamp) {
        self.returns.retain(|returns| now < returns.first.plus(COUNTS_ANEW));
        let known = self.returns.iter().position(|returns| returns.network == network);
        let first = known.map_or(now, |index| self.returns[index].first);
        if now >= first.plus(LASTS) {
            return;
        }
        if let Some(index) = known {
            self.returns.remove(index);
        } else if self.returns.len() == MOST {
            self.returns.remove(0);
        }
        self.returns.push(Returns { network, first, last: now });
    }

    /// A probe found what the clients found.
    pub(super) fn is_settled(&mut self) {
        self.returns.clear();
    }

    /// Until when the mirror is disputed, if it is.
    pub(super) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let recent = self.returns.iter().filter(|returns| now < returns.last.plus(LASTS));
        let newest = self.returns.last()?;
        (recent.count() >= NETWORKS).then(|| newest.last.plus(LASTS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_of_three_networks_within_ten_minutes_are_a_dispute() {
        let at = Timestamp::from_secs;
        let mut dispute = Dispute::default();
        for (network, secs) in [(1, 1000), (1, 1001), (2, 1002), (1, 1003)] {
            dispute.returned(network, at(secs));
            assert_eq!(dispute.until(at(secs)), None);
        }
        dispute.returned(3, at(1010));
        assert_eq!(dispute.until(at(1010)), Some(at(1610)));
        // The oldest of the three was at 1002.
        assert_eq!((dispute.until(at(1601)), dispute.until(at(1602))), (Some(at(1610)), None));
        dispute.returned(4, at(1604));
        assert_eq!(dispute.until(at(1604)), None, "of two networks of late");
        dispute.returned(5, at(1605));
        assert_eq!(dispute.until(at(1605)), Some(at(2205)));
        dispute.is_settled();
        assert_eq!(dispute.until(at(1605)), None);
    }

    #[test]
    fn three_networks_keep_no_mirror_disputed_for_ever() {
        let (at, day) = (Timestamp::from_secs, COUNTS_ANEW.as_secs());
        let mut dispute = Dispute::default();
        let mut disputed = 0;
        for second in 0..day {
            if second % 10 == 0 {
                (1..=3).for_each(|network| dispute.returned(network, at(1000 + second)));
            }
            disputed += u64::from(dispute.until(at(1000 + second)).is_some());
        }
        let most = 2 * LASTS.as_secs();
        assert!((most - 20..=most).contains(&disputed), "{disputed} s of a day");
        // Networks that come back for the first time dispute it still, and these do so again after a day.
        (4..=6).for_each(|network| dispute.returned(network, at(1000 + day / 2)));
        assert!(dispute.until(at(1000 + day / 2)).is_some());
        (1..=3).for_each(|network| dispute.returned(network, at(1000 + day)));
        assert!(dispute.until(at(1000 + day)).is_some());
        // Where a probe has found the fault, they were right.
        dispute.is_settled();
        (4..=6).for_each(|network| dispute.returned(network, at(1001 + day)));
        assert!(dispute.until(at(1001 + day)).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut dispute = Dispute::default();
        (0..10_000).for_each(|network| dispute.returned(network, Timestamp::from_secs(network)));
        assert_eq!(dispute.returns.len(), MOST);
    }
}
