//! What the origin sends beyond what clients ask for: parts are fetched in whole blocks, so a byte may cost a mebibyte. Each network
//! has an account of it. Once that is used up, its ranges of files that aren't here come as fast as the account drains. Pure.

use crate::shares::{Bounds, Owner, Table};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// So much at once: several zchunk downloads of a large file that isn't here.
const BURST_BYTES: u64 = 64 << 20;
/// So much a second from then on: 4 blocks.
const BYTES_PER_SECOND: u64 = 4 << 20;
/// Networks that are remembered.
const NETWORKS: usize = 100_000;

/// Shared by all readers.
pub(super) type Accounts = Arc<Mutex<Surplus>>;

/// The accounts of all networks.
#[derive(Debug)]
pub(super) struct Surplus {
    start: Instant,
    /// Milliseconds from `start` on at which each account is empty.
    drained_at: Table<u64, u64>,
}

impl Surplus {
    pub(super) fn new(now: Instant) -> Self {
        let unused_for = Self::millis(BURST_BYTES) * 2;
        let bounds = Bounds { entries: NETWORKS, of_client: NETWORKS, unused_for };
        Self { start: now, drained_at: Table::new(bounds) }
    }

    /// Charges the owner's network. `Err`: nothing was charged, since its account is used up for so long.
    pub(super) fn charge(&mut self, owner: Owner, bytes: u64, now: Instant) -> Result<(), Duration> {
        if bytes == 0 || owner.is_many {
            return Ok(());
        }
        let now = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        let drained_at = self.drained_at.get(owner.network, now).map_or(now, |at| (*at).max(now));
        let ahead = (drained_at - now).saturating_sub(Self::millis(BURST_BYTES));
        if ahead > 0 {
            return Err(Duration::from_millis(ahead));
        }
        let owner = Owner::new(owner.network, 0);
        self.drained_at.insert(owner, owner.network, drained_at + Self::millis(bytes), now);
        Ok(())
    }

    /// What it takes to drain so many bytes.
    const fn millis(bytes: u64) -> u64 {
        bytes.saturating_mul(1000).div_ceil(BYTES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    const fn of(network: u64) -> Owner {
        Owner::new(network, 1)
    }

    #[test]
    fn a_network_that_asks_for_bytes_of_many_blocks_is_slowed_down_and_no_other() {
        let start = crate::clock::monotonic();
        let mut surplus = Surplus::new(start);
        let blocks = (0..1024).take_while(|_| surplus.charge(of(1), MIB, start).is_ok()).count();
        assert_eq!(blocks, 65);
        let wait = surplus.charge(of(1), MIB, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(250));
        assert_eq!(surplus.charge(of(1), 0, start), Ok(()), "what costs nothing goes on");
        assert_eq!(surplus.charge(of(2), MIB, start), Ok(()));
        assert_eq!(surplus.charge(of(1), MIB, start + wait), Ok(()));
        assert!(surplus.charge(of(1), MIB, start + wait).is_err());
        // A load balancer, and the node itself, stand for many.
        for _ in 0..1024 {
            assert_eq!(surplus.charge(Owner::NODE, MIB, start), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn what_a_network_is_charged_is_bounded(
            charges in prop::collection::vec((0..2000_u64, 0..64 * MIB), 1..200),
        ) {
            let start = crate::clock::monotonic();
            let mut surplus = Surplus::new(start);
            let (mut now, mut charged) = (start, 0);
            for (millis, bytes) in charges {
                now += Duration::from_millis(millis);
                match surplus.charge(of(1), bytes, now) {
                    Ok(()) => charged += bytes,
                    Err(wait) => {
                        prop_assert!(surplus.charge(of(1), 1, now + wait).is_ok(), "the wait is as told");
                        charged += 1;
                        now += wait;
                    }
                }
                let most = BURST_BYTES + 64 * MIB + now.duration_since(start).as_millis() as u64 * BYTES_PER_SECOND / 1000;
                prop_assert!(charged <= most, "{charged} of {most}");
            }
        }
    }
}
