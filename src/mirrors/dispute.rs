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
/// Networks that are remembered.
const MOST: usize = 16;

/// Returns from one mirror that its probes haven't explained.
#[derive(Debug, Default)]
pub(super) struct Dispute {
    /// Networks, and when a client of theirs last came back; the newest last.
    returns: Vec<(u64, Timestamp)>,
}

impl Dispute {
    /// A client of `network` came back.
    pub(super) fn returned(&mut self, network: u64, now: Timestamp) {
        self.returns.retain(|(known, at)| *known != network && now < at.plus(LASTS));
        if self.returns.len() == MOST {
            self.returns.remove(0);
        }
        self.returns.push((network, now));
    }

    /// A probe found what the clients found.
    pub(super) fn is_settled(&mut self) {
        self.returns.clear();
    }

    /// Until when the mirror is disputed, if it is.
    pub(super) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let recent = self.returns.iter().filter(|(_, at)| now < at.plus(LASTS));
        let (_, newest) = self.returns.last()?;
        (recent.count() >= NETWORKS).then(|| newest.plus(LASTS))
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
    fn what_is_remembered_is_bounded() {
        let mut dispute = Dispute::default();
        (0..1000).for_each(|network| dispute.returned(network, Timestamp::from_secs(network)));
        assert_eq!(dispute.returns.len(), MOST);
    }
}
